"""Dunn's index: exact, block by block, and in a form that no two patches decide."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.progress import Progress, Task

# Rows of a tile: the float32 distances of two tiles (4 MB) stay in the processor's cache.
_ROWS = 1024
# Float32 distances are trusted to this many roundings a product, and checked in float64 beyond.
_ROUNDING = float(np.finfo(np.float32).eps)
# Progress at most ten times a second.
_REPORT_S = 0.1


@dataclass(frozen=True)
class _Tile:
    """Rows of one cluster, all about as far from its mean.

    Attributes
    ----------
    values
        (M, D) float64.
    centre
        (D,) mean of the cluster.
    radius
        Largest distance to it.
    cluster
        Number of the cluster.
    """

    values: NDArray[np.float64]
    centre: NDArray[np.float64]
    radius: float
    cluster: int


def dunn(latents: NDArray[np.floating], assignments: NDArray[np.integer]) -> Task[float]:
    """Return Dunn's index: least distance between clusters over the largest diameter.

    min over i ≠ j of |x - y|, x in i and y in j, over max over i of |x - y|, x and y in i.
    Exact: all distances are computed in float32, tile by tile, and those that could be an extreme
    within its rounding again in float64. Memory: the latents once in float64, and one tile.

    Parameters
    ----------
    latents
        (N, D).
    assignments
        (N,) cluster of each row.

    Returns
    -------
    dunn
        NaN where it is undefined: one cluster, or no cluster with two different rows.

    Raises
    ------
    InputError
        If the latents are not finite, or not one a row of the assignments.

    References
    ----------
    Dunn, Well-separated clusters and optimal fuzzy partitions, J. Cybernetics 4, 1974.
    """
    values, clusters = check_rows(latents, assignments)
    if not clusters.any():
        return float("nan")
    tiles = _tiles(values, clusters)
    widest = yield from _extreme(tiles, within=True)
    if widest <= 0:
        return float("nan")
    nearest = yield from _extreme(tiles, within=False)
    return nearest / widest


def generalised_dunn(latents: NDArray[np.floating], assignments: NDArray[np.integer]) -> float:
    """Return the generalised Dunn index v43: means in the place of the two extreme distances.

    min over i ≠ j of δ4(i, j), over max over i of Δ3(i), with δ4(i, j) = |c_i - c_j| and
    Δ3(i) = 2 / n_i · Σ |x - c_i| over x in i; c the means, n the sizes of the clusters.
    One patch moves it by about 1 / n_i, and can halve Dunn's own index. Of the family's robust
    forms this one still tells clusters apart in many dimensions, where all distances between
    patches, of which δ3 and δ5 are means, become alike.

    Parameters
    ----------
    latents
        (N, D).
    assignments
        (N,) cluster of each row.

    Returns
    -------
    generalised_dunn
        NaN where it is undefined: one cluster, or no cluster with two different rows.

    Raises
    ------
    InputError
        If the latents are not finite, or not one a row of the assignments.

    References
    ----------
    Bezdek and Pal, Some new indexes of cluster validity, IEEE Trans. Systems, Man, and
    Cybernetics B 28, 1998.
    """
    from scipy.spatial.distance import pdist

    values, clusters = check_rows(latents, assignments)
    parts = [values[clusters == number] for number in range(int(clusters.max()) + 1)]
    centres = np.stack([part.mean(0) for part in parts])
    width = max(
        2 * float(np.linalg.norm(part - centre, axis=1).mean())
        for part, centre in zip(parts, centres, strict=True)
    )
    if len(parts) < 2 or width <= 0:
        return float("nan")
    return float(pdist(centres).min()) / width


def check_rows(
    latents: NDArray[np.floating], assignments: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return latents (N, D), and clusters (N,) numbered from 0 without gaps.

    Raises
    ------
    InputError
        If there are none, if they are not finite, or not one a row of the assignments.
    """
    values = np.asarray(latents, np.float64)
    if values.ndim != 2 or len(values) == 0 or np.shape(assignments) != (len(values),):
        raise InputError(
            f"Latents of shape {values.shape} and assignments of shape {np.shape(assignments)} "
            "do not fit. Pass (N, D) latents and one cluster a row."
        )
    bad = len(values) - int(np.isfinite(values).all(axis=1).sum())
    if bad:
        raise InputError(
            f"{bad} of {len(values)} rows of latents are not finite. Train anew with a lower "
            "learning rate, or leave these rows out."
        )
    return values, np.unique(assignments, return_inverse=True)[1].astype(np.int64)


