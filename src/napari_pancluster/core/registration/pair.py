"""The registration of one moving section onto the fixed one, from slides to a report."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from napari_pancluster.core.confidence import Confidence
from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.registration.candidates import both_at, finish, settle
from napari_pancluster.core.registration.deformable import Stage, find_displacement, smooth
from napari_pancluster.core.registration.demons import find_demons_displacement
from napari_pancluster.core.registration.images import Matrix, WorkImage, lay, read_work_image
from napari_pancluster.core.registration.landmarks import (
    LEAST_FOR_SPLINE,
    Landmarks,
    errors_um,
    fit_affine,
    spline_correction,
)
from napari_pancluster.core.registration.pieces import piecewise_field
from napari_pancluster.core.registration.quality import (
    QUALITY_PX,
    Evidence,
    Status,
    bent_further,
    folding,
    judge,
    overlap,
    similarity,
    structure,
    with_field,
)
from napari_pancluster.core.registration.search import orientation_of, search
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform

LONGEST_PX = 2500
FEWEST_PX = 1000
_FILLED = 0.7
_MOST_GUESSED = 4.0
_POINTING = 1.5
_SPLINE_PX = 256
# Places that are bent and compared; more cost time and change no verdict.
_RIVALS = 3
# How much better the section must fit for its pieces to be moved on their own.
_PIECES_GAIN = 1.02
# Outlines that agree better than this leave nothing to be moved.
_PIECES_DICE = 0.93
_SOFTER, _SOFTER_SHARE = 6, 0.02
# A field longer than this share of the section has run away.
_FURTHEST_SHARE = 0.1


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


@dataclass(frozen=True)
class Registration:
    """A transform with its report, and where it can be trusted; no transform where it failed."""

    transform: Transform | None
    report: RegistrationReport
    confidence: Confidence | None = None


def register_pair(
    fixed: Stain,
    moving: Stain,
    config: RegisterConfig,
    landmarks: Landmarks | None = None,
    start: Matrix | None = None,
) -> Task[Registration]:
    """Register `moving` onto `fixed`.

    Parameters
    ----------
    fixed
        The reference; its slide has a pixel size.
    moving
        Where its slide has none, the scale is estimated and the transform is in µm of the moving
        slide at the estimated pixel size.
    landmarks
        Three pairs or more take the place of the search; ten or more also correct the field.
    start
        (3, 3), fixed µm to moving µm (level-0 px of a moving slide without pixel size): where a
        person has put the section, in the place of the search. Landmarks go before it.

    Returns
    -------
    Registration
        Never raises for a bad moving slide: that is a failed one, with the reason.
    """
    began = time.monotonic()
    try:
        done = yield from _register(fixed, moving, config, landmarks, start)
    except PanclusterError as error:
        done = Registration(None, RegistrationReport(moving.name, "failed", str(error)))
    return replace(done, report=replace(done.report, seconds=round(time.monotonic() - began, 3)))


@dataclass(frozen=True)
class _Pair:
    """Both sections as read; `moving_mpp` is the level-0 pixel size the moving one was given."""

    fixed: WorkImage
    moving: WorkImage
    moving_mpp: float
    scale_known: bool


def _register(
    fixed: Stain,
    moving: Stain,
    config: RegisterConfig,
    landmarks: Landmarks | None,
    start: Matrix | None,
) -> Task[Registration]:
    pair = yield from _read(fixed, moving, config)
    if landmarks is not None and not pair.scale_known:
        landmarks = replace(landmarks, moving=landmarks.moving * pair.moving_mpp)
    if start is not None and not pair.scale_known:
        start = np.diag([pair.moving_mpp, pair.moving_mpp, 1.0]) @ start
    trials = yield from _try_out(pair, config, landmarks, start, (fixed.name, moving.name))
    margin = trials[0].score / max(trials[1].score, 1e-6) if len(trials) > 1 else np.inf
    transform = trials[0].straight
    if config.deformable:
        transform = (yield from _by_pieces(pair, trials[0], config)).bent
    matrix = transform.affine
    if landmarks is not None and len(landmarks) >= LEAST_FOR_SPLINE:
        transform = _correct(pair.fixed, transform, landmarks)
    yield Progress("Measuring the quality")
    report = _report(pair, transform, margin)
    scale = orientation_of(matrix)[2]
    if landmarks is not None:
        errors = errors_um(transform, landmarks)
        if not pair.scale_known:
            errors = errors / scale
        tre = {"median": float(np.median(errors)), "p90": float(np.percentile(errors, 90))}
        report = replace(report, tre_um=tre)
    if not pair.scale_known:
        # A section neither grows nor shrinks: what the affine scales by is the pixel size.
        transform = replace(transform, affine=np.diag([1 / scale, 1 / scale, 1]) @ matrix)
        report = replace(report, mpp_estimated=pair.moving_mpp / scale)
    return Registration(None if report.status == "failed" else transform, report)


def _read(fixed: Stain, moving: Stain, config: RegisterConfig) -> Task[_Pair]:
    """Read both sections; a moving slide without pixel size as if its tissue were as large."""
    yield Progress(f"Reading {fixed.name}")
    fixed_mpp = fixed.slide.um_per_px
    long = max(fixed.slide.shape) * fixed_mpp
    guess = moving.slide.mpp or long / max(moving.slide.shape)
    longest = max(long, max(moving.slide.shape) * guess)
    mpp = max(min(config.mpp, longest / FEWEST_PX), fixed_mpp, guess, longest / LONGEST_PX)
    target = read_work_image(fixed, mpp)
    yield Progress(f"Reading {moving.name}")
    source = read_work_image(moving.with_mpp(guess), mpp)
    if moving.slide.mpp is not None:
        return _Pair(target, source, guess, scale_known=True)
    ratio = 1.0
    # Tissue that fills its slide is cut off by it: its area then says nothing about scale.
    if max(float(image.tissue.mean()) for image in (target, source)) < _FILLED:
        area = float(target.tissue.sum() / source.tissue.sum())
        ratio = float(np.clip(np.sqrt(area), 1 / _MOST_GUESSED, _MOST_GUESSED))
    return _Pair(target, source.scaled(ratio), guess * ratio, scale_known=False)


@dataclass(frozen=True)
class _Trial:
    """A place the section may lie, with and without bending, and how well it fits there."""

    straight: Transform
    bent: Transform
    score: float


def _try_out(
    pair: _Pair,
    config: RegisterConfig,
    landmarks: Landmarks | None,
    start: Matrix | None,
    names: tuple[str, str],
) -> Task[tuple[_Trial, ...]]:
    """Return the best places, each bent as well as it goes, best first.

    A wrong place can be bent into some likeness, and so can every other wrong place: only a
    section that beats its rivals after bending has been found.
    """
    if landmarks is not None:
        matrices = [(yield from _steer(pair, landmarks))]
    elif start is not None:
        settled = yield from settle(pair.fixed, pair.moving, [start], places=1)
        matrices = [finish(pair.fixed, pair.moving, settled[0].matrix)]
    else:
        found = yield from search(pair.fixed, pair.moving, scale_known=pair.scale_known)
        starts = [c.matrix for c in found[: config.candidates]]
        settled = yield from settle(pair.fixed, pair.moving, starts, places=_RIVALS)
        matrices = [finish(pair.fixed, pair.moving, s.matrix) for s in settled]
    trials = []
    for matrix in matrices:
        yield Progress("Aligning")
        straight = Transform(*names, matrix)
        bent = yield from _bend(pair, straight, config)
        trials.append(_Trial(straight, bent, _score(pair, bent)))
    return tuple(sorted(trials, key=lambda t: -t.score))


def _steer(pair: _Pair, landmarks: Landmarks) -> Task[Matrix]:
    """Return the affine of the landmarks, improved by the pictures within a person's precision."""
    start = fit_affine(landmarks)
    settled = yield from settle(pair.fixed, pair.moving, [start], places=1)
    matrix = finish(pair.fixed, pair.moving, settled[0].matrix)
    steered = Transform("", "", start), Transform("", "", matrix)
    before, after = (float(np.median(errors_um(t, landmarks))) for t in steered)
    return matrix if after <= _POINTING * before + 2 * pair.fixed.mpp else start


