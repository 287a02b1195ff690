"""Which colour every patch gets: by cluster, by case, or by a number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.palette import cluster_colour, rgb
from napari_pancluster.core.results import Results

_CLUSTER = "Cluster"
_AGREEMENT = "Registration confidence"
# The brightest and the darkest hundredth do not stretch the scale.
_TAILS = (1, 99)


@dataclass(frozen=True)
class Colouring:
    """One colour a patch.

    Attributes
    ----------
    values
        (N,) uint8: 1 … 255, 0 for what is not shown.
    colours
        (256, 3) uint8, the colour of every value.
    low, high
        Ends of a scale of numbers; None where colours are categories.
    names
        Of the categories by value, where they are not the clusters.
    """

    values: NDArray[np.uint8]
    colours: NDArray[np.uint8]
    low: float | None = None
    high: float | None = None
    names: Mapping[int, str] = field(default_factory=dict)


def columns(results: Results) -> tuple[str, ...]:
    """Return what patches can be coloured by, clusters first."""
    several = len(results.table.grids) > 1
    numbers = [n for n in _NUMBERS if n != _AGREEMENT or results.has_agreement]
    return (_CLUSTER, *(["Case", *results.sheet] if several else []), *numbers)


def colour_by(
    results: Results, column: str, *, k: int, edits: ClusterEdits, labels: NDArray[np.uint8]
) -> Colouring:
    """Return the colours by a column.

    Parameters
    ----------
    labels
        (N,) of the patches after merges; patches of hidden clusters are not shown.
    """
    if column == _CLUSTER:
        found = Colouring(labels, cluster_colours(edits))
    elif column == "Case":
        found = _by_category(results, [grid.case for grid in results.table.grids])
    elif column in results.sheet:
        found = _by_sheet(results, results.sheet[column])
    else:
        found = _by_number(_NUMBERS[column](results, k))
    if not edits.hidden:
        return found
    return replace(found, values=found.values * edits.shown[labels])


def cluster_colours(edits: ClusterEdits) -> NDArray[np.uint8]:
    """Return (256, 3) the colour of every label."""
    colours = np.zeros((256, 3), np.uint8)
    for label in edits.labels:
        colours[label] = rgb(edits.colour(label))
    return colours


def _by_sheet(results: Results, values: Sequence[str]) -> Colouring:
    """Colour by a column of the sample sheet: as a scale where all of it is numbers."""
    try:
        numbers = np.array([float(v) for v in values], np.float32)
    except ValueError:
        return _by_category(results, values)
    return _by_number(numbers[results.table.grid_id])


def _by_category(results: Results, values: Sequence[str]) -> Colouring:
    """Colour by one value a grid; the 256th and later ones share colours with the first."""
    colours = np.zeros((256, 3), np.uint8)
    for number in range(1, 256):
        colours[number] = rgb(cluster_colour(number))
    kinds = list(dict.fromkeys(values))
    code = np.array([kinds.index(v) % 255 + 1 for v in values], np.uint8)
    names = {n + 1: kind or "not given" for n, kind in enumerate(kinds[:255])}
    return Colouring(code[results.table.grid_id], colours, names=names)


def _by_number(values: NDArray[np.float32]) -> Colouring:
    from matplotlib import colormaps

    low, high = (float(v) for v in np.nanpercentile(values, _TAILS))
    step = 254 / max(high - low, 1e-9)
    # What has no number is not shown.
    codes = np.where(np.isnan(values), 0, 1 + np.clip((values - low) * step, 0, 254))
    colours = np.round(255 * colormaps["viridis"](np.arange(256) / 255)[:, :3])
    return Colouring(codes.astype(np.uint8), colours.astype(np.uint8), low, high)


def _certainty(results: Results, k: int) -> NDArray[np.float32]:
    return np.asarray(results.certainty[k] / 255, np.float32)


def _agreement(results: Results, k: int) -> NDArray[np.float32]:
    return results.agreement


def _centre(axis: int) -> Callable[[Results, int], NDArray[np.float32]]:
    def values(results: Results, k: int) -> NDArray[np.float32]:
        centres = [g.centres[:, axis] for g in results.table.grids]
        return np.concatenate(centres).astype(np.float32)

    return values


_NUMBERS: dict[str, Callable[[Results, int], NDArray[np.float32]]] = {
    "Certainty": _certainty,
    _AGREEMENT: _agreement,
    "Position left to right": _centre(1),
    "Position top to bottom": _centre(0),
}
