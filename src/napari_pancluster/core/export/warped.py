"""Warped slides: a registered stain in the frame of the reference, written as a pyramid.

Tiles are made in the order of a quadtree: four of a level, then the one that halves them. So every
level is written from what was made a moment ago, and only a few tiles are in memory at any time.
"""

from __future__ import annotations

import os
import secrets
import shutil
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product, repeat
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError, ProjectError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.resample import halve
from napari_pancluster.core.slide import Slide
from napari_pancluster.core.stack import SlideStack

Format = Literal["ome-tiff", "ome-zarr"]
Compression = Literal["jpeg", "deflate"]
Pixels = NDArray[np.uint8]

TILE = 512
_QUALITY = 90
_SUBSAMPLING = (2, 2)
# Of the slide, a side: a slide without a pyramid is not turned to float 4,096 px at a time.
_READ_PX = 1536
_LEAST_READ_PX = 16
_MOST_PIXELS = 1 << 22
_COLOURS = {"Red": "FF0000", "Green": "00FF00", "Blue": "0000FF"}


def export_warped(
    stack: SlideStack,
    name: str,
    path: Path,
    *,
    format: Format = "ome-tiff",
    mpp: float | None = None,
    compression: Compression = "jpeg",
) -> Task[Path]:
    """Write a registered stain in the frame of the reference, on clean glass.

    Parameters
    ----------
    path
        A file ending in ``.ome.tif``, replaced when all is written, or a new folder ``.ome.zarr``.
    format
        OME-TIFF (BigTIFF with SubIFDs) or OME-Zarr 0.4.
    mpp
        Pixel size of the first level, µm/px. Default: the coarser of the two slides'.
    compression
        Of OME-TIFF: "jpeg", or "deflate" without loss. OME-Zarr is without loss.

    Returns
    -------
    Path
        `path`. Where the task is closed or fails, nothing stays beside it.

    Raises
    ------
    ProjectError
        If the stain is not registered.
    InputError
        If there is no such stain, the pixel size makes no sense, or the place cannot be written.
    """
    stack.stain(name)
    if stack.transform(name) is None:
        raise ProjectError(f"{name} of case {stack.case} is not registered. Run register first.")
    plan = _Plan.of(stack, name, mpp)
    _check_place(path, stack, format)
    with _partial(path) as partial:
        sink = _Tiff(partial, plan, compression) if format == "ome-tiff" else _Zarr(partial, plan)
        try:
            yield from _Quadtree(plan, sink).write()
            sink.finish()
        finally:
            sink.close()
        os.replace(partial, path)
    return path


