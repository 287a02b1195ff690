"""Indices against scikit-learn and brute force, and the suggestion they lead to."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs
from sklearn.metrics import (
    adjusted_rand_score,
    calinski_harabasz_score,
    davies_bouldin_score,
    silhouette_score,
)

from napari_pancluster.core.artefacts import read_scores, write_scores
from napari_pancluster.core.config import SelectConfig
from napari_pancluster.core.dunn import dunn, generalised_dunn
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.latents import Clustering
from napari_pancluster.core.progress import Progress, run
from napari_pancluster.core.validation import (
    BETTER,
    ValidationScores,
    _indices,
    _stability,
    select_k,
    suggest,
)


def brute_dunn(values: np.ndarray, labels: np.ndarray) -> float:
    distance = cdist(values, values)
    same = labels[:, None] == labels[None]
    return float(distance[~same].min() / distance[same].max())


def mixture(
    count: int, dims: int, *, k: int, apart: float, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Return clusters of unequal size, their means about `apart` deviations from each other."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(k, size=count, p=np.arange(2, k + 2) / np.arange(2, k + 2).sum())
    means = rng.normal(size=(k, dims)) * apart / np.sqrt(2 * dims)
    return means[labels] + rng.normal(size=(count, dims)), labels


# Clusters that overlap, touch and lie apart; 5300 patches are several blocks a cluster.
@pytest.mark.parametrize("apart", [0.0, 4.0, 60.0])
@pytest.mark.parametrize(("count", "dims"), [(40, 2), (700, 64), (5300, 16)])
def test_dunn_is_that_of_brute_force(count: int, dims: int, apart: float) -> None:
    values, labels = mixture(count, dims, k=4, apart=apart)
    assert run(dunn(values, labels)) == pytest.approx(brute_dunn(values, labels), rel=1e-9)
    single = values.astype(np.float32)
    assert run(dunn(single, labels)) == pytest.approx(brute_dunn(single, labels), rel=1e-9)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda v: v + 1e6, id="far from the origin"),
        pytest.param(lambda v: v * 1e-9, id="tiny"),
        pytest.param(lambda v: v * 1e15, id="huge"),
        pytest.param(lambda v: np.where(np.arange(len(v))[:, None] == 7, 1e5, v), id="outlier"),
        pytest.param(lambda v: v.round(), id="many ties"),
        pytest.param(lambda v: np.repeat(v[::2], 2, axis=0), id="copies in other clusters"),
    ],
)
def test_dunn_is_exact_where_single_precision_is_not_enough(change: object) -> None:
    values, labels = mixture(3000, 8, k=3, apart=3)
    values = change(values)  # type: ignore[operator]
    assert run(dunn(values, labels)) == pytest.approx(brute_dunn(values, labels), rel=1e-6)


def test_clusters_much_tighter_than_far_apart_are_told_from_each_other() -> None:
    # Squared distances between the clusters differ in the 7th digit: single precision has 7.
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], 1500)
    values = rng.normal(size=(3000, 8)) * 1e-3 + labels[:, None] * 1e3
    assert run(dunn(values, labels)) == pytest.approx(brute_dunn(values, labels), rel=1e-9)


def test_dunn_does_not_depend_on_order_or_numbers_of_clusters() -> None:
    values, labels = mixture(2500, 5, k=3, apart=5)
    mixed = np.random.default_rng(1).permutation(len(values))
    other = np.array([40, 7, 200])[labels]
    assert run(dunn(values[mixed], other[mixed])) == pytest.approx(run(dunn(values, labels)))


def test_dunn_can_be_cancelled_at_once() -> None:
    values, labels = mixture(20_000, 64, k=5, apart=0)
    gaps, last = [], time.monotonic()

    def tell(progress: Progress) -> None:
        nonlocal last
        gaps.append(time.monotonic() - last)
        last = time.monotonic()
        assert 0 <= progress.done < progress.total

    run(dunn(values, labels), tell)
    assert len(gaps) > 2 and max(gaps) < 1
    task = dunn(values, labels)
    next(task)
    task.close()


def test_generalised_dunn_is_its_formula() -> None:
    values, labels = mixture(900, 6, k=4, apart=3)
    means = np.stack([values[labels == n].mean(0) for n in range(4)])
    widths = [2 * np.linalg.norm(values[labels == n] - means[n], axis=1).mean() for n in range(4)]
    between = cdist(means, means)[np.triu_indices(4, 1)]
    expected = between.min() / max(widths)
    assert generalised_dunn(values, labels * 3 + 1) == pytest.approx(expected, rel=1e-12)


def test_a_single_patch_decides_over_dunn_and_not_over_the_robust_form() -> None:
    values, labels = mixture(2000, 8, k=3, apart=12)
    moved = values.copy()
    # One patch of a cluster lies next to a patch of another one.
    moved[np.flatnonzero(labels == 0)[0]] = values[np.flatnonzero(labels == 1)[0]] + 0.01
    assert run(dunn(moved, labels)) < 0.1 * run(dunn(values, labels))
    assert generalised_dunn(moved, labels) == pytest.approx(
        generalised_dunn(values, labels), rel=0.03
    )


@pytest.mark.parametrize("index", [lambda v, a: run(dunn(v, a)), generalised_dunn])
def test_where_dunn_is_undefined(index: object) -> None:
    values = np.random.default_rng(0).normal(size=(10, 3))
    assert np.isnan(index(values, np.zeros(10, int)))  # type: ignore[operator]
    assert np.isnan(index(values, np.arange(10)))  # type: ignore[operator]
    alike = np.ones((10, 3))
    assert np.isnan(index(alike, np.arange(10) % 2))  # type: ignore[operator]
    # Apart from that it is defined, also where every cluster but one is a single patch.
    few = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8])
    assert index(values, few) > 0  # type: ignore[operator]


@pytest.mark.parametrize("index", [lambda v, a: run(dunn(v, a)), generalised_dunn])
def test_what_dunn_refuses(index: object) -> None:
    values, labels = mixture(50, 3, k=2, apart=3)
    values[3], values[9, 1] = np.nan, np.inf
    with pytest.raises(InputError, match="2 of 50 rows of latents are not finite"):
        index(values, labels)  # type: ignore[operator]
    with pytest.raises(InputError, match="do not fit"):
        index(values, labels[:-1])  # type: ignore[operator]
    with pytest.raises(InputError, match="do not fit"):
        index(np.zeros((0, 3)), np.zeros(0, int))  # type: ignore[operator]


def test_indices_are_those_of_scikit_learn() -> None:
    values, labels = make_blobs(600, 5, centers=4, cluster_std=3.0, random_state=1)
    found = run(_indices(values, labels))
    assert found["davies_bouldin"] == pytest.approx(davies_bouldin_score(values, labels))
    assert found["calinski_harabasz"] == pytest.approx(calinski_harabasz_score(values, labels))
    assert found["silhouette"] == pytest.approx(silhouette_score(values, labels))
    assert found["dunn"] == pytest.approx(brute_dunn(values, labels))
    assert all(np.isnan(v) for v in run(_indices(values, np.zeros(600, int))).values())
    assert all(np.isnan(v) for v in run(_indices(np.ones((600, 2)), labels)).values())


def test_stability_is_the_adjusted_rand_index_over_seeds_and_subsets() -> None:
    values, labels = mixture(600, 8, k=4, apart=12)
    parts = [np.random.default_rng(n).permutation(600)[:300] for n in range(3)]
    assert run(_stability(values, labels, parts, 0)) == pytest.approx([1.0] * 3, abs=0.02)
    # Clusters that no repeat finds: the repeats agree with each other alone, in 2 of 3 pairs.
    drawn = np.random.default_rng(9).permutation(labels)
    assert run(_stability(values, drawn, parts, 0)) == pytest.approx([2 / 3] * 3, abs=0.03)
    # Nothing to find: every seed and every half cuts a single cloud another way.
    cloud = np.random.default_rng(5).normal(size=(600, 8))
    found = KMeans(8, n_init=1, random_state=0).fit_predict(cloud)
    assert max(run(_stability(cloud, found, parts, 0))) < 0.5
    # One repeat: with the run alone.
    only = run(_stability(values, drawn, parts[:1], 0))
    again = KMeans(4, n_init=4, random_state=0).fit_predict(values)
    assert only == pytest.approx([adjusted_rand_score(drawn, again)], abs=0.02)


def clusterings(values: np.ndarray, ks: range) -> list[Clustering]:
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
    assert scores.why.startswith("6: best rank over 6 indices together; best by ")
    assert "flat" not in scores.why and "contradictory" not in scores.why
    assert set(scores.mean) == set(scores.std) == set(BETTER)
    assert all(len(v) == 9 for v in (*scores.mean.values(), *scores.std.values()))
    assert all((scores.std[n] > 0).all() for n in BETTER if n != "stability")


@pytest.mark.parametrize(("k", "dims"), [(3, 16), (8, 32)])
def test_overlapping_clusters_are_counted_to_one(k: int, dims: int) -> None:
    values, _ = mixture(1500, dims, k=k, apart=7, seed=4)
    several = clusterings((values - values.mean(0)) / values.std(0), range(2, 14))
    scores = run(select_k(values.astype(np.float32), np.zeros(1500, int), several, SelectConfig()))
    assert abs(scores.suggested_k - k) <= 1


def test_a_cloud_without_clusters_is_called_so() -> None:
    values = np.random.default_rng(0).normal(size=(1200, 16))
    scores = run(
        select_k(
            values.astype(np.float32),
            np.zeros(1200, int),
            clusterings(values, range(2, 14)),
            SelectConfig(),
        )
    )
    assert "The evidence is" in scores.why


def test_the_spread_is_a_standard_error() -> None:
    # Over halves of one sample an index varies as it does over new samples.
    def scores_of(seed: int, repeats: int) -> ValidationScores:
        values, labels = mixture(1000, 6, k=3, apart=6, seed=7)
        rng = np.random.default_rng(seed)
        means = np.stack([values[labels == n].mean(0) for n in range(3)])
        values = means[labels] + rng.normal(size=values.shape)
        one = Clustering(3, labels.astype(np.uint8), np.zeros((1000, 3), np.float32))
        config = SelectConfig(repeats=repeats)
        return run(select_k(values.astype(np.float32), np.zeros(1000, int), [one], config))

    within = scores_of(0, 20).std
    anew = [scores_of(seed, 1).mean for seed in range(1, 25)]
    for name in ("generalised_dunn", "silhouette", "davies_bouldin", "calinski_harabasz"):
        # Each new sample is judged by one half: √2 times the error of all of it.
        error = np.std([m[name][0] for m in anew]) / np.sqrt(2)
        assert 0.5 < within[name][0] / error < 2, name


def test_patches_are_drawn_evenly_and_repeatably() -> None:
    values, _ = make_blobs(3000, 4, centers=3, random_state=0)
    case = np.repeat([0, 1], [2800, 200])
    config = SelectConfig(patches=500)
    several = clusterings(values, range(2, 5))
    one = run(select_k(values.astype(np.float32), case, several, config))
    two = run(select_k(values.astype(np.float32), case, several, config))
    assert all(np.array_equal(one.mean[n], two.mean[n]) for n in one.mean)
    assert one.why == two.why


def test_judging_can_be_cancelled_between_the_indices_of_a_k() -> None:
    values, _ = make_blobs(4000, 16, centers=3, random_state=0)
    task = select_k(
        values.astype(np.float32),
        np.zeros(4000, int),
        clusterings(values, range(2, 5)),
        SelectConfig(),
    )
    told = [next(task) for _ in range(6)]
    assert all((p.stage, p.done, p.total) == ("Judging k", 0, 3) for p in told)
    task.close()


def test_too_few_patches_are_refused() -> None:
    values = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    few = [Clustering(5, np.arange(12, dtype=np.uint8) % 5, np.zeros((12, 5), np.float32))]
    with pytest.raises(InputError, match="12 patches are too few to judge 5"):
        run(select_k(values, np.zeros(12, int), few, SelectConfig()))


def test_latents_that_are_not_finite_are_refused() -> None:
    values, _ = make_blobs(300, 4, centers=3, random_state=0)
    several = clusterings(values, range(2, 4))
    values[17, 2] = np.nan
    with pytest.raises(InputError, match="1 of 300 rows"):
        run(select_k(values.astype(np.float32), np.zeros(300, int), several, SelectConfig()))


def test_patches_that_are_all_alike_give_no_index_and_no_crash() -> None:
    values = np.ones((300, 4), np.float32)
    several = [
        Clustering(k, (np.arange(300) % k).astype(np.uint8), np.zeros((300, k), np.float32))
        for k in (2, 3, 4)
    ]
    scores = run(select_k(values, np.zeros(300, int), several, SelectConfig()))
    assert all(np.isnan(v).all() for v in scores.mean.values())
    assert scores.suggested_k == 2 and "no index can be computed" in scores.why


def test_few_different_patches_and_empty_clusters_are_judged() -> None:
    # Three places, many copies each; a head that fell into one cluster, and one with gaps.
    values = np.repeat(np.eye(3, 5, dtype=np.float32), 100, axis=0)
    place = np.repeat([0, 1, 2], 100)
    heads = [place * 0, place * 2, np.arange(300) % 6]
    several = [
        Clustering(k, a.astype(np.uint8), np.zeros((300, k), np.float32))
        for k, a in zip((2, 5, 6), heads, strict=True)
    ]
    scores = run(select_k(values, np.zeros(300, int), several, SelectConfig()))
    assert np.isnan(scores.mean["silhouette"][0])
    assert scores.mean["silhouette"][1] == pytest.approx(1)
    assert scores.suggested_k == 5


K = np.arange(2, 14)


def curves(**given: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return indices over 2 … 13, flat with a little noise where nothing is given."""
    rng = np.random.default_rng(0)
    mean = {n: given.get(n, 1 + 0.01 * rng.standard_normal(len(K))) for n in BETTER}
    return mean, {n: np.full(len(K), 0.01) for n in BETTER}


