"""How much of every cluster there is: case by case, and by group with the case as the unit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.patches import PatchTable

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class GroupAreas:
    """The clusters of one group of cases.

    Attributes
    ----------
    name
        What the sample sheet calls it.
    cases
        Number of cases.
    mean_share, sd_share
        (L,) of every cluster's share of a case's mapped area, over cases; the standard deviation
        of one case is NaN.
    mean_mm2, sd_mm2
        (L,) of its area; NaN where the project is not calibrated.
    """

    name: str
    cases: int
    mean_share: Floats
    sd_share: Floats
    mean_mm2: Floats
    sd_mm2: Floats


@dataclass(frozen=True)
class CaseAreas:
    """The clusters of every case.

    Attributes
    ----------
    cases, labels
        Along the axes.
    cells
        (C, L) cells of the map.
    cell_mm2
        (C,) area of a cell; NaN where the project is not calibrated.
    """

    cases: tuple[str, ...]
    labels: tuple[int, ...]
    cells: NDArray[np.int64]
    cell_mm2: Floats

    @classmethod
    def of(
        cls,
        table: PatchTable,
        labels: NDArray[np.uint8],
        wanted: tuple[int, ...],
        *,
        calibrated: bool,
    ) -> CaseAreas:
        """Return the areas of some labels, given those of all patches (N,)."""
        counts = [
            np.bincount(labels[table.rows_of(n)], minlength=256)[list(wanted)]
            for n in range(len(table.grids))
        ]
        cell = [g.cell_um**2 * 1e-6 if calibrated else np.nan for g in table.grids]
        cases = tuple(g.case for g in table.grids)
        return cls(cases, wanted, np.array(counts, np.int64), np.array(cell))

    @property
    def mm2(self) -> Floats:
        """(C, L) area in mm²."""
        return self.cells * self.cell_mm2[:, None]

    @property
    def share(self) -> Floats:
        """(C, L) of the mapped area of the case."""
        return np.asarray(self.cells / self.cells.sum(axis=1, keepdims=True), np.float64)

    def by_group(self, values: Sequence[str]) -> list[GroupAreas]:
        """Return the areas by the value that a column of the sample sheet has for every case."""
        found = []
        for name in dict.fromkeys(values):
            mine = np.array([v == name for v in values])
            share, mm2 = self.share[mine], self.mm2[mine]
            found.append(
                GroupAreas(
                    name, int(mine.sum()), share.mean(0), _deviation(share), mm2.mean(0),
                    _deviation(mm2),
                )
            )  # fmt: skip
        return found


def _deviation(values: Floats) -> Floats:
    """Return the standard deviation over the first axis, that of a sample."""
    if len(values) < 2:
        return np.full(values.shape[1], np.nan)
    return np.asarray(values.std(axis=0, ddof=1), np.float64)
