"""What a network makes of patches: latents, and for a k a cluster for each."""

from __future__ import annotations

from dataclasses import dataclass, field

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
    present
        (N, stains) whether the patch has the stain; (N, 0) where that was not kept, as in a
        project of an earlier version.
    """

    values: NDArray[np.float32]
    present: NDArray[np.bool_] = field(default_factory=lambda: np.zeros((0, 0), np.bool_))

    def __post_init__(self) -> None:
        if not len(self.present):
            object.__setattr__(self, "present", np.zeros((len(self.values), 0), np.bool_))


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

    def only(self, rows: NDArray[np.int64]) -> Clustering:
        """Return the clusters of some of the patches."""
        return Clustering(self.k, self.assignments[rows], self.probabilities[rows])

    def label_image(self, grid: PatchGrid, rows: slice) -> NDArray[np.uint8]:
        """Return the map of one case, one pixel a cell: background 0, labels 1 … k."""
        return grid.image(self.labels[rows]).astype(np.uint8)
