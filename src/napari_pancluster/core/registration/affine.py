"""The affine stage: Gauss–Newton on the local correlation, coarse to fine."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.registration.forces import LocalStats, box, forces, local_correlation
from napari_pancluster.core.registration.images import (
    FloatImage,
    Matrix,
    WorkImage,
    compose,
    pixel_affine,
    warp,
)

_WINDOW_PX = 13
_DAMPING = 1e-3
_SETTLED_PX = 0.02
_AXES = ((slice(None), None), (None, slice(None)))


def refine_affine(
    fixed: WorkImage,
    moving: WorkImage,
    start: Matrix,
    *,
    iterations: int = 30,
    rigid: bool = False,
    inside: bool = False,
) -> Matrix:
    """Return `start` improved at the pixel size of the two images.

    Parameters
    ----------
    fixed, moving
        At one pixel size.
    start
        (3, 3), fixed µm to moving µm.
    iterations
        At most.
    rigid
        Move, turn and scale only.
    inside
        Compare only at the tissue of `fixed`, whatever else lies on the moving slide.
    """
    stats = LocalStats.of(fixed.density, fixed.tissue, _WINDOW_PX)
    basis = _basis(fixed, rigid=rigid)
    matrix = start
    best, best_score = start, -np.inf
    for _ in range(iterations):
        warped, weight = warped_and_weight(fixed, moving, matrix, inside=inside)
        if weight.sum() < 50:
            break
        force = forces(stats, warped, weight)
        score = float((force.correlation**2 * weight).sum() / weight.sum())
        if score > best_score:
            best, best_score = matrix, score
        step = _solve(basis, force.pull, force.curvature)
        matrix = matrix @ _increment(fixed, step, rigid=rigid)
        if np.abs(step).max() < _SETTLED_PX:
            break
    return best


def warped_and_weight(
    fixed: WorkImage, moving: WorkImage, matrix: Matrix, *, inside: bool = False
) -> tuple[FloatImage, FloatImage]:
    """Return the moving density in the fixed frame, and where the two can be compared."""
    warped, tissue = (
        warp(image, mpp=moving.mpp, matrix=matrix, shape=fixed.shape, to_mpp=fixed.mpp)
        for image in (moving.density, moving.tissue)
    )
    # A rim beyond the tissue: where it ends is the plainest structure there is.
    where = box(fixed.tissue, _WINDOW_PX) > 0 if inside else np.maximum(fixed.tissue, tissue)
    return warped, np.asarray(where * _covered(fixed, moving, matrix), np.float32)


def _covered(fixed: WorkImage, moving: WorkImage, matrix: Matrix) -> NDArray[np.bool_]:
    """Return which fixed pixels the moving slide covers."""
    linear, offset = pixel_affine(matrix, mpp=moving.mpp, to_mpp=fixed.mpp)
    row, col = (np.arange(n)[shape] for n, shape in zip(fixed.shape, _AXES, strict=True))
    inside = np.ones(fixed.shape, np.bool_)
    for n, (to_row, to_col), start in zip(moving.shape, linear, offset, strict=True):
        at = to_row * row + to_col * col + start
        inside &= (at >= 0) & (at <= n - 1)
    return inside


def alignment(
    fixed: WorkImage, moving: WorkImage, matrix: Matrix, *, inside: bool = False
) -> float:
    """Return the mean signed local correlation over all tissue that both slides cover.

    `inside` restricts it to the tissue of `fixed`.
    """
    warped, weight = warped_and_weight(fixed, moving, matrix, inside=inside)
    if weight.sum() < 50:
        return 0.0
    one = LocalStats.of(fixed.density, fixed.tissue, _WINDOW_PX)
    other = LocalStats.of(warped, weight, _WINDOW_PX)
    correlation = local_correlation(one, other)[0]
    return float((correlation * weight).sum() / weight.sum())


def _basis(fixed: WorkImage, *, rigid: bool) -> FloatImage:
    """Return (parameters, 2, rows, cols): how each parameter moves a pixel, 1 px at most."""
    rows, cols = fixed.shape
    half = max(rows, cols) / 2
    r = np.broadcast_to(((np.arange(rows) + 0.5 - rows / 2) / half)[:, None], fixed.shape)
    c = np.broadcast_to(((np.arange(cols) + 0.5 - cols / 2) / half)[None, :], fixed.shape)
    one, zero = np.ones(fixed.shape), np.zeros(fixed.shape)
    if rigid:
        parts = [(one, zero), (zero, one), (r, c), (-c, r)]
    else:
        parts = [(one, zero), (zero, one), (r, zero), (c, zero), (zero, r), (zero, c)]
    return np.asarray(parts, np.float32)


def _solve(basis: FloatImage, pull: FloatImage, curvature: FloatImage) -> Matrix:
    count = len(basis)
    flat = basis.reshape(count, 2, -1)
    g = pull.reshape(2, -1)
    rr, rc, cc = curvature.reshape(3, -1)
    right = flat[:, 0] @ g[0] + flat[:, 1] @ g[1]
    left = (
        (flat[:, 0] * rr) @ flat[:, 0].T
        + (flat[:, 0] * rc) @ flat[:, 1].T
        + (flat[:, 1] * rc) @ flat[:, 0].T
        + (flat[:, 1] * cc) @ flat[:, 1].T
    ).astype(np.float64)
    damp = _DAMPING * np.trace(left) / count + 1e-9
    return np.asarray(np.linalg.solve(left + damp * np.eye(count), right.astype(np.float64)))


def _increment(fixed: WorkImage, step: Matrix, *, rigid: bool) -> Matrix:
    """Return the (3, 3) small map of the fixed frame, in µm, that parameters in px stand for."""
    half = max(fixed.shape) / 2
    if rigid:
        grow = np.array([[step[2], -step[3]], [step[3], step[2]]])
    else:
        grow = np.array([[step[2], step[3]], [step[4], step[5]]])
    linear = np.eye(2) + grow / half
    centre = np.array(fixed.shape) * fixed.mpp / 2
    return compose(linear, centre - linear @ centre + np.asarray(step[:2]) * fixed.mpp)
