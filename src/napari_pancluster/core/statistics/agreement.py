"""How well the clusters of a case agree with what a person annotated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.patches import PatchGrid
from napari_pancluster.core.statistics.classes import ClassArea, classes_at
from napari_pancluster.core.transfer import Transfer


@dataclass(frozen=True)
class Agreement:
    """Clusters against classes, over the cells that lie in an annotated area.

    Attributes
    ----------
    labels, classes
        Along the axes.
    cells
        (L, K) cells of a cluster in areas of a class.
    ari
        Adjusted Rand index (Hubert and Arabie 1985): 1 is the same division, 0 that of chance.
        None with fewer than two classes, where it says nothing.
    nmi
        Mutual information over the mean of both entropies, 0 to 1; None as above.
    annotated
        Share of the map's cells that lie in an annotated area.
    """

    labels: tuple[int, ...]
    classes: tuple[str, ...]
    cells: NDArray[np.int64]
    ari: float | None
    nmi: float | None
    annotated: float


def agreement(
    grid: PatchGrid,
    labels: NDArray[np.uint8],
    wanted: tuple[int, ...],
    areas: Sequence[ClassArea],
    way: Transfer,
) -> Agreement:
    """Compare the map of a case with annotations.

    Parameters
    ----------
    labels
        (N,) of the cells of the grid.
    wanted
        All labels there may be.
    areas
        On one of the case's slides, the largest first.
    way
        From the reference to that slide.

    Raises
    ------
    InputError
        If no cell of the map lies in any of the areas.
    """
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    px = way.um(grid.centres) / way.target.um_per_px_yx
    classes, numbers = classes_at(areas, px)
    inside = numbers >= 0
    if not inside.any():
        raise InputError(
            f"None of the annotated areas covers mapped tissue of case {grid.case}. Check that "
            "they were drawn on the slide of --stain, and around tissue."
        )
    mine, theirs = labels[inside], numbers[inside]
    cells = [np.bincount(theirs[mine == n], minlength=len(classes)) for n in wanted]
    several = len(np.unique(theirs)) > 1
    return Agreement(
        wanted,
        classes,
        np.array(cells, np.int64),
        float(adjusted_rand_score(theirs, mine)) if several else None,
        float(normalized_mutual_info_score(theirs, mine)) if several else None,
        float(inside.mean()),
    )
