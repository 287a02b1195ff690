"""UMAP: neighbours stay neighbours, and every patch gets a place."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from napari_pancluster.core.config import EmbedConfig
from napari_pancluster.core.embedding import embed
from napari_pancluster.core.progress import run


@pytest.mark.slow
def test_groups_stay_apart_and_late_patches_join_their_own() -> None:
    values, labels = make_blobs(600, 10, centers=3, random_state=0)
    config = EmbedConfig(fitted=300)
    found = run(embed(values.astype(np.float32), config))
    assert np.array_equal(found.rows, np.arange(600)) and np.isfinite(found.coords).all()
    centres = np.stack([found.coords[labels == n].mean(0) for n in range(3)])
    nearest = np.linalg.norm(found.coords[:, None] - centres, axis=2).argmin(1)
    assert (nearest == labels).mean() > 0.99
    again = run(embed(values.astype(np.float32), config))
    assert np.array_equal(found.coords, again.coords)


def test_a_handful_of_patches_is_no_error() -> None:
    found = run(
        embed(np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32), EmbedConfig())
    )
    assert found.coords.shape == (3, 2)
