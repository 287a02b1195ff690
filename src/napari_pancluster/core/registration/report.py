"""What a registration did, and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from napari_pancluster.core.confidence import Confidence
from napari_pancluster.core.registration.agreement import agreement
from napari_pancluster.core.registration.candidates import both_at
from napari_pancluster.core.registration.images import lay
from napari_pancluster.core.registration.quality import (
    QUALITY_PX,
    Evidence,
    Status,
    folding,
    judge,
    overlap,
    similarity,
)
from napari_pancluster.core.registration.search import orientation_of
from napari_pancluster.core.registration.sections import Sections
from napari_pancluster.core.transform import Transform

# Wrong places to compare with: how far beside the right one, as a share of the longer side.
_BESIDE_SHARE, _BESIDE_RAD = 0.07, (0.6, 2.7)


@dataclass(frozen=True)
class RegistrationReport:
    """What a registration did and how far it can be trusted.

    Attributes
    ----------
    stain
        Name of the moving stain.
    status, reason
        "ok", "doubtful" or "failed", and why in plain words.
    mpp_estimated
        Pixel size of the moving slide, µm/px, where it was not known.
    rotation_deg
        Counter-clockwise as displayed, from fixed to moving, [0, 360).
    flipped
        Whether the section lies face down; it is mirrored left to right before it is turned.
    dice_before, dice_after
        Of the tissue masks in the fixed frame at 8 µm/px.
    similarity_before, similarity_after
        Share of the local structure the other section explains, 0 to 1.
    folding_fraction
        Share of the tissue where the field folds.
    tre_um
        Errors at the landmarks, "median" and "p90" in µm; None without landmarks.
    seconds
        It took.
    way
        How it was found: "automatic", "landmarks", "by hand", or "along A, B" over other stains.
    """

    stain: str
    status: Status
    reason: str
    mpp_estimated: float | None = None
    rotation_deg: float = 0.0
    flipped: bool = False
    dice_before: float = 0.0
    dice_after: float = 0.0
    similarity_before: float = 0.0
    similarity_after: float = 0.0
    folding_fraction: float = 0.0
    tre_um: dict[str, float] | None = None
    seconds: float = 0.0
    way: str = "automatic"


@dataclass(frozen=True)
class Registration:
    """A transform with its report, and where it can be trusted; no transform where it failed.

    Attributes
    ----------
    margin
        How much better the best place fits than the next; see `Evidence`.
    """

    transform: Transform | None
    report: RegistrationReport
    confidence: Confidence | None = None
    margin: float = np.inf


def beside_of(transform: Transform, long_um: float) -> list[Transform]:
    """Return a transform to two places beside where it goes."""
    moved = []
    for angle in _BESIDE_RAD:
        aside = np.eye(3)
        aside[:2, 2] = _BESIDE_SHARE * long_um * np.array([np.sin(angle), np.cos(angle)])
        moved.append(replace(transform, affine=transform.affine @ aside))
    return moved


def score(pair: Sections, transform: Transform) -> float:
    """Return similarity times overlap."""
    target, source = both_at(pair.fixed, pair.moving, QUALITY_PX)
    likeness = similarity(target, lay(target, source, transform))
    return likeness * overlap(pair.fixed, pair.moving, transform)


def measured(
    pair: Sections, transform: Transform, margin: float, wrong: Sequence[Transform]
) -> Registration:
    """Return a transform of two sections with its report and its confidence.

    Parameters
    ----------
    wrong
        Transforms to places where the section does not belong; see `agreement`.
    """
    identity = Transform.identity(transform.fixed, transform.moving)
    target, source = both_at(pair.fixed, pair.moving, QUALITY_PX)
    laid = lay(target, source, transform)
    rotation, flipped, scale = orientation_of(transform.affine)
    after = overlap(pair.fixed, pair.moving, transform)
    places = agreement(target, laid, [lay(target, source, t) for t in wrong])
    evidence = Evidence(
        correlation=places.correlation,
        structure=places.structure,
        margin=margin,
        dice=after,
        scale=scale if pair.scale_known else 1.0,
        unsure=places.unsure,
    )
    status, reason = judge(evidence)
    found = RegistrationReport(
        stain=transform.moving,
        status=status,
        reason=reason,
        rotation_deg=rotation,
        flipped=flipped,
        dice_before=overlap(pair.fixed, pair.moving, identity),
        dice_after=after,
        similarity_before=similarity(target, lay(target, source, identity)),
        similarity_after=similarity(target, laid),
        folding_fraction=folding(pair.fixed, transform),
    )
    return Registration(transform, found, Confidence(places.confidence, target.mpp), margin)
