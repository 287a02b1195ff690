"""Landmarks in the place of the search, and what they do to the result."""

from __future__ import annotations

from typing import cast

import numpy as np

from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.progress import Task
from napari_pancluster.core.registration.candidates import finish, settle
from napari_pancluster.core.registration.images import Matrix, WorkImage, extent_of
from napari_pancluster.core.registration.landmark_checks import LEAST_FOR_SPLINE, Kind
from napari_pancluster.core.registration.landmark_fits import (
    errors_um,
    fit_affine,
    landmark_transform,
    spline_correction,
)
from napari_pancluster.core.registration.landmarks import Landmarks
from napari_pancluster.core.registration.quality import folding, with_field
from napari_pancluster.core.registration.sections import Sections
from napari_pancluster.core.transform import Transform

_POINTING = 1.5
_SPLINE_PX = 256


def by_landmarks_alone(
    pair: Sections, landmarks: Landmarks, config: RegisterConfig, names: tuple[str, str]
) -> Transform | None:
    """Return the transform of the landmarks; None where the pictures have a say."""
    if config.landmark_use in ("start", "pull"):
        return None
    return landmark_transform(
        names,
        landmarks,
        kind=cast(Kind, config.landmark_use),
        extent=extent_of(pair.fixed),
        scale_known=pair.scale_known,
    )


def steered(pair: Sections, landmarks: Landmarks) -> Task[Matrix]:
    """Return the affine of the landmarks, improved by the pictures within a person's precision."""
    start = fit_affine(landmarks)
    settled = yield from settle(pair.fixed, pair.moving, [start], places=1)
    matrix = finish(pair.fixed, pair.moving, settled[0].matrix)
    both = Transform("", "", start), Transform("", "", matrix)
    before, after = (float(np.median(errors_um(t, landmarks))) for t in both)
    return matrix if after <= _POINTING * before + 2 * pair.fixed.mpp else start


def drawn_to(fixed: WorkImage, transform: Transform, landmarks: Landmarks) -> Transform:
    """Return the transform drawn to its landmarks, unless they are few or that would fold it."""
    if len(landmarks) < LEAST_FOR_SPLINE:
        return transform
    shape = transform.displacement.shape[1:]
    spacing, field = transform.spacing, transform.displacement
    if min(shape) < 2:
        spacing = fixed.long_um / _SPLINE_PX
        shape = tuple(max(2, round(n * fixed.mpp / spacing)) for n in fixed.shape)
        field = np.zeros((2, *shape), np.float32)
    transform = with_field(transform, field, spacing)
    drawn = with_field(transform, field + spline_correction(transform, landmarks), spacing)
    return drawn if folding(fixed, drawn) == 0 else transform
