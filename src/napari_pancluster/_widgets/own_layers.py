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
    """Remove layers that are there, and draw the window without them.

    napari 0.9.2 frees the OpenGL buffers of a layer in whatever context is current, which may
    crash where that is not the canvas's: drawing the canvas inside the batch makes it so just
    before they are freed. A Shapes layer is not removed at all, but emptied.
    """
    gone = [layer for layer in layers if layer in viewer.layers]
    if not gone:
        return
    with viewer.layers.batched_update():
        for layer in gone:
            viewer.layers.remove(layer)
        viewer.screenshot(canvas_only=True, flash=False)
