"""Clusters in which each cell heeds its neighbours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from napari_pancluster.core.latents import Clustering
from napari_pancluster.core.patches import PatchGrid, PatchTable

# In either direction: a cell counts twice its neighbours, four times its diagonal ones.
_WEIGHTS = np.array([0.25, 0.5, 0.25], np.float32)


def smooth(clustering: Clustering, table: PatchTable) -> Clustering:
    """Return a clustering whose probabilities are averaged over neighbouring tissue cells.

    With p the probabilities of the cells and w the weights ``[1 2 1; 2 4 2; 1 2 1] / 16``:
    ``p'(c) = Σ w(c, n) p(n) / Σ w(c, n)``, summed over the cells n of the same case that are tissue
    among c and its eight neighbours. Each cell then has the cluster of its largest p'. A cell on
    its own, or inside a uniform area, stays as it is.
    """
    probabilities = np.empty_like(clustering.probabilities)
    for number, grid in enumerate(table.grids):
        rows = table.rows_of(number)
        probabilities[rows] = _smoothed(clustering.probabilities[rows], grid)
    assignments = probabilities.argmax(axis=1).astype(np.uint8)
    return Clustering(clustering.k, assignments, probabilities)


def _smoothed(probabilities: NDArray[np.float32], grid: PatchGrid) -> NDArray[np.float32]:
    """Return the averages (N, k) of one case."""
    weight = _averaged(np.ones(len(grid.index), np.float32), grid)
    out = np.empty_like(probabilities)
    # Cluster by cluster: an image of all of them would be the largest array of a dense map.
    for k in range(probabilities.shape[1]):
        out[:, k] = _averaged(probabilities[:, k], grid) / weight
    return out


def _averaged(values: NDArray[np.float32], grid: PatchGrid) -> NDArray[np.float32]:
    """Return the weighted sum around every tissue cell, (N,); other cells count 0."""
    image = grid.image(values).astype(np.float32)
    for axis in (0, 1):
        image = correlate1d(image, _WEIGHTS, axis=axis, mode="constant")
    return np.asarray(image[grid.index[:, 0], grid.index[:, 1]], np.float32)
