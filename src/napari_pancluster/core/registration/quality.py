"""How good a registration is, from the evidence alone, and what to tell the user."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_pancluster.core.registration.agreement import WINDOW_PX
from napari_pancluster.core.registration.forces import LocalStats, local_correlation
from napari_pancluster.core.registration.images import (
    MASK_MPP,
    FloatImage,
    Laid,
    WorkImage,
    lay,
)
from napari_pancluster.core.transform import Transform

Status = Literal["ok", "doubtful", "failed"]

QUALITY_PX = 384
# Of the masks, a side: more of them change the overlap by 0.0002 (four pairs), in thrice the time.
_MASK_PX = 1000
# Set on 15 true and 20 wrong pairs of liver, lung, stomach, pancreas and drawn sections: true ones
# beat their rivals by 1.39 and more and stand out by 3.4 and more, wrong ones whose outlines agree
# beat them by 1.05 at most. Of all 82 pairs of benchmarks/bench_registration.py none of the 40
# wrong ones is "ok", and 41 of the 42 true ones are.
_FAILED_CORRELATION, _FAILED_STRUCTURE, _FAILED_DICE = 0.01, 0.5, 0.3
_OK_CORRELATION, _OK_STRUCTURE, OK_DICE, _OK_MARGIN = 0.04, 3.0, 0.78, 1.2
_MOST_SCALE = 1.25
_MOST_UNSURE = 0.18


@dataclass(frozen=True)
class Evidence:
    """What the status is judged on.

    Attributes
    ----------
    correlation, structure
        See `Agreement`.
    margin
        Similarity times overlap of the best place over that of the next best.
    dice
        Of the tissue masks.
    scale
        Of the affine; 1 where it had to be estimated.
    unsure
        Share of the common tissue that matches no better than at a wrong place.
    """

    correlation: float
    structure: float
    margin: float
    dice: float
    scale: float
    unsure: float = 0.0


def judge(evidence: Evidence) -> tuple[Status, str]:
    """Return the status and, in plain words, the reason."""
    e = evidence
    if e.correlation < _FAILED_CORRELATION or e.structure < _FAILED_STRUCTURE:
        return "failed", (
            f"The structures inside the tissue do not match (correlation {e.correlation:.2f}): "
            "another section, or too different a stain. Set landmarks if they do belong together."
        )
    if e.dice < _FAILED_DICE:
        return "failed", f"The tissue outlines do not match (overlap {e.dice:.2f})."
    doubts = []
    if not 1 / _MOST_SCALE <= e.scale <= _MOST_SCALE:
        doubts.append(f"it would have to be scaled by {e.scale:.2f}; check the pixel size")
    if e.dice < OK_DICE:
        doubts.append(f"the tissue outlines agree only in part (overlap {e.dice:.2f})")
    if e.correlation < _OK_CORRELATION or e.structure < _OK_STRUCTURE:
        doubts.append(f"the structures agree weakly (correlation {e.correlation:.2f})")
    if e.unsure > _MOST_UNSURE:
        doubts.append(f"in {100 * e.unsure:.0f} % of the tissue the structures do not match")
    if e.margin < _OK_MARGIN:
        doubts.append("another position fits nearly as well")
    if doubts:
        text = "; ".join(doubts)
        return "doubtful", f"{text[0].upper()}{text[1:]}. Look at the overlay."
    return "ok", f"Outlines (overlap {e.dice:.2f}) and structures ({e.correlation:.2f}) agree."


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    """Return ``2 |A ∩ B| / (|A| + |B|)`` of two masks of one shape."""
    total = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / total if total else 0.0


def jacobian(field: NDArray[np.float32], spacing: float) -> FloatImage:
    """Return det(I + ∇d) of a displacement (2, rows, cols) in µm."""
    if min(field.shape[1:]) < 2:
        return np.ones(field.shape[1:], np.float32)
    (rr, rc), (cr, cc) = (np.gradient(f, spacing) for f in field)
    return np.asarray((1 + rr) * (1 + cc) - rc * cr, np.float32)


def folding(fixed: WorkImage, transform: Transform) -> float:
    """Return the share of the fixed tissue where the displacement folds."""
    folded = jacobian(transform.displacement, transform.spacing) <= 0
    if not folded.any():
        return 0.0
    rows, cols = (
        np.clip(((np.arange(n) + 0.5) * fixed.mpp / transform.spacing).astype(int), 0, size - 1)
        for n, size in zip(fixed.shape, folded.shape, strict=True)
    )
    tissue = fixed.tissue > 0.5
    return float((folded[np.ix_(rows, cols)] & tissue).sum() / max(int(tissue.sum()), 1))


def with_field(affine: Transform, field: NDArray[np.float32], spacing: float) -> Transform:
    """Return a transform with this displacement (2, rows, cols) µm and its inverse."""
    return replace(
        affine,
        displacement=field,
        inverse_displacement=inverse_displacement(field, spacing),
        spacing=spacing,
        origin=(spacing / 2, spacing / 2),
    )


def bent_further(start: Transform, field: NDArray[np.float32], spacing: float) -> Transform:
    """Return a transform that displaces by `field` (2, rows, cols) µm first, then as `start`."""
    if min(start.displacement.shape[1:]) < 2:
        return with_field(start, field, spacing)
    at = (np.indices(field.shape[1:]) + 0.5) * spacing + field
    index = (at - np.reshape(start.origin, (2, 1, 1))) / start.spacing
    then = [ndimage.map_coordinates(f, index, order=1, mode="nearest") for f in start.displacement]
    return with_field(start, np.asarray(field + then, np.float32), spacing)


def inverse_displacement(field: NDArray[np.float32], spacing: float) -> NDArray[np.float32]:
    """Return e with ``e(q) = −d(q + e(q))``, by fixed-point iteration on the same grid."""
    grid = np.indices(field.shape[1:], np.float32)
    inverse = -field
    for n in range(50):
        at = grid + inverse / np.float32(spacing)
        fresh = -np.stack([ndimage.map_coordinates(f, at, order=1, mode="nearest") for f in field])
        # Half steps settle even where the field is steep.
        step = 0.5 * (fresh - inverse) if n > 10 else fresh - inverse
        inverse = inverse + step
        if float(np.abs(step).max()) < 1e-3 * spacing:
            break
    return np.asarray(inverse, np.float32)


def similarity(fixed: WorkImage, laid: Laid) -> float:
    """Return the mean squared local correlation, 0 to 1, over the tissue of either section.

    It is the share of the local structure of one section that the other explains, whichever of
    the two stains is the darker one.
    """
    weight = laid.weight(fixed)
    total = float(weight.sum())
    if total < 1:
        return 0.0
    return float((_correlation(fixed, laid.density, weight) ** 2 * weight).sum()) / total


def overlap(fixed: WorkImage, moving: WorkImage, transform: Transform) -> float:
    """Return the Dice coefficient of the tissue masks in the fixed frame, at 8 µm/px or coarser."""
    mpp = max(MASK_MPP, fixed.long_um / _MASK_PX)
    target = fixed.at(mpp)
    laid = lay(target, moving.at(mpp), transform)
    return dice(target.tissue > 0.5, laid.tissue > 0.5)


def _correlation(fixed: WorkImage, density: FloatImage, weight: FloatImage) -> FloatImage:
    one = LocalStats.of(fixed.density, weight, WINDOW_PX)
    other = LocalStats.of(density, weight, WINDOW_PX)
    return local_correlation(one, other)[0]
