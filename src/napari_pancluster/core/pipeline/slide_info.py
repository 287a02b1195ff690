"""What a slide is: the step `info` for a slide, which must answer at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from napari_pancluster.core.looking import size_warning, slide_warnings
from napari_pancluster.core.slide import open_slide


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
            "icc": slide.facts.icc is not None,
            "warnings": [*filter(None, [size_warning(slide)]), *slide_warnings(slide)],
        }
    finally:
        slide.close()
