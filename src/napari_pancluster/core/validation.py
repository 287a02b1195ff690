"""Internal validation indices: how well latents fall into k clusters, for each k."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.config import SelectConfig
from napari_pancluster.core.dunn import check_rows, dunn, generalised_dunn
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.latents import Clustering
from napari_pancluster.core.means import best_means
from napari_pancluster.core.progress import Progress, R, Task

BETTER: dict[str, Literal["higher", "lower"]] = {
    "dunn": "higher",
    "generalised_dunn": "higher",
    "silhouette": "higher",
    "davies_bouldin": "lower",
    "calinski_harabasz": "higher",
    "stability": "higher",
}
PLAIN_NAMES = {
    "dunn": "Dunn",
    "generalised_dunn": "robust Dunn",
    "silhouette": "silhouette",
    "davies_bouldin": "Davies–Bouldin",
    "calinski_harabasz": "Calinski–Harabasz",
    "stability": "stability",
}
# Share of the patches a repeat judges. Over random halves an index varies as much as over new
# samples of all patches, so that its spread is a standard error.
_SHARE = 0.5
# Silhouette needs all distances; this many patches keep it to a fraction of a second a k.
_SILHOUETTE_PATCHES = 4000
# k-means cannot be cancelled; on this many patches it need not be.
_STABILITY_PATCHES = 5000
_STARTS = 2
# A trend is told from this many k on.
_TREND_K = 5
_DRAWS = 200
# What differs by less than two standard errors is level.
_APART = 2.0


@dataclass(frozen=True)
class ValidationScores:
    """Indices over k.

    Attributes
    ----------
    k
        (K,) numbers of clusters.
    mean, std
        Per index: (K,) its mean over the repeats, and its spread. NaN for an index that was not
        computed, as in a project of an earlier version.
    suggested_k
        The k that the indices speak for.
    why
        The suggestion in words.
    """

    k: NDArray[np.int64]
    mean: dict[str, NDArray[np.float64]]
    std: dict[str, NDArray[np.float64]]
    suggested_k: int
    why: str

    def __post_init__(self) -> None:
        unknown = {name: np.full(len(self.k), np.nan) for name in BETTER}
        object.__setattr__(self, "mean", {**unknown, **self.mean})
        object.__setattr__(self, "std", {**unknown, **self.std})


def select_k(
    latents: NDArray[np.float32],
    case_id: NDArray[np.integer],
    clusterings: Sequence[Clustering],
    config: SelectConfig,
    *,
    zscored: bool = True,
) -> Task[ValidationScores]:
    """Return the indices of several clusterings of the same patches.

    Latents are z-scored unless `zscored` is False; distances are Euclidean. Each repeat judges a
    random half of the patches drawn. Stability is the mean adjusted Rand index between a repeat
    and the others, and the run: each repeat clusters its half by k-means from a seed of its own,
    and all patches go to its nearest mean (after Fang and Wang, Selection of the number of
    clusters via the bootstrap method, Computational Statistics & Data Analysis 56, 2012).

    Raises
    ------
    InputError
        If there are not enough patches to judge, or latents that are not finite.
    """
    rng = np.random.default_rng(config.seed)
    rows = _even_rows(case_id, config.patches, rng)
    largest = max(c.k for c in clusterings)
    if len(rows) < 4 * largest:
        raise InputError(
            f"{len(rows)} patches are too few to judge {largest} clusters. "
            "Use a smaller --stride-px or --k."
        )
    values, _ = check_rows(latents[rows], clusterings[0].assignments[rows])
    if zscored:
        values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)
    kept = round(_SHARE * len(rows))
    parts = [rng.permutation(len(rows))[:kept] for _ in range(config.repeats)]
    found: dict[str, list[list[float]]] = {name: [] for name in BETTER}
    for number, clustering in enumerate(clusterings):
        progress = Progress("Judging k", number, len(clusterings))
        labels = np.unique(clustering.assignments[rows], return_inverse=True)[1]
        judged = yield from _quietly(_judge(values, labels, parts, config.seed), progress)
        for name, of_repeats in judged.items():
            found[name].append(of_repeats)
    mean = {n: np.asarray(v).mean(axis=1) for n, v in found.items()}
    # One repeat has no spread; ddof=1 would make it NaN.
    std = {n: np.asarray(v).std(axis=1, ddof=min(1, len(parts) - 1)) for n, v in found.items()}
    ks = np.asarray([c.k for c in clusterings])
    suggested, why = suggest(ks, mean, std)
    return ValidationScores(ks, mean, std, suggested, why)


def suggest(
    k: NDArray[np.int64],
    mean: Mapping[str, NDArray[np.float64]],
    std: Mapping[str, NDArray[np.float64]],
) -> tuple[int, str]:
    """Return the k that the indices together speak for, and the evidence in words.

    Every index ranks the k twice: by its value, and by its height above its own trend over
    log k, since most indices rise or fall with k where there are no clusters at all. The k of
    the best mean rank is suggested. It lies in a range that is flat if the mean rank by value
    stays within two standard errors there. These come from curves drawn anew within the noise of
    each index: its spread, and its roughness from one k to the next, since every k has a
    clustering of its own and they differ by chance as well.

    The smallest k is an end of the range, where nothing tells a peak from a slope, and two halves
    of a section are seldom what is looked for: where it is the best, the best of the finer ones is
    suggested, and both are said.

    Evidence is contradictory if most indices like a k outside the range best. It is flat if the
    range is more than half of all k, and contradictory even then if most indices hold another k
    for better by more than their noise.

    Parameters
    ----------
    k
        (K,) numbers of clusters.
    mean, std
        Per index: (K,) its value and its spread.

    References
    ----------
    Gasser, Sroka and Jennen-Steinmetz, Residual variance and residual pattern in nonlinear
    regression, Biometrika 73, 1986 (noise from second differences; here their median). Breiman
    et al., Classification and regression trees, 1984 (standard errors say what is level).
    """
    order = np.argsort(k)
    k = k[order]
    names = [name for name in BETTER if np.isfinite(mean[name]).any()]
    if not names:
        why = "no index can be computed; all patches look alike or fall into one cluster"
        return int(k[0]), f"{k[0]}: {why}."
    heights = np.stack([_height(name, mean[name][order]) for name in names])
    noise = np.array([_noise(name, mean[name][order], std[name][order]) for name in names])
    low, best, high = _flat(heights, noise, k)
    coarsest = best == 0 and len(k) > _TREND_K
    if coarsest:
        low, best, high = (n + 1 for n in _flat(heights[:, 1:], noise, k[1:]))
    flat = len(k) > 2 and 2 * (high - low + 1) > len(k)
    liked = heights.argmax(axis=1)
    against = (liked < low) | (liked > high)
    if flat:
        # A range this wide excludes little: it may be that the indices outvote each other.
        against = heights.max(axis=1) - heights[:, best] > _APART * np.sqrt(2) * noise
    contradictory = 2 * int(against.sum()) > len(names)
    parts = [f"best rank over {len(names)} indices together"]
    if coarsest:
        parts[0] += f" but for {k[0]}, the coarsest split"
    parts += _preferences([PLAIN_NAMES[name] for name in names], k[liked], int(k[best]))
    if high > low:
        level = "level on balance" if contradictory else "all flat"
        parts.append(f"{level} from {k[low]} to {k[high]}")
    why = f"{k[best]}: {'; '.join(parts)}."
    if contradictory:
        why += " The evidence is contradictory: most indices prefer other k."
    elif flat:
        why += " The evidence is flat: it does not single out a k."
    return int(k[best]), why


def _preferences(names: list[str], liked: NDArray[np.int64], chosen: int) -> list[str]:
    """Return in words which index likes which k best, those for the chosen k first."""
    favours: dict[int, list[str]] = {}
    for name, other in zip(names, liked, strict=True):
        favours.setdefault(int(other), []).append(name)
    words = [f"best by {_join(favours.pop(chosen))}"] if chosen in favours else []
    for other, others in sorted(favours.items()):
        words.append(f"{_join(others)} prefer{'s' * (len(others) == 1)} {other}")
    return words


def _height(name: str, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return an index over k as something where more is better, and -inf where undefined."""
    if name == "calinski_harabasz":
        # A ratio of variances without an upper end: its differences are relative.
        mean = np.log(np.maximum(mean, np.finfo(np.float64).tiny))
    elif BETTER[name] == "lower":
        mean = -mean
    return np.where(np.isfinite(mean), mean, -np.inf)


