"""Painter: the colours of one synthetic slide, a block of pixels at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.synth.anatomy import FINE, SIDE, noise
from napari_pancluster.core.synth.layout import Layout
from napari_pancluster.core.synth.texture import OD_STEP, dyes
from napari_pancluster.core.synth.warp import Floats, Warp, Waves

Pixels = NDArray[np.uint8]
_Plane = NDArray[np.float32]

_GLASS = (243.0, 243.0, 241.0)
_NOISE = 1.6
_NOISE_SIDE = 1024
_RAGGED_PX = 3.0
_DRIFT = 0.2
_UNEVEN = 0.18
_TILT = 0.25


@dataclass(frozen=True)
class Placement:
    """How the texture lies in each region, the same in every stain; entry 0 is glass.

    Attributes
    ----------
    turn
        (R + 1, 2) float32, cosine and sine of the direction of its grain.
    offset
        (R + 1, 2) float32, row and col in texture px.
    ragged
        (2, SIDE, SIDE) float32, how far the edges of regions stray, row and col in px.
    """

    turn: _Plane
    offset: _Plane
    ragged: _Plane

    @classmethod
    def random(cls, rng: np.random.Generator, regions: int) -> Placement:
        """Draw the placement of `regions` regions and the glass."""
        angle = rng.uniform(-_TILT, _TILT, regions + 1)
        turn = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
        offset = rng.uniform(0, SIDE, (regions + 1, 2)).astype(np.float32)
        strays = [np.clip(noise(rng, 14.0), -2, 2) for _ in range(2)]
        return cls(turn, offset, np.stack(strays) * np.float32(_RAGGED_PX / 2))


class Painter:
    """Paints one stain of a section.

    Parameters
    ----------
    layout, placement
        The section.
    bank
        (tissues + 1, SIDE, SIDE) uint16, the texture of each type in this stain.
    stain
        Its name, which tells the dyes.
    warp
        Where each pixel of the slide lies in the reference frame.
    rng
        For what differs between slides: drift, uneven staining, noise.
    """

    def __init__(
        self,
        layout: Layout,
        placement: Placement,
        bank: NDArray[np.uint16],
        *,
        stain: str,
        warp: Warp,
        rng: np.random.Generator,
    ) -> None:
        self._layout = layout
        self._placement = placement
        self._bank = bank.reshape(-1)
        self._warp = warp
        # Off the map lies glass: one more row and column of it catch every stray index.
        self._cells = np.pad(layout.cells, 1)
        kind = dyes(stain)
        self._dyes = np.array([kind.first, kind.second], np.float32) * np.float32(np.log(10))
        longest = max(warp.shape)
        self._drift = Waves.random(
            rng, wavelengths=(0.4 * longest, longest), amplitude=_DRIFT, components=2
        )
        regions = len(layout.cell_labels)
        self._gains = rng.uniform(1 - _UNEVEN, 1 + _UNEVEN, (regions, 2)).astype(np.float32)
        grain = rng.normal(0, _NOISE, (_NOISE_SIDE, _NOISE_SIDE, 3))
        self._grain = np.clip(np.rint(grain * 4), -127, 127).astype(np.int8)

    def block(self, top: int, left: int, height: int, width: int) -> Pixels:
        """Paint (height, width, 3) pixels from the row `top` and the column `left`."""
        rows = np.arange(top, top + height, dtype=np.float64) + 0.5
        cols = np.arange(left, left + width, dtype=np.float64) + 0.5
        down, right = self._warp.backward_grid(rows, cols)
        cell = self._cells_at(down, right)
        light = np.empty((height, width, 3), np.float32)
        light[:] = _GLASS
        if cell.any():
            first, second = self._amounts(cell, down, right, rows, cols)
            for channel in range(3):
                density = first * self._dyes[0, channel] + second * self._dyes[1, channel]
                light[..., channel] *= np.exp(-density)
        light += self._noise(top, left, height, width)
        return np.asarray(np.clip(light + 0.5, 0, 255), np.uint8)

    def _cells_at(self, down: _Plane, right: _Plane) -> NDArray[np.uint8]:
        """Return the region of each pixel; edges stray a little, as those of tissue do."""
        ragged = self._placement.ragged
        grid = (down.astype(np.int32) & (SIDE - 1)) * SIDE + (right.astype(np.int32) & (SIDE - 1))
        shape = self._cells.shape
        scale = np.float32(1 / self._layout.scale)
        row = ((down + ragged[0].take(grid)) * scale + 1).astype(np.int32)
        col = ((right + ragged[1].take(grid)) * scale + 1).astype(np.int32)
        np.clip(row, 0, shape[0] - 1, out=row)
        np.clip(col, 0, shape[1] - 1, out=col)
        return np.asarray(self._cells.take(row * np.int32(shape[1]) + col), np.uint8)

    def _amounts(
        self, cell: NDArray[np.uint8], down: _Plane, right: _Plane, rows: Floats, cols: Floats
    ) -> tuple[_Plane, _Plane]:
        """Return how much of each dye lies on each pixel, in optical density."""
        cos, sin = (self._placement.turn[:, axis].take(cell) for axis in range(2))
        lift, push = (self._placement.offset[:, axis].take(cell) for axis in range(2))
        fine = np.float32(FINE)
        # Floor, not truncate: a turned position may be negative.
        row = np.floor((down * cos - right * sin) * fine + lift).astype(np.int32) & (SIDE - 1)
        col = np.floor((down * sin + right * cos) * fine + push).astype(np.int32) & (SIDE - 1)
        kind = self._layout.cell_labels.take(cell).astype(np.int32)
        packed = self._bank.take((kind * SIDE + row) * SIDE + col)
        drift = self._drift.on_grid(rows, cols)
        steps = (packed & 255, packed >> 8)
        first, second = (
            step * self._gains[:, dye].take(cell) * ((1 + drift[dye]) * np.float32(OD_STEP))
            for dye, step in enumerate(steps)
        )
        return first, second

    def _noise(self, top: int, left: int, height: int, width: int) -> _Plane:
        """Return the noise of the sensor, cut from a repeating square of it."""
        rows = (np.arange(top, top + height) + left // 7) % _NOISE_SIDE
        cols = (np.arange(left, left + width) + top // 5) % _NOISE_SIDE
        return self._grain[rows[:, None], cols[None, :]] * np.float32(0.25)
