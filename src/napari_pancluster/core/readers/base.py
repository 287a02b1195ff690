"""What a slide backend must offer: one small protocol, one opener a backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

# Outside these bounds (µm/px) a recorded pixel size is a placeholder, not a measurement.
PLAUSIBLE_MPP = (0.05, 50.0)


@dataclass(frozen=True)
class Level:
    """One level of a pyramid.

    Attributes
    ----------
    downsample
        Level-0 pixels a pixel of this level spans; never rounded.
    shape
        (rows, cols) in pixels.
    """

    downsample: float
    shape: tuple[int, int]


class Reader(Protocol):
    """An open slide file. `read` may be called from several threads at once."""

    @property
    def format(self) -> str:
        """Short name of the container."""
        ...

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, level 0 first."""
        ...

    @property
    def mpp(self) -> float | None:
        """Pixel size of level 0 in µm/px, if the file records a plausible one."""
        ...

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the stored values."""
        ...

    @property
    def channels(self) -> int:
        """Values a pixel."""
        ...

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        """Return a block that lies inside the level, shape (rows, cols, channels)."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


Opener = Callable[[Path], "Reader | None"]
"""Opens a path, or returns None where the content is not this backend's."""


def plausible(mpp: float | None) -> float | None:
    """Return `mpp` (µm/px) where it can be the pixel size of a slide, else None."""
    if mpp is None or not PLAUSIBLE_MPP[0] <= mpp <= PLAUSIBLE_MPP[1]:
        return None
    return mpp


def pyramid_levels(shapes: list[tuple[int, int]]) -> tuple[Level, ...]:
    """Return levels with float downsamples for the (rows, cols) of a pyramid, largest first."""
    rows, cols = shapes[0]
    return tuple(Level(((rows / r) * (cols / c)) ** 0.5, (r, c)) for r, c in shapes)
