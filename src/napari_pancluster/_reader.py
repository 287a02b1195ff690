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
    return _read_slides if not any(_is_plain_folder(p) for p in paths) else None


def _is_plain_folder(path: Path) -> bool:
    """Whether a path is a folder, and not one that is a slide (OME-Zarr)."""
    return path.is_dir() and not any((path / n).is_file() for n in ("zarr.json", ".zattrs"))


def _read_slides(path: str | list[str]) -> list[Any]:
    """Read what can be read; what cannot is told in the panel, and spoils nothing else.

    napari asks for several files one after the other, and the first error would end that.

    Raises
    ------
    SlideError
        If there is no window to tell it in.
    """
    from napari_pancluster.core.errors import SlideError

    widget = main_widget()
    layers, wrong = [], []
    for name in [path] if isinstance(path, str) else path:
        try:
            layers.append(_read_slide(Path(name), widget))
        except SlideError as error:
            wrong.append(str(error))
    if wrong and widget is None:
        raise SlideError("\n".join(wrong))
    for text in wrong:
        widget.bar.complain(text)
    return layers or _NO_LAYER


def _read_slide(path: Path, widget: Any) -> LayerData:
    from napari_pancluster.core.slide import open_slide

    slide, name = open_slide(path), path.name.split(".")[0]
    if widget is None or not slide.lacks_overview:
        return slide_layer(slide, name)
    from napari_pancluster.core.overview import blank_overview, with_overview

    # Looked at as a whole, it would be decoded as a whole: its coarse levels come by and by.
    overview = blank_overview(slide)
    widget.work.fill_overview(slide, overview, name)
    return slide_layer(with_overview(slide, overview), name)


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
