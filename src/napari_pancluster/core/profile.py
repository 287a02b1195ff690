"""Colours as the scanner's embedded ICC profile means them, in sRGB."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.readers import Reader
from napari_pancluster.core.slide import Slide


class _Profiled:
    """A slide file whose colours are converted as they are read."""

    def __init__(self, reader: Reader, transform: Any) -> None:
        self._reader, self._transform = reader, transform
        self.facts = reader.facts

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        """Return a block of a level, shape (rows, cols, 3)."""
        from PIL import Image, ImageCms

        block = self._reader.read(level, top, left, rows, cols)
        image = Image.fromarray(np.ascontiguousarray(block), "RGB")
        return np.asarray(ImageCms.applyTransform(image, self._transform))

    def close(self) -> None:
        """Release the file."""
        self._reader.close()


def can_apply_profile(slide: Slide) -> bool:
    """Whether a slide has a colour profile that can be applied."""
    return slide.facts.icc is not None and slide.facts.rgb and slide.dtype == np.uint8


def with_profile(slide: Slide) -> Slide:
    """Return the slide with its embedded profile applied; itself where it has none.

    Raises
    ------
    SlideError
        If the profile is damaged.
    """
    if not can_apply_profile(slide):
        return slide
    from PIL import ImageCms

    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(slide.facts.icc or b""))
        transform = ImageCms.buildTransform(
            profile,
            ImageCms.createProfile("sRGB"),
            "RGB",
            "RGB",
            # Its cache of the last pixel is not safe with several threads.
            flags=ImageCms.Flags.NOCACHE,
        )
    except (ImageCms.PyCMSError, OSError) as error:
        raise SlideError(
            f"{slide.path} has a colour profile that cannot be used ({error}). "
            "Open it without its profile."
        ) from error
    return slide.with_reader(lambda reader: _Profiled(reader, transform))
