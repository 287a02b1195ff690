"""Internal validation indices: how well latents fall into k clusters, for each k."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.config import SelectConfig
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.latents import Clustering
from napari_pancluster.core.progress import Progress, Task

BETTER: dict[str, Literal["higher", "lower"]] = {
    "dunn": "higher",
    "silhouette": "higher",
    "davies_bouldin": "lower",
    "calinski_harabasz": "higher",
    "stability": "higher",
}
_ROWS = 512
# Share of the patches a repeat judges.
_SHARE = 0.8
# Silhouette needs all distances; this many patches keep it to a second a k.
_SILHOUETTE_PATCHES = 4000


@dataclass(frozen=True)
class ValidationScores:
    """Indices over k.

    Attributes
    ----------
    k
        (K,) numbers of clusters.
    mean, std
        Per index: (K,) its mean over the repeats, and its spread.
    suggested_k
        The k with the best mean rank.
    why
        The suggestion in words.
    """

    k: NDArray[np.int64]
    mean: dict[str, NDArray[np.float64]]
    std: dict[str, NDArray[np.float64]]
    suggested_k: int
    why: str


def dunn(latents: NDArray[np.floating], assignments: NDArray[np.integer]) -> float:
    """Return Dunn's index: least distance between clusters over the largest diameter.

    Exact, with distances computed block by block, so that memory stays flat.

    Parameters
    ----------
    latents
        (N, D).
    assignments
        (N,) cluster of each row.

    References
    ----------
    Dunn, Well-separated clusters and optimal fuzzy partitions, J. Cybernetics 4, 1974.
    """
    order = np.argsort(assignments, kind="stable")
    values, groups = np.asarray(latents, np.float64)[order], np.asarray(assignments)[order]
    norms = np.square(values).sum(1)
    # |a - b|² = |a|² + [a, 1] · [-2b, |b|²]: one product, and one pass over it.
    left = np.column_stack([values, np.ones(len(values))])
    right = np.column_stack([-2 * values, norms]).T
    ends = np.searchsorted(groups, groups, side="right")
    nearest, widest, top = np.inf, 0.0, 0
    while top < len(values):
        # Rows of one cluster at a time. Distances are symmetric: what lies left was seen before.
        end = int(ends[top])
        rows = slice(top, min(top + _ROWS, end))
        within = (left[rows] @ right[:, top:end]).max(axis=1) + norms[rows]
        # A row and itself are 0 apart, whatever the last bit of the difference says.
        widest = max(widest, float(within.max()) if end - top > 1 else 0.0)
        if end < len(values):
            across = (left[rows] @ right[:, end:]).min(axis=1) + norms[rows]
            nearest = min(nearest, float(across.min()))
        top = rows.stop
    if not np.isfinite(nearest) or widest <= 0:
        return float("nan")
    return float(np.sqrt(max(nearest, 0.0) / widest))


def select_k(
    latents: NDArray[np.float32],
    case_id: NDArray[np.integer],
    clusterings: Sequence[Clustering],
    config: SelectConfig,
) -> Task[ValidationScores]:
    """Return the indices of several clusterings of the same patches.

    Latents are z-scored; distances are Euclidean. Each repeat judges 80 % of the
    patches drawn; stability is the adjusted Rand index between the run's clusters and those that
    k-means finds in the repeat when started from the clusters' means.

    Raises
    ------
    InputError
        If there are not enough patches to judge.
    """
    rng = np.random.default_rng(config.seed)
    rows = _even_rows(case_id, config.patches, rng)
    largest = max(c.k for c in clusterings)
    if len(rows) < 4 * largest:
        raise InputError(
            f"{len(rows)} patches are too few to judge {largest} clusters. "
            "Use a smaller --stride-px or --k."
        )
    values = latents[rows]
    values = (values - values.mean(0)) / np.maximum(values.std(0), 1e-6)
    kept = round(_SHARE * len(rows))
    parts = [rng.permutation(len(rows))[:kept] for _ in range(config.repeats)]
    found: dict[str, list[list[float]]] = {name: [] for name in BETTER}
    for number, clustering in enumerate(clusterings):
        yield Progress("Judging k", number, len(clusterings))
        scores = [_indices(values[part], clustering.assignments[rows][part]) for part in parts]
        for name in BETTER:
            found[name].append([s[name] for s in scores])
    # (K, repeats); an index is undefined in all repeats of a k or in none, so no masked means.
    mean = {name: np.asarray(v).mean(axis=1) for name, v in found.items()}
    std = {name: np.asarray(v).std(axis=1) for name, v in found.items()}
    ks = np.asarray([c.k for c in clusterings])
    suggested, why = suggest(ks, mean)
    return ValidationScores(ks, mean, std, suggested, why)


def suggest(k: NDArray[np.int64], mean: dict[str, NDArray[np.float64]]) -> tuple[int, str]:
    """Return the k with the best mean rank over the indices, and the evidence in words."""
    ranks = np.mean([_ranks(mean[n], better) for n, better in BETTER.items()], axis=0)
    best = int(np.argmin(ranks))
    favours: dict[int, list[str]] = {}
    for name, better in BETTER.items():
        values = mean[name] if better == "higher" else -mean[name]
        if np.isfinite(values).any():
            favours.setdefault(int(k[np.nanargmax(values)]), []).append(PLAIN_NAMES[name])
    chosen = int(k[best])
    parts = [f"best mean rank of {len(BETTER)} indices"]
    if chosen in favours:
        parts.append(f"best by {_join(favours.pop(chosen))}")
    parts += [
        f"{_join(names)} prefer{'s' * (len(names) == 1)} {other}"
        for other, names in sorted(favours.items())
    ]
    level = k[ranks <= ranks[best] + _LEVEL * len(k)]
    if len(level) > 1:
        parts.append(f"nearly level: {', '.join(str(v) for v in level)}")
    return chosen, f"{chosen}: {'; '.join(parts)}."


PLAIN_NAMES = {
    "dunn": "Dunn",
    "silhouette": "silhouette",
    "davies_bouldin": "Davies–Bouldin",
    "calinski_harabasz": "Calinski–Harabasz",
    "stability": "stability",
}
# A mean rank this close to the best, as a share of all ranks, is no evidence against a k.
_LEVEL = 0.05


def _join(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _ranks(values: NDArray[np.float64], better: str) -> NDArray[np.float64]:
    """Return 0 for the best value; what could not be computed ranks last."""
    from scipy.stats import rankdata

    cost = -values if better == "higher" else values
    return np.asarray(rankdata(np.where(np.isfinite(cost), cost, np.inf)), np.float64) - 1


def _indices(values: NDArray[np.floating], assignments: NDArray[np.integer]) -> dict[str, float]:
    from sklearn.metrics import (
        adjusted_rand_score,
        calinski_harabasz_score,
        davies_bouldin_score,
        silhouette_score,
    )

    used, labels = np.unique(assignments, return_inverse=True)
    if len(used) < 2 or len(used) >= len(values):
        return dict.fromkeys(BETTER, float("nan"))
    few = np.linspace(0, len(values) - 1, min(len(values), _SILHOUETTE_PATCHES)).astype(np.int64)
    several = len(np.unique(labels[few])) > 1
    return {
        "dunn": dunn(values, labels),
        "silhouette": float(silhouette_score(values[few], labels[few]))
        if several
        else float("nan"),
        "davies_bouldin": float(davies_bouldin_score(values, labels)),
        "calinski_harabasz": float(calinski_harabasz_score(values, labels)),
        "stability": float(adjusted_rand_score(labels, _recluster(values, labels))),
    }


def _recluster(values: NDArray[np.floating], labels: NDArray[np.integer]) -> NDArray[np.integer]:
    from sklearn.cluster import KMeans

    means = np.stack([values[labels == label].mean(0) for label in range(int(labels.max()) + 1)])
    found: NDArray[np.integer] = KMeans(len(means), init=means, n_init=1, max_iter=50).fit_predict(
        values
    )
    return found


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
