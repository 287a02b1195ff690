"""Every patch encoded and assigned to a cluster, for every k a run holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from napari_pancluster.core.checkpoint import Checkpoint
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.latents import Clustering, Latents
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.patches import PatchGrid
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.stack import LEAST_INSIDE, SlideStack

_BATCH = 256
# Pixels read at once; bounds memory whatever the size of the slide.
_BLOCK_PX = 1024


def encode(stack: SlideStack, grid: PatchGrid, network: PatchNetwork) -> Task[Latents]:
    """Return the latents of every cell of a grid, read block by block.

    Parameters
    ----------
    stack
        With the stains of the network, in its order.
    """
    values = np.empty((len(grid.index), network.latent), np.float32)
    done = 0
    for rows, region in _blocks(grid):
        block = stack.read(region, grid.mpp)
        for part in np.array_split(rows, -(-len(rows) // _BATCH)):
            corner = _corners(grid, part) - np.round(
                [region.top / grid.mpp, region.left / grid.mpp]
            )
            values[part] = _encode_batch(
                network, block.od, block.inside, corner.astype(int), grid.patch_px
            )
            done += len(part)
            yield Progress(f"Mapping {grid.case}", done, len(grid.index))
    return Latents(values)


def cluster(latents: Latents, checkpoint: Checkpoint, k: int) -> Clustering:
    """Return the clustering by the run's head for `k`.

    Raises
    ------
    InputError
        If the run holds no such k.
    """
    checkpoint.check_k(k)
    number = checkpoint.heads.index(k)
    weight = checkpoint.weights[f"heads.{number}.weight"].numpy()
    bias = checkpoint.weights[f"heads.{number}.bias"].numpy()
    logits = latents.values @ weight.T + bias
    logits -= logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    return Clustering(k, probabilities.argmax(axis=1).astype(np.uint8), probabilities)


def _corners(grid: PatchGrid, rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the (row, col) of the patches' first pixels; patches are centred on their cells."""
    return np.asarray(
        np.floor((grid.index[rows] + 0.5) * grid.stride_px - grid.patch_px / 2), np.float64
    )


def _blocks(grid: PatchGrid) -> Iterator[tuple[NDArray[np.int64], Region]]:
    """Yield the rows whose patches share one read, and the region they need."""
    cells = max(1, _BLOCK_PX // grid.stride_px)
    blocks, group = np.unique(grid.index // cells, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    counts = np.bincount(group.ravel(), minlength=len(blocks))
    for rows in np.split(order, np.cumsum(counts)[:-1]):
        corners = _corners(grid, rows)
        top, left = corners.min(0)
        height, width = corners.max(0) + grid.patch_px - (top, left)
        yield rows, Region.of_pixels(top=top, left=left, rows=height, cols=width, mpp=grid.mpp)


def _encode_batch(
    network: PatchNetwork,
    od: NDArray[np.float32],
    inside: NDArray[np.bool_],
    corners: NDArray[np.int64],
    patch_px: int,
) -> NDArray[np.float32]:
    device = network.device
    windows = sliding_window_view(od, (patch_px, patch_px), axis=(1, 2))
    covered = sliding_window_view(inside, (patch_px, patch_px), axis=(1, 2))
    at = (slice(None), corners[:, 0], corners[:, 1])
    patches = np.ascontiguousarray(windows[at].swapaxes(0, 1))
    present = covered[at].mean(axis=(2, 3)).T >= LEAST_INSIDE
    with torch.inference_mode():
        x = torch.from_numpy(patches).to(device, memory_format=torch.channels_last)
        shown = torch.from_numpy(present.astype(np.float32)).to(device)
        out: NDArray[np.float32] = network.encode(network.normalise(x, shown))[1].cpu().numpy()
    return out
