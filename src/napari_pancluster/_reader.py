"""npe2 reader: slides as lazy pyramids."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from napari_pancluster._layers import LayerData, slide_layer


def get_reader(path: str | list[str]) -> Callable[[str | list[str]], list[LayerData]] | None:
    """Return the reader for one or more slides."""
    return _read


def _read(path: str | list[str]) -> list[LayerData]:
    from napari_pancluster.core.slide import open_slide

    paths = [path] if isinstance(path, str) else path
    return [slide_layer(open_slide(p), Path(p).name.split(".")[0]) for p in paths]
