"""Transfer: annotations and label images carried from one stain's own slide to another's."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from napari_pancluster.core.annotations import Annotation, read_features
from napari_pancluster.core.errors import InputError, ProjectError
from napari_pancluster.core.lazy import BLOCK_PX
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.replacing import replacing
from napari_pancluster.core.slide import Slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.transform import Transform

Points = NDArray[np.float64]

# A straight edge is bent with the tissue: a corner is set this often, …
_EDGE_UM = 20.0
# … and taken out again where the edge stayed straight to within this many pixels.
_STRAIGHT_PX = 0.05
_MOST_CORNERS = 20_000_000
_MOST_PIXELS = 1 << 33
# QuPath keeps the nucleus of a cell beside its outline.
_GEOMETRIES = ("geometry", "nucleusGeometry")
# shapely meets a broken geometry with whatever its parts make of it.
_BROKEN = (
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RecursionError,
    shapely.errors.ShapelyError,
)
_REMEDY = "Export the objects from QuPath again: File > Export objects as GeoJSON."


@dataclass(frozen=True)
class Transfer:
    """The way from one stain's slide to another's, through the reference of their case.

    Attributes
    ----------
    source, target
        The two slides.
    back, onward
        From the reference to either.
    """

    source: Slide
    target: Slide
    back: Transform
    onward: Transform

    @classmethod
    def between(cls, stack: SlideStack, from_: str, to: str) -> Transfer:
        """Return the way between two stains of a case.

        Raises
        ------
        InputError, ProjectError
            If there is no such stain, or it is not registered.
        """
        slides = [stack.stain(name).slide for name in (from_, to)]
        back, onward = stack.transform(from_), stack.transform(to)
        if back is None or onward is None:
            raise ProjectError(
                f"{from_ if back is None else to} of case {stack.case} is not registered. "
                "Run register first."
            )
        return cls(slides[0], slides[1], back, onward)

    @property
    def reverse(self) -> Transfer:
        """The way back."""
        return Transfer(self.target, self.source, self.onward, self.back)

    def um(self, points: NDArray[np.floating]) -> Points:
        """Map points (N, 2), row and col in µm of the source slide, to µm of the target."""
        return self.onward.to_moving(self.back.to_fixed(points))

    def px(self, points: NDArray[np.floating]) -> Points:
        """Map points (N, 2), row and col in level-0 px of the source slide, to the target's."""
        um = np.asarray(points, np.float64) * self.source.um_per_px_yx
        return np.asarray(self.um(um) / self.target.um_per_px_yx, np.float64)


def map_geometry(way: Transfer, geometry: Any) -> Any:
    """Return a shapely geometry, x, y in level-0 px of the source slide, on the target slide.

    Its edges bend with the tissue, holes stay holes, and an area that the way folded over is
    repaired; it may then come in several parts.

    Raises
    ------
    InputError
        If it is too long to be bent.
    """
    step = _EDGE_UM / float(way.source.um_per_px_yx.max())
    if geometry.length / step > _MOST_CORNERS:
        raise InputError(
            f"An outline of {geometry.length:,.0f} px is too long to be mapped. "
            "Draw smaller areas, or check that they are in pixels of the slide's largest level."
        )
    if geometry.length:
        geometry = shapely.segmentize(geometry, step)
    mapped = shapely.transform(geometry, lambda xy: way.px(xy[:, ::-1])[:, ::-1])
    if geometry.length:
        mapped = shapely.simplify(mapped, _STRAIGHT_PX)
    return _repaired(mapped)


def map_annotation(way: Transfer, annotation: Annotation) -> Annotation:
    """Return an annotation of the source slide on the target slide."""
    return replace(annotation, polygon=map_geometry(way, annotation.polygon))


def map_geojson(way: Transfer, source: Path, target: Path) -> dict[str, int]:
    """Map every object of a GeoJSON file, as QuPath writes it, to another slide.

    Ids, names, classes, colours and measurements stay as they are; areas in the measurements are
    those of the slide on which they were measured.

    Parameters
    ----------
    source
        Areas, lines and points in level-0 px of the source slide.
    target
        Gets a FeatureCollection in level-0 px of the target slide.

    Returns
    -------
    dict
        ``n`` objects, of which ``outside`` lie wholly off the target slide.

    Raises
    ------
    InputError
        If the file cannot be read or written, or an object is broken.
    """
    features = read_features(source)
    rows, cols = way.target.shape
    slide = shapely.box(0, 0, cols, rows)
    mapped, outside = [], 0
    for number, feature in enumerate(features, 1):
        found = dict(feature)
        for key in _GEOMETRIES:
            # GeoJSON allows a feature without a place.
            if feature.get(key) is not None:
                shape = _shape(feature[key], f"Feature {number} of {source}")
                found[key], shape = _mapped(way, shape, feature[key])
                outside += key == "geometry" and not shape.intersects(slide)
        mapped.append(found)
    _write(target, {"type": "FeatureCollection", "features": mapped})
    return {"n": len(mapped), "outside": outside}


