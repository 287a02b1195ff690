"""Areas drawn in QuPath: read from GeoJSON and turned into masks."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError

_LARGEST_BYTES = 200_000_000
_AREAS = ("Polygon", "MultiPolygon")
_OTHERS = ("Point", "MultiPoint", "LineString", "MultiLineString")
_REMEDY = "Export the annotations from QuPath again: File > Export objects as GeoJSON."


@dataclass(frozen=True)
class Annotation:
    """An area of a slide.

    Attributes
    ----------
    name
        The annotation's name, else its class, else empty.
    polygon
        In level-0 px of the slide, corner coordinates (x right, y down); valid, with its holes.
    """

    name: str
    polygon: shapely.Polygon | shapely.MultiPolygon


def read_annotations(path: str | Path, shape: tuple[int, int]) -> tuple[Annotation, ...]:
    """Read the areas of a GeoJSON file as QuPath writes it; points and lines are ignored.

    Parameters
    ----------
    path
        A FeatureCollection, a list of features or a single feature.
    shape
        (rows, cols) of the slide's level 0, in px.

    Raises
    ------
    InputError
        If the file is missing, too large, no GeoJSON, without any area, or if an area is broken or
        lies wholly outside the slide.
    """
    path = Path(path)
    features = read_features(path)
    areas = tuple(a for n, f in enumerate(features, 1) for a in _areas_of(n, f, path))
    if not areas:
        raise InputError(
            f"{path} has {len(features)} features and no area among them. "
            "Draw polygons, rectangles or brush areas in QuPath; points and lines hold no tissue."
        )
    slide = shapely.box(0, 0, shape[1], shape[0])
    for area in areas:
        if not shapely.intersection(area.polygon, slide).area > 0:
            left, top, right, bottom = area.polygon.bounds
            raise InputError(
                f"The area {area.name!r} of {path} spans x {left:.0f} to {right:.0f} and y "
                f"{top:.0f} to {bottom:.0f}, wholly outside the slide of {shape[1]} × {shape[0]} "
                "px. Import the annotations of this slide, in pixels of its largest level."
            )
    return areas


def rasterise(
    annotations: Sequence[Annotation],
    shape: tuple[int, int],
    px_per_cell: tuple[float, float],
) -> NDArray[np.bool_]:
    """Return which cells have their centre in any of the areas.

    Parameters
    ----------
    annotations
        Areas in level-0 px.
    shape
        (rows, cols) of the mask.
    px_per_cell
        Level-0 px a mask cell, down and right: the mask's µm/px over the slide's, whose rows and
        columns may differ (``mask.mpp / mpp_y, mask.mpp / mpp_x``).

    Returns
    -------
    ndarray
        (rows, cols) bool.
    """
    total = np.zeros(shape, np.bool_)
    parts = shapely.get_parts([annotation.polygon for annotation in annotations])
    shapely.prepare(parts)
    for part in parts:
        left, top, right, bottom = part.bounds
        rows = _span(top, bottom, px_per_cell[0], shape[0])
        cols = _span(left, right, px_per_cell[1], shape[1])
        y = ((np.arange(rows.start, rows.stop) + 0.5) * px_per_cell[0])[:, None]
        x = ((np.arange(cols.start, cols.stop) + 0.5) * px_per_cell[1])[None, :]
        if y.size and x.size:
            # With its rim, so that no line of cells is left between two areas that touch.
            total[rows, cols] |= shapely.intersects_xy(part, *np.broadcast_arrays(x, y))
    return total


def _span(low: float, high: float, step: float, count: int) -> slice:
    """Return the cells along an axis that an extent in level-0 px may touch."""
    first, last = np.clip([np.floor(low / step), np.ceil(high / step)], 0, count)
    return slice(int(first), int(last))


def read_features(path: Path) -> list[dict[str, Any]]:
    """Read the features of a GeoJSON file as they stand there, in any of QuPath's three forms.

    Raises
    ------
    InputError
        If it cannot be read, is too large, or holds something else.
    """
    return _features(_parsed(path), path)


def _parsed(path: Path) -> object:
    try:
        size = path.stat().st_size
        if size > _LARGEST_BYTES:
            raise InputError(
                f"{path} has {size / 1e6:.0f} MB; annotations up to {_LARGEST_BYTES / 1e6:.0f} MB "
                "are read. Export the annotations only, without detections and cells."
            )
        parsed: object = json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}). Check the file's name."
        ) from error
    # Not text, not JSON, or nested without end.
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not valid GeoJSON ({error}). {_REMEDY}") from error
    return parsed


def _features(parsed: object, path: Path) -> list[dict[str, Any]]:
    """Return the features of any of the three forms QuPath writes."""
    if isinstance(parsed, dict) and parsed.get("type") == "FeatureCollection":
        parsed = parsed.get("features")
    elif isinstance(parsed, dict):
        parsed = [parsed]
    if not isinstance(parsed, list):
        raise InputError(f"{path} holds {_kind(parsed)} where features should be. {_REMEDY}")
    for feature in parsed:
        if not isinstance(feature, dict) or feature.get("type") != "Feature":
            raise InputError(f"{path} holds {_kind(feature)} where a feature should be. {_REMEDY}")
    return parsed


def _kind(thing: object) -> str:
    if isinstance(thing, dict):
        return f"an object of the type {thing.get('type')!r}"
    return f"{json.dumps(thing)[:40]}"


def _areas_of(number: int, feature: dict[str, Any], path: Path) -> Iterator[Annotation]:
    """Yield the area of a feature, if it has one."""
    geometry = feature.get("geometry")
    where = f"Feature {number} of {path}"
    # GeoJSON allows a feature without a place.
    if geometry is None:
        return
    kind = geometry.get("type") if isinstance(geometry, dict) else None
    if kind in _OTHERS:
        return
    if kind not in _AREAS:
        raise InputError(f"{where} has a geometry of the type {kind!r}. {_REMEDY}")
    rings = geometry.get("coordinates")
    try:
        shells = [rings] if kind == "Polygon" else list(rings)
        polygons = [_polygon(shell) for shell in shells]
    except (ValueError, TypeError, IndexError) as error:
        raise InputError(f"{where} has broken coordinates ({error}). {_REMEDY}") from error
    parts = shapely.get_parts(shapely.make_valid(polygons))
    # Repairing may leave lines and points over, and holes a collection within a collection.
    parts = shapely.get_parts(parts)
    whole = shapely.union_all(parts[shapely.get_dimensions(parts) == 2])
    if whole.area > 0:
        yield Annotation(_name(feature), whole)


def _polygon(rings: Any) -> shapely.Polygon:
    """Return the polygon of a shell and its holes, each (N, 2 or more) x, y."""
    shell, *holes = (np.asarray(ring, np.float64) for ring in rings)
    for ring in (shell, *holes):
        if ring.ndim != 2 or ring.shape[1] < 2 or len(ring) < 3:
            raise ValueError(f"a ring of the shape {ring.shape}")
        if not np.isfinite(ring).all():
            raise ValueError("a coordinate that is no number")
    return shapely.Polygon(shell[:, :2], [hole[:, :2] for hole in holes])


def _name(feature: dict[str, Any]) -> str:
    properties = feature.get("properties")
    if not isinstance(properties, dict):
        return ""
    named = properties.get("classification")
    found = properties.get("name") or (named.get("name") if isinstance(named, dict) else None)
    return found if isinstance(found, str) else ""
