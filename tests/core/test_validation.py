"""Indices against scikit-learn and brute force, and the suggestion they lead to."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.datasets import make_blobs
from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score

from napari_pancluster.core.config import SelectConfig
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.latents import Clustering
from napari_pancluster.core.progress import run
from napari_pancluster.core.validation import _indices, dunn, select_k, suggest


def brute_dunn(values: np.ndarray, labels: np.ndarray) -> float:
    distance = cdist(values, values)
    same = labels[:, None] == labels[None]
    return float(distance[~same].min() / distance[same].max())


@pytest.mark.parametrize("count", [40, 700, 1300])
def test_dunn_is_exact_over_block_borders(count: int) -> None:
    rng = np.random.default_rng(count)
    values, labels = rng.normal(size=(count, 6)), rng.integers(4, size=count)
    values[labels == 2] += 9
    assert dunn(values, labels) == pytest.approx(brute_dunn(values, labels), rel=1e-6)


def test_dunn_of_one_cluster_or_of_single_points_is_undefined() -> None:
    values = np.random.default_rng(0).normal(size=(10, 3))
    assert np.isnan(dunn(values, np.zeros(10, int)))
    assert np.isnan(dunn(values, np.arange(10)))


def test_indices_are_those_of_scikit_learn() -> None:
    values, labels = make_blobs(600, 5, centers=4, random_state=1)
    found = _indices(values, labels)
    assert found["davies_bouldin"] == pytest.approx(davies_bouldin_score(values, labels))
    assert found["calinski_harabasz"] == pytest.approx(calinski_harabasz_score(values, labels))
    assert found["stability"] == pytest.approx(1.0, abs=0.05)
    assert all(np.isnan(v) for v in _indices(values, np.zeros(600, int)).values())


def clusterings(values: np.ndarray, ks: range) -> list[Clustering]:
    from sklearn.cluster import KMeans

    found = [KMeans(k, n_init=4, random_state=0).fit_predict(values).astype(np.uint8) for k in ks]
    return [
        Clustering(k, a, np.eye(k, dtype=np.float32)[a]) for k, a in zip(ks, found, strict=True)
    ]


def test_clear_clusters_are_counted() -> None:
    values, _ = make_blobs(900, 8, centers=6, cluster_std=0.6, random_state=3)
    case = np.zeros(900, int)
    scores = run(
        select_k(values.astype(np.float32), case, clusterings(values, range(2, 11)), SelectConfig())
    )
    assert scores.suggested_k == 6
    assert scores.why.startswith("6: ")
    assert all(len(v) == 9 for v in (*scores.mean.values(), *scores.std.values()))
    assert (scores.std["silhouette"] > 0).all()


def test_patches_are_drawn_evenly_and_repeatably() -> None:
    values, _ = make_blobs(3000, 4, centers=3, random_state=0)
    case = np.repeat([0, 1], [2800, 200])
    config = SelectConfig(patches=500)
    several = clusterings(values, range(2, 5))
    one = run(select_k(values.astype(np.float32), case, several, config))
    two = run(select_k(values.astype(np.float32), case, several, config))
    assert all(np.array_equal(one.mean[n], two.mean[n]) for n in one.mean)


def test_too_few_patches_are_refused() -> None:
    values = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    few = [Clustering(5, np.arange(12, dtype=np.uint8) % 5, np.zeros((12, 5), np.float32))]
    with pytest.raises(InputError, match="12 patches are too few to judge 5"):
        run(select_k(values, np.zeros(12, int), few, SelectConfig()))


def test_the_suggestion_says_who_disagrees_and_what_is_level() -> None:
    k = np.array([2, 3, 4])
    mean = {
        "dunn": np.array([0.1, 0.2, 0.3]),
        "silhouette": np.array([0.2, 0.6, 0.5]),
        "davies_bouldin": np.array([2.0, 0.5, 0.9]),
        "calinski_harabasz": np.array([10.0, 40.0, 30.0]),
        "stability": np.array([np.nan, 0.9, 0.8]),
    }
    chosen, why = suggest(k, mean)
    assert chosen == 3
    assert "Dunn prefers 4" in why
    assert "best by silhouette, Davies–Bouldin, Calinski–Harabasz and stability" in why
