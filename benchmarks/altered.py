"""Real sections, altered in known ways: bent, turned, mirrored in part, halved, blank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from scipy import ndimage

from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stain import Stain

_LONGEST_PX = 2400
Pixels = NDArray[np.uint8]
Points = NDArray[np.float64]


@dataclass(frozen=True)
class Bend:
    """A smooth known map from an altered slide back to the one it was made of.

    Attributes
    ----------
    rotation_deg, flipped, scale
        Of the altered slide against its source.
    reach
        Largest displacement as a share of the longer side.
    seed
        Of the smooth random field.
    """

    rotation_deg: float = 0.0
    flipped: bool = False
    scale: float = 1.0
    reach: float = 0.0
    seed: int = 0

    def source(self, points: Points, shape: tuple[int, int]) -> Points:
        """Return where points (N, 2) px of the altered picture lie in its source (`shape`) px."""
        angle = np.deg2rad(self.rotation_deg)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        if self.flipped:
            turn = turn @ np.diag([1.0, -1.0])
        centre = np.array(shape) / 2
        at = (points - self._side(shape) / 2) @ turn / self.scale + centre
        if self.reach == 0:
            return at
        rng = np.random.default_rng(self.seed)
        grid = ndimage.gaussian_filter(rng.normal(size=(2, 64, 64)), (0, 7, 7), mode="nearest")
        grid *= self.reach * max(shape) / np.hypot(*grid).max()
        where = (at / max(shape) * 63).T
        moved = [ndimage.map_coordinates(g, where, order=3, mode="nearest") for g in grid]
        return at + np.stack(moved, 1)

    def picture(self, image: Pixels, glass: NDArray[np.floating]) -> Pixels:
        """Return the altered picture, glass where its source ends."""
        side = self._side(image.shape[:2])
        grid = np.indices((side, side)).reshape(2, -1).T + 0.5
        at = (self.source(grid, image.shape[:2]) - 0.5).T
        planes = [
            ndimage.map_coordinates(image[..., c], at, order=1, cval=float(glass[c]))
            for c in range(3)
        ]
        return np.stack(planes, -1).reshape(side, side, 3).astype(np.uint8)

    def _side(self, shape: tuple[int, ...]) -> int:
        return int(np.ceil(np.hypot(*shape[:2]) * self.scale * 1.05))


@dataclass(frozen=True)
class Picture:
    """A whole section as pixels (rows, cols, 3), its pixel size in µm, and its glass."""

    pixels: Pixels
    mpp: float
    glass: NDArray[np.float64]

    @classmethod
    def of(cls, stain: Stain) -> Picture:
        """Read a stain's slide small enough to be altered in memory."""
        slide = stain.slide
        mpp = max(slide.um_per_px, slide.um_per_px * max(slide.shape) / _LONGEST_PX)
        pixels = np.clip(np.rint(stain.read(slide.extent, mpp)), 0, 255).astype(np.uint8)
        return cls(pixels, mpp, np.array(stain.background))

    def stain(self, folder: Path, name: str, *, mpp: float | None) -> Stain:
        """Write the picture as a slide and open it; `mpp` None leaves the pixel size unknown."""
        path = folder / f"{name}.tif"
        tifffile.imwrite(path, self.pixels, photometric="rgb", tile=(256, 256))
        slide = open_slide(path)
        return Stain.of(name, slide.with_mpp(mpp) if mpp is not None else slide)

    def altered(self, change: Callable[[Pixels], Pixels]) -> Picture:
        """Return the picture after a change of its pixels."""
        return Picture(change(self.pixels.copy()), self.mpp, self.glass)


def blank(picture: Picture) -> Picture:
    """Return a slide without tissue: its glass, and a scanner's noise."""
    noise = np.random.default_rng(0).normal(0, 2, picture.pixels.shape)
    return picture.altered(lambda _: np.clip(picture.glass + noise, 0, 255).astype(np.uint8))


def halved(picture: Picture, *, axis: int) -> Picture:
    """Return the section with half of its tissue gone."""

    def change(pixels: Pixels) -> Pixels:
        cut = _middle_of_tissue(picture, axis)
        pixels[(slice(None),) * axis + (slice(cut, None),)] = picture.glass.astype(np.uint8)
        return pixels

    return picture.altered(change)


def mirrored_in_part(picture: Picture, *, axis: int) -> Picture:
    """Return the section with one half of it mirrored in its place, across the other axis."""

    def change(pixels: Pixels) -> Pixels:
        half = [slice(None), slice(None)]
        half[axis] = slice(_middle_of_tissue(picture, axis), None)
        across = np.flatnonzero(_dark(picture)[tuple(half)].any(axis=axis))
        half[1 - axis] = slice(across[0], across[-1] + 1)
        pixels[tuple(half)] = np.flip(pixels[tuple(half)], 1 - axis)
        return pixels

    return picture.altered(change)


def _dark(picture: Picture) -> NDArray[np.bool_]:
    return np.asarray((picture.glass - picture.pixels).max(-1) > 25)


def _middle_of_tissue(picture: Picture, axis: int) -> int:
    """Return where a cut across `axis` leaves half of the tissue on either side."""
    amount = np.cumsum(_dark(picture).sum(axis=1 - axis))
    return int(np.searchsorted(amount, amount[-1] / 2))
