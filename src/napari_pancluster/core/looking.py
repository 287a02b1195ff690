"""What a person wants to see of a slide before making a project of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.profile import can_apply_profile
from napari_pancluster.core.slide import Slide, open_slide
from napari_pancluster.core.stain import Stain, seen_in_part, thumbnail

_LONGEST_PX = 192


@dataclass(frozen=True)
class SlideLook:
    """A slide at a glance.

    Attributes
    ----------
    picture
        (rows, cols, 3) uint8, its longer side at most 192 px.
    size
        In words: format and pixels.
    size_warning
        What is wrong with the pixel size in the file; empty where it is plausible.
    warnings
        Other sentences; empty where all is well.
    channels
        Values a pixel; of these, `channel_names` where the file names them.
    profile
        Whether it has a colour profile that can be applied.
    """

    path: Path
    picture: NDArray[np.uint8]
    size: str
    size_warning: str
    warnings: tuple[str, ...]
    channels: int
    channel_names: tuple[str, ...]
    rgb: bool
    profile: bool


def look_at(path: Path) -> SlideLook:
    """Read a slide's facts and a thumbnail.

    Raises
    ------
    SlideError
        If it cannot be read.
    """
    slide = open_slide(path)
    try:
        rows, cols = slide.shape
        return SlideLook(
            path=path,
            picture=_picture(slide),
            size=f"{slide.format} · {cols:,} × {rows:,} px",
            size_warning=size_warning(slide),
            warnings=tuple(slide_warnings(slide)),
            channels=slide.channels,
            channel_names=slide.facts.channel_names,
            rgb=slide.facts.rgb,
            profile=can_apply_profile(slide),
        )
    finally:
        slide.close()


def size_warning(slide: Slide) -> str:
    """Return what is wrong with the pixel size in the file, if anything."""
    if slide.facts.mpp_doubt:
        return f"The file's pixel size, {slide.facts.mpp_doubt}, cannot be. Enter the true one."
    return "The file has no pixel size. Enter it." if slide.mpp is None else ""


def slide_warnings(slide: Slide) -> list[str]:
    """Return what else a user should know before trusting the slide, in sentences."""
    found = []
    if abs(slide.oblong - 1) > 1e-3:
        found.append(f"Its pixels are not square: {slide.oblong:.3g} times as high as wide.")
    if slide.lacks_overview:
        found.append("It has no overview; one is made in the background.")
    return found


def propose_names(looks: Sequence[SlideLook]) -> tuple[str, list[str]]:
    """Return a name for the case and one for every stain, from file names and colours."""
    from napari_pancluster.core.naming import propose_case, propose_stains

    paths = [look.path for look in looks]
    pictures = [look.picture.astype(np.float32) if look.rgb else None for look in looks]
    stains = propose_stains(paths, pictures)
    # No single stain, but several dyes: the field calls that immunofluorescence.
    plain = [
        s if look.rgb or _says_if(s) is None else "IF"
        for s, look in zip(stains, looks, strict=True)
    ]
    unique = len(set(plain)) == len(plain)
    return propose_case(paths), plain if unique else stains


def _says_if(name: str) -> re.Match[str] | None:
    return re.search(r"(?:^|[^a-z])IF(?:$|[^a-z])", name)


def _picture(slide: Slide) -> NDArray[np.uint8]:
    """Return the whole slide small; of one without an overview, parts of it."""
    image = seen_in_part(slide) if slide.lacks_overview else thumbnail(slide, _LONGEST_PX)
    step = -(-max(image.shape[:2]) // _LONGEST_PX)
    stain = Stain.of("", slide)
    image = image[::step, ::step][..., stain.picked] * (slide.full_scale / stain.slide.full_scale)
    if stain.modality == "fluorescence":
        image = 255 * stain.density(image)
    return np.clip(image, 0, 255).astype(np.uint8)
