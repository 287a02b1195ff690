"""The registration of one moving section onto the fixed one."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.registration.candidates import both_at, finish, settle
from napari_pancluster.core.registration.close_fit import find_close_displacement
from napari_pancluster.core.registration.deformable import Stage, find_displacement, smooth
from napari_pancluster.core.registration.demons import find_demons_displacement
from napari_pancluster.core.registration.images import Matrix, lay
from napari_pancluster.core.registration.landmark_fits import errors_um
from napari_pancluster.core.registration.landmarks import Landmarks
from napari_pancluster.core.registration.pieces import piecewise_field
from napari_pancluster.core.registration.quality import (
    QUALITY_PX,
    bent_further,
    folding,
    overlap,
    similarity,
    with_field,
)
from napari_pancluster.core.registration.report import (
    Registration,
    RegistrationReport,
    beside_of,
    measured,
    score,
)
from napari_pancluster.core.registration.search import orientation_of, search
from napari_pancluster.core.registration.sections import Sections, read_sections
from napari_pancluster.core.registration.steering import by_landmarks_alone, drawn_to, steered
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform

# Places that are bent and compared; more cost time and change no verdict.
_RIVALS = 3
# How much better the section must fit for its pieces to be moved on their own.
_PIECES_GAIN = 1.02
# Outlines that agree better than this leave nothing to be moved.
_PIECES_DICE = 0.93
_SOFTER, _SOFTER_SHARE = 6, 0.02
# A field longer than this share of the section has run away.
_FURTHEST_SHARE = 0.1


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


def _register(
    fixed: Stain,
    moving: Stain,
    config: RegisterConfig,
    landmarks: Landmarks | None,
    start: Matrix | None,
) -> Task[Registration]:
    names = fixed.name, moving.name
    pair = yield from read_sections(fixed, moving, config)
    if not pair.scale_known:
        grown = np.diag([pair.moving_mpp, pair.moving_mpp, 1.0])
        start = grown @ start if start is not None else None
        if landmarks is not None:
            landmarks = replace(landmarks, moving=landmarks.moving * pair.moving_mpp)
    alone = by_landmarks_alone(pair, landmarks, config, names) if landmarks is not None else None
    trials: tuple[_Trial, ...] = (_Trial(alone, alone, 0.0),) if alone is not None else ()
    if not trials:
        trials = yield from _try_out(pair, config, landmarks, start, names)
    margin = trials[0].score / max(trials[1].score, 1e-6) if len(trials) > 1 else np.inf
    place = trials[0]
    bends = alone is None and config.deformable
    if bends:
        place = yield from _by_pieces(pair, place, config)
    transform = place.bent if bends else place.straight
    wrong = yield from _wrong_places(pair, transform, config)
    pulling = landmarks if config.landmark_use == "pull" else None
    transform = _drawn(pair, transform, pulling)
    yield Progress("Measuring the quality")
    found = measured(pair, transform, margin, wrong)
    if bends and found.report.status != "failed":
        closer = yield from _closely(pair, place, config)
        transform = _drawn(pair, closer, pulling)
        yield Progress("Measuring the quality")
        found = replace(found, report=_fitted(pair, found.report, transform))
    way = "landmarks" if landmarks is not None else "by hand" if start is not None else "automatic"
    report = replace(found.report, way=way)
    scale = 1.0 if pair.scale_known else orientation_of(transform.affine)[2]
    if landmarks is not None:
        errors = errors_um(transform, landmarks) / scale
        tre = {"median": float(np.median(errors)), "p90": float(np.percentile(errors, 90))}
        report = replace(report, tre_um=tre)
    if not pair.scale_known:
        # A section neither grows nor shrinks: what the affine scales by is the pixel size.
        shrunk = np.diag([1 / scale, 1 / scale, 1]) @ transform.affine
        transform = replace(transform, affine=shrunk)
        report = replace(report, mpp_estimated=pair.moving_mpp / scale)
    if report.status == "failed" and alone is not None:
        # A person decided that the section lies here.
        report = replace(report, status="doubtful")
    if report.status == "failed":
        return Registration(None, report)
    return replace(found, transform=transform, report=report)


def _wrong_places(
    pair: Sections, right: Transform, config: RegisterConfig
) -> Task[list[Transform]]:
    """Return places beside the right one, bent where the right one may be bent.

    Not its rivals: those are the best of many places, hence better than wrong ones usually are.
    """
    straight = Transform(right.fixed, right.moving, right.affine)
    wrong = []
    for beside in beside_of(straight, pair.fixed.long_um):
        yield Progress("Measuring the quality")
        wrong.append((yield from _bend(pair, beside, config)) if config.deformable else beside)
    return wrong


@dataclass(frozen=True)
class _Trial:
    """A place the section may lie, with and without bending, and how well it fits there."""

    straight: Transform
    bent: Transform
    score: float


def _try_out(
    pair: Sections,
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
        matrices = [(yield from steered(pair, landmarks))]
    elif start is not None:
        settled = yield from settle(pair.fixed, pair.moving, [start], places=1)
        matrices = [finish(pair.fixed, pair.moving, settled[0].matrix)]
    else:
        found = yield from search(pair.fixed, pair.moving, scale_known=pair.scale_known)
        starts = [c.matrix for c in found[: config.candidates]]
        settled = yield from settle(pair.fixed, pair.moving, starts, places=_RIVALS)
        matrices = []
        for one in settled:
            yield Progress("Aligning")
            matrices.append(finish(pair.fixed, pair.moving, one.matrix))
    trials = []
    for matrix in matrices:
        yield Progress("Aligning")
        straight = Transform(*names, matrix)
        bent = yield from _bend(pair, straight, config)
        yield Progress("Aligning")
        trials.append(_Trial(straight, bent, score(pair, bent)))
    return tuple(sorted(trials, key=lambda t: -t.score))


def _drawn(pair: Sections, transform: Transform, landmarks: Landmarks | None) -> Transform:
    return transform if landmarks is None else drawn_to(pair.fixed, transform, landmarks)


def _bend(pair: Sections, start: Transform, config: RegisterConfig) -> Task[Transform]:
    """Return the start with a deformation to judge it by; the start where that is no better."""
    stages: dict[str, Stage] = {"elastic": find_displacement, "demons": find_demons_displacement}
    return (yield from _bent(pair, start, stages[config.deformation], config.stiffness))


def _closely(pair: Sections, place: _Trial, config: RegisterConfig) -> Task[Transform]:
    """Return the place that was chosen, followed closely where that is better."""
    if config.deformation != "elastic":
        return place.bent
    closer = yield from _bent(pair, place.straight, find_close_displacement, config.stiffness)
    return place.bent if closer is place.straight else closer


def _bent(pair: Sections, start: Transform, stage: Stage, stiffness: float) -> Task[Transform]:
    """Return the start with the field of a stage; the start itself where that is no better."""
    field, spacing = yield from stage(pair.fixed, pair.moving, start, stiffness=stiffness)
    yield Progress("Fitting the deformation")
    bent = bent_further(start, field, spacing)
    yield Progress("Fitting the deformation")
    far = float(np.abs(field).max()) > _FURTHEST_SHARE * pair.fixed.long_um
    if far or folding(pair.fixed, bent) > 0:
        return start
    target, source = both_at(pair.fixed, pair.moving, QUALITY_PX)
    before, after = (similarity(target, lay(target, source, t)) for t in (start, bent))
    return bent if after > before else start


def _fitted(pair: Sections, report: RegistrationReport, transform: Transform) -> RegistrationReport:
    """Return the report of a judged place with the figures of the transform that came of it."""
    target, source = both_at(pair.fixed, pair.moving, QUALITY_PX)
    return replace(
        report,
        dice_after=overlap(pair.fixed, pair.moving, transform),
        similarity_after=similarity(target, lay(target, source, transform)),
        folding_fraction=folding(pair.fixed, transform),
    )


def _by_pieces(pair: Sections, whole: _Trial, config: RegisterConfig) -> Task[_Trial]:
    """Return the place with every piece of the tissue moved on its own, where that fits better."""
    affine = whole.straight.affine
    if overlap(pair.fixed, pair.moving, whole.bent) > _PIECES_DICE:
        return whole
    moved = yield from piecewise_field(pair.fixed, pair.moving, affine)
    if moved is None:
        return whole
    field, spacing = moved
    start = with_field(whole.straight, field, spacing)
    for _ in range(_SOFTER):
        # Where a strand broke, its parts may want to overlap: they are told to meet more gently.
        if folding(pair.fixed, start) == 0:
            break
        field = np.stack([smooth(f, _SOFTER_SHARE * max(f.shape)) for f in field])
        start = with_field(whole.straight, field, spacing)
    bent = yield from _bend(pair, start, config)
    found = score(pair, bent)
    better = found > _PIECES_GAIN * whole.score and folding(pair.fixed, bent) == 0
    return _Trial(start, bent, found) if better else whole