def peak(k: int, width: float = 1.0) -> np.ndarray:
    return 1 + np.exp(-np.square((K - k) / width) / 2)


def test_the_suggestion_says_who_disagrees() -> None:
    k = np.array([2, 3, 4])
    mean = {
        "dunn": np.array([0.1, 0.2, 0.3]),
        "generalised_dunn": np.array([0.2, 0.4, 0.3]),
        "silhouette": np.array([0.2, 0.6, 0.5]),
        "davies_bouldin": np.array([2.0, 0.5, 0.9]),
        "calinski_harabasz": np.array([10.0, 40.0, 30.0]),
        "stability": np.array([np.nan, 0.9, 0.8]),
    }
    chosen, why = suggest(k, mean, {n: 0.01 * v for n, v in mean.items()})
    assert chosen == 3
    assert "Dunn prefers 4" in why
    assert "best by robust Dunn, silhouette, Davies–Bouldin, Calinski–Harabasz and stability" in why
    assert "flat" not in why and "contradictory" not in why
    # The order of the k is nobody's business.
    swapped = {n: v[::-1] for n, v in mean.items()}
    assert suggest(k[::-1], swapped, {n: 0.01 * v for n, v in swapped.items()}) == (chosen, why)


def plateau(low: int, high: int, seed: int) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    table = 1 + 0.5 * ((low <= K) & (high >= K))
    mean, std = curves(**{n: table + 0.01 * rng.standard_normal(len(K)) for n in BETTER})
    mean["davies_bouldin"] = 3 - mean["davies_bouldin"]
    return mean, std


