"""Scanner formats that are not TIFF to tifffile, through OpenSlide 4."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.readers.base import plausible, pyramid_levels


class OpenSlideReader:
    """A slide in a format OpenSlide detects."""

    channels = 3

    def __init__(self, path: Path) -> None:
        import openslide

        self._slide = openslide.OpenSlide(path)
        properties = self._slide.properties
        self.format = str(properties.get(openslide.PROPERTY_NAME_VENDOR, "openslide"))
        self.levels = pyramid_levels([(h, w) for w, h in self._slide.level_dimensions])
        recorded = properties.get(openslide.PROPERTY_NAME_MPP_X)
        self.mpp = plausible(float(recorded) if recorded else None)
        self._close = weakref.finalize(self, self._slide.close)
        self.dtype: np.dtype[np.generic] = np.dtype(np.uint8)

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        """Return an RGB block of a level; what was never scanned is white."""
        downsample = self._slide.level_downsamples[level]
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
    import openslide

    if openslide.OpenSlide.detect_format(path) is None:
        return None
    return OpenSlideReader(path)
