"""Landmarks of a stain: pairs as they are being set, and how the project keeps them."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core import artefacts
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.project import Project
from napari_pancluster.core.records import CaseRecord, StainRecord
from napari_pancluster.core.registration import Landmarks
from napari_pancluster.core.registration.landmark_checks import Kind, warnings
from napari_pancluster.core.registration.landmark_fits import (
    LEAST_TO_LEAVE,
    ErrorSummary,
    errors_um,
    leave_one_out,
)
from napari_pancluster.core.transform import Transform

Side = Literal["fixed", "moving"]
SIDES: tuple[Side, Side] = ("fixed", "moving")
OTHER: dict[Side, Side] = {"fixed": "moving", "moving": "fixed"}
_MOST_STEPS = 200

Points = NDArray[np.float64]


def _none() -> Points:
    return np.zeros((0, 2))


@dataclass(frozen=True)
class Marks:
    """Pairs being set.

    Attributes
    ----------
    fixed, moving
        (N, 2) points of whole pairs, in the units of `Landmarks`.
    waiting
        A point (2,) that has no partner yet, after the side it is on.
    """

    fixed: Points = field(default_factory=_none)
    moving: Points = field(default_factory=_none)
    waiting: tuple[Side, Points] | None = None

    @property
    def landmarks(self) -> Landmarks:
        """The whole pairs."""
        return Landmarks(self.fixed, self.moving)

    def points(self, side: Side) -> Points:
        """Return the points (M, 2) of one side by their numbers; one that waits is the last."""
        whole = self.fixed if side == "fixed" else self.moving
        if self.waiting is None or self.waiting[0] != side:
            return whole
        return np.concatenate([whole, self.waiting[1][None]])

    def put(self, side: Side, point: Points) -> Marks:
        """Return the marks with the partner of a point that waits, or with one that waits.

        A second one on the same side takes the place of the first.
        """
        at = np.asarray(point, np.float64)
        if self.waiting is None or self.waiting[0] == side:
            return replace(self, waiting=(side, at))
        new = {side: at, OTHER[side]: self.waiting[1]}
        return Marks(
            np.concatenate([self.fixed, new["fixed"][None]]),
            np.concatenate([self.moving, new["moving"][None]]),
        )

    def moved(self, side: Side, index: int, point: Points) -> Marks:
        """Return the marks with one point of `points` elsewhere."""
        at = np.asarray(point, np.float64)
        if index >= len(self.fixed):
            return replace(self, waiting=(side, at))
        fixed, moving = self.fixed.copy(), self.moving.copy()
        (fixed if side == "fixed" else moving)[index] = at
        return replace(self, fixed=fixed, moving=moving)

    def without(self, indices: Collection[int]) -> Marks:
        """Return the marks without these pairs; the number after the last is one that waits."""
        whole = [n for n in indices if n < len(self.fixed)]
        return Marks(
            np.delete(self.fixed, whole, axis=0),
            np.delete(self.moving, whole, axis=0),
            self.waiting if len(whole) == len(indices) else None,
        )


class Marking:
    """The marks of a stain with the way back to those before.

    Attributes
    ----------
    now
        The marks as they are.
    """

    def __init__(self, landmarks: Landmarks | None = None) -> None:
        self.now = Marks() if landmarks is None else Marks(landmarks.fixed, landmarks.moving)
        self._before: list[Marks] = []

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to take back."""
        return bool(self._before)

    def do(self, marks: Marks) -> None:
        """Take a step."""
        self._before = [*self._before[-_MOST_STEPS:], self.now]
        self.now = marks

    def undo(self) -> None:
        """Take the last step back, if there is one."""
        if self._before:
            self.now = self._before.pop()


