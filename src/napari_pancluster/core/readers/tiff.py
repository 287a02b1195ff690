"""TIFF slides through tifffile: OME-TIFF (SubIFD or flat), SVS and plain pyramids.

tifffile comes before OpenSlide because OpenSlide sees only level 0 of an OME-TIFF whose levels are
SubIFDs (reading its "lowest" level would read the whole slide), and because a tile decoded straight
from the file costs a third of the same tile through OpenSlide or through zarr. OpenSlide keeps the
scanners whose tiles overlap, lie apart or need the vendor's own reading (`_OPENSLIDES`).
"""

from __future__ import annotations

import os
import re
import threading
import weakref
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.readers.base import Facts, checked_mpp, in_um, pyramid_levels

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
# Inches are what image editors write for print; only a scanner's figure is that fine.
_FINEST_PRINT_MPP = 10.0
_OPENSLIDES = ("is_ndpi", "is_scn", "is_bif", "is_philips")
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR = 0, 1, 2, 6
_JPEGS = (6, 7, 34892, 33007)
# Of a strip or tile, decoded: more is one strip around a whole slide, and each read would need it.
_LARGEST_SEGMENT = 1 << 30
_LARGE_SEGMENT = 1 << 22
_CACHE_BYTES = 1 << 27
_CENTIMETRE, _INCH = 3, 2
_SAME_ASPECT = 0.02


class TiffReader:
    """The first image series of a TIFF file, every level of it."""

    def __init__(self, path: Path, tiff: tifffile.TiffFile) -> None:
        self._bytes = _Bytes(path)
        # A slide nobody holds any more closes its file: lazy arrays have no other owner.
        self._close = weakref.finalize(self, self._bytes.close)
        try:
            self._open(path, tiff)
        except BaseException:
            self._close()
            raise

    def _open(self, path: Path, tiff: tifffile.TiffFile) -> None:
        series = tiff.series[0]
        page = series.keyframe
        axes = _channel_axes(series.axes, path)
        _check_colours(page, path)
        levels = [_planes(level, axes, self._bytes, path) for level in series.levels]
        y, x = axes.index("Y"), axes.index("X")
        shapes = [(int(level.shape[y]), int(level.shape[x])) for level in series.levels]
        if len(levels) == len(levels[0]) == 1:
            for smaller in _unlisted_levels(tiff, page):
                levels.append([_Segments(smaller, self._bytes, path)])
                shapes.append((int(smaller.imagelength), int(smaller.imagewidth)))
        self._levels = levels
        samples = levels[0][0].samples
        rgb = page.photometric in (_RGB, _YCBCR) and samples >= 3 and len(levels[0]) == 1
        # The last of two or four values is how opaque a pixel is.
        self._opacity = samples in (2, 4) and bool(page.extrasamples)
        self._invert = page.photometric == _WHITE_IS_ZERO
        self.facts = Facts(
            format=_format(tiff),
            levels=pyramid_levels(shapes),
            dtype=np.dtype(series.dtype).newbyteorder("="),
            channels=samples * len(levels[0]) - self._opacity,
            rgb=rgb,
            icc=_icc(page),
            **{"bits": 8 * np.dtype(series.dtype).itemsize, **_recorded(tiff, page)},
        )

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        """Return a block of a level, shape (rows, cols, channels)."""
        box = (top, left, rows, cols)
        planes = [plane.read(*box) for plane in self._levels[level]]
        block = planes[0] if len(planes) == 1 else np.concatenate(planes, axis=-1)
        if self._opacity:
            clear = block[..., -1:] == 0
            block = np.where(clear, _largest(block.dtype), block[..., :-1])
        return _largest(block.dtype) - block if self._invert else block

    def close(self) -> None:
        """Release the file."""
        self._close()