def _noise(name: str, mean: NDArray[np.float64], std: NDArray[np.float64]) -> float:
    """Return how far an index moves by chance: spread over repeats, and roughness over k."""
    known = np.isfinite(mean) & np.isfinite(std)
    if name == "calinski_harabasz":
        std = std / np.where(mean > 0, mean, 1.0)
    spread = float(np.sqrt(np.mean(np.square(std[known])))) if known.any() else 0.0
    curve = _height(name, mean)
    curve = curve[np.isfinite(curve)]
    if len(curve) < _TREND_K:
        return spread
    # Median, not mean: a true peak is rough as well, but at one k only. Of normal noise, second
    # differences have a variance six times its own, and a median of 0.6745 deviations.
    roughness = float(np.median(np.abs(np.diff(curve, 2)))) / 0.6745 / np.sqrt(6)
    return float(np.hypot(spread, roughness))


def _flat(
    heights: NDArray[np.float64], noise: NDArray[np.float64], k: NDArray[np.int64]
) -> tuple[int, int, int]:
    """Return first, best and last place of the range of k that no index tells apart.

    Parameters
    ----------
    heights
        (M, K) of M indices, more is better.
    noise
        (M,) standard deviation of each.
    k
        (K,) ascending.
    """
    best = int(np.argmin(_mean_rank(heights) + _mean_rank(_above_trend(heights, k))))
    rank = _mean_rank(heights)
    rng = np.random.default_rng(0)
    ranks = _mean_rank(heights + noise[:, None] * rng.standard_normal((_DRAWS, *heights.shape)))
    error = (ranks - ranks[:, [best]]).std(axis=0)
    apart = np.flatnonzero(rank - rank[best] > _APART * error)
    before, after = apart[apart < best], apart[apart > best]
    return (
        int(before[-1]) + 1 if len(before) else 0,
        best,
        int(after[0]) - 1 if len(after) else len(k) - 1,
    )


