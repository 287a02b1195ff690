"""OME-Zarr: the cluster map of every case as a label image with names and colours."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.export.content import Content
from napari_pancluster.core.export.images import label_levels
from napari_pancluster.core.palette import rgb

_CHUNK = 512
_VERSION = "0.4"
_TRIES, _WAIT_S = 20, 0.05


def write_label_zarrs(folder: Path, content: Content) -> list[Path]:
    """Write ``CASE_clusters.ome.zarr``: uint8, 0 = background, one pixel a cell of the map."""
    paths = []
    for number in range(len(content.table.grids)):
        path = folder / f"{content.table.grids[number].case}_clusters.ome.zarr"
        with _replacing(path) as partial:
            _write(partial, content, number)
        paths.append(path)
    return paths


def _write(path: Path, content: Content, number: int) -> None:
    import zarr
    from numcodecs import Blosc

    levels = label_levels(content.label_image(number))
    group = zarr.create_group(path, zarr_format=2)
    for level, image in enumerate(levels):
        array = group.create_array(
            str(level),
            shape=image.shape,
            chunks=(_CHUNK, _CHUNK),
            dtype=image.dtype,
            compressors=Blosc("zstd", clevel=5, shuffle=Blosc.NOSHUFFLE),
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )
        array[:] = image
    group.attrs.update(_ngff(content, number, len(levels)))


def _ngff(content: Content, number: int, levels: int) -> dict[str, Any]:
    """Return the metadata of an OME-Zarr 0.4 that is a label image by itself."""
    grid = content.table.grids[number]
    unit = {"unit": "micrometer"} if content.calibrated else {}
    clusters = [(n, content.name(n), (*rgb(content.colour(n)), 255)) for n in content.labels]
    return {
        "multiscales": [
            {
                "version": _VERSION,
                "name": f"{grid.case} clusters",
                "type": "nearest",
                "axes": [{"name": name, "type": "space", **unit} for name in "yx"],
                "datasets": [
                    {
                        "path": str(level),
                        "coordinateTransformations": _placed(grid.cell_um * 2**level),
                    }
                    for level in range(levels)
                ],
            }
        ],
        "image-label": {
            "version": _VERSION,
            "colors": [{"label-value": n, "rgba": rgba} for n, _, rgba in clusters],
            "properties": [{"label-value": n, "name": name} for n, name, _ in clusters],
        },
    }


def _placed(size: float) -> list[dict[str, Any]]:
    """Return where pixels of a size lie whose first has its corner, not its centre, at 0."""
    return [
        {"type": "scale", "scale": [size, size]},
        {"type": "translation", "translation": [size / 2, size / 2]},
    ]


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """Give a folder beside `path` to write to; it takes the place of `path` when all ends well.

    Raises
    ------
    InputError
        If something else than a label image lies there.
    """
    if path.exists() and not _is_label_image(path):
        raise InputError(
            f"{path} is there already and is no cluster map. Remove it or choose another folder."
        )
    token = secrets.token_hex(4)
    partial, before = (path.with_name(f".{path.name}.{token}{end}") for end in ("", ".before"))
    try:
        yield partial
        if path.exists():
            os.replace(path, before)
        try:
            os.replace(partial, path)
        except OSError:
            if before.exists():
                os.replace(before, path)
            raise
    finally:
        for left in (partial, before):
            _remove(left)


def _remove(folder: Path) -> None:
    """Remove a folder into which threads of zarr may still be writing after one of them failed."""
    for _ in range(_TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        # What a thread had begun appears within moments, or not at all.
        time.sleep(_WAIT_S)
        if not folder.exists():
            return


def _is_label_image(path: Path) -> bool:
    try:
        return "image-label" in json.loads((path / ".zattrs").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
