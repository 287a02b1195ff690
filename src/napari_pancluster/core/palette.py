"""Colours of clusters: 20 that colour-blind readers can tell apart, more by hue when needed."""

from __future__ import annotations

import colorsys

# Paul Tol's discrete rainbow, reordered so that neighbouring labels contrast.
_SAFE = (
    "#1965B0", "#F4A736", "#4EB265", "#DC050C", "#7BAFDE", "#882E72", "#F7F056", "#72190E",
    "#90C987", "#BA8DB4", "#E65518", "#6195CF", "#CAE0AB", "#994F88", "#F7CB45", "#42150A",
    "#CAACCB", "#A5170E", "#EE8026", "#AA6F9E",
)  # fmt: skip
_GOLDEN = 0.618033988749895


def cluster_colour(label: int) -> str:
    """Return the colour of a label (1 …) as ``#RRGGBB``."""
    if label <= len(_SAFE):
        return _SAFE[label - 1]
    red, green, blue = colorsys.hsv_to_rgb((label * _GOLDEN) % 1, 0.55, 0.8)
    return f"#{round(red * 255):02X}{round(green * 255):02X}{round(blue * 255):02X}"


def rgb(colour: str) -> tuple[int, int, int]:
    """Return ``#RRGGBB`` as three numbers 0 … 255."""
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
