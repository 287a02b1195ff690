"""Core objects as napari layer tuples, without importing napari; this file alone knows its world.

napari puts pixel centres on whole numbers, files put them on halves: the world's origin is the
centre of the reference slide's first pixel, so world = µm - mpp / 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.palette import rgb

if TYPE_CHECKING:
    # A slide is opened and shown without scipy and scikit-image.
    from napari_pancluster.core.comparing import Comparison
    from napari_pancluster.core.patches import PatchGrid
    from napari_pancluster.core.separation import StainVectors
    from napari_pancluster.core.slide import Slide
    from napari_pancluster.core.stack import SlideStack
    from napari_pancluster.core.stain import Stain

LayerData = tuple[Any, dict[str, Any], str]
SLIDE, MAP, SELECTION, OUTLINES, DENSITY = "slide", "map", "selection", "outlines", "density"
DYE, TISSUE, COMPARE = "dye", "tissue", "compare"
GRID, GROWTH, CONFIDENCE = "grid", "growth", "confidence"
LANDMARKS, RESIDUALS = "landmarks", "residuals"
HAND, CURSOR = "hand", "cursor"
# In the tissue layer: what counts, and what the user took out.
TISSUE_IN, TISSUE_OUT = 1, 2
_MAP_OPACITY, _DENSITY_OPACITY = 0.55, 0.8
# Density at which a dye is shown in its full colour; nuclei reach it.
_FULL_DYE = 0.6
# A slide that is moved by hand lets the reference shine through.
_HAND_OPACITY = 0.6
# Arms of the shared cursor in screen pixels, from the gap in its middle outwards.
_CURSOR_ARM, _CURSOR_GAP = 22, 4
_CURSOR_COLOUR, _CURSOR_EDGE = (0, 229, 255, 255), (0, 0, 0, 160)
# In the selection layer: what is selected, and the tissue that is not.
SELECTED, VEILED = 1, 2


def slide_layer(slide: Slide, name: str, **metadata: Any) -> LayerData:
    """Return a slide as a lazy multiscale image layer in µm, or in px where uncalibrated.

    One that is not RGB becomes a layer a channel, which only napari's own reading understands.
    """
    size = slide.mpp if slide.mpp is not None else 1.0
    coloured = slide.facts.rgb
    options = {
        "name": name if coloured else _channel_layer_names(slide, name),
        "multiscale": True,
        **({"rgb": True} if coloured else {"channel_axis": 2, "blending": "additive"}),
        # napari's own dask cache doubles the memory of a slide.
        "cache": False,
        "metadata": {
            "pancluster": SLIDE,
            "path": str(slide.path),
            "mpp": slide.mpp,
            "format": slide.format,
            **metadata,
        },
        **_place(size, 0.0, "um" if slide.mpp is not None else "pixel", slide.oblong),
    }
    return list(slide.shown if coloured else slide.data), options, "image"


def _channel_layer_names(slide: Slide, name: str) -> list[str]:
    names = slide.facts.channel_names or [str(n + 1) for n in range(slide.channels)]
    return [f"{name} · {channel}" for channel in names]


def stack_layers(stack: SlideStack, *, unit: str, cache_mb: int) -> list[LayerData]:
    """Return every stain of a case, registered where it can be; the reference last, on top.

    A stain that is not registered is shown as its own slide, hidden at first.
    """
    layers = []
    reference = stack.stain(stack.reference).slide
    for stain in reversed(stack.moving):
        if stain.name in stack.registered:
            name = f"{stain.name} (registered)"
            data, options, kind = _computed_layer(
                stack, stain.name, reference, name, unit=unit, cache_mb=cache_mb
            )
        else:
            data, options, kind = _own_layer(
                stack, stain, f"{stain.name} (not registered)", cache_mb=cache_mb
            )
        layers.append((data, {**options, "visible": False}, kind))
    stain = stack.stain(stack.reference)
    data, options, kind = _own_layer(stack, stain, stain.name, cache_mb=cache_mb)
    layers.append((data, {**options, "units": (unit, unit)}, kind))
    return layers


def _own_layer(stack: SlideStack, stain: Stain, name: str, *, cache_mb: int) -> LayerData:
    """Return a stain as its own slide: its pixels, or its dyes in red, green and blue."""
    facts: dict[str, Any] = {"stain": stain.name, "case": stack.case}
    if stain.slide.facts.rgb:
        return slide_layer(stain.slide, name, **facts)
    unit = "um" if stain.slide.mpp is not None else "pixel"
    calibrated = stain.with_mpp(stain.slide.mpp or 1.0)
    alone = replace(stack, reference=stain.name, stains=(calibrated,), transforms={})
    return _computed_layer(alone, stain.name, calibrated.slide, name, unit=unit, cache_mb=cache_mb)


def _computed_layer(
    stack: SlideStack, stain: str, reference: Slide, name: str, *, unit: str, cache_mb: int
) -> LayerData:
    """Return a stain in the frame of the reference, computed block by block."""
    mpp, levels = stack.pyramid(stain, cache_mb=cache_mb)
    facts = {"pancluster": SLIDE, "stain": stain, "case": stack.case}
    options = {"name": name, "rgb": True, "metadata": facts}
    return _computed(levels, mpp, reference, options, unit=unit)


def _computed(
    levels: Sequence[Any], mpp: float, reference: Slide, options: dict[str, Any], *, unit: str
) -> LayerData:
    """Return a lazy pyramid in the frame of the reference, starting at its corner."""
    shared = {"multiscale": True, "cache": False, **_over(mpp, reference, unit)}
    return list(levels), {**shared, **options}, "image"


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


def dye_layer(
    stack: SlideStack, stain: str, vectors: StainVectors, index: int, *, unit: str, cache_mb: int
) -> LayerData:
    """Return one dye of a registered stain, in its own colour, computed block by block."""
    from napari_pancluster.core.separation import component_pyramid

    reference = stack.stain(stack.reference).slide
    mpp, levels = stack.pyramid(stain, cache_mb=cache_mb)
    dye, colour = vectors.names[index], vectors.colour(index)
    options = {
        "name": f"{stain} · {dye}",
        "rgb": False,
        "contrast_limits": (0.0, _FULL_DYE),
        "colormap": [[1.0, 1.0, 1.0], [v / 255 for v in rgb(colour)]],
        "metadata": {"pancluster": DYE, "stain": stain, "dye": dye, "case": stack.case},
    }
    component = component_pyramid(stack.stain(stain), vectors, index, levels=levels)
    return _computed(component, mpp, reference, options, unit=unit)


def compare_layer(
    stack: SlideStack, comparison: Comparison, moving: str, *, unit: str
) -> LayerData:
    """Return two stains in one picture, computed block by block."""
    reference = stack.stain(stack.reference).slide
    facts = {"pancluster": COMPARE, "stain": moving, "case": stack.case}
    options = {"name": f"{stack.reference} and {moving}", "rgb": True, "metadata": facts}
    return _computed(comparison.levels, comparison.mpp, reference, options, unit=unit)


def hand_layer(
    stack: SlideStack, stain: Stain, onto: NDArray[np.float64], *, unit: str, cache_mb: int
) -> LayerData:
    """Return a slide of a case, its own pixels, where a person puts it on the reference.

    `onto` (3, 3): µm of the slide, or its level-0 px where it has no pixel size, to µm of the
    reference.
    """
    data, options, kind = _own_layer(stack, stain, f"{stain.name} (by hand)", cache_mb=cache_mb)
    reference = stack.stain(stack.reference).slide
    placed = {
        "affine": hand_affine(onto, stain.slide, reference),
        "units": (unit, unit),
        "opacity": _HAND_OPACITY,
        "metadata": {"pancluster": HAND, "stain": stain.name, "case": stack.case},
    }
    return data, {**options, **placed}, kind


def hand_affine(onto: NDArray[np.float64], slide: Slide, reference: Slide) -> NDArray[np.float64]:
    """Return the affine (3, 3) of a slide's layer in napari's world for a matrix between µm."""
    return _shift(-reference.um_per_px / 2) @ onto @ _shift((slide.mpp or 1.0) / 2)


def onto_reference(
    affine: NDArray[np.float64], slide: Slide, reference: Slide
) -> NDArray[np.float64]:
    """Return the matrix (3, 3) between µm for the affine of a slide's layer in napari's world."""
    return _shift(reference.um_per_px / 2) @ affine @ _shift(-(slide.mpp or 1.0) / 2)


def _shift(by: float) -> NDArray[np.float64]:
    return np.array([[1.0, 0.0, by], [0.0, 1.0, by], [0.0, 0.0, 1.0]])


def cursor_layer(name: str, *, unit: str) -> LayerData:
    """Return a crosshair as a small picture; `cursor_affine` puts it somewhere."""
    side = 2 * (_CURSOR_ARM + 1) + 1
    middle = _CURSOR_ARM + 1
    arms = np.zeros((side, side), np.bool_)
    arms[middle, 1:-1] = arms[1:-1, middle] = True
    gap = slice(middle - _CURSOR_GAP, middle + _CURSOR_GAP + 1)
    arms[gap, gap] = False
    near = np.pad(arms, 1)
    edge = near[:-2, 1:-1] | near[2:, 1:-1] | near[1:-1, :-2] | near[1:-1, 2:]
    picture = np.zeros((side, side, 4), np.uint8)
    picture[edge] = _CURSOR_EDGE
    picture[arms] = _CURSOR_COLOUR
    options = {
        "name": name,
        "rgb": True,
        "metadata": {"pancluster": CURSOR},
        "units": (unit, unit),
        "axis_labels": ("y", "x"),
    }
    return picture, options, "image"


def cursor_affine(world: Sequence[float], zoom: float) -> NDArray[np.float64]:
    """Return the affine (3, 3) that puts the crosshair on a point of the world, ever as large.

    `zoom`: screen pixels per unit of the world.
    """
    size, middle = 1.0 / zoom, _CURSOR_ARM + 1
    row, col = (float(v) - size * middle for v in world[-2:])
    return np.array([[size, 0.0, row], [0.0, size, col], [0.0, 0.0, 1.0]])


def tissue_layer(mask: NDArray[np.uint8], mpp: float, reference: Slide, *, unit: str) -> LayerData:
    """Return the tissue of a case to be painted: `TISSUE_IN` and `TISSUE_OUT`."""
    options = {
        "name": "Tissue (paint me)",
        "opacity": 0.45,
        "metadata": {"pancluster": TISSUE},
        **_over(mpp, reference, unit),
    }
    return mask, options, "labels"


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


def to_um(world: NDArray[np.floating], reference: Slide) -> NDArray[np.float64]:
    """Map points (N, 2) of napari's world to the reference frame, row and col in µm."""
    return np.asarray(world, np.float64) + reference.um_per_px / 2


