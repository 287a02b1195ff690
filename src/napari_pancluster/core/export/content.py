"""All that an export shows, gathered once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.embedding import Embedding
from napari_pancluster.core.flags import agreement, missing
from napari_pancluster.core.latents import Clustering, Latents
from napari_pancluster.core.patches import PatchTable
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.validation import ValidationScores


@dataclass(frozen=True)
class Content:
    """The results of one run.

    Attributes
    ----------
    stacks
        Per case, the registered slides.
    unit
        "µm", or "px" where the project is not calibrated.
    nominal
        Whether the pixel size is plausible rather than measured.
    run
        Id of the training run.
    sheet
        Per case, what the sample sheet says of it (group, age, …).
    channels
        Names of the stains that patches have or lack, in the order of the network.
    """

    stacks: Mapping[str, SlideStack]
    table: PatchTable
    latents: Latents
    clustering: Clustering
    edits: ClusterEdits
    embedding: Embedding | None
    scores: ValidationScores | None
    unit: str
    nominal: bool
    run: str = ""
    sheet: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    channels: tuple[str, ...] = ()

    @property
    def calibrated(self) -> bool:
        """Return whether lengths are µm."""
        return self.unit == "µm"

    @property
    def labels(self) -> tuple[int, ...]:
        """All labels that are left after the user's merges, of 1 … k."""
        return self.edits.labels

    @cached_property
    def row_labels(self) -> NDArray[np.uint8]:
        """(N,) the label of every patch, after the user's merges."""
        return self.edits.lookup[self.clustering.labels]

    @cached_property
    def umap(self) -> NDArray[np.float32]:
        """(N, 2) place of every patch in the UMAP; NaN for a patch that has none."""
        coords = np.full((len(self.table), 2), np.nan, np.float32)
        if self.embedding is not None:
            coords[self.embedding.rows] = self.embedding.coords
        return coords

    @cached_property
    def agreement(self) -> NDArray[np.float32]:
        """(N,) how surely all sections agree at each patch, 0 to 1; NaN where not measured."""
        return agreement(self.stacks, self.table)

    @cached_property
    def missing(self) -> NDArray[np.object_]:
        """(N,) the names of the stains that each patch lacks, joined by semicolons."""
        return missing(self.latents.present, self.channels)

    def label_image(self, number: int) -> NDArray[np.uint8]:
        """Return the map of the case with this number, one pixel a cell: 0 is background."""
        grid = self.table.grids[number]
        return grid.image(self.row_labels[self.table.rows_of(number)]).astype(np.uint8)

    def name(self, label: int) -> str:
        """Return the name of a cluster."""
        return self.edits.name(label)

    def colour(self, label: int) -> str:
        """Return the colour of a cluster as ``#RRGGBB``."""
        return self.edits.colour(label)