def test_a_plateau_is_named_and_a_k_of_it_taken() -> None:
    found = [suggest(K, *plateau(6, 9, seed)) for seed in range(20)]
    assert all(6 <= k <= 9 for k, _ in found)
    # Two standard errors leave room for a few ends cut short by chance.
    assert sum("all flat from 6 to 9." in why for _, why in found) >= 15
    assert not any("The evidence is flat" in why for _, why in found)


def test_the_best_of_what_is_level_is_taken() -> None:
    # Level with 8 within a noise this large, and yet the best by five of six.
    sloping = 1 + 0.5 * (K >= 6) * (K <= 8) - 0.01 * K
    mean, _ = curves(**dict.fromkeys(BETTER, sloping))
    mean["davies_bouldin"] = 3 - sloping
    mean["dunn"] = peak(8)
    chosen, why = suggest(K, mean, {n: np.full(len(K), 0.5) for n in BETTER})
    assert chosen == 6
    assert "Dunn prefers 8" in why and "flat from 6 to 8" in why


def test_where_most_k_are_level_the_evidence_is_flat() -> None:
    found = [suggest(K, *plateau(4, 12, seed)) for seed in range(20)]
    assert sum("The evidence is flat" in why for _, why in found) >= 10
    assert all(4 <= k <= 12 for k, _ in found)
    # A peak that stands out of its noise is not flat.
    mean, std = curves(**dict.fromkeys(BETTER, peak(7)))
    mean["davies_bouldin"] = 3 - peak(7)
    chosen, why = suggest(K, mean, std)
    assert chosen == 7 and "flat" not in why


