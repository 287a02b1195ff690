"""UMAP of the latents: fitted on a part, the rest placed beside their nearest neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.config import EmbedConfig
from napari_pancluster.core.progress import Progress, Task

_NEIGHBOURS_TO_PLACE = 5


@dataclass(frozen=True)
class Embedding:
    """A point in the plane for every row it names.

    Attributes
    ----------
    coords
        (M, 2) float32.
    rows
        (M,) rows of the patch table.
    """

    coords: NDArray[np.float32]
    rows: NDArray[np.int64]


def embed(latents: NDArray[np.float32], config: EmbedConfig) -> Task[Embedding]:
    """Return the UMAP of all latents (N, D)."""
    yield Progress("Loading UMAP")
    rng = np.random.default_rng(config.seed)
    count = len(latents)
    fitted = np.sort(rng.choice(count, min(count, config.fitted), replace=False))
    yield Progress("Computing UMAP", 0, count)
    coords = np.zeros((count, 2), np.float32)
    coords[fitted] = _umap(latents[fitted], config)
    rest = np.setdiff1d(np.arange(count), fitted)
    yield Progress("Computing UMAP", len(fitted), count)
    if len(rest):
        coords[rest] = _place(latents[fitted], coords[fitted], latents[rest])
    return Embedding(coords, np.arange(count))


def _umap(latents: NDArray[np.float32], config: EmbedConfig) -> NDArray[np.float32]:
    if len(latents) <= 3:
        return np.zeros((len(latents), 2), np.float32)
    import warnings

    with warnings.catch_warnings():
        # UMAP says that a seed means one thread; that is what a seed is for.
        warnings.filterwarnings("ignore", message="n_jobs value", category=UserWarning)
        # … and that its neural variant, unused here, is not installed.
        warnings.filterwarnings("ignore", category=ImportWarning)
        import umap

        model = umap.UMAP(
            n_neighbors=min(config.neighbors, len(latents) - 1),
            min_dist=config.min_dist,
            random_state=config.seed,
            # The spectral start needs more points than dimensions it solves for.
            init="spectral" if len(latents) > 50 else "random",
        )
        return np.asarray(model.fit_transform(latents), np.float32)


def _place(
    known: NDArray[np.float32], coords: NDArray[np.float32], new: NDArray[np.float32]
) -> NDArray[np.float32]:
    from sklearn.neighbors import NearestNeighbors

    finder = NearestNeighbors(n_neighbors=min(_NEIGHBOURS_TO_PLACE, len(known))).fit(known)
    distance, index = finder.kneighbors(new)
    weight = 1 / np.maximum(distance, 1e-6)
    weight /= weight.sum(axis=1, keepdims=True)
    return np.asarray((coords[index] * weight[..., None]).sum(axis=1), np.float32)
