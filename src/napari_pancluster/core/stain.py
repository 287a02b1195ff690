"""A stained slide: its glass colour, and its pixels as optical density (OD)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.slide import WHITE, Slide

# Beyond OD 2 a scanner's 8 bits hold two grey values a step: noise, not stain.
MAX_OD = 2.0
_THUMBNAIL_PX = 768
# Seen in part: this many blocks down and across.
_BLOCKS, _BLOCK_PX = 12, 64
# Glass is bright and nearly grey; a tinted lamp still stays inside these.
_DIMMEST_GLASS = 185.0
_MOST_TINT = 15.0
_LEAST_GLASS_SHARE = 0.005
# Typical white of a scanner, for slides that are tissue from edge to edge.
_USUAL_GLASS = 245.0
# Fluorescence: what is no signal, and what is as bright as it gets but for specks of dirt.
_DARK_PERCENTILE, _BRIGHT_PERCENTILE = 10.0, 99.8


Modality = Literal["brightfield", "fluorescence"]


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
        Intensity of empty glass, one value for each of the three channels that are read.
    modality
        Whether stain makes glass darker or brighter.
    picked
        (3,) the slide's channels that are read, numbered from 0; a grey slide's one, three times.
    bright
        Fluorescence: intensity that counts as full, a channel.
    gain
        Density is multiplied by this where patches are compared, so that pale and dark scans meet.
    """

    name: str
    slide: Slide
    background: tuple[float, ...]
    modality: Modality = "brightfield"
    picked: tuple[int, int, int] = (0, 1, 2)
    bright: tuple[float, ...] = ()
    gain: float = 1.0

    @classmethod
    def of(cls, name: str, slide: Slide, channels: Sequence[int] = ()) -> Stain:
        """Return the stain with its background measured on a thumbnail.

        Parameters
        ----------
        channels
            Up to three of the slide's, numbered from 0. Default: the first three.
        """
        image = seen_in_part(slide) if slide.lacks_overview else thumbnail(slide)
        slide, image = _with_used_scale(slide, image)
        picked = pick_channels(slide, channels)
        image = image[..., picked]
        if _glass_is_bright(slide, image):
            return cls(name, slide, measure_background(image), picked=picked)
        pixels = image.reshape(-1, 3)
        dark = np.percentile(pixels, _DARK_PERCENTILE, axis=0)
        bright = np.maximum(np.percentile(pixels, _BRIGHT_PERCENTILE, axis=0), dark + 1)
        levels = tuple(float(v) for v in dark), tuple(float(v) for v in bright)
        return cls(name, slide, levels[0], "fluorescence", picked, levels[1])

    def with_mpp(self, mpp: float | None) -> Stain:
        """Return the same stain at another pixel size (µm/px)."""
        return replace(self, slide=self.slide.with_mpp(mpp))

    def read(self, region: Region, mpp: float) -> NDArray[np.float32]:
        """Return the intensity (rows, cols, 3) of a region of the slide, 0 to 255."""
        outside = WHITE if self.modality == "brightfield" else 0.0
        pixels = self.slide.read(region, mpp, outside=outside)
        same = self.picked == tuple(range(pixels.shape[-1]))
        return pixels if same else pixels[..., self.picked]

    def density(self, intensity: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return how much stain an intensity (…, 3) means: optical density, or light's share."""
        if self.modality == "brightfield":
            return optical_density(intensity, self.background)
        dark, bright = (np.asarray(v, np.float32) for v in (self.background, self.bright))
        share = (np.asarray(intensity, np.float32) - dark) / (bright - dark)
        return np.asarray(np.clip(share, 0, MAX_OD), np.float32)

    def read_od(self, region: Region, mpp: float) -> NDArray[np.float32]:
        """Return the density of a region of the slide, shape (rows, cols, 3)."""
        return self.density(self.read(region, mpp))


def pick_channels(slide: Slide, channels: Sequence[int] = ()) -> tuple[int, int, int]:
    """Return three channels of a slide to read, a chosen one again where there are fewer.

    Raises
    ------
    InputError
        If more than three are chosen, or one that the slide does not have.
    """
    chosen = list(channels) or list(range(min(3, slide.channels)))
    bad = [c + 1 for c in chosen if not 0 <= c < slide.channels]
    if bad or len(chosen) > 3:
        raise InputError(
            f"{slide.path.name} has the channels 1 to {slide.channels}; choose one to three of "
            f"them, not {', '.join(str(c + 1) for c in chosen)}."
        )
    chosen += [chosen[-1]] * (3 - len(chosen))
    return chosen[0], chosen[1], chosen[2]


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
    # The natural logarithm is vectorised: a quarter of the time of log10.
    density = np.log(ratio, out=ratio)
    density *= np.float32(-1 / np.log(10))
    return np.asarray(np.clip(density, 0, MAX_OD, out=density), np.float32)


def _with_used_scale(slide: Slide, image: NDArray[np.float32]) -> tuple[Slide, NDArray[np.float32]]:
    """Return slide and thumbnail with 255 as the brightest value a camera of its bits can give.

    12-bit cameras store 16-bit values; a file says so seldom.
    """
    if slide.dtype == np.uint8:
        return slide, image
    most = float(np.percentile(image, _BRIGHT_PERCENTILE)) * slide.full_scale / WHITE
    if slide.dtype.kind == "f":
        full = most if most > 1 else 1.0
    else:
        full = min(slide.full_scale, float(2 ** max(8, int(np.ceil(np.log2(most + 1)))) - 1))
    return slide.with_full_scale(full), image * np.float32(slide.full_scale / full)


def _glass_is_bright(slide: Slide, image: NDArray[np.float32]) -> bool:
    """Tell brightfield from fluorescence: RGB is the one, several dyes the other, grey is seen."""
    if slide.facts.rgb:
        return True
    return slide.channels == 1 and float(np.median(image)) > float(image.max()) / 2


def as_rgb(od: NDArray[np.float32], modality: Modality = "brightfield") -> NDArray[np.uint8]:
    """Return density (3, rows, cols) as it looks on clean glass, white or dark, (rows, cols, 3)."""
    seen = 10**-od if modality == "brightfield" else od
    shown = np.clip(WHITE * seen.transpose(1, 2, 0), 0, WHITE)
    return np.asarray(shown.astype(np.uint8))


def thumbnail(slide: Slide, longest_px: int = _THUMBNAIL_PX) -> NDArray[np.float32]:
    """Return the whole slide, shape (rows, cols, channels), its longer side about `longest_px`."""
    one_unit = slide.with_mpp(1.0)
    step = max(1.0, max(slide.shape) / longest_px)
    return one_unit.read(one_unit.extent, step)


def seen_in_part(slide: Slide) -> NDArray[np.float32]:
    """Return blocks from all over a slide that has no overview, as one picture of its colours.

    Returns
    -------
    ndarray
        (rows, cols, channels), 0 to 255.
    """
    number, (rows, cols) = len(slide.levels) - 1, slide.levels[-1].shape
    side = min(_BLOCK_PX, rows, cols)
    lines = []
    for top in np.linspace(0, rows - side, _BLOCKS).astype(int):
        lefts = np.linspace(0, cols - side, _BLOCKS).astype(int)
        blocks = [slide.read_level(number, int(top), int(c), side, side) for c in lefts]
        lines.append(np.concatenate(blocks, axis=1))
    return np.asarray(np.concatenate(lines) * (WHITE / slide.full_scale), np.float32)


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