def test_a_trend_over_k_is_no_evidence() -> None:
    # All fall with k, as they do where there is nothing, and stand above that at 8 alone.
    rng = np.random.default_rng(2)
    mean, std = curves()
    for name in BETTER:
        falling = 3 - np.log(K) + 0.8 * (K == 8) + 0.02 * rng.standard_normal(len(K))
        mean[name] = 1 - falling if name == "davies_bouldin" else falling
    chosen, why = suggest(K, mean, std)
    assert chosen == 8
    assert "Dunn, robust Dunn, silhouette" in why and "prefer 2" in why


def test_the_coarsest_split_is_said_and_a_finer_one_suggested() -> None:
    # All fall from 2 on, as they do where one difference outweighs all others, with a peak at 8.
    falling = 3 / np.sqrt(K) + 0.8 * (K == 8)
    mean, std = curves(**dict.fromkeys(BETTER, falling))
    mean["davies_bouldin"] = 3 - falling
    chosen, why = suggest(K, mean, std)
    assert chosen == 8
    assert why.startswith("8: best rank over 6 indices together but for 2, the coarsest split;")
    assert "prefer 2" in why and "contradictory" in why
    # Of a few k there is no telling.
    few = slice(0, 4)
    some = {n: m[few] for n, m in mean.items()}, {n: s[few] for n, s in std.items()}
    assert suggest(K[few], *some)[0] == 2


def test_contradictory_evidence_is_called_so() -> None:
    several = dict(zip(BETTER, (3, 5, 7, 9, 11, 13), strict=True))
    mean, std = curves(**{n: peak(k) for n, k in several.items()})
    mean["davies_bouldin"] = 3 - mean["davies_bouldin"]
    _, why = suggest(K, mean, std)
    assert "The evidence is contradictory" in why
    assert "Dunn prefers 3; robust Dunn prefers 5" in why


def test_an_index_that_an_earlier_version_did_not_compute_is_unknown(tmp_path: Path) -> None:
    ks = np.arange(2, 5)
    old = {"dunn": np.array([1.0, 2.0, 3.0])}
    write_scores(tmp_path, ValidationScores(ks, old, old, 4, "4: trial."))
    scores = read_scores(tmp_path)
    assert np.array_equal(scores.mean["dunn"], old["dunn"])
    assert set(scores.mean) == set(scores.std) == set(BETTER)
    assert np.isnan(scores.mean["stability"]).all()
    assert suggest(ks, scores.mean, scores.std)[0] == 4
