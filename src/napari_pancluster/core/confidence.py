"""How far a registration can be trusted, place by place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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
