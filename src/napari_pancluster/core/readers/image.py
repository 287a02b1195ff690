"""Plain images (PNG, JPEG, BMP, WebP) through Pillow: decoded whole, so bounded in size."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.readers.base import Facts, pyramid_levels
from napari_pancluster.core.resample import halve

if TYPE_CHECKING:
    from PIL import Image

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP")
# A little below what Pillow itself refuses as a bomb.
_MOST_PIXELS = 170_000_000
_SMALLEST_LEVEL = 512
_GREY16 = ("I;16", "I;16B", "I;16L", "I")


class ImageReader:
    """A plain image, with halved copies of it as the coarser levels.

    It is decoded when the first pixel is asked for: none of these formats can be read in parts.
    """

    def __init__(self, path: Path, image: Image.Image) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._arrays: list[NDArray[Any]] = []
        deep, grey = image.mode in _GREY16, image.mode in ("1", "L", "LA", *_GREY16)
        shapes = [(image.height, image.width)]
        while min(shapes[-1]) >= 2 * _SMALLEST_LEVEL:
            shapes.append((shapes[-1][0] // 2, shapes[-1][1] // 2))
        # The resolution these files record is for print, not of a microscope.
        self.facts = Facts(
            format=str(image.format).lower(),
            levels=pyramid_levels(shapes),
            dtype=np.dtype(np.uint16 if deep else np.uint8),
            channels=1 if grey else 3,
            rgb=not grey,
            bits=16 if deep else 8,
            icc=image.info.get("icc_profile"),
        )

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        """Return a block of a level, shape (rows, cols, channels)."""
        with self._lock:
            if not self._arrays:
                self._decode()
        return self._arrays[level][top : top + rows, left : left + cols]

    def close(self) -> None:
        """Forget the pixels."""
        self._arrays = []

    def _decode(self) -> None:
        from PIL import Image

        with Image.open(self._path, formats=_FORMATS) as image:
            arrays = [_pixels(image, self.facts)]
        for _ in self.facts.levels[1:]:
            arrays.append(halve(arrays[-1]))
        self._arrays = arrays


def open_image(path: Path) -> ImageReader | None:
    """Open `path` when Pillow recognises one of the plain image formats."""
    if not path.is_file():
        return None
    # Here and not on top: most slides are not plain images.
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(path, formats=_FORMATS)
    except UnidentifiedImageError:
        return None
    except Image.DecompressionBombError as error:
        raise SlideError(_too_large(path, "")) from error
    with image:
        if path.suffix.lower() == ".mrxs":
            raise SlideError(
                f"{path} is only the label of a MIRAX slide. Its pixels are in the folder "
                f"{path.stem}: copy that beside it."
            )
        if image.width * image.height > _MOST_PIXELS:
            raise SlideError(_too_large(path, f"{image.width:,} × {image.height:,} px, "))
        return ImageReader(path, image)


def _too_large(path: Path, size: str) -> str:
    return f"{path} has {size}too many pixels for a plain image. Save it as a pyramidal TIFF."


def _pixels(image: Image.Image, facts: Facts) -> NDArray[Any]:
    from PIL import Image

    if not facts.rgb:
        grey = image if image.mode in _GREY16 else image.convert("L")
        return np.asarray(grey).astype(facts.dtype)[..., None]
    if "A" in image.getbands() or "transparency" in image.info:
        glass = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(glass, image.convert("RGBA")).convert("RGB"))
    return np.asarray(image.convert("RGB"))
