"""Places in micrometres, and the one spot where they are rounded to pixels.

Inside the code a point is (row, col) in µm from the outer corner of a slide's first pixel; the
centre of pixel *i* at pixel size ``mpp`` therefore lies at ``(i + 0.5) * mpp``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# An extent of a whole number of strides must not gain a cell from the last bit.
_ROUNDING = 1e-6


@dataclass(frozen=True)
class Region:
    """A rectangle of the reference frame; every side in µm."""

    top: float
    left: float
    height: float
    width: float

    @property
    def bottom(self) -> float:
        """Lower edge in µm."""
        return self.top + self.height

    @property
    def right(self) -> float:
        """Right edge in µm."""
        return self.left + self.width

    def pixel_shape(self, mpp: float) -> tuple[int, int]:
        """Rows and columns of this region when read at `mpp` µm/px."""
        return round(self.height / mpp), round(self.width / mpp)

    @classmethod
    def of_pixels(cls, *, top: float, left: float, rows: float, cols: float, mpp: float) -> Region:
        """Return the region that covers a block of pixels at `mpp`."""
        return cls(top * mpp, left * mpp, rows * mpp, cols * mpp)


def cells_along(extent_um: float, cell_um: float) -> int:
    """Return how many cells of `cell_um` cover `extent_um`, the last one overhanging."""
    return max(1, math.ceil(extent_um / cell_um - _ROUNDING))