def _tiles(values: NDArray[np.float64], clusters: NDArray[np.int64]) -> list[_Tile]:
    """Return the rows cluster by cluster, the outermost of each first."""
    tiles = []
    for number in range(int(clusters.max()) + 1):
        rows = values[clusters == number]
        centre = rows.mean(0)
        radius = np.linalg.norm(rows - centre, axis=1)
        order = np.argsort(-radius, kind="stable")
        tiles += [
            _Tile(rows[part], centre, float(radius[part[0]]), number)
            for part in np.split(order, range(_ROWS, len(order), _ROWS))
        ]
    return tiles


def _extreme(tiles: list[_Tile], *, within: bool) -> Task[float]:
    """Return the largest distance within a cluster, or the least one between two clusters.

    The pairs of tiles that promise most come first; where the triangle inequality, by way of the
    clusters' means, leaves no pair that can change the result, the search ends.
    """
    # Least distances are searched as the largest of -d: one search for both.
    sign = 1.0 if within else -1.0
    pairs, limits = _pairs(tiles, within=within)
    stage = "Largest diameter" if within else "Least distance between clusters"
    best, told = 0.0 if within else -np.inf, 0.0
    for done, ((a, b), limit) in enumerate(zip(pairs, limits, strict=True)):
        if limit <= best:
            break
        if time.monotonic() - told > _REPORT_S:
            yield Progress(stage, done, len(pairs))
            told = time.monotonic()
        best = max(best, _extreme_of(tiles[a], tiles[b], sign=sign, best=best))
    return sign * best


def _pairs(tiles: list[_Tile], *, within: bool) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pairs (P, 2) of tiles, and what their ± distances cannot exceed, largest first."""
    cluster = np.array([t.cluster for t in tiles])
    radius = np.array([t.radius for t in tiles])
    first, second = np.triu_indices(len(tiles))
    kept = (cluster[first] == cluster[second]) == within
    first, second = first[kept], second[kept]
    # A rounding more than the distances themselves can have.
    limits = (1 + 1e-12) * (radius[first] + radius[second])
    if not within:
        # One centre a cluster: there are few clusters, and there may be many tiles.
        starts = np.unique(cluster, return_index=True)[1]
        centres = np.stack([tiles[start].centre for start in starts])
        apart = (1 - 1e-12) * np.linalg.norm(centres[:, None] - centres, axis=2)
        limits = np.minimum(limits - apart[cluster[first], cluster[second]], 0.0)
    order = np.argsort(-limits, kind="stable")
    return np.column_stack([first, second])[order], limits[order]


def _extreme_of(a: _Tile, b: _Tile, *, sign: float, best: float) -> float:
    """Return the largest ± distance of two tiles, or -inf if it is not above `best`."""
    from scipy.spatial.distance import cdist

    # Relative to a point amid the rows, in units of the farthest: an offset costs no digits.
    middle = (a.centre + b.centre) / 2
    left, right = a.values - middle, b.values - middle
    unit = float(np.sqrt(max(np.square(left).sum(1).max(), np.square(right).sum(1).max()))) or 1.0
    left, right = left / unit, right / unit
    # |a - b|² = [-2a, |a|², 1] · [b, 1, |b|²]: one product, and one pass over it.
    rows_of_a = sign * _single(-2 * left, np.square(left).sum(1), 1.0)
    rows_of_b = _single(right, 1.0, np.square(right).sum(1))
    with _blas().limit(limits=1, user_api="blas"):
        product = rows_of_a @ rows_of_b.T
    slack = 4 * (left.shape[1] + 8) * _ROUNDING
    rows = product.max(axis=1) >= sign * (best / unit) ** 2 - slack
    if not rows.any():
        return -np.inf
    return float((sign * cdist(a.values[rows], b.values)).max())


@cache
def _blas() -> Any:
    """Return what sets BLAS's threads.

    Two threads of so small a product wait for each other: on busy cores they took ten times as
    long as one.
    """
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def _single(
    rows: NDArray[np.float64], *columns: NDArray[np.float64] | float
) -> NDArray[np.float32]:
    """Return rows (M, D) with further columns, in float32."""
    out = np.empty((len(rows), rows.shape[1] + len(columns)), np.float32)
    out[:, : rows.shape[1]] = rows
    for number, column in enumerate(columns, rows.shape[1]):
        out[:, number] = column
    return out
