"""Every patch encoded and assigned to a cluster, for every k a run holds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from napari_pancluster.core import heap
from napari_pancluster.core.checkpoint import Checkpoint, Network, encode_patches
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.latents import Clustering, Latents
from napari_pancluster.core.patches import PatchGrid
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.stack import CHANNELS, Block, SlideStack

_BATCH = 256
# Pixels read at once; bounds memory whatever the size of the slide.
_BLOCK_PX = 1024
# Blocks after which freed memory is handed back. Never, the heap's free part grows for minutes (by
# 0.4 GB in 300 blocks, while what is in use stays the same); after every one costs a tenth of the
# pace.
_TRIMMED = 4
# Patches of a case whose densities are looked at, as many as in training.
_WEIGHED = 512


@dataclass(frozen=True)
class Encoded:
    """What the network makes of the patches of one case, and how densely they are stained.

    Attributes
    ----------
    values
        (N, D) float32 latents.
    present
        (N, stains) whether the patch has the stain.
    od_mean, od_std
        (C,) mean and standard deviation of the density of every channel over its tissue; NaN for
        a stain that is not there.
    """

    values: NDArray[np.float32]
    present: NDArray[np.bool_]
    od_mean: NDArray[np.float64]
    od_std: NDArray[np.float64]


def encode(stack: SlideStack, grid: PatchGrid, network: Network) -> Task[Encoded]:
    """Return the latents of every cell of a grid, read block by block.

    While the network works on a block the next one is read, so that there are never more than two
    in memory, however large the slide.

    Overlapping patches are encoded one by one. To convolve their common pixels once would not be
    exact: each of the four convolutions pads its input with zeros at the border of the *patch*,
    where a shared one sees the neighbours, and of the 4 × 4 places of the last map 12 lie at the
    border. Measured with the trained networks of two sections, 64 px patches and a stride of
    16 px, latents would differ by 0.6 and 1.1 standard deviations on average, and 63 % of the
    cells or more would change their cluster.

    Parameters
    ----------
    stack
        With the stains of the network, in its order.
    """
    values = np.empty((len(grid.index), network.latent), np.float32)
    shown = np.empty((len(grid.index), network.stains), np.bool_)
    weighed = np.zeros(len(grid.index), np.bool_)
    weighed[np.linspace(0, len(weighed) - 1, min(_WEIGHED, len(weighed))).astype(np.int64)] = True
    tally = _Tally(network.stains * CHANNELS)
    done = 0
    with _ReadAhead(stack, grid.mpp) as reader:
        for number, (rows, region, block) in enumerate(reader.blocks(_blocks(grid)), 1):
            if number % _TRIMMED == 0:
                heap.trim()
            origin = np.round([region.top / grid.mpp, region.left / grid.mpp])
            for part in np.array_split(rows, -(-len(rows) // _BATCH)):
                corner = (_corners(grid, part) - origin).astype(int)
                patches, present = _cut(block, corner, grid.patch_px, stack.least_inside)
                tally.add(patches, present, weighed[part])
                values[part], shown[part] = encode_patches(network, patches, present), present
                done += len(part)
                yield Progress(f"Mapping {grid.case}", done, len(grid.index))
    return Encoded(values, shown, *tally.statistics())


def cluster(latents: Latents, checkpoint: Checkpoint, k: int) -> Clustering:
    """Return the clustering by the run's head for `k`.

    Raises
    ------
    InputError
        If the run holds no such k.
    """
    checkpoint.check_k(k)
    weight, bias = checkpoint.head(k)
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


class _ReadAhead:
    """Reads the next block of a stack while the present one is worked on.

    Parameters
    ----------
    stack
        To read from.
    mpp
        Pixel size to read at, µm/px.
    """

    def __init__(self, stack: SlideStack, mpp: float) -> None:
        self._stack, self._mpp = stack, mpp
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="reading")

    def __enter__(self) -> Self:
        """Start."""
        return self

    def __exit__(self, *_: object) -> None:
        """Read no more; what is being read now is not waited for."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _read(self, region: Region) -> Block:
        """Return pixels whose channels lie last in memory, as the network takes its patches."""
        block = self._stack.read(region, self._mpp)
        last = np.ascontiguousarray(block.od.transpose(1, 2, 0))
        return Block(last.transpose(2, 0, 1), block.inside)

    def blocks(
        self, wanted: Iterable[tuple[NDArray[np.int64], Region]]
    ) -> Iterator[tuple[NDArray[np.int64], Region, Block]]:
        """Yield the rows, the region and the pixels of every block."""
        coming = None
        for rows, region in wanted:
            following = self._thread.submit(self._read, region)
            if coming is not None:
                yield coming[0], coming[1], coming[2].result()
            coming = rows, region, following
        if coming is not None:
            yield coming[0], coming[1], coming[2].result()


class _Tally:
    """Mean and spread of the densities of some patches, added up batch by batch.

    Parameters
    ----------
    channels
        How many there are.
    """

    def __init__(self, channels: int) -> None:
        self._sums = np.zeros((3, channels))

    def add(
        self, patches: NDArray[np.float32], present: NDArray[np.bool_], wanted: NDArray[np.bool_]
    ) -> None:
        """Take note of the wanted patches (B, C, P, P), where their stains are present."""
        if not wanted.any():
            return
        some = patches[wanted].astype(np.float64)
        shown = np.repeat(present[wanted], CHANNELS, axis=1)
        powers = (np.ones_like(some[..., :1, :1]), some, some * some)
        for n, power in enumerate(powers):
            self._sums[n] += (power.mean(axis=(2, 3)) * shown).sum(0)

    def statistics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation of every channel; NaN where none was present."""
        count, first, second = self._sums
        count = np.where(count > 0, count, np.nan)
        mean = first / count
        return mean, np.sqrt(np.maximum(second / count - mean**2, 0))


def _cut(
    block: Block, corners: NDArray[np.int64], patch_px: int, least: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return patches (B, C, P, P) of a block, and (B, stains) which stains are present in each.

    Channels lie last in the memory of both.
    """
    pixels = block.od.transpose(1, 2, 0)
    patches = np.empty((len(corners), patch_px, patch_px, pixels.shape[2]), np.float32)
    for patch, (top, left) in zip(patches, corners, strict=True):
        patch[:] = pixels[top : top + patch_px, left : left + patch_px]
    present = np.empty((len(corners), len(block.inside)), np.bool_)
    for number, inside in enumerate(block.inside):
        # Most blocks lie wholly inside a slide, or a stain is not there: no need to count pixels.
        if inside.all() or not inside.any():
            present[:, number] = inside[0, 0]
            continue
        covered = sliding_window_view(inside, (patch_px, patch_px))[corners[:, 0], corners[:, 1]]
        present[:, number] = covered.mean(axis=(1, 2)) >= least[number]
    return patches.transpose(0, 3, 1, 2), present
