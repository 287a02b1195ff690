"""Taking layers away without harm."""

from __future__ import annotations

from collections.abc import Iterable

from napari.layers import Layer
from napari.viewer import Viewer


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