@dataclass(frozen=True)
class Judgement:
    """How good landmarks are, and the registration by them.

    Attributes
    ----------
    count
        Number of pairs.
    now
        (N,) errors of the registration there is, µm; None without one.
    left_out
        (N,) errors of the fit to all other pairs, µm; None where there are too few.
    kind
        Of that fit.
    summary
        Of `now`.
    warnings
        What is probably wrong with the pairs.
    """

    count: int
    now: Points | None
    left_out: Points | None
    kind: Kind
    summary: ErrorSummary | None
    warnings: tuple[str, ...]

    @property
    def worst(self) -> int | None:
        """Index of the pair that agrees least with the others, or with the registration."""
        errors = self.left_out if self.left_out is not None else self.now
        return int(np.argmax(errors)) if errors is not None else None

    def words(self, unit: str) -> str:
        """Return it in a line."""
        parts = ["1 pair" if self.count == 1 else f"{self.count} pairs"]
        if self.summary is not None:
            s = self.summary
            parts.append(
                f"error now {_length(s.median, unit)} median "
                f"({100 * s.median_share:.2g} % of the diagonal), {_length(s.p90, unit)} p90"
            )
        elif self.count:
            parts.append("not registered yet")
        if self.left_out is not None:
            middle = float(np.median(self.left_out))
            parts.append(f"leave one out {_length(middle, unit)} ({self.kind})")
        return " · ".join(parts)


def _length(value: float, unit: str) -> str:
    # No line ends between number and unit.
    return f"{value:.3g}\N{NO-BREAK SPACE}{unit}"


def judge_landmarks(
    landmarks: Landmarks,
    transform: Transform | None,
    *,
    kind: Kind,
    extent: Region,
    scale_known: bool = True,
) -> Judgement:
    """Return how good landmarks are; of a spline from few of them, their affine is judged.

    Parameters
    ----------
    transform
        The registration there is, if any.
    extent
        The fixed slide.
    """
    count = len(landmarks)
    kind = "affine" if kind == "spline" and count < LEAST_TO_LEAVE["spline"] else kind
    now = errors_um(transform, landmarks) if transform is not None and count else None
    left_out = None
    if count >= LEAST_TO_LEAVE[kind]:
        # All on one spot: the warnings say it.
        with suppress(InputError):
            left_out = leave_one_out(landmarks, kind, scale_known=scale_known)
    return Judgement(
        count=count,
        now=now,
        left_out=left_out,
        kind=kind,
        summary=ErrorSummary.of(now, extent) if now is not None else None,
        warnings=tuple(warnings(landmarks)),
    )


# In the project


def landmarks_key(case: str, stain: str) -> str:
    """Return the key of the landmarks of one stain."""
    return f"landmarks/{case}/{stain}"


def keep_landmarks(project: Project, case: str, stain: str, landmarks: Landmarks) -> None:
    """Keep the landmarks of a stain in the project, in place of those before.

    They are kept in px: they stay right when a pixel size is put right later.

    Raises
    ------
    ProjectError
        If the project cannot be written.
    """
    fixed, moving = _records(project.case(case), stain)
    inputs = (fixed.token, moving.token)
    slides = [fixed.fingerprint, moving.fingerprint]
    summary = {"pairs": len(landmarks), "slides": slides}
    with project.writing(landmarks_key(case, stain), inputs, summary) as folder:
        artefacts.write_landmarks(
            folder, landmarks.fixed / _px_size(fixed), landmarks.moving / _px_size(moving)
        )


def kept_landmarks(project: Project, case: str, stain: str) -> Landmarks | None:
    """Return the landmarks that the project has of a stain; None without any on these slides.

    Raises
    ------
    ProjectError
        If they cannot be read.
    """
    found = project.artefact(landmarks_key(case, stain))
    fixed, moving = _records(project.case(case), stain)
    # Of the slides only their pixels count: a gain or a profile moves no point.
    if found is None or found.summary["slides"] != [fixed.fingerprint, moving.fingerprint]:
        return None
    fixed_px, moving_px = artefacts.read_landmarks(project.folder(found))
    if not len(fixed_px):
        return None
    return Landmarks(fixed_px * _px_size(fixed), moving_px * _px_size(moving))


def _records(case: CaseRecord, stain: str) -> tuple[StainRecord, StainRecord]:
    return case.stain(case.reference), case.stain(stain)


def _px_size(record: StainRecord) -> Points:
    """Return the size (2,) of a level-0 px in the units of `Landmarks`."""
    return (record.mpp or 1.0) * np.array([record.oblong, 1.0])
