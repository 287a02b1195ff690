"""What a slide backend must offer: one small protocol, one opener a backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import SlideError

# Outside these bounds (µm/px) a recorded pixel size is a placeholder, not a measurement.
PLAUSIBLE_MPP = (0.05, 50.0)
# Pixels farther from square than this are a misread header, not a scanner's.
_MOST_OBLONG = 4.0
_UM_PER_UNIT = {
    "micrometer": 1.0,
    "micrometre": 1.0,
    "micron": 1.0,
    "µm": 1.0,
    "μm": 1.0,
    "um": 1.0,
    "nanometer": 1e-3,
    "nm": 1e-3,
    "millimeter": 1e3,
    "mm": 1e3,
    "centimeter": 1e4,
    "cm": 1e4,
    "meter": 1e6,
    "m": 1e6,
    "angstrom": 1e-4,
    "å": 1e-4,
    "picometer": 1e-6,
    "pm": 1e-6,
    "inch": 25_400.0,
    "in": 25_400.0,
    "pt": 25_400.0 / 72,
}
# Most channels of a pixel, and most pixels along a side, that are taken for a slide at all.
_MOST_CHANNELS, _MOST_PIXELS = 64, 1 << 22
_DTYPES = ("uint8", "uint16", "uint32", "float32", "float64", "int16", "int32")


@dataclass(frozen=True)
class Level:
    """One level of a pyramid.

    Attributes
    ----------
    downsample
        Level-0 pixels a pixel of this level spans; never rounded.
    shape
        (rows, cols) in pixels.
    covers
        Level-0 pixels it spans down and across: those of level 0, or a few more where the last
        pixels of a level reach over the edge.
    """

    downsample: float
    shape: tuple[int, int]
    covers: tuple[float, float]


@dataclass(frozen=True)
class Facts:
    """What a file says of itself, known without reading a pixel.

    Attributes
    ----------
    format
        Short name of the container ("ome-tiff", "svs", …).
    levels
        The pyramid, level 0 first.
    dtype
        Type of the stored values.
    channels
        Values a pixel.
    rgb
        Whether they are red, green and blue, and not stains or dyes.
    mpp_yx
        Pixel size of level 0 in µm/px, down and across, as recorded and plausible; else None.
    mpp_doubt
        The recorded pixel size in words where it is not plausible; else empty.
    channel_names
        As the file has them; may be empty.
    bits
        Bits of a value that are used.
    icc
        The embedded colour profile.
    """

    format: str
    levels: tuple[Level, ...]
    dtype: np.dtype[np.generic]
    channels: int
    rgb: bool
    mpp_yx: tuple[float, float] | None = None
    mpp_doubt: str = ""
    channel_names: tuple[str, ...] = ()
    bits: int = 8
    icc: bytes | None = None


class Reader(Protocol):
    """An open slide file. `read` may be called from several threads at once."""

    @property
    def facts(self) -> Facts:
        """What the file says of itself."""
        ...

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        """Return a block that lies inside the level, shape (rows, cols, channels)."""
        ...

    def close(self) -> None:
        """Release the file."""
        ...


Opener = Callable[[Path], "Reader | None"]
"""Opens a path, or returns None where the content is not this backend's."""


def in_um(value: Any, unit: str | None) -> float | None:
    """Return a length in µm; None where the value or the unit makes no sense."""
    scale = _UM_PER_UNIT.get((unit or "µm").strip().lower())
    try:
        return float(value) * scale if scale is not None else None
    except (TypeError, ValueError):
        return None


def checked_mpp(y: float | None, x: float | None) -> dict[str, Any]:
    """Return the `Facts` of a recorded pixel size (µm/px): it is believed, or put into words."""
    if y is None or x is None:
        return {}
    low, high = PLAUSIBLE_MPP
    oblong = max(y, x) > _MOST_OBLONG * min(y, x) if min(y, x) > 0 else True
    if low <= y <= high and low <= x <= high and not oblong:
        return {"mpp_yx": (y, x)}
    shown = f"{x:g}" if y == x else f"{x:g} × {y:g}"
    return {"mpp_doubt": f"{shown} µm/px"}


def pyramid_levels(shapes: list[tuple[int, int]]) -> tuple[Level, ...]:
    """Return levels with float downsamples for the (rows, cols) of a pyramid, largest first."""
    rows, cols = shapes[0]
    return tuple(Level(((rows / r) * (cols / c)) ** 0.5, (r, c), (rows, cols)) for r, c in shapes)


def check_facts(facts: Facts, path: Path) -> None:
    """Refuse what cannot be a slide, before anything of its size is allocated.

    Raises
    ------
    SlideError
        Saying which number is impossible.
    """
    rows, cols = facts.levels[0].shape
    if min(rows, cols) < 1 or max(rows, cols) > _MOST_PIXELS:
        raise SlideError(
            f"{path} claims {cols:,} × {rows:,} px, which no slide has. The file may be damaged; "
            "copy or export it again."
        )
    if facts.channels < 1 or facts.channels > _MOST_CHANNELS:
        raise SlideError(
            f"{path} has {facts.channels} values a pixel. Export at most {_MOST_CHANNELS} channels."
        )
    if facts.dtype.name not in _DTYPES:
        raise SlideError(
            f"{path} stores {facts.dtype.name} values. Export it with 8 or 16 bits a channel."
        )
