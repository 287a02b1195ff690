"""Layers that show how good a registration is: its grid, growth, confidence and landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_pancluster._layers import (
    CONFIDENCE,
    GRID,
    GROWTH,
    LANDMARKS,
    RESIDUALS,
    LayerData,
    place_at,
)

if TYPE_CHECKING:
    from napari_pancluster.core.evidence import EvidenceMap
    from napari_pancluster.core.slide import Slide
    from napari_pancluster.core.stack import SlideStack

# Blue and orange are told apart with every kind of colour vision. The line's width is a share of
# the slide: a thinner one would vanish between the pixels when the slide is seen whole.
_GRID_COLOUR, _GRID_SHARE = "#0072B2", 1 / 400
# Area factors from half to double, alike on both sides of 1; what folds is 0 or less.
_GROWTH_COLOURS = {
    "name": "pancluster growth",
    "colors": ["#053061", "#053061", "#6BAED6", "#FAFAFA", "#FDAE61", "#8C2D04"],
    "controls": [0.0, 0.25, 0.125**0.5, 0.5, 0.5**0.5, 1.0],
    "low_color": "#FFE600",
}
_GROWTH_LIMITS = (0.0, 2.0)
_EVIDENCE_OPACITY = 0.65
# Shape and colour of landmarks, and which corner of its number is at the point.
_MARKS = {
    "fixed": ("disc", "#0072B2", "upper_right"),
    "moving": ("diamond", "#D55E00", "lower_left"),
}
# Size of a landmark and width of a residual as shares of the slide, and the size on the screen.
_MARK_SHARE, _RESIDUAL_SHARE, _MARK_PX = 0.01, 0.0006, (13, 20)


def grid_layer(
    pieces: NDArray[np.float64], stack: SlideStack, stain: str, *, unit: str
) -> LayerData:
    """Return a grid drawn on a registered stain as it lies on the reference.

    `pieces` (N, 2, 2): where each piece of a line starts and how far it goes, in µm.
    """
    reference = stack.stain(stack.reference).slide
    options = {
        "name": f"{stain} · bent grid",
        "edge_color": _GRID_COLOUR,
        "edge_width": _GRID_SHARE * max(stack.extent.height, stack.extent.width),
        "vector_style": "line",
        "metadata": {"pancluster": GRID, "stain": stain, "case": stack.case},
        **place_at((0.0, 0.0), 1.0, reference, unit),
    }
    return pieces, options, "vectors"


def growth_layer(found: EvidenceMap, stack: SlideStack, stain: str, *, unit: str) -> LayerData:
    """Return how areas of a registered stain change: 1 as they were, 0 and less folded."""
    options = {
        "name": f"{stain} · area factor (1: as it was)",
        "colormap": _GROWTH_COLOURS,
        "contrast_limits": _GROWTH_LIMITS,
        "metadata": {"pancluster": GROWTH, "stain": stain, "case": stack.case},
    }
    return _evidence(found, stack, options, unit=unit)


def confidence_layer(found: EvidenceMap, stack: SlideStack, stain: str, *, unit: str) -> LayerData:
    """Return how far the registration of a stain can be trusted, 0 to 1."""
    options = {
        "name": f"{stain} · confidence (0 to 1)",
        "colormap": "viridis",
        "contrast_limits": (0.0, 1.0),
        "metadata": {"pancluster": CONFIDENCE, "stain": stain, "case": stack.case},
    }
    return _evidence(found, stack, options, unit=unit)


def _evidence(
    found: EvidenceMap, stack: SlideStack, options: dict[str, Any], *, unit: str
) -> LayerData:
    """Return an image layer over the reference; what is NaN is clear."""
    reference = stack.stain(stack.reference).slide
    placed = place_at(found.origin, found.spacing, reference, unit)
    return found.values, {**options, **placed, "opacity": _EVIDENCE_OPACITY}, "image"


def landmarks_layer(
    slide: Slide, side: str, *, name: str, units: Sequence[Any], case: str
) -> LayerData:
    """Return an empty points layer for the landmarks of one side, "fixed" or "moving".

    Its data are in napari's world; the feature "number" is shown beside each point.
    """
    symbol, colour, anchor = _MARKS[side]
    options = {
        "name": name,
        "ndim": 2,
        "symbol": symbol,
        "size": _MARK_SHARE * max(slide.extent.height, slide.extent.width),
        "canvas_size_limits": _MARK_PX,
        # A ring: the spot itself stays in sight.
        "face_color": f"{colour}18",
        "border_color": colour,
        "border_width": 0.12,
        "features": {"number": np.array([], dtype=object)},
        "text": {"string": "{number}", "size": 13, "color": colour, "anchor": anchor},
        "metadata": {"pancluster": LANDMARKS, "side": side, "case": case},
        "units": tuple(units),
        "axis_labels": ("y", "x"),
    }
    return np.zeros((0, 2)), options, "points"


def residuals_layer(reference: Slide, *, name: str, unit: str, case: str) -> LayerData:
    """Return an empty vectors layer that joins the landmarks of pairs."""
    options = {
        "name": name,
        "ndim": 2,
        "edge_color": "#000000",
        "edge_width": _RESIDUAL_SHARE * max(reference.extent.height, reference.extent.width),
        "vector_style": "line",
        "metadata": {"pancluster": RESIDUALS, "case": case},
        "units": (unit, unit),
        "axis_labels": ("y", "x"),
    }
    return np.zeros((0, 2, 2)), options, "vectors"
