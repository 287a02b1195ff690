"""TIFF slides through tifffile: OME-TIFF (SubIFD or flat), SVS and plain pyramids.

tifffile comes before OpenSlide because OpenSlide sees only level 0 of an OME-TIFF whose levels are
SubIFDs; reading its "lowest" level would read the whole slide.
"""

from __future__ import annotations

import re
import weakref
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import tifffile
import zarr
from numpy.typing import NDArray

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.readers.base import plausible, pyramid_levels

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_UM_PER_UNIT = {"µm": 1.0, "um": 1.0, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, "pm": 1e-6}
# Inches are what image editors write for print; only a scanner's figure is that fine.
_FINEST_PRINT_MPP = 10.0


class TiffReader:
    """The first image series of a TIFF file, every level of it."""

    def __init__(self, path: Path) -> None:
        self._tiff = tifffile.TiffFile(path)
        try:
            series = self._tiff.series[0]
            axes = series.axes
            if set(axes) - set("YXSC") or "Y" not in axes or "X" not in axes:
                raise SlideError(
                    f"{path} holds a {axes} stack, not one RGB image. "
                    "Export the slide as an RGB TIFF or OME-TIFF."
                )
            self._axes = axes
            y, x = axes.index("Y"), axes.index("X")
            shapes = [(int(level.shape[y]), int(level.shape[x])) for level in series.levels]
            self.levels = pyramid_levels(shapes)
            self._arrays = [
                zarr.open_array(series.aszarr(level=i), mode="r") for i in range(len(shapes))
            ]
            self.dtype = np.dtype(series.dtype)
            extra = [i for i in range(len(axes)) if i not in (y, x)]
            self.channels = int(np.prod([series.shape[i] for i in extra], initial=1))
            self.format = _format(self._tiff)
            self.mpp = plausible(_mpp(self._tiff))
            # A slide nobody holds any more closes its file: lazy arrays have no other owner.
            self._close = weakref.finalize(self, self._tiff.close)
        except BaseException:
            self._tiff.close()
            raise

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        """Return a block of a level, shape (rows, cols, channels)."""
        index = tuple(
            slice(top, top + rows)
            if a == "Y"
            else slice(left, left + cols)
            if a == "X"
            else slice(None)
            for a in self._axes
        )
        block = np.asarray(self._arrays[level][index])
        order = [self._axes.index("Y"), self._axes.index("X")]
        order += [i for i in range(block.ndim) if i not in order]
        return block.transpose(order).reshape(block.shape[order[0]], block.shape[order[1]], -1)

    def close(self) -> None:
        """Release the file."""
        self._close()


def open_tiff(path: Path) -> TiffReader | None:
    """Open `path` when its first bytes say TIFF."""
    with path.open("rb") as file:
        if file.read(4) not in _MAGIC:
            return None
    return TiffReader(path)


def _format(tiff: tifffile.TiffFile) -> str:
    if tiff.is_ome:
        return "ome-tiff"
    if tiff.is_svs:
        return "svs"
    return "ndpi" if tiff.is_ndpi else "tiff"


def _mpp(tiff: tifffile.TiffFile) -> float | None:
    if tiff.is_ome and tiff.ome_metadata:
        return _ome_mpp(tiff.ome_metadata)
    page = tiff.pages[0]
    if tiff.is_svs:
        found = re.search(r"MPP\s*=\s*([0-9.]+)", str(page.description))
        return float(found.group(1)) if found else None
    return _tag_mpp(page)


def _ome_mpp(xml: str) -> float | None:
    for element in ElementTree.fromstring(xml).iter():
        if element.tag.rsplit("}", 1)[-1] == "Pixels":
            size = element.get("PhysicalSizeX")
            unit = _UM_PER_UNIT.get(element.get("PhysicalSizeXUnit", "µm"))
            return float(size) * unit if size is not None and unit is not None else None
    return None


def _tag_mpp(page: object) -> float | None:
    tags = getattr(page, "tags", {})
    resolution, unit = tags.get("XResolution"), tags.get("ResolutionUnit")
    if resolution is None or unit is None or not resolution.value[0]:
        return None
    per_unit = resolution.value[0] / resolution.value[1]
    if int(unit.value) == 3:
        return float(1e4 / per_unit)
    mpp = float(25_400 / per_unit)
    return mpp if int(unit.value) == 2 and mpp <= _FINEST_PRINT_MPP else None
