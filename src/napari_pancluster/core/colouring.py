"""Which colour every patch gets: by cluster, by case, or by a number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.palette import cluster_colour, rgb
from napari_pancluster.core.results import Results

_CLUSTER = "Cluster"
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
    """

    values: NDArray[np.uint8]
    colours: NDArray[np.uint8]
    low: float | None = None
    high: float | None = None


def columns(results: Results) -> tuple[str, ...]:
    """Return what patches can be coloured by, clusters first."""
    return (_CLUSTER, *([] if len(results.table.grids) < 2 else ["Case"]), *_NUMBERS)


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
        found = _by_case(results)
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


def _by_case(results: Results) -> Colouring:
    colours = np.zeros((256, 3), np.uint8)
    for number in range(1, 256):
        colours[number] = rgb(cluster_colour(number))
    return Colouring((results.table.grid_id % 255 + 1).astype(np.uint8), colours)


def _by_number(values: NDArray[np.float32]) -> Colouring:
    from matplotlib import colormaps

    low, high = (float(v) for v in np.percentile(values, _TAILS))
    step = 254 / max(high - low, 1e-9)
    codes = 1 + np.clip((values - low) * step, 0, 254)
    colours = np.round(255 * colormaps["viridis"](np.arange(256) / 255)[:, :3])
    return Colouring(codes.astype(np.uint8), colours.astype(np.uint8), low, high)


def _certainty(results: Results, k: int) -> NDArray[np.float32]:
    return np.asarray(results.certainty[k] / 255, np.float32)


def _centre(axis: int) -> Callable[[Results, int], NDArray[np.float32]]:
    def values(results: Results, k: int) -> NDArray[np.float32]:
        centres = [g.centres[:, axis] for g in results.table.grids]
        return np.concatenate(centres).astype(np.float32)

    return values


_NUMBERS: dict[str, Callable[[Results, int], NDArray[np.float32]]] = {
    "Certainty": _certainty,
    "Position left to right": _centre(1),
    "Position top to bottom": _centre(0),
}
