"""The two sections of a registration, as they are read from their slides."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.registration.images import WorkImage, read_work_image
from napari_pancluster.core.stain import Stain

LONGEST_PX = 2500
FEWEST_PX = 1000
_FILLED = 0.7
_MOST_GUESSED = 4.0
# Slides of one block are not that many times as long as one another.
_MOST_APART = 30.0


@dataclass(frozen=True)
class Sections:
    """Two sections at one pixel size.

    Attributes
    ----------
    moving_mpp
        Level-0 pixel size, µm/px, under which the moving one was read.
    scale_known
        Whether that is its own; else the scale has to be found.
    """

    fixed: WorkImage
    moving: WorkImage
    moving_mpp: float
    scale_known: bool


def read_sections(fixed: Stain, moving: Stain, config: RegisterConfig) -> Task[Sections]:
    """Read both sections; a moving slide without pixel size as if its tissue were as large."""
    yield Progress(f"Reading {fixed.name}")
    fixed_mpp = fixed.slide.um_per_px
    long = max(fixed.slide.shape) * fixed_mpp
    guess = moving.slide.mpp or long / max(moving.slide.shape)
    other = max(moving.slide.shape) * guess
    if max(long, other) > _MOST_APART * min(long, other):
        raise SlideError(
            f"The pixel sizes do not go together: {fixed.name} is {_length(long)} long, "
            f"{moving.name} {_length(other)}. Correct that of {moving.name}."
        )
    longest = max(long, other)
    mpp = max(min(config.mpp, longest / FEWEST_PX), fixed_mpp, guess, longest / LONGEST_PX)
    target = read_work_image(fixed, mpp)
    yield Progress(f"Reading {moving.name}")
    source = read_work_image(moving.with_mpp(guess), mpp)
    if moving.slide.mpp is not None:
        return Sections(target, source, guess, scale_known=True)
    ratio = 1.0
    # Tissue that fills its slide is cut off by it: its area then says nothing about scale.
    if max(float(image.tissue.mean()) for image in (target, source)) < _FILLED:
        area = float(target.tissue.sum() / source.tissue.sum())
        ratio = float(np.clip(np.sqrt(area), 1 / _MOST_GUESSED, _MOST_GUESSED))
    return Sections(target, source.scaled(ratio), guess * ratio, scale_known=False)


def _length(um: float) -> str:
    return f"{float(f'{um / 1000:.3g}'):g} mm"