class _Bytes:
    """A file read at any place by several threads at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._lock = threading.Lock()

    def read(self, offset: int, count: int) -> bytes:
        if hasattr(os, "pread"):
            data = os.pread(self._file.fileno(), count, offset)
        else:
            with self._lock:
                self._file.seek(offset)
                data = self._file.read(count)
        if len(data) < count:
            raise EOFError("the file ends before this tile")
        return data

    def close(self) -> None:
        self._file.close()


class _Segments:
    """A page of tiles or strips, decoded where they are touched."""

    def __init__(self, page: Any, source: _Bytes, path: Path) -> None:
        frame = page.keyframe
        _, _, length, width, self.samples = frame.shaped
        planes = int(frame.shaped[0])
        self._source = source
        self._offsets, self._counts = page.dataoffsets, page.databytecounts
        self._decode: Callable[..., Any] = frame.decode
        self._options = {}
        if frame.compression in _JPEGS:
            self._options = {"jpegtables": page.jpegtables, "jpegheader": frame.jpegheader}
        self._dtype = np.dtype(frame.dtype).newbyteorder("=")
        self._nodata = _largest(self._dtype) if frame.photometric in (_RGB, _YCBCR) else 0
        if frame.is_tiled:
            self._tile = (int(frame.tilelength), int(frame.tilewidth))
        else:
            self._tile = (min(int(frame.rowsperstrip), int(length)), int(width))
        self._across = -(-int(width) // self._tile[1])
        self._down = -(-int(length) // self._tile[0])
        self._planes = planes
        size = self._tile[0] * self._tile[1] * int(self.samples) * self._dtype.itemsize
        wanted = self._across * self._down * planes
        if min(len(self._offsets), len(self._counts)) < wanted:
            raise SlideError(
                f"{path} claims {width:,} × {length:,} px but holds only {len(self._offsets):,} "
                f"of the {wanted:,} tiles that this takes. The file is damaged; copy it again."
            )
        if size > _LARGEST_SEGMENT:
            raise SlideError(
                f"{path} keeps {self._tile[1]:,} × {self._tile[0]:,} px in one piece, which can "
                "only be decoded whole. Save it as a tiled TIFF."
            )
        self.samples = int(self.samples) * planes
        self._segment = self._decoded
        if size >= _LARGE_SEGMENT:
            self._segment = lru_cache(max(1, _CACHE_BYTES // size))(self._decoded)

    def read(self, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        out = np.empty((rows, cols, self.samples), self._dtype)
        (high, wide), (bottom, right) = self._tile, (top + rows, left + cols)
        per_plane = self.samples // self._planes
        for plane in range(self._planes):
            part = out[..., plane * per_plane : (plane + 1) * per_plane]
            for r in range(top // high, -(-bottom // high)):
                for c in range(left // wide, -(-right // wide)):
                    piece = self._segment((plane * self._down + r) * self._across + c)
                    y, x = r * high, c * wide
                    y0, y1 = max(top, y), min(bottom, y + high)
                    x0, x1 = max(left, x), min(right, x + wide)
                    target = part[y0 - top : y1 - top, x0 - left : x1 - left]
                    if piece is None:
                        target[:] = self._nodata
                    else:
                        target[:] = piece[y0 - y : y1 - y, x0 - x : x1 - x]
        return out

    def _decoded(self, index: int) -> NDArray[np.generic] | None:
        count = int(self._counts[index])
        if count == 0:
            return None
        data = self._source.read(int(self._offsets[index]), count)
        piece = self._decode(data, index, **self._options)[0]
        return None if piece is None else piece[0]


class _Raw:
    """Uncompressed pixels in one run, such as a plane of an ImageJ stack."""

    samples: int

    def __init__(
        self, source: _Bytes, offset: int, dtype: np.dtype[np.generic], shape: tuple[int, ...]
    ) -> None:
        self._source, self._offset, self._stored = source, offset, dtype
        self._width, self.samples = shape[1], shape[2]

    def read(self, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        pixel = self.samples * self._stored.itemsize
        start = self._offset + (top * self._width + left) * pixel
        starts = (start + row * self._width * pixel for row in range(rows))
        lines = b"".join(self._source.read(s, cols * pixel) for s in starts)
        block = np.frombuffer(lines, self._stored).reshape(rows, cols, self.samples)
        return block.astype(self._stored.newbyteorder("="), copy=False)


def open_tiff(path: Path) -> TiffReader | None:
    """Open `path` when its first bytes say TIFF, and no scanner's that OpenSlide reads better."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        if file.read(4) not in _MAGIC:
            return None
    with tifffile.TiffFile(path) as tiff:
        if any(getattr(tiff, flag, False) for flag in _OPENSLIDES):
            import openslide

            if openslide.OpenSlide.detect_format(path) is not None:
                return None
        if not tiff.pages or not tiff.series:
            raise SlideError(f"{path} is a TIFF without an image. Export the slide again.")
        return TiffReader(path, tiff)


def _channel_axes(axes: str, path: Path) -> str:
    """Return the axes with every kind of channel called C; time and depth are refused."""
    found = re.sub("[IQ]", "C", axes)
    if set(found) - set("YXSC") or not set("YX") <= set(found) or len(set(found)) < len(found):
        raise SlideError(
            f"{path} holds a {axes} stack, not one image. Export one plane as TIFF or OME-TIFF."
        )
    return found


def _check_colours(page: Any, path: Path) -> None:
    if page.photometric not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _YCBCR):
        name = getattr(page.photometric, "name", page.photometric)
        raise SlideError(f"{path} stores {name} colours. Export the slide as RGB.")
    if page.compression in (65000, 65001, 65002):
        raise SlideError(f"{path} uses a compression that cannot be read. Save it as LZW or JPEG.")


