"""Layers of the plugin in a viewer: found by what they are, and taken away without harm."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from napari.layers import Layer
from napari.viewer import Viewer


def tagged(viewer: Viewer, *tags: str) -> list[Layer]:
    """Return the layers of these kinds, lowest first, whatever the user calls them."""
    return [x for x in viewer.layers if x.metadata.get("pancluster") in tags]


def newest(viewer: Viewer, tag: str) -> Any:
    """Return the uppermost layer of a kind, or None."""
    found = tagged(viewer, tag)
    return found[-1] if found else None


def remove_layers(viewer: Viewer, layers: Iterable[Layer]) -> None:
    """Remove layers, and draw the window without them.

    napari 0.9.2 may crash in OpenGL when a layer is added before the window was drawn without
    those that went. A Shapes layer must not be removed at all: empty it.
    """
    gone = list(layers)
    for layer in gone:
        viewer.layers.remove(layer)
    if gone:
        viewer.screenshot(canvas_only=True, flash=False)
