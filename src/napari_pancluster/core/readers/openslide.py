"""Scanner formats through OpenSlide 4: what is no TIFF, and TIFFs of a scanner's own kind."""

from __future__ import annotations

import weakref
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.readers.base import Facts, checked_mpp, in_um, pyramid_levels
from napari_pancluster.core.readers.probe import probe

_REMEMBERED = 256
_FIRST_LOOK = """
import openslide
slide = openslide.OpenSlide(sys.argv[1])
for level, size in enumerate(slide.level_dimensions):
    slide.read_region((0, 0), level, (min(64, size[0]), min(64, size[1])))
"""


class OpenSlideReader:
    """A slide in a format OpenSlide detects."""

    def __init__(self, path: Path) -> None:
        import openslide

        self._slide = openslide.OpenSlide(path)
        # OpenSlide's own cache (32 MB a slide) is enough: whoever reads keeps what is shown.
        properties = self._slide.properties
        shapes = [(h, w) for w, h in self._slide.level_dimensions]
        # What was scanned may be a small part of the whole that a scanner names.
        names = (openslide.PROPERTY_NAME_MPP_Y, openslide.PROPERTY_NAME_MPP_X)
        mpp = [in_um(properties.get(name), "um") for name in names]
        self.facts = Facts(
            format=str(properties.get(openslide.PROPERTY_NAME_VENDOR, "openslide")),
            levels=pyramid_levels(shapes),
            dtype=np.dtype(np.uint8),
            channels=3,
            rgb=True,
            icc=_icc(self._slide),
            **checked_mpp(*mpp),
        )
        self._downsamples = self._slide.level_downsamples
        self._close = weakref.finalize(self, self._slide.close)

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        """Return an RGB block of a level; what was never scanned is white."""
        downsample = self._downsamples[level]
        corner = (round(left * downsample), round(top * downsample))
        rgba = np.asarray(self._slide.read_region(corner, level, (cols, rows)))
        rgb = rgba[..., :3].copy()
        rgb[rgba[..., 3] == 0] = 255
        return rgb

    def close(self) -> None:
        """Release the file."""
        self._close()


def open_openslide(path: Path) -> OpenSlideReader | None:
    """Open `path` when OpenSlide knows its format."""
    if not path.is_file():
        return None
    import openslide

    if openslide.OpenSlide.detect_format(path) is None:
        return None
    status = path.stat()
    _probe_once(path, status.st_size, status.st_mtime_ns)
    return OpenSlideReader(path)


@lru_cache(_REMEMBERED)
def _probe_once(path: Path, size: int, changed: int) -> None:
    """Let another process open a file first, until it is replaced: these are a dozen C parsers."""
    probe(path, _FIRST_LOOK)


def _icc(slide: Any) -> bytes | None:
    profile = slide.color_profile
    return bytes(profile.tobytes()) if profile is not None else None
