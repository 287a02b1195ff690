"""What looks wrong about a clustering, in words: clusters that are no tissue, or only a case."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.stack import CHANNELS
from napari_pancluster.core.stain import MAX_OD

if TYPE_CHECKING:
    from napari_pancluster.core.dataset import PatchStore

_ROWS = 256
# A cluster with fewer of the patches is too small to be told from chance.
_LEAST_SHARE = 0.005
# Glass: a camera's noise is 0.004 OD, a lamp uneven by 5 % gives 0.022. The clearest tissue, fat
# with its membranes, has 0.077 (median of labelled patches).
_GLASS_OD = 0.03
# Where the density varies less, which is four times a camera's noise, nothing could be sharp.
_LEAST_CONTRAST_OD = 0.015
# Variance that rounding to 8 bits leaves in the mean of a stain's colours.
_ROUNDING = (MAX_OD / 255) ** 2 / 12 / CHANNELS
# Of the Laplacian of noise, over that of the noise: the sum of its squared weights.
_NOISE_GAIN = 20.0
# Sharpness is a logarithm of base 2. The medians of eight sharp tissues lie within ±0.9, those of
# the same tissues blurred by 1 px at -1.5 to -3.2, by 2 px at -3.8 to -5.1.
_LEAST_SHARPNESS_SPREAD = 0.75
_BLURRED_Z = -2.0
# A straight empty border covers this much of a patch before the patch counts as cut.
_WHOLE = 0.9
_DIRECTIONS = 32
_COARSE_PX = 4
# So many rows of coarse pixels before such a border, and how much of them shows anything.
_STRIP, _FILLED = 2, 0.7
# 1: every cluster lies in one case; 0: each draws on all cases alike.
_FOLLOWING = 0.5
_OWN = 0.9
_SMALL_CASE = 0.6
_LEAST_PATCHES = 30
# A cluster is where a stain is missing when most of it lacks the stain, and little else does.
_MOSTLY, _SELDOM = 0.7, 0.2


@dataclass(frozen=True)
class PatchFacts:
    """What is told from the patches themselves, without the network.

    Attributes
    ----------
    density
        (N,) mean OD of the strongest colour of the strongest stain.
    sharpness
        (N,) log2 of the variance of the Laplacian over the variance of the density, for each
        stain above its median; of the least sharp stain. NaN where no stain has any structure.
    covered
        (N,) share of the patch that lies on the slide, of the stain that covers it least.
    case_id
        (N,) number of the case.
    lacking
        (N,) whether a patch lacks the stain, by its name.
    """

    density: NDArray[np.float32]
    sharpness: NDArray[np.float32]
    covered: NDArray[np.float32]
    case_id: NDArray[np.int32]
    lacking: Mapping[str, NDArray[np.bool_]] = field(default_factory=dict)


def patch_facts(
    store: PatchStore,
    case_id: NDArray[np.integer],
    *,
    stains: Sequence[str] = (),
    covered: NDArray[np.floating] | None = None,
) -> PatchFacts:
    """Look at the middle patch of every crop.

    Parameters
    ----------
    store
        The crops (M, C, S, S).
    case_id
        (M,) number of the case of each.
    stains
        Their names, where it is to be told which of them a patch lacks.
    covered
        (M,) share of each patch that lies on all its slides. Default: measured on the patches,
        where the largest empty border with a straight edge counts as off the slide; glass that a
        scanner made perfectly white looks the same.
    """
    first = (store.codes.shape[-1] - store.patch_px) // 2
    middle = slice(first, first + store.patch_px)
    density = np.zeros(store.present.shape, np.float32)
    sharpness = np.full(store.present.shape, np.nan, np.float32)
    on_slide = np.ones(store.present.shape, np.float32)
    for start in range(0, len(store), _ROWS):
        rows = slice(start, start + _ROWS)
        codes = store.codes[rows, :, middle, middle]
        codes = codes.reshape(len(codes), store.stains, CHANNELS, *codes.shape[2:])
        od = codes.astype(np.float32) * np.float32(MAX_OD / 255)
        density[rows] = od.mean(axis=(3, 4)).max(axis=2)
        sharpness[rows] = _sharpness(od.mean(axis=2))
        if covered is None:
            on_slide[rows] = _on_slide(np.asarray(codes.any(axis=2)))
    sharpness[~store.present] = np.nan
    return PatchFacts(
        density=np.where(store.present, density, 0).max(axis=1),
        sharpness=_of_least_sharp(sharpness),
        covered=np.where(store.present, on_slide, 1).min(axis=1)
        if covered is None
        else np.asarray(covered, np.float32),
        case_id=np.asarray(case_id, np.int32),
        lacking={name: ~there for name, there in zip(stains, store.present.T, strict=False)},
    )


def suspicions(
    assignments: NDArray[np.integer], k: int, facts: PatchFacts, cases: tuple[str, ...]
) -> tuple[str, ...]:
    """Return a sentence for everything that looks wrong; none for an ordinary clustering.

    Parameters
    ----------
    assignments
        (N,) cluster of each patch, 0 … k − 1; the sentences count from 1, as the map does.
    k
        Number of clusters.
    facts
        Of the same patches.
    cases
        Names of the cases.
    """
    if len(assignments) == 0:
        return ()
    members = [np.flatnonzero(assignments == cluster) for cluster in range(k)]
    judged = [c for c in range(k) if len(members[c]) >= _LEAST_SHARE * len(assignments)]
    empty = [c for c in judged if np.median(facts.density[members[c]]) < _GLASS_OD]
    stained = [c for c in judged if c not in empty]
    table = np.zeros((k, len(cases)))
    np.add.at(table, (assignments, facts.case_id), 1)
    return (
        *_collapsed(table.sum(axis=1)),
        *_background(empty, members, facts),
        *_blurred(stained, members, facts),
        *_at_the_edge(stained, members, facts),
        *_where_missing(judged, members, facts),
        *_following(table, cases),
    )


def _sharpness(density: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return log2 of the Laplacian's variance over the density's (B, stains), of (B, stains, P, P).

    A stain twice as strong has both four times as large. NaN where there is no contrast.
    """
    inner = density[..., 1:-1, 1:-1]
    across = density[..., 1:-1, :-2] + density[..., 1:-1, 2:]
    laplacian = 4 * inner - across - density[..., :-2, 1:-1] - density[..., 2:, 1:-1]
    contrast, fine = density.var(axis=(2, 3)), laplacian.var(axis=(2, 3))
    fine = np.maximum(fine - _NOISE_GAIN * _ROUNDING, _ROUNDING)
    ratio = np.log2(fine / np.maximum(contrast, _ROUNDING))
    return np.where(contrast < _LEAST_CONTRAST_OD**2, np.nan, ratio)