def to_world(points_um: NDArray[np.floating], reference: Slide) -> NDArray[np.float64]:
    """Map points (N, 2) of the reference frame, row and col in µm, to napari's world."""
    return np.asarray(points_um, np.float64) - reference.um_per_px / 2


def cell_at(world: Sequence[float], grid: PatchGrid, reference: Slide) -> tuple[int, int] | None:
    """Return the cell of the grid under a point of napari's world, or None outside the grid."""
    at = (np.asarray(world[-2:], np.float64) + reference.um_per_px / 2) / grid.cell_um
    row, col = (int(v) for v in np.floor(at))
    inside = 0 <= row < grid.shape[0] and 0 <= col < grid.shape[1]
    return (row, col) if inside else None


def place_at(
    centre_um: Sequence[float], pixel: float, reference: Slide, unit: str
) -> dict[str, Any]:
    """Return where pixels lie, the first around a point of the reference, row and col in µm."""
    corner = to_world(np.asarray(centre_um), reference)
    return {**_place(pixel, 0.0, unit), "translate": tuple(float(v) for v in corner)}


def _place_cells(grid: PatchGrid, reference: Slide, unit: str) -> dict[str, Any]:
    return _over(grid.cell_um, reference, unit)


def _over(pixel: float, reference: Slide, unit: str) -> dict[str, Any]:
    """Return where pixels lie that start at the corner of the reference slide."""
    return _place(pixel, (pixel - reference.um_per_px) / 2, unit)


def _place(pixel: float, offset: float, unit: str, oblong: float = 1.0) -> dict[str, Any]:
    return {
        "scale": (pixel * oblong, pixel),
        # The world begins in the middle of a square pixel, as wide as the reference's.
        "translate": (offset + pixel * (oblong - 1) / 2, offset),
        "units": (unit, unit),
        "axis_labels": ("y", "x"),
    }
