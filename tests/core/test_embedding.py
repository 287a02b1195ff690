"""UMAP: neighbours stay neighbours, and every patch gets a place."""

from __future__ import annotations

import threading
import time
from io import StringIO

import numpy as np
import pytest
from sklearn.datasets import make_blobs

from napari_pancluster.core.config import EmbedConfig
from napari_pancluster.core.embedding import embed, pca
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


def test_a_fit_reports_its_epochs_and_can_be_given_up_again_and_again() -> None:
    from tqdm import tqdm

    latents = np.random.default_rng(0).normal(size=(400, 8)).astype(np.float32)
    for _ in range(3):
        task = embed(latents, EmbedConfig())
        for progress in task:
            if progress.done > 3:
                break
        assert progress.total == 500
        began = time.monotonic()
        task.close()
        assert time.monotonic() - began < 1
    # A lock left taken by a fit that was stopped would hang every later bar of the process.
    done = threading.Thread(target=lambda: list(tqdm(range(3), file=StringIO())), daemon=True)
    done.start()
    done.join(10)
    assert not done.is_alive()
    whole = run(embed(latents, EmbedConfig()))
    assert np.isfinite(whole.coords).all()


def test_the_first_components_are_the_widest_ones() -> None:
    rng = np.random.default_rng(0)
    spread = np.array([5.0, 0.5, 3.0, 0.1])
    latents = (rng.normal(size=(2000, 4)) * spread).astype(np.float32)
    coords = pca(latents).coords
    assert np.allclose(coords.std(0), [5, 3], rtol=0.1)
    for axis, column in enumerate((0, 2)):
        assert abs(np.corrcoef(coords[:, axis], latents[:, column])[0, 1]) > 0.99
