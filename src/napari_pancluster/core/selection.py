"""Which patches are chosen: by an outline, and how a new choice meets the old one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import shapely
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


class Combine(StrEnum):
    """What a new selection does to the one before."""

    REPLACE = "replace"
    ADD = "add"
    SUBTRACT = "subtract"


def combine(old: Mask, new: Mask, how: Combine) -> Mask:
    """Return the selection that follows."""
    if how is Combine.ADD:
        return old | new
    if how is Combine.SUBTRACT:
        return old & ~new
    return new


def inside(points: NDArray[np.floating], outline: NDArray[np.floating]) -> Mask:
    """Return which points (N, 2) lie inside a closed outline (V, 2).

    An outline that crosses itself holds what it winds around an odd number of times, as drawn.
    Fewer than three corners hold nothing.
    """
    found = np.zeros(len(points), np.bool_)
    if len(outline) < 3:
        return found
    low, high = outline.min(0), outline.max(0)
    near = np.flatnonzero(
        (points[:, 0] >= low[0])
        & (points[:, 0] <= high[0])
        & (points[:, 1] >= low[1])
        & (points[:, 1] <= high[1])
    )
    area = shapely.make_valid(shapely.Polygon(outline))
    if area.area == 0:
        return found
    shapely.prepare(area)
    chosen = points[near]
    found[near] = shapely.contains_xy(area, chosen[:, 0], chosen[:, 1])
    return found


def connected(labels: NDArray[np.uint8], at: tuple[int, int]) -> Mask:
    """Return the cells of a map that hang together with one cell and share its label.

    Parameters
    ----------
    labels
        (rows, cols), 0 where there is no tissue.
    at
        Row and column of the cell.
    """
    from scipy.ndimage import label

    pieces, _ = label(labels == labels[at], structure=np.ones((3, 3)))
    return np.asarray((pieces == pieces[at]) & (labels[at] > 0))


@dataclass(frozen=True)
class SelectionSummary:
    """How much is selected.

    Attributes
    ----------
    patches
        Number of them.
    area_mm2
        Their cells' area, or None where the project is not calibrated.
    counts
        (256,) selected patches of every label.
    """

    patches: int
    area_mm2: float | None
    counts: NDArray[np.int64]

    @classmethod
    def of(
        cls, selection: Mask, labels: NDArray[np.uint8], cell_mm2: float | None
    ) -> SelectionSummary:
        """Summarise a selection (N,) of patches with these labels (N,)."""
        counts = np.bincount(labels[selection], minlength=256)
        patches = int(counts.sum())
        return cls(patches, None if cell_mm2 is None else patches * cell_mm2, counts)

    def share(self, label: int) -> float:
        """Return the share of a label among the selected patches."""
        return float(self.counts[label]) / max(self.patches, 1)
