"""What a network makes of patches: latents, and for a k a cluster for each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.patches import PatchGrid


@dataclass(frozen=True)
class Latents:
    """What the network makes of every patch.

    Attributes
    ----------
    values
        (N, D) float32, standardised.
    """

    values: NDArray[np.float32]


@dataclass(frozen=True)
class Clustering:
    """One cluster for every patch.

    Attributes
    ----------
    k
        Number of clusters.
    assignments
        (N,) uint8, 0 … k − 1.
    probabilities
        (N, k) float32.
    """

    k: int
    assignments: NDArray[np.uint8]
    probabilities: NDArray[np.float32]

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(N,) label 1 … k as drawn in a map, where 0 is background."""
        return (self.assignments + 1).astype(np.uint8)

    @property
    def certainty(self) -> NDArray[np.float32]:
        """(N,) probability of the cluster each patch was given."""
        return np.asarray(self.probabilities[np.arange(len(self.assignments)), self.assignments])

    def label_image(self, grid: PatchGrid, rows: slice) -> NDArray[np.uint8]:
        """Return the map of one case, one pixel a cell: background 0, labels 1 … k."""
        return grid.image(self.labels[rows]).astype(np.uint8)
