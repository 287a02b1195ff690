"""What a slide is: the step `info` for a slide, which must answer at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_pancluster.core.slide import Slide, open_slide

# A coarsest level beyond this is slow to look at as a whole.
LARGEST_OVERVIEW_PX = 4096


def describe_slide(path: Path) -> dict[str, Any]:
    """Return the facts of a slide, without reading its pixels."""
    slide = open_slide(path)
    rows, cols = slide.shape
    try:
        return {
            "path": str(slide.path),
            "format": slide.format,
            "width": cols,
            "height": rows,
            "levels": [
                {"width": level.shape[1], "height": level.shape[0], "downsample": level.downsample}
                for level in slide.levels
            ],
            "mpp": slide.mpp,
            "dtype": str(slide.dtype),
            "channels": slide.channels,
            "channel_names": list(slide.facts.channel_names),
            "mpp_yx": list(slide.facts.mpp_yx) if slide.facts.mpp_yx else None,
            "warnings": slide_warnings(slide),
        }
    finally:
        slide.close()


def slide_warnings(slide: Slide) -> list[str]:
    """Return what a user should know before trusting the slide, in sentences."""
    found = []
    if slide.facts.mpp_doubt:
        found.append(
            f"The file's pixel size, {slide.facts.mpp_doubt}, cannot be. Enter the true one."
        )
    elif slide.mpp is None:
        found.append("The file has no pixel size. Enter it.")
    if abs(slide.oblong - 1) > 1e-3:
        found.append(f"Its pixels are not square: {slide.oblong:.3g} times as high as wide.")
    if max(slide.levels[-1].shape) > LARGEST_OVERVIEW_PX:
        found.append("It has no overview; a project makes one when it first opens the slide.")
    return found
