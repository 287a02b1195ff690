"""Which clusters touch, and whether they do so more often than chance would have it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.patches import PatchTable


@dataclass(frozen=True)
class Neighbourhood:
    """Borders between cells of the map, over all cases.

    Attributes
    ----------
    labels
        Along both axes.
    borders
        (L, L) pairs of cells with a side in common; symmetric, each pair counted once.
    expected
        (L, L) how many there would be if the clusters of every case, with their shares of its
        area, were strewn over its cells: ``2 pᵢ pⱼ B`` of B borders, and ``pᵢ² B`` of one with
        itself.
    """

    labels: tuple[int, ...]
    borders: NDArray[np.int64]
    expected: NDArray[np.float64]

    @property
    def log2_ratio(self) -> NDArray[np.float64]:
        """(L, L) ``log2(borders / expected)``: 1 is twice as often; −inf never, NaN not known."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.log2(self.borders / self.expected), np.float64)

    @property
    def outer_share(self) -> NDArray[np.float64]:
        """(L, L) share of a row's borders with other clusters; NaN where it touches none."""
        outer = self.borders * ~np.eye(len(self.labels), dtype=bool)
        with np.errstate(invalid="ignore"):
            return np.asarray(outer / outer.sum(axis=1, keepdims=True), np.float64)

    def nearest(self, label: int, count: int) -> list[tuple[int, float]]:
        """Return the clusters that one touches most, with their share of its outer border."""
        share = np.nan_to_num(self.outer_share[self.labels.index(label)])
        most = np.argsort(-share, kind="stable")[:count]
        return [(self.labels[i], float(share[i])) for i in most if share[i] > 0]


def neighbourhood(
    table: PatchTable, labels: NDArray[np.uint8], wanted: tuple[int, ...]
) -> Neighbourhood:
    """Return how often the clusters of all cases touch.

    Parameters
    ----------
    labels
        (N,) of all patches of the table.
    wanted
        All labels there may be, in the order of the result.
    """
    count = len(wanted)
    # Place of a label in the result; cells of no tissue have none.
    place = np.full(256, -1, np.int64)
    place[list(wanted)] = np.arange(count)
    borders, expected = np.zeros((count, count), np.int64), np.zeros((count, count))
    for number, grid in enumerate(table.grids):
        own = place[labels[table.rows_of(number)]]
        cells = grid.image(own, background=-1).astype(np.int64)
        found = _touching(cells[:, :-1], cells[:, 1:], count)
        found += _touching(cells[:-1], cells[1:], count)
        borders += found
        share = np.bincount(own, minlength=count) / len(own)
        chance = np.triu(found).sum() * np.outer(share, share)
        expected += 2 * chance - np.diag(np.diag(chance))
    return Neighbourhood(wanted, borders, expected)


def _touching(a: NDArray[np.int64], b: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return (count, count) how often places meet in two pictures laid over each other."""
    both = (a >= 0) & (b >= 0)
    pairs = np.bincount(a[both] * count + b[both], minlength=count**2).reshape(count, count)
    return np.asarray(pairs + pairs.T - np.diag(np.diag(pairs)), np.int64)