def _planes(series: Any, axes: str, source: _Bytes, path: Path) -> list[Any]:
    """Return what reads each plane of a level: pages, or runs of bytes."""
    size = dict(zip(axes, series.shape, strict=True))
    rows, cols, samples = size["Y"], size["X"], size.get("S", 1)
    contiguous = axes in ("YX", "YXS", "CYX", "CYXS", "SYX")
    if series.dataoffset is not None and contiguous:
        dtype = np.dtype(series.dtype).newbyteorder(series.keyframe.parent.byteorder)
        planes = size.get("C", 1) * (samples if axes == "SYX" else 1)
        each = 1 if axes == "SYX" else samples
        step = rows * cols * each * dtype.itemsize
        shape = (rows, cols, each)
        if series.dataoffset + planes * step > path.stat().st_size:
            raise SlideError(
                f"{path} claims {cols:,} × {rows:,} px, more than the file holds. It was cut off; "
                "copy it again."
            )
        return [_Raw(source, series.dataoffset + i * step, dtype, shape) for i in range(planes)]
    pages = [p for p in series.pages if p is not None]
    if len(pages) != size.get("C", 1):
        raise SlideError(f"{path} lacks some of its {size.get('C', 1)} channels. Export it again.")
    return [_Segments(page, source, path) for page in pages]


def _unlisted_levels(tiff: tifffile.TiffFile, full: Any) -> list[Any]:
    """Return reduced pages that follow a single image: levels that its OME-XML does not list."""
    found: list[Any] = []
    rows, cols = int(full.imagelength), int(full.imagewidth)
    for page in list(tiff.pages)[1:]:
        page = page.aspage() if hasattr(page, "aspage") else page
        smaller = page.imagelength < (found[-1] if found else full).imagelength
        alike = abs(page.imagelength / page.imagewidth * cols / rows - 1) < _SAME_ASPECT
        kind = page.samplesperpixel == full.samplesperpixel and page.dtype == full.dtype
        if page.is_reduced and smaller and alike and kind and page.is_tiled == full.is_tiled:
            found.append(page)
    return found


def _largest(dtype: np.dtype[Any]) -> Any:
    return np.iinfo(dtype).max if dtype.kind in "iu" else dtype.type(1)


def _format(tiff: tifffile.TiffFile) -> str:
    if tiff.is_ome:
        return "ome-tiff"
    if tiff.is_svs:
        return "svs"
    return "ndpi" if tiff.is_ndpi else "tiff"


def _icc(page: Any) -> bytes | None:
    tag = page.tags.get(34675)
    return bytes(tag.value) if tag is not None else None


def _recorded(tiff: tifffile.TiffFile, page: Any) -> dict[str, Any]:
    """Return pixel size, channel names and bits, from wherever this kind of TIFF keeps them."""
    if tiff.is_ome and tiff.ome_metadata:
        return _of_ome(tiff.ome_metadata)
    if tiff.is_svs:
        found = re.search(r"MPP\s*=\s*([0-9.]+)", str(page.description))
        mpp = in_um(found.group(1), "um") if found else None
        return checked_mpp(mpp, mpp)
    if tiff.is_imagej and tiff.imagej_metadata:
        return checked_mpp(*_of_imagej(page, str(tiff.imagej_metadata.get("unit", ""))))
    return checked_mpp(_tag_um(page, "YResolution"), _tag_um(page, "XResolution"))


def _of_ome(xml: str) -> dict[str, Any]:
    for element in ElementTree.fromstring(xml).iter():
        if element.tag.rsplit("}", 1)[-1] == "Pixels":
            size = [
                in_um(element.get(f"PhysicalSize{a}"), element.get(f"PhysicalSize{a}Unit"))
                for a in "YX"
            ]
            children = [e for e in element if e.tag.rsplit("}", 1)[-1] == "Channel"]
            names = tuple(str(e.get("Name", "")) for e in children)
            bits = element.get("SignificantBits", "")
            return {
                **checked_mpp(*size),
                "channel_names": names if all(names) else (),
                **({"bits": int(bits)} if bits.isdigit() else {}),
            }
    return {}


def _of_imagej(page: Any, unit: str) -> tuple[float | None, float | None]:
    """ImageJ keeps pixels a unit in the resolution tags, and names the unit in its own text."""
    unit = unit.replace("\\u00B5", "µ").replace("micron", "um")
    found = []
    for name in ("YResolution", "XResolution"):
        per_unit = _ratio(page, name)
        found.append(in_um(1 / per_unit, unit) if per_unit and unit else None)
    return found[0], found[1]


def _tag_um(page: Any, name: str) -> float | None:
    per_unit, unit = _ratio(page, name), page.tags.get("ResolutionUnit")
    if not per_unit or unit is None:
        return None
    if int(unit.value) == _CENTIMETRE:
        return float(1e4 / per_unit)
    mpp = float(25_400 / per_unit)
    return mpp if int(unit.value) == _INCH and mpp <= _FINEST_PRINT_MPP else None


def _ratio(page: Any, name: str) -> float | None:
    tag = page.tags.get(name)
    if tag is None or not tag.value or not tag.value[0] or not tag.value[1]:
        return None
    return float(tag.value[0] / tag.value[1])
