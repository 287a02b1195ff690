"""npe2 reader: slides as lazy pyramids, and projects; both lead to the main widget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_pancluster._layers import LayerData, slide_layer
from napari_pancluster.core.project import SUFFIX

# What npe2 takes for "read, and there is no layer to add".
_NO_LAYER: list[Any] = [(None,)]


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[Any]] | None:
    """Return the reader for a project or for one or more slides; None for another folder."""
    paths = [Path(p) for p in ([path] if isinstance(path, str) else path)]
    if any(p.suffix == SUFFIX for p in paths):
        return _open_project
    return _read_slides if not any(p.is_dir() for p in paths) else None


def _read_slides(path: str | list[str]) -> list[LayerData]:
    from napari_pancluster.core.slide import open_slide

    paths = [path] if isinstance(path, str) else path
    layers = [slide_layer(open_slide(p), Path(p).name.split(".")[0]) for p in paths]
    main_widget()
    return layers


def _open_project(path: str | list[str]) -> list[Any]:
    widget = main_widget()
    if widget is not None:
        widget.open_project(Path(path if isinstance(path, str) else path[0]))
    return _NO_LAYER


def main_widget() -> Any:
    """Return the docked main widget, or None where there is no window."""
    import napari

    viewer = napari.current_viewer()
    if viewer is None:
        return None
    from napari_pancluster._widgets.main import dock

    return dock(viewer)
