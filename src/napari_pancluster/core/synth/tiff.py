"""Streamed pyramid: a JPEG pyramid written as its picture is drawn, a strip of tiles in memory."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import tifffile
from imagecodecs import jpeg8_encode
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]

TILE = 256
_QUALITY = 90
_SUBSAMPLING = (2, 2)


class _Level:
    """One level of the pyramid: a strip still being filled and the tiles already packed."""

    def __init__(self, shape: tuple[int, int], spool: IO[bytes]) -> None:
        self.shape = shape
        self.strip: Pixels = np.zeros((TILE, shape[1], 3), np.uint8)
        self.filled = 0
        self.seen = 0
        self.spool = spool
        self.lengths: list[int] = []

    def pack(self) -> None:
        """Encode the strip as tiles; the parts off the picture repeat its last pixels."""
        height = self.filled
        for left in range(0, self.shape[1], TILE):
            tile = self.strip[:height, left : left + TILE]
            overhang = ((0, TILE - tile.shape[0]), (0, TILE - tile.shape[1]), (0, 0))
            whole = np.ascontiguousarray(np.pad(tile, overhang, mode="edge"))
            data = jpeg8_encode(
                whole,
                level=_QUALITY,
                colorspace="RGB",
                outcolorspace="YCBCR",
                subsampling=_SUBSAMPLING,
            )
            self.spool.write(data)
            self.lengths.append(len(data))

    def tiles(self) -> Iterator[bytes]:
        """Give the packed tiles back in the order in which they were packed."""
        self.spool.seek(0)
        for length in self.lengths:
            yield self.spool.read(length)


class StreamedPyramid:
    """Takes a slide in strips from the top and writes it as a tiled OME-TIFF with SubIFDs.

    Parameters
    ----------
    path
        The file to write; packed tiles wait in unnamed files beside it until `finish`.
    shape
        Rows and columns of level 0.
    mpp
        Pixel size in µm.
    """

    def __init__(self, path: Path, shape: tuple[int, int], *, mpp: float) -> None:
        self.path = path
        self.mpp = mpp
        self._levels: list[_Level] = []
        while True:
            spool = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115 (closed in close)
            self._levels.append(_Level(shape, spool))
            if max(shape) <= TILE or min(shape) < 2:
                break
            shape = (shape[0] // 2, shape[1] // 2)

    def add(self, rows: Pixels) -> None:
        """Add the next rows (H, W, 3) of level 0; H is even, save at the bottom."""
        for level in self._levels:
            rows = rows[: level.shape[0] - level.seen]
            if not rows.shape[0]:
                return
            level.seen += rows.shape[0]
            self._store(level, rows)
            rows = _halved(rows)

    def _store(self, level: _Level, rows: Pixels) -> None:
        while rows.shape[0]:
            count = min(TILE - level.filled, rows.shape[0])
            level.strip[level.filled : level.filled + count] = rows[:count, : level.shape[1]]
            level.filled += count
            rows = rows[count:]
            if level.filled == TILE or (level.seen == level.shape[0] and not rows.shape[0]):
                level.pack()
                level.filled = 0

    def finish(self) -> None:
        """Write the file from the packed tiles."""
        top, *rest = self._levels
        metadata = {
            "axes": "YXS",
            "PhysicalSizeX": self.mpp,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeY": self.mpp,
            "PhysicalSizeYUnit": "µm",
            "Name": self.path.name.removesuffix(".ome.tif"),
        }
        with tifffile.TiffWriter(self.path, ome=True, bigtiff=True) as tiff:
            for index, level in enumerate([top, *rest]):
                per_cm = 1e4 / self.mpp * level.shape[1] / top.shape[1]
                tiff.write(
                    level.tiles(),
                    shape=(*level.shape, 3),
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    photometric="rgb",
                    compression="jpeg",
                    subsampling=_SUBSAMPLING,
                    resolution=(per_cm, per_cm),
                    resolutionunit="CENTIMETER",
                    subifds=None if index else len(rest),
                    subfiletype=1 if index else 0,
                    metadata=None if index else metadata,
                )

    def close(self) -> None:
        """Let go of the packed tiles."""
        for level in self._levels:
            level.spool.close()


def _halved(rows: Pixels) -> Pixels:
    """Average 2 x 2 pixels; an odd last row or column is dropped."""
    height, width = (rows.shape[0] // 2) * 2, (rows.shape[1] // 2) * 2
    even = rows[:height, :width].astype(np.uint16)
    total = even[0::2, 0::2] + even[1::2, 0::2] + even[0::2, 1::2] + even[1::2, 1::2]
    return np.asarray((total + 2) >> 2, np.uint8)


def write_labels(path: Path, labels: NDArray[np.uint8], *, mpp: float) -> None:
    """Write a label image (H, W) with its pixel size in µm."""
    metadata = {
        "axes": "YX",
        "PhysicalSizeX": mpp,
        "PhysicalSizeXUnit": "µm",
        "PhysicalSizeY": mpp,
        "PhysicalSizeYUnit": "µm",
    }
    per_cm = 1e4 / mpp
    tifffile.imwrite(
        path,
        labels,
        ome=True,
        tile=(TILE, TILE),
        photometric="minisblack",
        compression="zlib",
        resolution=(per_cm, per_cm),
        resolutionunit="CENTIMETER",
        metadata=metadata,
    )
