"""The results of a run as one looks at them: every k at hand, nothing computed twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.embedding import Embedding
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

    @property
    def ks(self) -> tuple[int, ...]:
        """Numbers of clusters there are, in rising order."""
        return tuple(sorted(self.assignments))

    def labels(self, k: int, edits: ClusterEdits) -> NDArray[np.uint8]:
        """Return (N,) the label of every patch, after the user's merges."""
        # A lookup by base assignment: one pass and no N-sized temporary of another type.
        return edits.lookup[1:][self.assignments[k]]

    def with_embedding(self, embedding: Embedding, name: str) -> Results:
        """Return the results laid out anew."""
        return replace(self, embedding=embedding, embedding_name=name)

    def position(self, row: int) -> tuple[int, int]:
        """Return which grid a row belongs to, and where in its index it stands."""
        number = int(np.searchsorted(self.table.case_offsets, row, side="right")) - 1
        return number, row - int(self.table.case_offsets[number])

    def grid_number(self, case: str) -> int:
        """Return the number of a case's grid."""
        return [g.case for g in self.table.grids].index(case)
