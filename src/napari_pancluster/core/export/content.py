"""All that an export shows, gathered once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from napari_pancluster.core.clustering import Clustering, Latents
from napari_pancluster.core.embedding import Embedding
from napari_pancluster.core.palette import cluster_colour
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
    """

    stacks: Mapping[str, SlideStack]
    table: PatchTable
    latents: Latents
    clustering: Clustering
    embedding: Embedding | None
    scores: ValidationScores | None
    unit: str
    nominal: bool

    @property
    def calibrated(self) -> bool:
        """Return whether lengths are µm."""
        return self.unit == "µm"

    @property
    def labels(self) -> range:
        """All labels, 1 … k."""
        return range(1, self.clustering.k + 1)

    def name(self, label: int) -> str:
        """Return the name of a cluster."""
        return f"Cluster {label}"

    def colour(self, label: int) -> str:
        """Return the colour of a cluster as ``#RRGGBB``."""
        return cluster_colour(label)