def _of_least_sharp(sharpness: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return how sharp (N,) the least sharp stain is against its own median, of (N, stains)."""
    relative = np.full_like(sharpness, np.inf)
    for stain, values in enumerate(sharpness.T):
        seen = np.isfinite(values)
        if seen.any():
            relative[seen, stain] = values[seen] - np.median(values[seen])
    least = relative.min(axis=1)
    return np.where(np.isfinite(least), least, np.nan).astype(np.float32)


def _on_slide(shown: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the share (B, stains) outside the largest empty border, of pixels (B, stains, P, P).

    A slide ends in a straight line at any angle: for one of some directions, all that lies beyond
    is empty, and just before hardly anything. Beside tissue on blank glass there is more that is
    empty, for its outline is not straight.
    """
    side = shown.shape[-1] // _COARSE_PX
    whole = shown[..., : side * _COARSE_PX, : side * _COARSE_PX]
    blocks = whole.reshape(-1, side, _COARSE_PX, side, _COARSE_PX)
    flat = np.asarray(blocks.any(axis=(2, 4))).reshape(-1, side * side)
    row, col = np.mgrid[:side, :side].reshape(2, -1)
    covered = np.ones(len(flat))
    for angle in np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS):
        order = np.argsort(row * np.sin(angle) + col * np.cos(angle), kind="stable")
        inwards = flat[:, order[::-1]]
        beyond = inwards.argmax(axis=1)
        strip = beyond[:, None] + np.arange(_STRIP * side)
        before = np.take_along_axis(inwards, np.minimum(strip, side * side - 1), axis=1)
        straight = before.mean(axis=1) > _FILLED
        covered = np.where(straight, np.minimum(covered, 1 - beyond / inwards.shape[1]), covered)
    covered[~flat.any(axis=1)] = 0
    return covered.reshape(shown.shape[:2]).astype(np.float32)


def _collapsed(sizes: NDArray[np.float64]) -> list[str]:
    share, k = sizes / sizes.sum(), len(sizes)
    said = []
    tiny = np.flatnonzero(share < _LEAST_SHARE)
    if len(tiny):
        held = ", ".join(_percent(share[c], digits=1) for c in tiny)
        said.append(
            f"{_named(tiny)} hardly any patches ({held}): this tissue may not show k = {k} kinds. "
            "Choose a smaller k, or merge them with others."
        )
    effective = _effective(share)
    if effective < k / 2:
        said.append(
            f"The clusters collapsed: the patches spread over them as over {effective:.1f} of "
            f"equal size, not {k}. Choose a smaller k, or train anew with more patches and epochs "
            "(--patches, --epochs), or a higher --balance."
        )
    return said


def _background(empty: list[int], members: list[NDArray[np.int64]], facts: PatchFacts) -> list[str]:
    return [
        f"Cluster {c + 1} is only background: the median density of its patches is "
        f"{np.median(facts.density[members[c]]):.3f}, as on glass. Lower the sensitivity of the "
        "tissue mask, or outline the tissue; or name the cluster background and leave it out."
        for c in empty
    ]