def _mean_rank(heights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (..., K) mean rank of each k over the indices (..., M, K), 1 for the best."""
    from scipy.stats import rankdata

    return np.asarray(rankdata(-heights, axis=-1).mean(axis=-2), np.float64)


def _above_trend(heights: NDArray[np.float64], k: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return heights (M, K) less the straight line over log k of each index."""
    above = heights.copy()
    for height, out in zip(heights, above, strict=True):
        known = np.isfinite(height)
        if known.sum() >= _TREND_K:
            line = np.polynomial.Polynomial.fit(np.log(k[known]), height[known], 1)
            out[known] -= line(np.log(k[known]))
    return above


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _judge(
    values: NDArray[np.float64],
    labels: NDArray[np.integer],
    parts: Sequence[NDArray[np.int64]],
    seed: int,
) -> Task[dict[str, list[float]]]:
    """Return every index of one clustering, one value a repeat."""
    judged: dict[str, list[float]] = {name: [] for name in BETTER}
    for part in parts:
        for name, value in (yield from _indices(values[part], labels[part])).items():
            judged[name].append(value)
    judged["stability"] = yield from _stability(values, labels, parts, seed)
    return judged


def _indices(
    values: NDArray[np.float64], assignments: NDArray[np.integer]
) -> Task[dict[str, float]]:
    """Return the indices but stability of some patches; NaN where one is undefined."""
    from sklearn.metrics import calinski_harabasz_score, davies_bouldin_score, silhouette_score

    used, labels = np.unique(assignments, return_inverse=True)
    if len(used) < 2 or len(used) >= len(values) or not np.ptp(values, axis=0).any():
        return {name: float("nan") for name in BETTER if name != "stability"}
    few = np.linspace(0, len(values) - 1, min(len(values), _SILHOUETTE_PATCHES)).astype(np.int64)
    silhouette = float("nan")
    if 1 < len(np.unique(labels[few])) < len(few):
        silhouette = float(silhouette_score(values[few], labels[few]))
    yield Progress("Judging k")
    exact = yield from dunn(values, labels)
    yield Progress("Judging k")
    return {
        "dunn": exact,
        "generalised_dunn": generalised_dunn(values, labels),
        "silhouette": silhouette,
        "davies_bouldin": float(davies_bouldin_score(values, labels)),
        "calinski_harabasz": float(calinski_harabasz_score(values, labels)),
    }


def _stability(
    values: NDArray[np.float64],
    labels: NDArray[np.integer],
    parts: Sequence[NDArray[np.int64]],
    seed: int,
) -> Task[list[float]]:
    """Return a repeat's mean adjusted Rand index with the run and the other repeats."""
    from sklearn.metrics import adjusted_rand_score

    count = int(labels.max()) + 1
    if count < 2 or not np.ptp(values, axis=0).any():
        return [float("nan")] * len(parts)
    found = [labels]
    for number, part in enumerate(parts):
        few = part[:_STABILITY_PATCHES]
        found.append((yield from _cluster_anew(values, few, count, seed + number)))
    alike = np.zeros((len(found), len(found)))
    for a, b in itertools.combinations(range(len(found)), 2):
        alike[a, b] = alike[b, a] = adjusted_rand_score(found[a], found[b])
    # The first row is the run itself.
    return [float(row.sum()) / len(parts) for row in alike[1:]]


def _cluster_anew(
    values: NDArray[np.float64], few: NDArray[np.int64], count: int, seed: int
) -> Task[NDArray[np.integer]]:
    """Return the nearest of `count` means for every patch, found from a few of them."""
    means = yield from best_means(
        values[few], count, starts=_STARTS, seed=seed, progress=Progress("Judging k"), iterations=50
    )
    found: NDArray[np.integer] = means.predict(values)
    return found


def _quietly(task: Task[R], progress: Progress) -> Task[R]:
    """Drive a task whose own progress is of no interest."""
    try:
        while True:
            try:
                next(task)
            except StopIteration as stop:
                result: R = stop.value
                return result
            yield progress
    finally:
        task.close()


def _even_rows(
    case_id: NDArray[np.integer], most: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return at most `most` rows, the same number from every case where they have it."""
    cases = np.unique(case_id)
    quota = most // len(cases)
    rows = [np.flatnonzero(case_id == c) for c in cases]
    return np.sort(
        np.concatenate(
            [r if len(r) <= quota else rng.choice(r, quota, replace=False) for r in rows]
        )
    )
