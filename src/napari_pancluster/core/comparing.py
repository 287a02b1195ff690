"""Two registered stains in one picture, to see where they disagree."""

from __future__ import annotations

from enum import StrEnum
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.geometry import Region
from napari_pancluster.core.lazy import BLOCK_PX, LazyPixels
from napari_pancluster.core.stack import CHANNELS, SlideStack

if TYPE_CHECKING:
    import dask.array as da

Rgb = NDArray[np.uint8]

# Blue and orange are told apart with every kind of colour vision (Okabe and Ito 2008).
FIXED_COLOUR, MOVING_COLOUR = (0, 114, 178), (230, 159, 0)
_SQUARES_ACROSS = 12
# Mean density of stained tissue is low; shown like this it fills the scale.
_STRENGTH = 1.8


class Mode(StrEnum):
    """How two stains share a picture."""

    OVERLAY = "Two colours"
    CHECKER = "Checkerboard"
    CURTAIN = "Curtain"


class Comparison:
    """A moving stain beside the reference, computed block by block.

    Parameters
    ----------
    stack
        The registered slides.
    name
        The moving stain.
    mode
        How they share the picture.
    cache_mb
        Blocks of both stains that are kept: moving the curtain reads nothing anew.

    Attributes
    ----------
    split
        Of a curtain: share of the width that shows the reference, 0 to 1.
    mpp
        Pixel size of the first level, µm/px.
    """

    def __init__(self, stack: SlideStack, name: str, mode: Mode, *, cache_mb: int = 64) -> None:
        self._stack, self._name, self._mode = stack, name, mode
        self.split = 0.5
        self._gains = (stack.stain(stack.reference).gain, stack.stain(name).gain)
        sizes = [stack.stain(n).slide.um_per_px for n in (stack.reference, name)]
        self.mpp = max(sizes)
        kept = max(1, cache_mb * 2**20 // (2 * CHANNELS * BLOCK_PX**2))
        self._pair = lru_cache(maxsize=kept)(self._read_pair)

    @property
    def levels(self) -> tuple[da.Array, ...]:
        """(Y, X, 3) uint8, each half the one before."""
        rows, cols = self._stack.extent.pixel_shape(self.mpp)
        levels, step = [], 1
        while True:
            shape = (max(1, rows // step), max(1, cols // step), CHANNELS)
            read = partial(self._block, step, shape[1])
            pixels = LazyPixels(shape, np.dtype(np.uint8), read, whole_blocks=True)
            levels.append(pixels.as_dask())
            if max(shape) <= BLOCK_PX:
                return tuple(levels)
            step *= 2

    def _read_pair(self, step: int, top: int, left: int, rows: int, cols: int) -> tuple[Rgb, Rgb]:
        size = self.mpp * step
        region = Region.of_pixels(top=top, left=left, rows=rows, cols=cols, mpp=size)
        fixed, moving = self._stack.pictures((self._stack.reference, self._name), region, size)
        return fixed, moving

    def _block(self, step: int, width: int, top: int, left: int, rows: int, cols: int) -> Rgb:
        fixed, moving = self._pair(step, top, left, rows, cols)
        if self._mode is Mode.OVERLAY:
            return overlay(fixed, moving, self._gains)
        c = left + np.arange(cols)
        if self._mode is Mode.CURTAIN:
            shown = np.broadcast_to((c + 0.5 < self.split * width)[None], (rows, cols))
        else:
            side = max(1.0, width / _SQUARES_ACROSS)
            r = top + np.arange(rows)
            squares = (r // side)[:, None] + (c // side)[None]
            shown = squares % 2 == 0
        return np.where(shown[..., None], fixed, moving)


def overlay(fixed: Rgb, moving: Rgb, gains: tuple[float, float] = (1.0, 1.0)) -> Rgb:
    """Return two pictures on white glass (rows, cols, 3) as two colours of ink on one.

    Where the sections agree the inks mix to a dark one; blue is the reference alone, orange the
    other.

    Parameters
    ----------
    gains
        Factors on the two, so that a pale and a dark stain weigh alike.
    """
    seen = np.ones((*fixed.shape[:2], 3), np.float32)
    inks = zip((fixed, moving), (FIXED_COLOUR, MOVING_COLOUR), gains, strict=True)
    for picture, colour, gain in inks:
        density = 1 - picture.mean(axis=-1, dtype=np.float32) / 255
        ink = np.clip(_STRENGTH * gain * density, 0, 1)[..., None]
        seen *= 1 - ink * (1 - np.asarray(colour, np.float32) / 255)
    return np.asarray(np.rint(255 * seen).astype(np.uint8))
