"""GeoJSON: the area of every cluster as polygons along the borders of its cells, for QuPath."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.export.content import Content
from napari_pancluster.core.palette import rgb
from napari_pancluster.core.replacing import replacing
from napari_pancluster.core.transfer import Transfer, map_geometry

# Of a level-0 pixel, as fine as coordinates are written.
_PLACES = 4
_GRID_PX = 1e-3


def write_areas(folder: Path, content: Content, stains: Sequence[str] = ()) -> list[Path]:
    """Write ``CASE_clusters.geojson``: one annotation a cluster, in level-0 px of the reference.

    Parameters
    ----------
    stains
        For each of them ``CASE_clusters_STAIN.geojson`` too, in level-0 px of its own slide.

    Raises
    ------
    InputError
        If no case has such a stain registered, or a file cannot be written.
    """
    _check_registered(content, stains)
    paths = []
    for number, grid in enumerate(content.table.grids):
        stack = content.stacks[grid.case]
        image = content.label_image(number)
        px = grid.cell_um / stack.stain(stack.reference).slide.um_per_px_yx[::-1]
        areas = {n: _scaled(outline(image == n), px) for n in content.labels if (image == n).any()}
        counts = {n: int((image == n).sum()) for n in areas}
        path = folder / f"{grid.case}_clusters.geojson"
        paths.append(_write(path, _features(content, areas, counts)))
        for stain in (s for s in stains if s != stack.reference):
            if stain not in stack.registered:
                warnings.warn(f"{stain} of case {grid.case} is not registered: no areas for it.")
                continue
            way = Transfer.between(stack, stack.reference, stain)
            there = {label: carried(way, area) for label, area in areas.items()}
            path = folder / f"{grid.case}_clusters_{stain}.geojson"
            paths.append(_write(path, _features(content, there, counts)))
    return paths


def outline(mask: NDArray[np.bool_]) -> Any:
    """Return the cells of a mask (rows, cols) as a valid area, x, y in cells.

    Cells that touch at a corner only are parts of their own. Corners are where the border turns.
    """
    steps = np.diff(np.pad(mask, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    row, left = np.nonzero(steps == 1)
    right = np.nonzero(steps == -1)[1]
    # A box a run of cells, in whole numbers: nothing is rounded.
    area = shapely.union_all(shapely.box(left, row, right, row + 1))
    # Keeping the topology is slow, and nothing moves at a tolerance of 0.
    return shapely.simplify(area, 0, preserve_topology=False)


def carried(way: Transfer, area: Any) -> Any:
    """Return an area of the reference, x, y in level-0 px, on another stain's slide."""
    # One by one: simplifying thousands of parts at once takes far longer than each by itself.
    parts = [map_geometry(way, part) for part in shapely.get_parts(area)]
    # What the way folded to a line has no area any more.
    whole = [part for part in parts if shapely.get_dimensions(part) == 2]
    return shapely.union_all(whole, grid_size=_GRID_PX)


def _check_registered(content: Content, stains: Sequence[str]) -> None:
    known = sorted({name for stack in content.stacks.values() for name in stack.registered})
    for stain in stains:
        if stain not in known:
            raise InputError(
                f"--geojson-for {stain}: no case has such a stain registered. "
                f"Choose from: {', '.join(known)}."
            )


def _scaled(area: Any, px: NDArray[np.float64]) -> Any:
    """Return an area in cells, x, y, in level-0 px; `px` is the size of a cell, x, y."""
    return shapely.transform(area, lambda xy: np.round(xy * px, _PLACES))


def _features(
    content: Content, areas: dict[int, Any], counts: dict[int, int]
) -> Iterator[dict[str, Any]]:
    for label, area in areas.items():
        if area.is_empty:
            continue
        name = content.name(label)
        yield {
            "type": "Feature",
            "geometry": shapely.geometry.mapping(area),
            "properties": {
                "objectType": "annotation",
                "name": name,
                "classification": {"name": name, "color": rgb(content.colour(label))},
                "measurements": {"Cluster": label, "Patches": counts[label]},
            },
        }


def _write(path: Path, features: Iterator[dict[str, Any]]) -> Path:
    content = {"type": "FeatureCollection", "features": list(features)}
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path
