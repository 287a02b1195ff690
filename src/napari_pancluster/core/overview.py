"""The coarse levels of a slide that its file lacks, built once from its pixels.

A slide without a pyramid can be read at any place, but looking at all of it means decoding all of
it. An overview does that once, tile by tile in bounded memory: its coarse levels fill up in memory
while it is built, so that the slide can be looked at meanwhile, and a project keeps every level.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.readers import Level, Reader
from napari_pancluster.core.resample import halve
from napari_pancluster.core.slide import LARGEST_OVERVIEW_PX, Slide

_SMALLEST_PX = 512
# A tile of the file's last level; every level of an overview gets whole pixels from it.
_TILE = 2048
_CHUNK = 512
_STALE_S = 3600.0
_DONE = "done"


class Overview:
    """Levels that stand after those of the file.

    Parameters
    ----------
    levels
        Arrays (rows, cols, channels), in memory or on disk.
    steps
        Pixels of the file's last level that a pixel of each spans along a side.
    """

    def __init__(self, levels: Sequence[Any], steps: Sequence[int]) -> None:
        self._levels, self._steps = list(levels), list(steps)

    def levels_below(self, last: Level) -> list[Level]:
        """Return the geometry of the levels, given the file's last one."""
        r, c = (n / size for n, size in zip(last.covers, last.shape, strict=True))
        found = []
        for step, array in zip(self._steps, self._levels, strict=True):
            rows, cols = (int(n) for n in array.shape[:2])
            covers = (rows * step * r, cols * step * c)
            found.append(Level(step * last.downsample, (rows, cols), covers))
        return found

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[Any]:
        """Return a block (rows, cols, channels); what is not built yet looks like glass."""
        return np.asarray(self._levels[level][top : top + rows, left : left + cols])

    def put(self, tile: NDArray[Any], top: int, left: int) -> None:
        """Take in a tile of the file's last level, at a multiple of the tile's size."""
        halved, step = tile, 1
        for level, wanted in zip(self._levels, self._steps, strict=True):
            while step < wanted:
                halved, step = _halve(halved), 2 * step
            r, c = top // wanted, left // wanted
            level[r : r + halved.shape[0], c : c + halved.shape[1]] = halved

    def save(self, folder: Path) -> None:
        """Write the levels that are held in memory."""
        for step, level in zip(self._steps, self._levels, strict=True):
            if isinstance(level, np.ndarray):
                _create(folder, step, level.shape, level.dtype, 0)[:] = level


class _WithOverview:
    """A slide file and the levels that were built for it."""

    def __init__(self, reader: Reader, overview: Overview) -> None:
        self._reader, self._overview = reader, overview
        levels = reader.facts.levels
        self._own = len(levels)
        self.facts = replace(reader.facts, levels=(*levels, *overview.levels_below(levels[-1])))

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        """Return a block of a level, shape (rows, cols, channels)."""
        if level < self._own:
            return self._reader.read(level, top, left, rows, cols)
        return self._overview.read(level - self._own, top, left, rows, cols)

    def close(self) -> None:
        """Release the file."""
        self._reader.close()


def blank_overview(slide: Slide, folder: Path | None = None) -> Overview:
    """Return an overview to be filled.

    Parameters
    ----------
    folder
        Gets the levels that are too large for memory; None: there are none of those.
    """
    facts = slide.facts
    (rows, cols), channels = facts.levels[-1].shape, facts.channels
    dtype: np.dtype[Any] = facts.dtype
    glass = np.iinfo(dtype).max if facts.rgb and dtype.kind in "iu" else 0
    levels, steps, step = [], [], 1
    while max(rows, cols) > _SMALLEST_PX * step and step < _TILE:
        step *= 2
        shape = (-(-rows // step), -(-cols // step), channels)
        if max(shape[:2]) <= LARGEST_OVERVIEW_PX:
            levels.append(np.full(shape, glass, dtype))
        elif folder is not None:
            levels.append(_create(folder, step, shape, dtype, glass))
        else:
            continue
        steps.append(step)
    return Overview(levels, steps)


def with_overview(slide: Slide, overview: Overview) -> Slide:
    """Return the slide with more levels."""
    return slide.with_reader(lambda reader: _WithOverview(reader, overview))


def read_overview(slide: Slide, folder: Path) -> Overview | None:
    """Return the overview that is kept in a folder, if it is there and whole."""
    if not (folder / _DONE).is_file():
        return None
    import zarr

    steps = sorted(int(p.name) for p in folder.iterdir() if p.is_dir())
    levels = [zarr.open_array(folder / str(step), mode="r") for step in steps]
    return Overview(levels, steps)


def fill_overviews(slide: Slide, overviews: Sequence[Overview], name: str) -> Task[None]:
    """Read the whole slide once, tile by tile, into every overview.

    Parameters
    ----------
    slide
        Without an overview.
    name
        Of the stain, for the progress.
    """
    number = len(slide.levels) - 1
    rows, cols = slide.levels[-1].shape
    places = [(r, c) for r in range(0, rows, _TILE) for c in range(0, cols, _TILE)]
    for done, (top, left) in enumerate(places):
        yield Progress(f"Overview of {name}", done, len(places))
        height, width = min(_TILE, rows - top), min(_TILE, cols - left)
        tile = slide.read_level(number, top, left, height, width)
        for overview in overviews:
            overview.put(tile, top, left)


def build_overview(
    slide: Slide, folder: Path, name: str, shown: Sequence[Overview] = ()
) -> Task[None]:
    """Build an overview and keep it in a folder; given up midway, nothing of it stays.

    Parameters
    ----------
    slide
        Without an overview.
    folder
        Appears when all is done.
    name
        Of the stain, for the progress.
    shown
        Filled at the same time, for who looks at the slide meanwhile.
    """
    _drop_stale(folder)
    partial = folder.with_name(f"{folder.name}.{secrets.token_hex(4)}")
    try:
        partial.mkdir(parents=True)
        kept = blank_overview(slide, partial)
        yield from fill_overviews(slide, [kept, *shown], name)
        kept.save(partial)
        (partial / _DONE).touch()
        # Another window may have been faster.
        if not folder.exists():
            os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _drop_stale(folder: Path) -> None:
    """Remove what a killed process left of the same overview."""
    for partial in folder.parent.glob(f"{folder.name}.*"):
        if time.time() - partial.stat().st_mtime > _STALE_S:
            shutil.rmtree(partial, ignore_errors=True)


def _create(
    folder: Path, step: int, shape: tuple[int, ...], dtype: np.dtype[Any], fill: float
) -> Any:
    import zarr

    side = max(1, min(_CHUNK, _TILE // step))
    chunks = (min(side, shape[0]), min(side, shape[1]), shape[2])
    return zarr.create_array(
        folder / str(step), shape=shape, chunks=chunks, dtype=dtype, fill_value=fill
    )


def _halve(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return means of 2 × 2 pixels; at an odd edge the last ones count twice."""
    odd = [(0, n % 2) for n in pixels.shape[:2]]
    return halve(np.pad(pixels, (*odd, (0, 0)), mode="edge") if any(n for _, n in odd) else pixels)