def _blurred(stained: list[int], members: list[NDArray[np.int64]], facts: PatchFacts) -> list[str]:
    said = []
    seen = np.isfinite(facts.sharpness)
    for cluster in stained:
        mine = np.zeros(len(seen), np.bool_)
        mine[members[cluster]] = True
        own, others = facts.sharpness[mine & seen], facts.sharpness[~mine & seen]
        # A cluster mostly without structure is smooth, which is not blurred.
        if len(own) < len(members[cluster]) / 2 or len(others) < _LEAST_PATCHES:
            continue
        usual = np.median(others)
        spread = 1.4826 * float(np.median(np.abs(others - usual)))
        below = float(np.median(own) - usual)
        if below / max(spread, _LEAST_SHARPNESS_SPREAD) < _BLURRED_Z:
            said.append(
                f"Cluster {cluster + 1} seems to be out of focus: its fine detail is "
                f"{2 ** (-below / 2):.1f} times weaker against the contrast than elsewhere. Look "
                "at its patches on the slide; scan it again, or outline what is sharp."
            )
    return said


def _at_the_edge(
    stained: list[int], members: list[NDArray[np.int64]], facts: PatchFacts
) -> list[str]:
    said = []
    for cluster in stained:
        cut = float((facts.covered[members[cluster]] < _WHOLE).mean())
        if cut > 0.5:
            said.append(
                f"Cluster {cluster + 1} lies at the edge of a slide: {_percent(cut)} of its "
                "patches are partly off it, or on perfectly blank glass. Outline the tissue "
                "without the edge, or leave out the stain whose slide is smaller."
            )
    return said


def _where_missing(
    judged: list[int], members: list[NDArray[np.int64]], facts: PatchFacts
) -> list[str]:
    said = []
    for name, lacks in facts.lacking.items():
        for cluster in judged:
            own = float(lacks[members[cluster]].mean())
            others = (lacks.sum() - lacks[members[cluster]].sum()) / max(
                len(lacks) - len(members[cluster]), 1
            )
            if own > _MOSTLY and others < _SELDOM:
                said.append(
                    f"Cluster {cluster + 1} is where {name} is missing or lies unsurely: "
                    f"{_percent(own)} of its patches lack it, {_percent(others)} of the others. "
                    f"Adjust the registration of {name}, leave the stain out, or train with more "
                    "--stain-dropout."
                )
    return said


def _following(table: NDArray[np.float64], cases: tuple[str, ...]) -> list[str]:
    """Return what is to be said of clusters (k, cases) that follow the case."""
    there = np.flatnonzero(table.sum(axis=0))
    table = table[:, there]
    if len(there) < 2:
        return []
    own = _own_clusters(table)
    # Whatever single case is left out: one case may show an organ that the others lack.
    kept = [np.delete(table, n, axis=1) for n in range(len(there))] if len(there) > 2 else [table]
    following = min(_follow(part) for part in kept)
    names = [
        f"cluster {c + 1} to {_percent(table[c, case] / table[c].sum())} in {cases[there[case]]}"
        for c, case in own
    ]
    if following > _FOLLOWING:
        clusters = f" ({'; '.join(names)})" if names else ""
        return [
            "The clusters follow the case or the scanner rather than the tissue: an average "
            f"cluster draws on {_mean_cases(table):.1f} of {len(there)} cases{clusters}. Check "
            "whether the cases show the same organs, and were stained and scanned alike; if they "
            "show the same, train with more stain variation (--stain-jitter)."
        ]
    if not names:
        return []
    said = "; ".join(names)
    return [
        f"{said[0].upper()}{said[1:]}: a tissue that only this case shows, or its staining. Look "
        "at the patches before cases are compared by it."
    ]


def _follow(table: NDArray[np.float64]) -> float:
    """Return 0 where every cluster draws on all cases alike, 1 where each lies in one case."""
    return 1 - (_mean_cases(table) - 1) / float(table.shape[1] - 1)


def _mean_cases(table: NDArray[np.float64]) -> float:
    """Return on how many cases an average cluster draws: exp of the entropy of its cases.

    Every case counts the same, however many patches it has.
    """
    even = table / np.maximum(table.sum(axis=0), 1)
    even = even[even.sum(axis=1) > 0]
    weights = even.sum(axis=1) / even.sum()
    return float(sum(w * _effective(c / c.sum()) for w, c in zip(weights, even, strict=True)))


def _own_clusters(table: NDArray[np.float64]) -> list[tuple[int, int]]:
    """Return the clusters that lie in one case, and the case, where that is none of the largest."""
    sizes = table.sum(axis=0)
    even = table / sizes
    found = []
    for cluster, row in enumerate(even):
        case = int(row.argmax())
        enough = table[cluster].sum() >= max(_LEAST_PATCHES, _LEAST_SHARE * sizes.sum())
        if enough and row[case] >= _OWN * row.sum() and sizes[case] <= _SMALL_CASE * sizes.sum():
            found.append((cluster, case))
    return found


def _effective(share: NDArray[np.float64]) -> float:
    """Return exp of the entropy: as many equal parts would be as even as these."""
    share = share[share > 0]
    return float(np.exp(-(share * np.log(share)).sum()))


def _percent(share: float, *, digits: int = 0) -> str:
    return f"{100 * share:.{digits}f} %"


def _named(clusters: NDArray[np.int64]) -> str:
    *first, last = (str(c + 1) for c in clusters)
    return f"Clusters {', '.join(first)} and {last} hold" if first else f"Cluster {last} holds"
