"""A displacement that resists strain, as a membrane does, on a grid of cubic B-splines."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.interpolate import BSpline
from scipy.sparse.linalg import splu

from napari_pancluster.core.registration.deformable import Field
from napari_pancluster.core.registration.images import FloatImage

Knots = NDArray[np.float64]

# Keeps the system solvable where nothing pulls, as a share of the mean curvature.
_LEAST_CURVATURE = 1e-3


class Membrane:
    """The displacements of a picture that B-splines of a given width can make.

    A displacement u costs ``tension · Σ |∇u|²`` over the pixels. In two dimensions that sum is the
    same at every pixel size, so one tension serves every level.

    Parameters
    ----------
    shape
        Rows and columns of the picture.
    cells
        Cells of the grid along the longer side.
    """

    def __init__(self, shape: tuple[int, int], cells: int) -> None:
        counts = [max(2, round(cells * n / max(shape))) for n in shape]
        self._rows, self._cols = (
            _splines(n, count) for n, count in zip(shape, counts, strict=True)
        )
        self._grid = counts[0] + 3, counts[1] + 3
        by_row, by_col = (_differences(n) for n in self._grid)
        one = [sparse.eye_array(n) for n in self._grid]
        self._strain = (sparse.kron(by_row, one[1]) + sparse.kron(one[0], by_col)).tocsr()

    def field(self, knots: Knots) -> Field:
        """Return the displacement (2, rows, cols) of knots, both in px."""
        return np.asarray([(self._cols @ (self._rows @ k).T).T for k in knots], np.float32)

    def knots(self, field: Field) -> Knots:
        """Return the knots whose displacement is closest to a field (2, rows, cols)."""
        rows, cols = (np.linalg.pinv(side.toarray()) for side in (self._rows, self._cols))
        return np.stack([rows @ f @ cols.T for f in field])

    def step(
        self, knots: Knots, pull: Field, curvature: Field, tension: float
    ) -> tuple[Knots, float]:
        """Return how knots should move towards balance, and the longest of these moves in px.

        Parameters
        ----------
        pull, curvature
            Of the pictures: (2, rows, cols) and (3, rows, cols), see `Forces`.

        Notes
        -----
        A Newton step in which each knot bears the curvature of all pixels under it alone. The
        splines sum to one, so this overstates the curvature and the step never overshoots.
        """
        drive = np.stack([self._gather(p) for p in pull])
        drive -= 2 * tension * (self._strain @ knots.reshape(2, -1).T).T
        rr, rc, cc = (self._gather(c) for c in curvature)
        least = _LEAST_CURVATURE * float((rr + cc).mean()) / 2 + 1e-9
        stiff = 2 * tension * self._strain
        system = sparse.block_array(
            [
                [stiff + sparse.diags_array(rr + least), sparse.diags_array(rc)],
                [sparse.diags_array(rc), stiff + sparse.diags_array(cc + least)],
            ],
            format="csc",
        )
        move = splu(system).solve(drive.ravel()).reshape(knots.shape)
        return move, float(np.abs(move).max())

    def _gather(self, plane: FloatImage) -> NDArray[np.float64]:
        """Return what the pixels under each knot sum up to, by their share in it."""
        return np.asarray((self._cols.T @ (self._rows.T @ plane).T).T.ravel(), np.float64)


def _splines(size: int, cells: int) -> sparse.csr_array:
    """Return (size, cells + 3): the cubic B-splines over `cells`, at the centres of pixels."""
    at = (np.arange(size) + 0.5) / size * cells
    return sparse.csr_array(BSpline.design_matrix(at, np.arange(-3.0, cells + 4.0), 3))


def _differences(count: int) -> sparse.csr_array:
    """Return the (count, count) matrix of the squared differences between neighbours."""
    step = sparse.diags_array([-np.ones(count), np.ones(count - 1)], offsets=[0, 1])
    inner = step.tocsr()[:-1]
    return sparse.csr_array(inner.T @ inner)
