"""Core objects as napari layer tuples, without importing napari."""

from __future__ import annotations

from typing import Any

from napari_pancluster.core.slide import Slide

LayerData = tuple[Any, dict[str, Any], str]


def slide_layer(slide: Slide, name: str) -> LayerData:
    """Return a slide as a lazy multiscale image layer in µm, or in px where uncalibrated."""
    size, unit = (slide.mpp, "um") if slide.mpp is not None else (1.0, "pixel")
    options = {
        "name": name,
        "multiscale": True,
        "rgb": slide.channels in (3, 4),
        # No translation: napari puts pixel centres on integers, so world = (corner px - 0.5) * mpp.
        "scale": (size, size),
        "units": (unit, unit),
        "axis_labels": ("y", "x"),
        # napari's own dask cache doubles the memory of a slide.
        "cache": False,
        "metadata": {"path": str(slide.path), "mpp": slide.mpp, "format": slide.format},
    }
    return list(slide.data), options, "image"
