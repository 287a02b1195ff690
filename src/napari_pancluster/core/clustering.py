"""Every patch encoded and assigned to a cluster, for every k a run holds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray

from napari_pancluster.core import heap
from napari_pancluster.core.checkpoint import Checkpoint, Network, encode_patches
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.latents import Clustering, Latents
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.overlapping import can_share, encode_overlapping
from napari_pancluster.core.patches import PatchGrid
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.stack import CHANNELS, Block, SlideStack

# Cells a side that are encoded at once. On a processor, arrays of more leave its caches, and a
# third of the pace is lost; so do as many patches that are larger than this.
_SIDE_CPU, _SIDE = 8, 16
_USUAL_PX = 64
# A thread holds a block and a batch of patches.
_MOST_THREADS = 4
_LOOK_S = 0.1
# Pixels read at once; bounds memory whatever the size of the slide.
_BLOCK_PX = 1024
# Blocks begin so far before a multiple of that: in the middle of a slide's tiles of 256 px or more.
# Patches reach beyond their block, which from border to border would touch a tile more both ways.
_BEFORE_PX = 128
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
    """Return the latents of every cell of a grid, read and encoded block by block.

    A few threads each take a block, from its pixels to its latents: there are never more blocks
    in memory than threads, however large the slide. Patches that overlap share the first
    convolution, see `encode_overlapping`.

    Parameters
    ----------
    stack
        With the stains of the network, in its order.
    """
    heap.keep()
    work = _Encoding(stack, grid, network)
    densities = _Tally(network.stains * CHANNELS)
    with _threads(network.device) as pool, work:
        blocks = [pool.submit(work.block, *wanted) for wanted in _blocks(grid, work.side)]
        for number, block in enumerate(blocks, 1):
            while not wait([block], _LOOK_S).done:
                yield work.progress
            densities.join(block.result())
            if number % _TRIMMED == 0:
                heap.trim()
            yield work.progress
    return Encoded(work.values, work.shown, *densities.statistics())


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


def _blocks(grid: PatchGrid, side: int) -> Iterator[tuple[NDArray[np.int64], Region]]:
    """Yield the rows whose patches share one read, and the region they need.

    Parameters
    ----------
    side
        Cells a side that are encoded at once, of which a block holds whole ones where it can.
    """
    cells = max(1, _BLOCK_PX // grid.stride_px)
    if cells > side:
        cells -= cells % side
    for rows in _squares(grid, np.arange(len(grid.index)), cells):
        corners = _corners(grid, rows)
        top, left = corners.min(0)
        height, width = corners.max(0) + grid.patch_px - (top, left)
        yield rows, Region.of_pixels(top=top, left=left, rows=height, cols=width, mpp=grid.mpp)


def _squares(grid: PatchGrid, rows: NDArray[np.int64], cells: int) -> list[NDArray[np.int64]]:
    """Return rows of a grid put together by squares of so many cells a side."""
    index = grid.index[rows] + round(_BEFORE_PX / grid.stride_px)
    squares, group = np.unique(index // cells, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    counts = np.bincount(group.ravel(), minlength=len(squares))
    return np.split(rows[order], np.cumsum(counts)[:-1])


@contextmanager
def _threads(device: torch.device) -> Iterator[ThreadPoolExecutor]:
    """Yield the threads that encode; left early, what they have begun is not waited for.

    On a processor they share its cores. Threads that do one operation together wait for each other
    in it, and for the one that reads: two blocks side by side, each on one core, gave a fifth more
    patches a second than one on both cores, with the next one read beside it.
    """
    found = torch.get_num_threads()
    cores = found if device.type == "cpu" else os.cpu_count() or 1
    count = min(cores, _MOST_THREADS)
    each = max(1, found // count)
    pool = ThreadPoolExecutor(count, "mapping", torch.set_num_threads, (each,))
    try:
        yield pool
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        # A thread sets it for itself, and for threads that come later.
        torch.set_num_threads(found)


class _Encoding:
    """The latents of a grid, to which several threads add.

    Parameters
    ----------
    stack, grid, network
        See `encode`.

    Attributes
    ----------
    values, shown
        (N, D) and (N, stains), filled in as blocks are done.
    side
        Cells a side that are encoded at once.
    """

    def __init__(self, stack: SlideStack, grid: PatchGrid, network: Network) -> None:
        self._stack, self._grid, self._network = stack, grid, network
        count = len(grid.index)
        self.values = np.empty((count, network.latent), np.float32)
        self.shown = np.empty((count, network.stains), np.bool_)
        self._weighed = np.zeros(count, np.bool_)
        self._weighed[np.linspace(0, count - 1, min(_WEIGHED, count)).astype(np.int64)] = True
        self._given_up = threading.Event()
        self._lock = threading.Lock()
        self._patches = 0
        on_cpu = network.device.type == "cpu"
        self.side = _SIDE_CPU if on_cpu else _SIDE
        # A GPU does one thing after the other, whoever asks.
        self._turn = nullcontext() if on_cpu else threading.Lock()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let the threads end before their next batch."""
        self._given_up.set()

    @property
    def progress(self) -> Progress:
        """How far it is."""
        return Progress(f"Mapping {self._grid.case}", self._patches, len(self._grid.index))

    def block(self, rows: NDArray[np.int64], region: Region) -> _Tally:
        """Encode the patches of one block; return how densely some of them are stained."""
        grid, tally = self._grid, _Tally(self._network.stains * CHANNELS)
        pixels = self._stack.read(region, grid.mpp)
        origin = np.round([region.top / grid.mpp, region.left / grid.mpp])
        for part in _squares(grid, rows, self.side):
            if self._given_up.is_set():
                break
            corner = (_corners(grid, part) - origin).astype(np.int64)
            present = pixels.shows(corner, grid.patch_px, self._stack.least_inside)
            weighed = self._weighed[part]
            if weighed.any():
                tally.add(pixels.cut(corner[weighed], grid.patch_px), present[weighed])
            self.values[part] = self._latents(pixels, corner, present)
            self.shown[part] = present
            with self._lock:
                self._patches += len(part)
        return tally

    def _latents(
        self, pixels: Block, corners: NDArray[np.int64], present: NDArray[np.bool_]
    ) -> NDArray[np.float32]:
        """Return the latents of the patches of a block, those at `corners` (M, 2)."""
        side, network = self._grid.patch_px, self._network
        if isinstance(network, PatchNetwork) and can_share(corners, side, present):
            with self._turn:
                return encode_overlapping(network, pixels.od, corners, side, present[0])
        at_once = max(1, self.side * _USUAL_PX // side) ** 2
        latents = []
        for some in np.array_split(np.arange(len(corners)), -(-len(corners) // at_once)):
            patches = pixels.cut(corners[some], side)
            with self._turn:
                latents.append(encode_patches(network, patches, present[some]))
        return np.concatenate(latents)


class _Tally:
    """Mean and spread of the densities of some patches, added up batch by batch.

    Parameters
    ----------
    channels
        How many there are.
    """

    def __init__(self, channels: int) -> None:
        self._sums = np.zeros((3, channels))

    def add(self, patches: NDArray[np.float32], present: NDArray[np.bool_]) -> None:
        """Take note of patches (B, C, P, P), where their stains are present."""
        some = patches.astype(np.float64)
        shown = np.repeat(present, CHANNELS, axis=1)
        powers = (np.ones_like(some[..., :1, :1]), some, some * some)
        for n, power in enumerate(powers):
            self._sums[n] += (power.mean(axis=(2, 3)) * shown).sum(0)

    def join(self, other: _Tally) -> None:
        """Add what another one has added up."""
        self._sums += other._sums

    def statistics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return mean and standard deviation of every channel; NaN where none was present."""
        count, first, second = self._sums
        count = np.where(count > 0, count, np.nan)
        mean = first / count
        return mean, np.sqrt(np.maximum(second / count - mean**2, 0))
