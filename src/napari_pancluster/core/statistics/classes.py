"""Classes that a person gave to areas of a slide in QuPath."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shapely
import shapely.geometry
from numpy.typing import NDArray

from napari_pancluster.core.annotations import read_annotations, read_features
from napari_pancluster.core.errors import InputError

_AREAS = ("Polygon", "MultiPolygon")
# QuPath's class of what does not count.
_IGNORED = "ignore"


@dataclass(frozen=True)
class ClassArea:
    """An area with a class.

    Attributes
    ----------
    name
        Of the class.
    polygon
        In level-0 px of the slide, corner coordinates (x right, y down); valid.
    """

    name: str
    polygon: shapely.Geometry

    @property
    def ignored(self) -> bool:
        """Whether what lies inside is not to be counted."""
        return self.name.strip("* ").lower() == _IGNORED


def read_classes(path: Path, shape: tuple[int, int]) -> tuple[ClassArea, ...]:
    """Return the areas of a QuPath GeoJSON file that have a class, the largest first.

    Parameters
    ----------
    shape
        (rows, cols) of the slide's level 0, in px.

    Raises
    ------
    InputError
        If it is no such file, an area lies outside the slide, or none has a class.
    """
    areas = read_annotations(path, shape)
    found = [a for f in read_features(path) for a in _with_class(f)]
    if all(a.ignored for a in found):
        raise InputError(
            f"{path} has {len(areas)} areas and none with a class to compare with. Give them "
            "classes in QuPath (Annotations, Set selected), then export again."
        )
    return tuple(sorted(found, key=lambda a: -float(a.polygon.area)))


def classes_at(
    areas: Sequence[ClassArea], points: NDArray[np.floating]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the classes there are, and which of them has each point.

    Where areas lie in one another the smaller one counts, as in QuPath's hierarchy.

    Parameters
    ----------
    areas
        The largest first.
    points
        (N, 2) row and col in level-0 px of the slide.

    Returns
    -------
    names
        Of the classes, in alphabetical order.
    numbers
        (N,) place in `names`; −1 where there is none.
    """
    names = tuple(sorted({a.name for a in areas if not a.ignored}))
    numbers = np.full(len(points), -1, np.int64)
    for area in areas:
        shapely.prepare(area.polygon)
        here = shapely.intersects_xy(area.polygon, points[:, 1], points[:, 0])
        numbers[here] = -1 if area.ignored else names.index(area.name)
    return names, numbers


def _with_class(feature: dict[str, Any]) -> list[ClassArea]:
    """Return the area of a feature of a file that was found good, if it has one and a class."""
    geometry, properties = feature.get("geometry"), feature.get("properties")
    name = _class_of(properties) if isinstance(properties, dict) else ""
    if not name or geometry is None or geometry["type"] not in _AREAS:
        return []
    return [ClassArea(name, shapely.make_valid(shapely.geometry.shape(geometry)))]


def _class_of(properties: dict[str, Any]) -> str:
    """Return the class of an object; QuPath writes a derived one ("Tumor: Positive") as a list."""
    given = properties.get("classification")
    if not isinstance(given, dict):
        return ""
    name, names = given.get("name"), given.get("names")
    if isinstance(names, list) and not name:
        name = ": ".join(n for n in names if isinstance(n, str))
    return name.strip() if isinstance(name, str) else ""
