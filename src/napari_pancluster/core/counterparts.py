"""Which cluster of a new map is which of an old one, and what it inherits from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.edits import ClusterEdits, Operation, Recolour, Rename
from napari_pancluster.core.patches import PatchGrid, PatchTable

# Below this share of their common area two clusters are not the same.
_LEAST_OVERLAP = 0.3
_MOST_NAMED = 4


@dataclass(frozen=True)
class NamedMap:
    """A map, and what the user made of it.

    Attributes
    ----------
    labels
        (N,) of the patches of the table, after merges.
    """

    table: PatchTable
    labels: NDArray[np.uint8]
    edits: ClusterEdits


@dataclass(frozen=True)
class Counterpart:
    """A new cluster and the old one it takes the place of.

    Attributes
    ----------
    old, new
        Labels.
    overlap
        Area in both over area in either (Jaccard), where both maps have tissue.
    """

    old: int
    new: int
    overlap: float


def counterparts(old: NamedMap, new: NamedMap) -> tuple[Counterpart, ...]:
    """Return the pairs, one to one, that overlap best in all; in the order of the new labels.

    The maps may have other strides and patch sizes: places are compared, not cells.
    """
    from scipy.optimize import linear_sum_assignment

    common = _common_cells(old, new)[np.ix_(old.edits.labels, new.edits.labels)]
    either = common.sum(axis=1, keepdims=True) + common.sum(axis=0, keepdims=True) - common
    overlap = common / np.maximum(either, 1)
    # What is below the floor must not be preferred for its sum.
    overlap[overlap < _LEAST_OVERLAP] = 0
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    found = [
        Counterpart(old.edits.labels[i], new.edits.labels[j], float(overlap[i, j]))
        for i, j in zip(rows, columns, strict=True)
        if overlap[i, j]
    ]
    return tuple(sorted(found, key=lambda pair: pair.new))


def inherited(old: ClusterEdits, pairs: tuple[Counterpart, ...]) -> tuple[Operation, ...]:
    """Return the names and colours that a person gave to the old ones of some pairs."""
    found: list[Operation] = []
    for pair in pairs:
        name, colour = old.given_name(pair.old), old.given_colour(pair.old)
        if name:
            found.append(Rename(label=pair.new, name=name))
        if colour:
            found.append(Recolour(label=pair.new, colour=colour))
    return tuple(found)


def _common_cells(old: NamedMap, new: NamedMap) -> NDArray[np.int64]:
    """Return (256, 256) how many cells of the new map have which old and which new label."""
    total = np.zeros((256, 256), np.int64)
    before = {g.case: n for n, g in enumerate(old.table.grids)}
    for number, grid in enumerate(new.table.grids):
        if grid.case not in before:
            continue
        n = before[grid.case]
        was = _labels_at(old.table.grids[n], old.labels[old.table.rows_of(n)], grid.centres)
        now = new.labels[new.table.rows_of(number)]
        both = was > 0
        np.add.at(total, (was[both], now[both]), 1)
    return total


def _labels_at(
    grid: PatchGrid, labels: NDArray[np.uint8], points: NDArray[np.float64]
) -> NDArray[np.uint8]:
    """Return the label of the cell that each point (N, 2), in µm, lies in; 0 where none does."""
    cell = np.floor(points / grid.cell_um).astype(np.int64)
    inside = (cell < grid.shape).all(axis=1)
    out = np.zeros(len(points), np.uint8)
    out[inside] = grid.image(labels)[tuple(cell[inside].T)]
    return out


def carried_in_words(names: Mapping[str, Any]) -> str:
    """Return what `carry_names` did, for people."""
    what = "Names" if all(c["color"] is None for c in names["carried"]) else "Names and colours"
    words = f"{what} of {_clusters(len(names['carried']))} carried over from the map before"
    if names["new"]:
        are = "is" if len(names["new"]) == 1 else "are"
        listed = _listed([f"Cluster {n}" for n in names["new"]])
        words += f"; {_clusters(len(names['new']))} {are} new: {listed}"
    if names["left"]:
        words += f". Not found again: {_listed(names['left'])}"
    return f"{words}."


def _clusters(count: int) -> str:
    return "1 cluster" if count == 1 else f"{count} clusters"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_MOST_NAMED]) + (", …" if len(names) > _MOST_NAMED else "")
