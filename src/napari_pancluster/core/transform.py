"""A registration: fixed points to moving points and back, in µm."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.geometry import Region

if TYPE_CHECKING:
    from scipy import sparse

FloatArray = NDArray[np.float64]

# Sections are stretched by some tenths. What is stretched twice spans a gap between pieces.
_MOST_STRETCH = 2.0


def _no_displacement() -> NDArray[np.float32]:
    return np.zeros((2, 1, 1), np.float32)


@dataclass(frozen=True)
class Transform:
    """Affine after a displacement: ``moving = affine @ (p + displacement(p))``.

    Attributes
    ----------
    fixed, moving
        Stain names of the two frames.
    affine
        (3, 3) homogeneous, acts on (row, col, 1) in µm.
    displacement
        (2, h, w) µm, sampled in the fixed frame; row then col component.
    inverse_displacement
        (2, h, w) µm, sampled in the fixed frame: ``p = q + inverse(q)`` for ``q = affine⁻¹ @ m``.
    spacing
        µm between samples of both fields.
    origin
        (row, col) in µm of the first sample.
    """

    fixed: str
    moving: str
    affine: FloatArray
    displacement: NDArray[np.float32] = field(default_factory=_no_displacement)
    inverse_displacement: NDArray[np.float32] = field(default_factory=_no_displacement)
    spacing: float = 1.0
    origin: tuple[float, float] = (0.0, 0.0)

    @classmethod
    def identity(cls, fixed: str, moving: str) -> Transform:
        """Return the transform that leaves every point where it is."""
        return cls(fixed, moving, np.eye(3))

    def to_moving(self, points: NDArray[np.floating]) -> FloatArray:
        """Map fixed points (N, 2), row and col in µm, into the moving frame.

        Outside the sampled field its edge value holds, so the result is finite everywhere.
        """
        at: FloatArray = np.asarray(points, np.float64)
        return _affine(self.affine, at + self._sample(self.displacement, at))

    def to_fixed(self, points: NDArray[np.floating]) -> FloatArray:
        """Map moving points (N, 2), row and col in µm, into the fixed frame."""
        at: FloatArray = np.asarray(points, np.float64)
        straight = _affine(np.asarray(np.linalg.inv(self.affine), np.float64), at)
        return straight + self._sample(self.inverse_displacement, straight)

    @cached_property
    def _sound(self) -> NDArray[np.bool_]:
        """Where (h, w) the displacement neither stretches nor squeezes beyond what tissue does."""
        if min(self.displacement.shape[1:]) < 2:
            return np.ones(self.displacement.shape[1:], np.bool_)
        (rr, rc), (cr, cc) = (np.gradient(u, self.spacing) for u in self.displacement)
        # The singular values of the 2 × 2 gradient of p + displacement(p).
        turn = np.hypot(2 + rr + cc, cr - rc) / 2
        shear = np.hypot(rr - cc, cr + rc) / 2
        least, most = np.abs(turn - shear), turn + shear
        return np.asarray((least > 1 / _MOST_STRETCH) & (most < _MOST_STRETCH))

    def sound_over(self, region: Region, mpp: float) -> NDArray[np.bool_]:
        """Return where in a fixed region (rows, cols) the moving section is tissue, not a gap.

        Where a section broke, the field between its pieces stretches what lies at their ends.
        """
        at = []
        for start, first, count, size in zip(
            (region.top, region.left),
            self.origin,
            region.pixel_shape(mpp),
            self._sound.shape,
            strict=True,
        ):
            place = (start + (np.arange(count) + 0.5) * mpp - first) / self.spacing
            at.append(np.rint(place).astype(np.int64).clip(0, size - 1))
        return self._sound[np.ix_(*at)]

    def moving_grid(self, region: Region, mpp: float) -> FloatArray:
        """Return where the pixel centres of a fixed region lie in the moving frame.

        Returns
        -------
        ndarray
            (2, rows, cols) in µm of the moving frame.
        """
        rows, cols = region.pixel_shape(mpp)
        r = np.asarray(region.top + (np.arange(rows) + 0.5) * mpp, np.float64)
        c = np.asarray(region.left + (np.arange(cols) + 0.5) * mpp, np.float64)
        u = self._sample_grid(r, c)
        a = self.affine
        row, col = r[:, None] + u[0], c[None, :] + u[1]
        return np.stack([a[i, 0] * row + a[i, 1] * col + a[i, 2] for i in (0, 1)])

    def _sample(self, field_: NDArray[np.float32], points: FloatArray) -> FloatArray:
        from scipy.ndimage import map_coordinates

        at = ((points - self.origin) / self.spacing).T
        return np.stack(
            [map_coordinates(f, at, output=np.float64, order=1, mode="nearest") for f in field_], 1
        )

    def _sample_grid(self, r: FloatArray, c: FloatArray) -> FloatArray:
        """Sample the displacement on a grid: separable, hence cheap at full resolution."""
        height, width = self.displacement.shape[1:]
        by_row = _linear(r, self.origin[0], self.spacing, height)
        by_col = _linear(c, self.origin[1], self.spacing, width)
        return np.stack([(by_col @ (by_row @ f).T).T for f in self.displacement.astype(np.float64)])


def _affine(matrix: FloatArray, points: FloatArray) -> FloatArray:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


def _linear(at: FloatArray, origin: float, spacing: float, size: int) -> sparse.csr_array:
    """Return the (len(at), size) matrix of linear interpolation, the edge value held outside."""
    from scipy import sparse

    position = np.clip((at - origin) / spacing, 0, size - 1)
    low = np.minimum(np.floor(position).astype(np.int64), max(size - 2, 0))
    high = np.minimum(low + 1, size - 1)
    share = position - low
    n = np.arange(len(at))
    return sparse.csr_array(
        (np.concatenate([1 - share, share]), (np.concatenate([n, n]), np.concatenate([low, high]))),
        shape=(len(at), size),
    )
