"""Core objects as napari layer tuples, without importing napari; this file alone knows its world.

napari puts pixel centres on whole numbers, files put them on halves: the world's origin is the
centre of the reference slide's first pixel, so world = µm - mpp / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.patches import PatchGrid
from napari_pancluster.core.slide import Slide
from napari_pancluster.core.stack import SlideStack

LayerData = tuple[Any, dict[str, Any], str]
SLIDE, MAP, SELECTION, OUTLINES, DENSITY = "slide", "map", "selection", "outlines", "density"
_MAP_OPACITY, _DENSITY_OPACITY = 0.55, 0.8
# In the selection layer: what is selected, and the tissue that is not.
SELECTED, VEILED = 1, 2


def slide_layer(slide: Slide, name: str, **metadata: Any) -> LayerData:
    """Return a slide as a lazy multiscale image layer in µm, or in px where uncalibrated."""
    size = slide.mpp if slide.mpp is not None else 1.0
    options = {
        "name": name,
        "multiscale": True,
        "rgb": slide.channels in (3, 4),
        # napari's own dask cache doubles the memory of a slide.
        "cache": False,
        "metadata": {
            "pancluster": SLIDE,
            "path": str(slide.path),
            "mpp": slide.mpp,
            "format": slide.format,
            **metadata,
        },
        **_place(size, 0.0, "um" if slide.mpp is not None else "pixel"),
    }
    return list(slide.data), options, "image"


def stack_layers(stack: SlideStack, *, unit: str, cache_mb: int) -> list[LayerData]:
    """Return every stain of a case, registered where it can be; the reference last, on top.

    A stain that is not registered is shown as its own slide, hidden at first.
    """
    layers = []
    reference = stack.stain(stack.reference).slide
    for stain in reversed(stack.moving):
        if stain.name in stack.registered:
            mpp, levels = stack.pyramid(stain.name, cache_mb=cache_mb)
            offset = (mpp - reference.um_per_px) / 2
            options = {
                "name": f"{stain.name} (registered)",
                "multiscale": True,
                "rgb": True,
                "cache": False,
                "visible": False,
                "metadata": {"pancluster": SLIDE, "stain": stain.name, "case": stack.case},
                **_place(mpp, offset, unit),
            }
            layers.append((list(levels), options, "image"))
        else:
            data, options, kind = slide_layer(
                stain.slide, f"{stain.name} (not registered)", stain=stain.name, case=stack.case
            )
            layers.append((data, {**options, "visible": False}, kind))
    data, options, kind = slide_layer(
        reference, stack.reference, stain=stack.reference, case=stack.case
    )
    layers.append((data, {**options, **_place(reference.um_per_px, 0.0, unit)}, kind))
    return layers


def map_layer(
    image: NDArray[np.uint8], grid: PatchGrid, reference: Slide, *, name: str, unit: str
) -> LayerData:
    """Return the clusters of a case as a labels layer exactly over its tissue."""
    options = {
        "name": name,
        "opacity": _MAP_OPACITY,
        "metadata": {"pancluster": MAP, "case": grid.case},
        **_place_cells(grid, reference, unit),
    }
    return image, options, "labels"


def selection_layer(
    image: NDArray[np.uint8], grid: PatchGrid, reference: Slide, *, unit: str
) -> LayerData:
    """Return the selected patches of a case as a labels layer: `SELECTED` and `VEILED`."""
    options = {
        "name": "Selection",
        "opacity": 1.0,
        "metadata": {"pancluster": SELECTION, "case": grid.case},
        **_place_cells(grid, reference, unit),
    }
    return image, options, "labels"


def outlines_layer(unit: str) -> LayerData:
    """Return an empty shapes layer; what is outlined in it is selected."""
    options = {
        "name": "Outline tissue",
        "edge_color": "#00E5FF",
        "face_color": "#00E5FF22",
        "metadata": {"pancluster": OUTLINES},
        "units": (unit, unit),
        "axis_labels": ("y", "x"),
        "ndim": 2,
    }
    return None, options, "shapes"


def density_layer(
    image: NDArray[np.float32],
    grid: PatchGrid,
    reference: Slide,
    *,
    label: int,
    name: str,
    unit: str,
) -> LayerData:
    """Return the density of a cluster, 0 … 1, as an image layer."""
    options = {
        "name": name,
        "colormap": "viridis",
        "contrast_limits": (0.0, 1.0),
        "opacity": _DENSITY_OPACITY,
        "metadata": {"pancluster": DENSITY, "case": grid.case, "label": label},
        **_place_cells(grid, reference, unit),
    }
    return image, options, "image"


def to_world(points_um: NDArray[np.floating], reference: Slide) -> NDArray[np.float64]:
    """Map points (N, 2) of the reference frame, row and col in µm, to napari's world."""
    return np.asarray(points_um, np.float64) - reference.um_per_px / 2


def cell_at(world: Sequence[float], grid: PatchGrid, reference: Slide) -> tuple[int, int] | None:
    """Return the cell of the grid under a point of napari's world, or None outside the grid."""
    at = (np.asarray(world[-2:], np.float64) + reference.um_per_px / 2) / grid.cell_um
    row, col = (int(v) for v in np.floor(at))
    inside = 0 <= row < grid.shape[0] and 0 <= col < grid.shape[1]
    return (row, col) if inside else None


def _place_cells(grid: PatchGrid, reference: Slide, unit: str) -> dict[str, Any]:
    return _place(grid.cell_um, (grid.cell_um - reference.um_per_px) / 2, unit)


def _place(pixel: float, offset: float, unit: str) -> dict[str, Any]:
    return {
        "scale": (pixel, pixel),
        "translate": (offset, offset),
        "units": (unit, unit),
        "axis_labels": ("y", "x"),
    }
