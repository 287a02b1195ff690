"""How dark every stain is in every cluster, measured on some of its patches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.geometry import Region
from napari_pancluster.core.patches import PatchGrid, PatchTable
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.stack import CHANNELS, LEAST_INSIDE, Block, SlideStack

_PER_CLUSTER = 200
# Pixels read at once; bounds memory whatever the size of the slide.
_BLOCK_PX = 1024
# One read of a block is worth it while it holds at most so many times the pixels of its patches:
# what lies between them costs less than finding every patch in the files anew.
_MOST_BETWEEN = 6

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class StainProfile:
    """Mean density and its spread over patches.

    Attributes
    ----------
    cases, labels, stains
        Names and labels along the axes of the arrays below.
    patches
        (C, L, S) patches that were measured.
    mean
        (C, L, S) mean density of them, as scanned; NaN where none was measured. Brightfield:
        optical density, the mean of red, green and blue. Fluorescence: share of full light.
    spread
        (C, L, S) standard deviation over patches; NaN below two.
    """

    cases: tuple[str, ...]
    labels: tuple[int, ...]
    stains: tuple[str, ...]
    patches: NDArray[np.int64]
    mean: Floats
    spread: Floats

    @property
    def missing(self) -> tuple[tuple[str, str], ...]:
        """Case and stain where no patch could be measured: not there, or not registered."""
        found = self.patches.sum(axis=1)
        return tuple((self.cases[c], self.stains[s]) for c, s in np.argwhere(found == 0))

    @property
    def pooled(self) -> StainProfile:
        """The same of all cases as one, which has the empty name."""
        patches = self.patches.sum(axis=0, keepdims=True)
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.nansum(self.mean * self.patches, axis=0, keepdims=True) / patches
            # Squared deviations from the mean of all: those within a case and those of its mean.
            within = np.nansum(np.square(self.spread) * (self.patches - 1), axis=0, keepdims=True)
            between = np.nansum(self.patches * np.square(self.mean - mean), axis=0, keepdims=True)
            spread = np.sqrt((within + between) / (patches - 1))
        return StainProfile(
            ("",), self.labels, self.stains, patches, mean, np.where(patches > 1, spread, np.nan)
        )


def measure_stains(
    stacks: Mapping[str, SlideStack],
    table: PatchTable,
    labels: NDArray[np.uint8],
    wanted: tuple[int, ...],
    *,
    per_cluster: int = _PER_CLUSTER,
    seed: int = 0,
) -> Task[StainProfile]:
    """Measure the stains of some clusters.

    Parameters
    ----------
    stacks
        Per case, the registered slides.
    labels
        (N,) of all patches of the table.
    wanted
        The labels to measure.
    per_cluster
        At most so many patches of a cluster and case, drawn evenly over its map.
    """
    rng = np.random.default_rng(seed)
    stains = tuple(dict.fromkeys(name for s in stacks.values() for name in s.names))
    shape = (len(table.grids), len(wanted), len(stains))
    patches, mean = np.zeros(shape, np.int64), np.full(shape, np.nan)
    spread = np.full(shape, np.nan)
    for number, grid in enumerate(table.grids):
        own = labels[table.rows_of(number)]
        drawn = [_draw_evenly(np.flatnonzero(own == n), per_cluster, rng) for n in wanted]
        stack = stacks[grid.case].as_scanned().select(stains)
        found = yield from _measure(stack, grid, np.concatenate(drawn))
        ends = np.cumsum([len(rows) for rows in drawn])[:-1]
        for i, values in enumerate(np.split(found, ends)):
            patches[number, i] = np.isfinite(values).sum(axis=0)
            for s in range(len(stains)):
                shown = values[np.isfinite(values[:, s]), s]
                mean[number, i, s] = shown.mean() if len(shown) else np.nan
                spread[number, i, s] = shown.std(ddof=1) if len(shown) > 1 else np.nan
    cases = tuple(grid.case for grid in table.grids)
    return StainProfile(cases, wanted, stains, patches, mean, spread)


def _draw_evenly(
    rows: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return one row of each of `count` equal parts; all of them where there are no more."""
    if len(rows) <= count:
        return rows
    step = len(rows) / count
    return rows[((np.arange(count) + rng.random(count)) * step).astype(np.int64)]


def _measure(stack: SlideStack, grid: PatchGrid, rows: NDArray[np.int64]) -> Task[Floats]:
    """Return the mean density (len(rows), stains) of patches; NaN where a stain is not there."""
    out = np.full((len(rows), len(stack.read_names)), np.nan)
    corners = _corners(grid, rows)
    done = 0
    for part in _parts(corners, grid.patch_px):
        top, left = corners[part].min(axis=0)
        height, width = corners[part].max(axis=0) + grid.patch_px - (top, left)
        region = Region.of_pixels(top=top, left=left, rows=height, cols=width, mpp=grid.mpp)
        block = stack.read(region, grid.mpp)
        for i, (y, x) in zip(part, corners[part] - (top, left), strict=True):
            out[i] = _mean_density(block, int(y), int(x), grid.patch_px)
        done += len(part)
        yield Progress(f"Measuring the stains of {grid.case}", done, len(rows))
    return out


def _corners(grid: PatchGrid, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (row, col) of the patches' first pixels, where the network saw them."""
    middle = (grid.index[rows] + 0.5) * grid.stride_px
    return np.asarray(np.floor(middle - grid.patch_px / 2), np.int64)


def _parts(corners: NDArray[np.int64], patch_px: int) -> Iterator[NDArray[np.int64]]:
    """Yield which patches share one read; where they are sparse, each is read alone."""
    if len(corners) == 0:
        return
    _, group = np.unique(corners // _BLOCK_PX, axis=0, return_inverse=True)
    order = np.argsort(group.ravel(), kind="stable")
    for part in np.split(order, np.cumsum(np.bincount(group.ravel()))[:-1]):
        box = np.prod(corners[part].max(axis=0) + patch_px - corners[part].min(axis=0))
        together = box <= _MOST_BETWEEN * len(part) * patch_px**2
        yield from [part] if together else np.split(part, len(part))


def _mean_density(block: Block, top: int, left: int, side: int) -> Floats:
    """Return the mean density (stains,) of a patch where the slides cover it."""
    window = (slice(None), slice(top, top + side), slice(left, left + side))
    covered = block.inside[window]
    pixels = covered.sum(axis=(1, 2))
    # Density is 0 where a slide is not.
    total = block.od[window].sum(axis=(1, 2), dtype=np.float64).reshape(-1, CHANNELS).sum(axis=1)
    shown = pixels >= LEAST_INSIDE * side**2
    return np.where(shown, total / np.maximum(CHANNELS * pixels, 1), np.nan)