def _bend(pair: _Pair, start: Transform, config: RegisterConfig) -> Task[Transform]:
    """Return the start with a deformation; the start itself where that is no better."""
    stages: dict[str, Stage] = {"elastic": find_displacement, "demons": find_demons_displacement}
    field, spacing = yield from stages[config.deformation](
        pair.fixed, pair.moving, start, stiffness=config.stiffness
    )
    bent = bent_further(start, field, spacing)
    far = float(np.abs(field).max()) > _FURTHEST_SHARE * pair.fixed.long_um
    if far or folding(pair.fixed, bent) > 0:
        return start
    target, source = both_at(pair.fixed, pair.moving, QUALITY_PX)
    before, after = (similarity(target, lay(target, source, t)) for t in (start, bent))
    return bent if after > before else start


def _by_pieces(pair: _Pair, whole: _Trial, config: RegisterConfig) -> Task[_Trial]:
    """Return the place with every piece of the tissue moved on its own, where that fits better."""
    affine = whole.straight.affine
    if overlap(pair.fixed, pair.moving, whole.bent) > _PIECES_DICE:
        return whole
    found = yield from piecewise_field(pair.fixed, pair.moving, affine)
    if found is None:
        return whole
    field, spacing = found
    start = with_field(whole.straight, field, spacing)
    for _ in range(_SOFTER):
        # Where a strand broke, its parts may want to overlap: they are told to meet more gently.
        if folding(pair.fixed, start) == 0:
            break
        field = np.stack([smooth(f, _SOFTER_SHARE * max(f.shape)) for f in field])
        start = with_field(whole.straight, field, spacing)
    bent = yield from _bend(pair, start, config)
    score = _score(pair, bent)
    better = score > _PIECES_GAIN * whole.score and folding(pair.fixed, bent) == 0
    return _Trial(start, bent, score) if better else whole


