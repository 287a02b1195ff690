"""The choice among the places the coarse search found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.registration.affine import alignment, refine_affine
from napari_pancluster.core.registration.images import Matrix, WorkImage
from napari_pancluster.core.registration.search import orientation_of

# Longer side in px of each step, and whether only a similarity may be fitted there: every start
# takes the coarse ones, the best places that come of them the fine ones.
_COARSE = ((64, True), (128, True))
_FINE = ((256, True), (256, False))
_FINEST_PX = 512
# Refined matrices closer than this share of the side are one and the same.
_SAME_SHARE = 0.05


@dataclass(frozen=True)
class Settled:
    """A candidate after its affine refinement.

    Attributes
    ----------
    matrix
        (3, 3), fixed µm to moving µm.
    score
        Mean local correlation at 256 px, absolute.
    """

    matrix: Matrix
    score: float


def settle(
    fixed: WorkImage, moving: WorkImage, starts: Sequence[Matrix], *, places: int
) -> Task[tuple[Settled, ...]]:
    """Return at most `places` refined matrices, best first, each place once."""
    coarse = [Settled(start, 0.0) for start in starts]
    for steps, most in ((_COARSE, len(starts)), (_FINE, places)):
        chosen = coarse[:most]
        settled = []
        for n, one in enumerate(chosen):
            matrix = one.matrix
            for step, (px, rigid) in enumerate(steps):
                yield Progress("Aligning", n * len(steps) + step, len(chosen) * len(steps))
                target, source = both_at(fixed, moving, px)
                matrix = refine_affine(target, source, matrix, rigid=rigid)
            settled.append(Settled(matrix, abs(alignment(target, source, matrix))))
        coarse = _distinct(fixed, settled)
    return tuple(coarse)


def _distinct(fixed: WorkImage, settled: Sequence[Settled]) -> list[Settled]:
    kept: list[Settled] = []
    for one in sorted(settled, key=lambda s: -s.score):
        if not any(_same_place(fixed, one.matrix, other.matrix) for other in kept):
            kept.append(one)
    return kept


def finish(fixed: WorkImage, moving: WorkImage, matrix: Matrix) -> Matrix:
    """Return the affine improved at the finest picture it needs."""
    target, source = both_at(fixed, moving, _FINEST_PX)
    return refine_affine(target, source, matrix)


def both_at(fixed: WorkImage, moving: WorkImage, px: int) -> tuple[WorkImage, WorkImage]:
    """Return both images at one pixel size, the fixed one's longer side at most `px`."""
    mpp = max(fixed.long_um / px, fixed.mpp, moving.mpp)
    return fixed.at(mpp), moving.at(mpp)


def _same_place(fixed: WorkImage, one: Matrix, other: Matrix) -> bool:
    size = np.array(fixed.shape) * fixed.mpp
    corners = np.array([[0, 0], [0, 1], [1, 0], [1, 1]]) * size
    apart = corners @ (one[:2, :2] - other[:2, :2]).T + one[:2, 2] - other[:2, 2]
    scale = orientation_of(one)[2]
    return bool(np.abs(apart).max() < _SAME_SHARE * fixed.long_um * max(scale, 1e-6))
