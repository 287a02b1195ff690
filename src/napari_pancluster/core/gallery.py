"""Typical patches of a cluster, and what a patch looks like in every stain."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.geometry import Region
from napari_pancluster.core.patches import PatchGrid

# The middle of a cluster is found on at most this many of its patches.
_PATCHES_JUDGED = 50_000


def typical_rows(
    latents: NDArray[np.float32], rows: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return the rows nearest to the middle of a cluster's latents, nearest first.

    Parameters
    ----------
    latents
        (N, D) of all patches.
    rows
        Those of the cluster.
    """
    judged = rows[:: -(-len(rows) // _PATCHES_JUDGED)] if len(rows) else rows
    values = latents[judged]
    distance = np.square(values - values.mean(0)).sum(1) if len(judged) else np.empty(0)
    return judged[np.argsort(distance)[:count]]


def patch_region(grid: PatchGrid, position: int) -> Region:
    """Return what the patch at a position of the grid's index covers, in µm."""
    side = grid.patch_px
    y, x = grid.centres[position] / grid.mpp - side / 2
    return Region.of_pixels(top=float(y), left=float(x), rows=side, cols=side, mpp=grid.mpp)


def density(labels: NDArray[np.uint8], label: int, sigma_cells: float = 2.0) -> NDArray[np.float32]:
    """Return the share of a label in the neighbourhood of every cell.

    Parameters
    ----------
    labels
        (rows, cols) map of a case, 0 where there is no tissue.
    sigma_cells
        Width of the Gaussian neighbourhood, in cells.

    Returns
    -------
    ndarray
        (rows, cols) 0 … 1, NaN where there is no tissue.
    """
    from scipy.ndimage import gaussian_filter

    tissue = gaussian_filter((labels > 0).astype(np.float32), sigma_cells)
    here = gaussian_filter((labels == label).astype(np.float32), sigma_cells)
    return np.where(labels > 0, here / np.maximum(tissue, 1e-6), np.nan).astype(np.float32)