def map_labels(
    way: Transfer, labels: Any, mpp: float | Sequence[float], *, mpp_out: float | None = None
) -> Task[NDArray[Any]]:
    """Map a label image of the source slide to the target slide, by the nearest pixel.

    Parameters
    ----------
    labels
        (rows, cols) unsigned integers from the corner of the source slide on; an array, or what
        is read like one, such as zarr.
    mpp
        Its pixel size in µm/px, or both, down and across.
    mpp_out
        Of the result, µm/px, square. Default: the finer side of `mpp`.

    Returns
    -------
    ndarray
        (rows, cols) of the same type over the whole target slide; 0 where `labels` ends.

    Raises
    ------
    InputError
        If the image is no label image, or a pixel size makes no sense.
    """
    size = np.broadcast_to(np.asarray(mpp, np.float64), (2,))
    mpp_out = float(size.min()) if mpp_out is None else mpp_out
    dtype = np.dtype(labels.dtype)
    if labels.ndim != 2 or dtype.kind != "u":
        raise InputError(
            f"The label image has the shape {tuple(labels.shape)} and {dtype.name} values; rows "
            "and columns of uint8 or uint16 are expected."
        )
    if not (np.isfinite([*size, mpp_out]).all() and min(*size, mpp_out) > 0):
        raise InputError(f"A pixel size of {mpp} to {mpp_out} µm/px makes no sense.")
    rows, cols = (max(1, n) for n in way.target.extent.pixel_shape(mpp_out))
    if rows * cols > _MOST_PIXELS:
        raise InputError(
            f"At {mpp_out:g} µm/px the label image would have {cols:,} × {rows:,} px. "
            "Choose a larger pixel size."
        )
    out = np.zeros((rows, cols), dtype)
    tops = range(0, rows, BLOCK_PX)
    for done, top in enumerate(tops):
        yield Progress("Mapping labels", done, len(tops))
        for left in range(0, cols, BLOCK_PX):
            block = out[top : top + BLOCK_PX, left : left + BLOCK_PX]
            _fill(way.reverse, labels, size, block, (top, left), mpp_out)
    return out


def _fill(
    back: Transfer,
    labels: Any,
    size: Points,
    block: NDArray[Any],
    corner: tuple[int, int],
    mpp: float,
) -> None:
    """Fill a block of the result from the part of `labels` that it shows."""
    centres = [(o + np.arange(n) + 0.5) * mpp for o, n in zip(corner, block.shape, strict=True)]
    grid = np.stack(np.meshgrid(*centres, indexing="ij"), -1).reshape(-1, 2)
    pixel = np.floor(back.um(grid) / size)
    inside = ((pixel >= 0) & (pixel < labels.shape)).all(axis=1)
    if not inside.any():
        return
    at = pixel[inside].astype(np.int64)
    low, high = at.min(axis=0), at.max(axis=0) + 1
    part = np.asarray(labels[low[0] : high[0], low[1] : high[1]])
    flat = np.zeros(len(grid), block.dtype)
    flat[inside] = part[tuple((at - low).T)]
    block[:] = flat.reshape(block.shape)


def _mapped(way: Transfer, shape: Any, stored: dict[str, Any]) -> tuple[dict[str, Any], Any]:
    """Return a geometry on the target slide as GeoJSON and as shapely has it."""
    mapped = map_geometry(way, shape)
    written = dict(shapely.geometry.mapping(mapped))
    if "plane" in stored:
        written["plane"] = stored["plane"]
    # What else QuPath says of it, such as that it is an ellipse, a bent one is no longer.
    return written, mapped


def _shape(stored: object, where: str) -> Any:
    """Return the geometry of a feature; whole or not, it is repaired after it was mapped."""
    try:
        shape = shapely.geometry.shape(stored)
        coordinates = shapely.get_coordinates(shape)
    except _BROKEN as error:
        raise InputError(f"{where} has a broken geometry ({error}). {_REMEDY}") from error
    if shape.is_empty or not np.isfinite(coordinates).all():
        raise InputError(f"{where} has coordinates that are missing or no numbers. {_REMEDY}")
    return shapely.force_2d(shape)


def _repaired(shape: Any) -> Any:
    """Return an area that does not cross itself, and anything else as it is."""
    if shapely.get_dimensions(shape) < 2 or shape.is_valid:
        return shape
    # Lines and points may be left over from a repair; of an area that is a line, nothing else is.
    whole = [p for p in _leaves(shapely.make_valid(shape)) if shapely.get_dimensions(p) == 2]
    return shapely.union_all(whole) if whole else shape


def _leaves(shape: Any) -> Iterator[Any]:
    for part in shapely.get_parts(shape):
        if hasattr(part, "geoms"):
            yield from _leaves(part)
        else:
            yield part


def _write(path: Path, content: dict[str, Any]) -> None:
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
