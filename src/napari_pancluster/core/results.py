"""The results of a run as one looks at them: every k at hand, nothing computed twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.embedding import Embedding
from napari_pancluster.core.flags import agreement, missing
from napari_pancluster.core.gallery import patch_region, typical_rows
from napari_pancluster.core.patches import PatchTable
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.validation import ValidationScores

Column = NDArray[np.float32]


@dataclass(frozen=True)
class Results:
    """A run over all cases.

    Attributes
    ----------
    run
        Its id.
    stacks
        Per case, the registered slides.
    table
        The patches; N rows.
    latents
        (N, D) float32.
    assignments
        Per k, (N,) uint8, 0 … k − 1.
    certainty
        Per k, (N,) uint8: probability of the cluster each patch was given, 255 is 1.
    embedding
        UMAP, or PCA until there is one.
    embedding_name
        "UMAP" or "PCA".
    scores
        Validation indices, if they were computed.
    k
        That of the project's map.
    edits
        Per k, what the user made of it.
    cell_mm2
        Area of a cell, or None where the project is not calibrated.
    sheet
        Columns of the sample sheet (group, age, …): one value a grid of the table.
    smoothed
        Whether each cell heeds its neighbours, see `smooth`.
    doubts
        Per k, sentences about clusters that may not be tissues.
    present
        (N, stains) whether a patch has the stain; (N, 0) where that was not kept.
    channels
        Names of these stains, in the order of the network.
    """

    run: str
    stacks: Mapping[str, SlideStack]
    table: PatchTable
    latents: NDArray[np.float32] = field(repr=False)
    assignments: Mapping[int, NDArray[np.uint8]] = field(repr=False)
    certainty: Mapping[int, NDArray[np.uint8]] = field(repr=False)
    embedding: Embedding
    embedding_name: str
    scores: ValidationScores | None
    k: int
    edits: Mapping[int, ClusterEdits]
    cell_mm2: float | None
    sheet: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    smoothed: bool = False
    doubts: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
    present: NDArray[np.bool_] = field(
        default_factory=lambda: np.zeros((0, 0), np.bool_), repr=False
    )
    channels: tuple[str, ...] = ()

    @property
    def ks(self) -> tuple[int, ...]:
        """Numbers of clusters there are, in rising order."""
        return tuple(sorted(self.assignments))

    @property
    def stain_names(self) -> tuple[str, ...]:
        """Stains that can be read in at least one case."""
        return tuple(dict.fromkeys(n for s in self.stacks.values() for n in s.registered))

    @cached_property
    def agreement(self) -> NDArray[np.float32]:
        """(N,) how surely all sections agree at each patch, 0 to 1; NaN where not measured."""
        return agreement(self.stacks, self.table)

    @property
    def has_agreement(self) -> bool:
        """Whether the confidence of a registration was measured in some case."""
        return any(stack.confidences for stack in self.stacks.values())

    def missing(self, row: int) -> str:
        """Return the names of the stains that a patch lacks, joined by semicolons."""
        return str(missing(self.present[row : row + 1], self.channels).sum())

    @cached_property
    def coords(self) -> NDArray[np.float32]:
        """(N, 2) place of every patch in the scatter; NaN for a patch that has none."""
        rows = self.embedding.rows
        if len(rows) == len(self.table) and bool((np.diff(rows) == 1).all()):
            return self.embedding.coords
        coords = np.full((len(self.table), 2), np.nan, np.float32)
        coords[rows] = self.embedding.coords
        return coords

    def labels(self, k: int, edits: ClusterEdits) -> NDArray[np.uint8]:
        """Return (N,) the label of every patch, after the user's merges."""
        # A lookup by base assignment: one pass and no N-sized temporary of another type.
        return edits.lookup[1:][self.assignments[k]]

    def same_patches(self, other: Results) -> bool:
        """Return whether the other results speak of the same patches of the same run."""
        mine, theirs = self.table.grids, other.table.grids
        return (
            self.run == other.run
            and len(mine) == len(theirs)
            and all(
                a.case == b.case and a.mpp == b.mpp and np.array_equal(a.index, b.index)
                for a, b in zip(mine, theirs, strict=True)
            )
            and self.ks == other.ks
            and all(np.array_equal(self.assignments[k], other.assignments[k]) for k in self.ks)
        )

    def laid_out_as(self, other: Results) -> Results:
        """Return these results with the scatter, scores and k of others of the same patches."""
        return replace(
            self,
            embedding=other.embedding,
            embedding_name=other.embedding_name,
            scores=other.scores,
            k=other.k,
        )

    def with_k(self, k: int) -> Results:
        """Return the results after another k was made the project's map."""
        return replace(self, k=k)

    def position(self, row: int) -> tuple[int, int]:
        """Return which grid a row belongs to, and where in its index it stands."""
        number = int(np.searchsorted(self.table.case_offsets, row, side="right")) - 1
        return number, row - int(self.table.case_offsets[number])

    def grid_number(self, case: str) -> int:
        """Return the number of a case's grid."""
        return [g.case for g in self.table.grids].index(case)


def patches_of(
    results: Results, rows: Sequence[int], names: tuple[str, ...] = ()
) -> list[list[NDArray[np.uint8]]]:
    """Return the patches of some rows, each in every stain named (default: all of its case)."""
    columns = []
    for row in rows:
        number, position = results.position(row)
        grid = results.table.grids[number]
        stack = results.stacks[grid.case]
        region = patch_region(grid, position)
        columns.append(stack.pictures(names or stack.registered, region, grid.mpp))
    return columns


def typical_patches(
    results: Results, labels: NDArray[np.uint8], label: int, count: int
) -> tuple[list[int], tuple[str, ...], list[list[NDArray[np.uint8]]]]:
    """Return a cluster's most typical patches.

    Parameters
    ----------
    labels
        (N,) of all patches.

    Returns
    -------
    rows, stains, patches
        Per row, the patch in every stain.
    """
    found = typical_rows(results.latents, np.flatnonzero(labels == label), count)
    rows, names = [int(row) for row in found], results.stain_names
    return rows, names, patches_of(results, rows, names)
