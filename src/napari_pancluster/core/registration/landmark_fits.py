"""Transforms that are fitted to landmarks, and how far a transform misses them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.registration.images import Matrix, compose
from napari_pancluster.core.registration.landmark_checks import (
    LEAST_FOR_SPLINE,
    MIRRORED,
    Kind,
    check_landmarks,
    on_a_line,
)
from napari_pancluster.core.registration.landmarks import Landmarks, Points
from napari_pancluster.core.registration.quality import jacobian, with_field
from napari_pancluster.core.transform import Transform

# Pairs from which one can be left out.
LEAST_TO_LEAVE: dict[Kind, int] = {"rigid": 3, "affine": 4, "spline": LEAST_FOR_SPLINE}
# Stiffness of the spline, in units of the landmarks' extent; lower follows a shaky hand.
_SMOOTHING = 0.003
_SPLINE_PX = 256


def fit_affine(landmarks: Landmarks) -> Matrix:
    """Return the least-squares (3, 3) affine, fixed µm to moving µm.

    Points that lie nearly on a line, or only just determine an affine, give a similarity.

    Raises
    ------
    InputError
        If there are fewer than 3 pairs, or all points coincide.
    """
    check_landmarks(landmarks)
    if on_a_line(landmarks.fixed) or on_a_line(landmarks.moving):
        return _fit_turned(landmarks, scaled=True)
    fixed, moving = landmarks.fixed, landmarks.moving
    f, m = fixed - fixed.mean(0), moving - moving.mean(0)
    linear = np.linalg.lstsq(f, m, rcond=None)[0].T
    return compose(linear, moving.mean(0) - linear @ fixed.mean(0))


def fit_rigid(landmarks: Landmarks, *, scaled: bool = False) -> Matrix:
    """Return the least-squares (3, 3) move, turn and, where it fits clearly better, flip.

    Parameters
    ----------
    scaled
        Scale too: for a moving slide whose pixel size is not known.

    Raises
    ------
    InputError
        If there are fewer than 3 pairs, or all points coincide.
    """
    check_landmarks(landmarks, "rigid")
    return _fit_turned(landmarks, scaled=scaled)


def _fit_turned(landmarks: Landmarks, *, scaled: bool) -> Matrix:
    fixed, moving = landmarks.fixed, landmarks.moving
    f, m = fixed - fixed.mean(0), moving - moving.mean(0)
    if min(float(np.abs(p).max()) for p in (f, m)) < 1e-6:
        raise InputError("All landmarks lie on one spot. Spread them over the tissue.")
    best: tuple[float, Matrix] | None = None
    for mirror in (np.eye(2), np.diag([1.0, -1.0])):
        g = f @ mirror
        cosine = float((g * m).sum())
        sine = float((g[:, 0] * m[:, 1] - g[:, 1] * m[:, 0]).sum())
        size = float((g**2).sum()) if scaled else max(float(np.hypot(cosine, sine)), 1e-12)
        turn = np.array([[cosine, -sine], [sine, cosine]]) / size
        error = float(((g @ turn.T - m) ** 2).sum()) * (1.0 if best is None else MIRRORED)
        if best is None or error < best[0]:
            best = (error, turn @ mirror)
    assert best is not None
    return compose(best[1], moving.mean(0) - best[1] @ fixed.mean(0))


def landmark_transform(
    names: tuple[str, str],
    landmarks: Landmarks,
    *,
    kind: Kind,
    extent: Region,
    scale_known: bool = True,
) -> Transform:
    """Return a transform that is made of landmarks alone.

    Parameters
    ----------
    names
        Of the fixed and the moving stain.
    kind
        "spline" is an affine with a smooth displacement; the affine alone, without a field, where
        that would fold or the points lie on a line.
    extent
        The fixed slide, over which a spline is sampled.
    scale_known
        Whether both slides have a pixel size; if not, "rigid" scales too.

    Raises
    ------
    InputError
        If there are too few landmarks, or all lie on one spot.
    """
    check_landmarks(landmarks, kind)
    if kind == "rigid":
        return Transform(*names, fit_rigid(landmarks, scaled=not scale_known))
    affine = Transform(*names, fit_affine(landmarks))
    if kind == "affine" or on_a_line(landmarks.fixed) or on_a_line(landmarks.moving):
        return affine
    spacing = max(extent.height, extent.width) / _SPLINE_PX
    shape = tuple(max(2, round(n / spacing)) for n in (extent.height, extent.width))
    straight = with_field(affine, np.zeros((2, *shape), np.float32), spacing)
    field = spline_correction(straight, landmarks)
    if jacobian(field, spacing).min() <= 0:
        return affine
    return with_field(affine, field, spacing)


def spline_correction(transform: Transform, landmarks: Landmarks) -> NDArray[np.float32]:
    """Return the smooth field that moves a transform towards its landmarks.

    A smoothing thin-plate spline of what is left at the landmarks, pulled back through the affine;
    nothing where they lie on a line, which tells nothing beside it.

    Returns
    -------
    ndarray
        (2, rows, cols) µm, to be added to the transform's displacement.
    """
    shape = transform.displacement.shape[1:]
    if on_a_line(landmarks.fixed):
        return np.zeros((2, *shape), np.float32)
    wanted, have = (
        (points - transform.affine[:2, 2]) @ np.linalg.inv(transform.affine[:2, :2]).T
        for points in (landmarks.moving, transform.to_moving(landmarks.fixed))
    )
    spline = _thin_plate(landmarks.fixed, wanted - have)
    coarse = [np.linspace(0, n - 1, min(n, 48)) for n in shape]
    at = np.stack(np.meshgrid(*coarse, indexing="ij"), axis=-1).reshape(-1, 2)
    values = spline(at * transform.spacing + transform.origin)
    grid = values.T.reshape(2, len(coarse[0]), len(coarse[1]))
    return _enlarge(grid, shape)


def _thin_plate(points: Points, values: Points) -> Callable[[Points], Points]:
    """Return the smoothing thin-plate spline through values (N, 2) at points (N, 2)."""
    points, first = np.unique(points, axis=0, return_index=True)
    scale = max(float(np.ptp(points, axis=0).max()), 1e-6)
    spline = RBFInterpolator(
        points / scale, values[first], kernel="thin_plate_spline", smoothing=_SMOOTHING
    )
    return lambda at: np.asarray(spline(at / scale), np.float64)


def _enlarge(grid: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    rows, cols = (
        np.linspace(0, size - 1, n) for size, n in zip(grid.shape[1:], shape, strict=True)
    )
    out = [np.stack([np.interp(cols, np.arange(g.shape[1]), line) for line in g]) for g in grid]
    out = [np.stack([np.interp(rows, np.arange(len(o)), line) for line in o.T], 1) for o in out]
    return np.asarray(out, np.float32)


# Errors


@dataclass(frozen=True)
class ErrorSummary:
    """How far landmarks are off, in few numbers.

    Attributes
    ----------
    median, p90
        In µm.
    median_share
        The median over the diagonal of the fixed slide (rTRE).
    """

    median: float
    p90: float
    median_share: float

    @classmethod
    def of(cls, errors: Sequence[float] | Points, extent: Region) -> ErrorSummary:
        """Return the summary of errors (N,) µm on a fixed slide of this extent."""
        median, p90 = (float(v) for v in np.percentile(errors, (50, 90)))
        return cls(median, p90, median / float(np.hypot(extent.height, extent.width)))


def errors_um(transform: Transform, landmarks: Landmarks) -> Points:
    """Return the target registration error of each landmark, (N,) µm of the moving slide."""
    return _distances(transform.to_moving(landmarks.fixed), landmarks.moving)


def leave_one_out(landmarks: Landmarks, kind: Kind, *, scale_known: bool = True) -> Points:
    """Return how far the fit of all other pairs misses each pair, (N,) µm of the moving slide.

    Raises
    ------
    InputError
        If there are fewer than 3 (rigid), 4 (affine) or 10 (spline) pairs.
    """
    least = LEAST_TO_LEAVE[kind]
    if len(landmarks) < least:
        raise InputError(
            f"{len(landmarks)} landmark pairs are too few to leave one out; {least} are needed."
        )
    found = [
        _predicted(landmarks.without(n), kind, landmarks.fixed[n : n + 1], scaled=not scale_known)
        for n in range(len(landmarks))
    ]
    return _distances(np.concatenate(found), landmarks.moving)


def _predicted(landmarks: Landmarks, kind: Kind, points: Points, *, scaled: bool) -> Points:
    """Return where points (N, 2) come to lie, by a fit of this kind."""
    if kind == "spline" and not on_a_line(landmarks.fixed) and not on_a_line(landmarks.moving):
        return _thin_plate(landmarks.fixed, landmarks.moving)(points)
    rigid = kind == "rigid"
    matrix = _fit_turned(landmarks, scaled=scaled) if rigid else fit_affine(landmarks)
    return Transform("", "", matrix).to_moving(points)


def _distances(these: Points, those: Points) -> Points:
    return np.asarray(np.linalg.norm(these - those, axis=1))