@dataclass(frozen=True)
class _Plan:
    """What is to be written.

    Attributes
    ----------
    mpp
        Of the first level, µm/px.
    shapes
        (rows, cols) of every level; an odd last row or column has no place in the next one.
    """

    stack: SlideStack
    name: str
    mpp: float
    shapes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, stack: SlideStack, name: str, mpp: float | None) -> _Plan:
        reference, slide = stack.stain(stack.reference).slide, stack.stain(name).slide
        if mpp is None:
            mpp = max(reference.um_per_px, slide.um_per_px)
        if not (np.isfinite(mpp) and mpp > 0):
            raise InputError(f"A pixel size of {mpp} µm/px makes no sense. Give one such as 0.5.")
        rows, cols = (max(1, n) for n in stack.extent.pixel_shape(mpp))
        if max(rows, cols) > _MOST_PIXELS:
            raise InputError(
                f"At {mpp:g} µm/px the slide would have {cols:,} × {rows:,} px. "
                "Choose a larger pixel size."
            )
        shapes = [(rows, cols)]
        while max(shapes[-1]) > TILE and min(shapes[-1]) > 1:
            shapes.append((shapes[-1][0] // 2, shapes[-1][1] // 2))
        return cls(stack, name, mpp, tuple(shapes))

    def read(self, top: int, left: int, rows: int, cols: int) -> Pixels:
        """Return pixels (rows, cols, 3) of the first level, read in parts where that is lighter."""
        out = np.empty((rows, cols, 3), np.uint8)
        side = self._side()
        for r, c in product(range(0, rows, side), range(0, cols, side)):
            part = out[r : r + side, c : c + side]
            region = Region.of_pixels(
                top=top + r, left=left + c, rows=part.shape[0], cols=part.shape[1], mpp=self.mpp
            )
            part[:] = self.stack.pictures((self.name,), region, self.mpp)[0]
        return out

    def _side(self) -> int:
        slide = self.stack.stain(self.name).slide
        wanted = self.mpp / slide.um_per_px
        fine = max((v.downsample for v in slide.levels if v.downsample <= wanted), default=1.0)
        return int(np.clip(_READ_PX * fine / wanted, _LEAST_READ_PX, TILE))


class _Quadtree:
    """Makes every tile of every level once, the finest first."""

    def __init__(self, plan: _Plan, sink: _Sink) -> None:
        self._plan, self._sink = plan, sink
        self._rows, self._cols = plan.shapes[0]
        self._total = -(-self._rows // TILE) * -(-self._cols // TILE)
        self._done = 0

    def write(self) -> Task[None]:
        """Write all tiles."""
        top = 0
        while TILE << top < max(self._rows, self._cols):
            top += 1
        yield from self._tile(top, 0, 0)

    def _tile(self, level: int, row: int, col: int) -> Task[Pixels]:
        """Write a tile and all below it; return it, cut at the edge of its level."""
        rows = min(TILE, max(0, (self._rows >> level) - row * TILE))
        cols = min(TILE, max(0, (self._cols >> level) - col * TILE))
        if level == 0:
            yield Progress(f"Exporting {self._plan.name}", self._done, self._total)
            tile = self._plan.read(row * TILE, col * TILE, rows, cols)
            self._done += 1
        else:
            tile = np.empty((rows, cols, 3), np.uint8)
            for r, c in product((0, 1), (0, 1)):
                below = (2 * row + r, 2 * col + c)
                # A last line that is dropped from this level still belongs to the finer ones.
                if self._exists(level - 1, *below):
                    half = halve((yield from self._tile(level - 1, *below)))
                    y, x = r * TILE // 2, c * TILE // 2
                    tile[y : y + half.shape[0], x : x + half.shape[1]] = half
        if tile.size and level < len(self._plan.shapes):
            self._sink.put(level, row, col, tile)
        return tile

    def _exists(self, level: int, row: int, col: int) -> bool:
        side = TILE << level
        return row * side < self._rows and col * side < self._cols


class _Sink(Protocol):
    """Takes the tiles of a pyramid in any order."""

    def put(self, level: int, row: int, col: int, tile: Pixels) -> None:
        """Write a tile (rows, cols, 3), smaller than `TILE` at the edges only."""
        ...

    def finish(self) -> None:
        """Make the file whole."""
        ...

    def close(self) -> None:
        """Let go of the file."""
        ...


class _Tiff:
    """An OME-TIFF laid out without tiles, which are then appended and entered into its tables."""

    def __init__(self, path: Path, plan: _Plan, compression: Compression) -> None:
        self._path, self._compression = path, compression
        self._counts = [
            np.zeros((-(-rows // TILE), -(-cols // TILE)), np.int64) for rows, cols in plan.shapes
        ]
        self._offsets = [np.zeros_like(counts) for counts in self._counts]
        self._lay_out(plan)
        self._file = path.open("r+b")
        self._file.seek(0, os.SEEK_END)

    def put(self, level: int, row: int, col: int, tile: Pixels) -> None:
        data = self._encode(tile)
        # Offsets are even in a TIFF.
        self._file.write(b"\0" * (self._file.tell() % 2))
        self._offsets[level][row, col] = self._file.tell()
        self._counts[level][row, col] = len(data)
        self._file.write(data)

    def finish(self) -> None:
        self._file.close()
        with tifffile.TiffFile(self._path, mode="r+") as tiff:
            for number, level in enumerate(tiff.series[0].levels):
                tags = level.keyframe.tags
                tags["TileOffsets"].overwrite(self._offsets[number].ravel().tolist())
                tags["TileByteCounts"].overwrite(self._counts[number].ravel().tolist())

    def close(self) -> None:
        self._file.close()

    def _lay_out(self, plan: _Plan) -> None:
        options: dict[str, Any] = {"compression": "zlib", "predictor": True}
        if self._compression == "jpeg":
            options = {"compression": "jpeg", "subsampling": _SUBSAMPLING}
        metadata = {
            "axes": "YXS",
            "Name": plan.name,
            "PhysicalSizeX": plan.mpp,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": plan.mpp,
            "PhysicalSizeYUnit": "µm",
        }
        with tifffile.TiffWriter(self._path, ome=True, bigtiff=True) as tiff:
            for number, (rows, cols) in enumerate(plan.shapes):
                per_cm = 1e4 / plan.mpp / 2**number
                tiff.write(
                    repeat(b"", self._counts[number].size),
                    shape=(rows, cols, 3),
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    photometric="rgb",
                    resolution=(per_cm, per_cm),
                    resolutionunit="CENTIMETER",
                    subifds=len(plan.shapes) - 1 if number == 0 else None,
                    subfiletype=1 if number else 0,
                    metadata=metadata if number == 0 else None,
                    **options,
                )

    def _encode(self, tile: Pixels) -> bytes:
        import imagecodecs

        overhang = [(0, TILE - n) for n in tile.shape[:2]]
        whole = np.ascontiguousarray(np.pad(tile, [*overhang, (0, 0)], mode="edge"))
        if self._compression == "deflate":
            return zlib.compress(imagecodecs.delta_encode(whole, axis=-2).tobytes())
        return bytes(
            imagecodecs.jpeg8_encode(
                whole,
                level=_QUALITY,
                colorspace="RGB",
                outcolorspace="YCBCR",
                subsampling=_SUBSAMPLING,
            )
        )


class _Zarr:
    """An OME-Zarr 0.4: one chunk a tile, with its three colours."""

    def __init__(self, path: Path, plan: _Plan) -> None:
        import zarr
        from numcodecs import Blosc

        group = zarr.create_group(path, zarr_format=2)
        self._arrays = [
            group.create_array(
                str(number),
                shape=(3, rows, cols),
                chunks=(3, TILE, TILE),
                dtype=np.uint8,
                compressors=Blosc("zstd", clevel=5, shuffle=Blosc.NOSHUFFLE),
                chunk_key_encoding={"name": "v2", "separator": "/"},
                # A tile of nothing but black or white is still one that was made.
                config={"write_empty_chunks": True},
            )
            for number, (rows, cols) in enumerate(plan.shapes)
        ]
        group.attrs.update(_ngff(plan))

    def put(self, level: int, row: int, col: int, tile: Pixels) -> None:
        top, left = row * TILE, col * TILE
        rows, cols, _ = tile.shape
        self._arrays[level][:, top : top + rows, left : left + cols] = tile.transpose(2, 0, 1)

    def finish(self) -> None:
        """Nothing is left to do."""

    def close(self) -> None:
        """Nothing is kept open."""


def _ngff(plan: _Plan) -> dict[str, Any]:
    """Return the metadata of OME-Zarr 0.4."""
    levels = [
        {
            "path": str(number),
            "coordinateTransformations": [
                {"type": "scale", "scale": [1.0, plan.mpp * 2**number, plan.mpp * 2**number]}
            ],
        }
        for number in range(len(plan.shapes))
    ]
    space = [{"name": name, "type": "space", "unit": "micrometer"} for name in "yx"]
    window = {"min": 0, "max": 255, "start": 0, "end": 255}
    return {
        "multiscales": [
            {
                "version": "0.4",
                "name": plan.name,
                "axes": [{"name": "c", "type": "channel"}, *space],
                "datasets": levels,
            }
        ],
        "omero": {
            "channels": [
                {"label": label, "color": colour, "active": True, "window": window}
                for label, colour in _COLOURS.items()
            ],
            "rdefs": {"model": "color"},
        },
    }


def _check_place(path: Path, stack: SlideStack, format: Format) -> None:
    """Refuse to write over a slide, or over a folder."""
    for stain in stack.stains:
        own: Slide = stain.slide
        if path.exists() and own.path.exists() and path.samefile(own.path):
            raise InputError(f"{path} is the slide of {stain.name} itself. Choose another name.")
    if path.exists() and (format == "ome-zarr" or not path.is_file()):
        raise InputError(f"{path} is there already. Remove it or choose another name.")


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """Give a place beside `path` to write to; what is left there at the end goes.

    Raises
    ------
    InputError
        If the disk is full or the folder cannot be written.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        yield partial
    except OSError as error:
        raise InputError(
            f"{path} cannot be written ({error.strerror or error}). Free some space, or choose "
            "another folder."
        ) from error
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        elif partial.exists():
            partial.unlink()
