"""The map of one case: from rows of the patch table to cells of a picture, and back."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.patches import PatchGrid, PatchTable
from napari_pancluster.core.selection import Mask, connected, inside


@dataclass(frozen=True)
class CaseMap:
    """The cells of one case of a table.

    Attributes
    ----------
    table
        Of all cases.
    number
        Of this one.
    """

    table: PatchTable
    number: int

    @property
    def grid(self) -> PatchGrid:
        """The cells."""
        return self.table.grids[self.number]

    @property
    def rows(self) -> slice:
        """Rows of the table that are this case's."""
        return self.table.rows_of(self.number)

    def image(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return values (N,) of all patches as this case's picture; 0 where there is no cell."""
        return self.grid.image(values[self.rows]).astype(np.uint8, copy=False)

    def row_at(self, cell: tuple[int, int]) -> int | None:
        """Return the row of a cell, or None where it is no tissue."""
        row = int(self._row_image[cell])
        return row if row >= 0 else None

    def outlined(self, outline: NDArray[np.floating]) -> Mask:
        """Return (N,) the patches whose centres lie in an outline (V, 2), row and col in µm."""
        return self._of_case(inside(self.grid.centres, outline))

    def area_around(self, row: int, labels: NDArray[np.uint8]) -> Mask:
        """Return (N,) the patches that hang together with one and share its label."""
        index = self.grid.index
        line, column = index[row - self.rows.start]
        piece = connected(self.image(labels), (int(line), int(column)))
        return self._of_case(piece[index[:, 0], index[:, 1]])

    def _of_case(self, chosen: Mask) -> Mask:
        mask = np.zeros(len(self.table), np.bool_)
        mask[self.rows] = chosen
        return mask

    @cached_property
    def _row_image(self) -> NDArray[np.generic]:
        numbers = np.arange(self.rows.start, self.rows.stop, dtype=np.int32)
        return self.grid.image(numbers, background=-1)
