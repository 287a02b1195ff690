"""Plain images (PNG, JPEG, BMP, WebP) through Pillow: decoded once, whole, so bounded in size."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.readers.base import Level, pyramid_levels

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
_MOST_PIXELS = 400_000_000
_SMALLEST_LEVEL = 512


class ImageReader:
    """A plain image, with halved copies of it as the coarser levels."""

    channels = 3
    mpp = None

    def __init__(self, image: Image.Image) -> None:
        self.format = str(image.format).lower()
        self._arrays = [np.asarray(image.convert("RGB"))]
        while min(self._arrays[-1].shape[:2]) >= 2 * _SMALLEST_LEVEL:
            self._arrays.append(_halve(self._arrays[-1]))
        self.levels: tuple[Level, ...] = pyramid_levels(
            [(a.shape[0], a.shape[1]) for a in self._arrays]
        )
        self.dtype: np.dtype[np.generic] = np.dtype(np.uint8)

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        """Return a block of a level, shape (rows, cols, 3)."""
        return self._arrays[level][top : top + rows, left : left + cols]

    def close(self) -> None:
        """Forget the pixels."""
        self._arrays.clear()


def open_image(path: Path) -> ImageReader | None:
    """Open `path` when Pillow recognises one of the plain image formats."""
    try:
        image = Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError:
        return None
    with image:
        if image.width * image.height > _MOST_PIXELS:
            raise SlideError(
                f"{path} has {image.width} × {image.height} px, too many for a plain image. "
                "Save it as a pyramidal TIFF."
            )
        return ImageReader(image)


def _halve(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    rows, cols = rgb.shape[0] // 2 * 2, rgb.shape[1] // 2 * 2
    blocks = rgb[:rows, :cols].reshape(rows // 2, 2, cols // 2, 2, 3)
    return np.asarray(blocks.mean(axis=(1, 3)) + 0.5).astype(np.uint8)
