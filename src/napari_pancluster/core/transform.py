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

    @cached_property
    def is_sound(self) -> bool:
        """Whether that is so everywhere."""
        return bool(self._sound.all())

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
        first, at = self.moving_pixels(region, mpp)
        corner = np.asarray(first, np.float64)[:, None, None]
        return np.asarray((at + corner + 0.5) * mpp, np.float64)

    def moving_pixels(
        self, region: Region, mpp: float
    ) -> tuple[tuple[int, int], NDArray[np.float32]]:
        """Return where the pixel centres of a fixed region lie among pixels of the moving slide.

        Between the samples of the displacement the whole map is bilinear: it is computed there,
        and interpolated in single precision, relative to a pixel near by.

        Returns
        -------
        first
            (row, col) of that pixel; the one at the slide's corner is (0, 0).
        at
            (2, rows, cols) float32, row and col relative to the centre of `first`, in pixels of
            `mpp`.
        """
        starts = (region.top, region.left)
        (r, by_row), (c, by_col) = (
            _linear(start + (np.arange(count) + 0.5) * mpp, origin, self.spacing, size)
            for start, count, origin, size in zip(
                starts,
                region.pixel_shape(mpp),
                self.origin,
                self.displacement.shape[1:],
                strict=True,
            )
        )
        u = self.displacement[:, r.sample[:, None], c.sample].astype(np.float64)
        a = self.affine
        row, col = r.at[:, None] + u[0], c.at + u[1]
        nodes = np.stack([a[i, 0] * row + a[i, 1] * col + a[i, 2] for i in (0, 1)]) / mpp - 0.5
        first = np.floor(nodes.min(axis=(1, 2)))
        near = (nodes - first[:, None, None]).astype(np.float32)
        at = np.stack([by_row @ np.ascontiguousarray((by_col @ part.T).T) for part in near])
        return (int(first[0]), int(first[1])), at

    def _sample(self, field_: NDArray[np.float32], points: FloatArray) -> FloatArray:
        from scipy.ndimage import map_coordinates

        at = ((points - self.origin) / self.spacing).T
        return np.stack(
            [map_coordinates(f, at, output=np.float64, order=1, mode="nearest") for f in field_], 1
        )


def _affine(matrix: FloatArray, points: FloatArray) -> FloatArray:
    return points @ matrix[:2, :2].T + matrix[:2, 2]


@dataclass(frozen=True)
class _Nodes:
    """Where along an axis (n,), in µm, and the sample of the field that holds there."""

    at: FloatArray
    sample: NDArray[np.int64]


def _linear(
    at: NDArray[np.floating], origin: float, spacing: float, size: int
) -> tuple[_Nodes, sparse.csr_array]:
    """Return nodes around places along an axis, and the (len(at), n) matrix that interpolates.

    Beyond the field, where its edge value holds, nodes go on at the same distance; a field of one
    sample needs only the first and the last place.
    """
    from scipy import sparse

    if size == 1:
        step, start = max(float(at[-1] - at[0]), spacing), float(at[0])
    else:
        step, start = spacing, origin
    position = (at - start) / step
    low = np.floor(position).astype(np.int64)
    share = (position - low).astype(np.float32)
    nodes = np.unique(np.concatenate([low, low + 1]))
    columns = np.searchsorted(nodes, low)
    n = np.arange(len(at))
    weights = np.concatenate([1 - share, share])
    places = (np.concatenate([n, n]), np.concatenate([columns, columns + 1]))
    matrix = sparse.csr_array((weights, places), shape=(len(at), len(nodes)))
    return _Nodes(start + nodes * step, nodes.clip(0, size - 1)), matrix