def _score(pair: _Pair, transform: Transform) -> float:
    """Return similarity times overlap."""
    target, source = both_at(pair.fixed, pair.moving, QUALITY_PX)
    likeness = similarity(target, lay(target, source, transform))
    return likeness * overlap(pair.fixed, pair.moving, transform)


def _correct(fixed: WorkImage, transform: Transform, landmarks: Landmarks) -> Transform:
    """Return the transform drawn to its landmarks, unless that would fold it."""
    shape = transform.displacement.shape[1:]
    spacing, field = transform.spacing, transform.displacement
    if min(shape) < 2:
        spacing = fixed.long_um / _SPLINE_PX
        shape = tuple(max(2, round(n * fixed.mpp / spacing)) for n in fixed.shape)
        field = np.zeros((2, *shape), np.float32)
    transform = with_field(transform, field, spacing)
    drawn = with_field(transform, field + spline_correction(transform, landmarks), spacing)
    return drawn if folding(fixed, drawn) == 0 else transform


def _report(pair: _Pair, transform: Transform, margin: float) -> RegistrationReport:
    identity = Transform.identity(transform.fixed, transform.moving)
    target, source = both_at(pair.fixed, pair.moving, QUALITY_PX)
    laid = lay(target, source, transform)
    rotation, flipped, scale = orientation_of(transform.affine)
    correlation, stands_out = structure(target, laid)
    after = overlap(pair.fixed, pair.moving, transform)
    evidence = Evidence(
        correlation=correlation,
        structure=stands_out,
        margin=margin,
        dice=after,
        scale=scale if pair.scale_known else 1.0,
    )
    status, reason = judge(evidence)
    return RegistrationReport(
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
