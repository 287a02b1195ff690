"""A stained slide: its glass colour, and its pixels as optical density (OD)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.geometry import Region
from napari_pancluster.core.slide import Slide

# Beyond OD 2 a scanner's 8 bits hold two grey values a step: noise, not stain.
MAX_OD = 2.0
_THUMBNAIL_PX = 768
# Glass is bright and nearly grey; a tinted lamp still stays inside these.
_DIMMEST_GLASS = 185.0
_MOST_TINT = 15.0
_LEAST_GLASS_SHARE = 0.005
# Typical white of a scanner, for slides that are tissue from edge to edge.
_USUAL_GLASS = 245.0


@dataclass(frozen=True)
class Stain:
    """A slide of a case under the user's name for its stain.

    Attributes
    ----------
    name
        The user's ("HE", "PAS", …); unique in a case.
    slide
        The pixels.
    background
        Intensity of empty glass, one value a channel.
    """

    name: str
    slide: Slide
    background: tuple[float, ...]

    @classmethod
    def of(cls, name: str, slide: Slide) -> Stain:
        """Return the stain with its background measured on a thumbnail."""
        return cls(name, slide, measure_background(thumbnail(slide)))

    def with_mpp(self, mpp: float | None) -> Stain:
        """Return the same stain at another pixel size (µm/px)."""
        return replace(self, slide=self.slide.with_mpp(mpp))

    def read_od(self, region: Region, mpp: float) -> NDArray[np.float32]:
        """Return the optical density of a region of the slide, shape (rows, cols, channels)."""
        return optical_density(self.slide.read(region, mpp), self.background)


def optical_density(
    intensity: NDArray[np.floating], background: tuple[float, ...]
) -> NDArray[np.float32]:
    """Return ``-log10(I / I0)`` clipped to 0 … `MAX_OD` (Lambert–Beer).

    Parameters
    ----------
    intensity
        (…, channels), 0 to 255.
    background
        I0, one value a channel.
    """
    ratio = (np.asarray(intensity, np.float32) + 1) / (np.asarray(background, np.float32) + 1)
    return np.asarray(np.clip(-np.log10(ratio), 0, MAX_OD), np.float32)


def as_rgb(od: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return density (3, rows, cols) as it looks on clean white glass, (rows, cols, 3)."""
    return np.clip(255 * 10 ** -od.transpose(1, 2, 0), 0, 255).astype(np.uint8)


def thumbnail(slide: Slide, longest_px: int = _THUMBNAIL_PX) -> NDArray[np.float32]:
    """Return the whole slide, shape (rows, cols, channels), its longer side about `longest_px`."""
    one_unit = slide.with_mpp(1.0)
    step = max(1.0, max(slide.shape) / longest_px)
    return one_unit.read(one_unit.extent, step)


def measure_background(image: NDArray[np.floating]) -> tuple[float, ...]:
    """Return the intensity of empty glass: the commonest bright, nearly grey colour.

    Parameters
    ----------
    image
        (rows, cols, channels) thumbnail, 0 to 255.
    """
    pixels = image.reshape(-1, image.shape[-1])
    dimmest = pixels.min(axis=1)
    bright = pixels[(dimmest >= _DIMMEST_GLASS) & (pixels.max(axis=1) - dimmest <= _MOST_TINT)]
    if len(bright) < _LEAST_GLASS_SHARE * len(pixels):
        return tuple([_USUAL_GLASS] * image.shape[-1])
    level = bright.mean(axis=1)
    counts, edges = np.histogram(level, bins=np.arange(_DIMMEST_GLASS - 1, 258))
    mode = edges[int(np.argmax(counts))] + 0.5
    glass = bright[np.abs(level - mode) <= 4]
    return tuple(float(v) for v in np.median(glass, axis=0))
