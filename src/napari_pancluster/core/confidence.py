"""How far a registration can be trusted, place by place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.geometry import Region


@dataclass(frozen=True)
class Confidence:
    """A map over the reference slide: 1 where two sections surely agree, 0 where they do not.

    Attributes
    ----------
    values
        (rows, cols) float32, 0 to 1.
    spacing
        µm between samples; the first lies at half of it.
    """

    values: NDArray[np.float32]
    spacing: float

    def at(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the confidence at fixed points (N, 2), row and col in µm; beyond the map, 0."""
        cell = np.floor(np.asarray(points) / self.spacing).astype(np.int64)
        inside = ((cell >= 0) & (cell < self.values.shape)).all(axis=1)
        out = np.zeros(len(cell), np.float32)
        out[inside] = self.values[tuple(cell[inside].T)]
        return out

    def over(self, region: Region, mpp: float) -> NDArray[np.float32]:
        """Return the confidence at every pixel of a region (rows, cols); beyond the map, 0."""
        axes, beyond = [], []
        starts = (region.top, region.left)
        for start, count, size in zip(
            starts, region.pixel_shape(mpp), self.values.shape, strict=True
        ):
            cell = np.floor((start + (np.arange(count) + 0.5) * mpp) / self.spacing).astype(int)
            beyond.append((cell < 0) | (cell >= size))
            axes.append(cell.clip(0, size - 1))
        out = self.values[np.ix_(*axes)]
        out[beyond[0]] = 0
        out[:, beyond[1]] = 0
        return out
