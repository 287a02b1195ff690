"""What is wrong with landmarks: too few for a fit, on one spot, on a line, or swapped."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.registration.landmarks import LEAST, Landmarks, Points

Kind = Literal["rigid", "affine", "spline"]
LEAST_FOR_SPLINE = 10
# A mirrored fit must be better by this factor to be believed.
MIRRORED = 1.2
_ARTICLE: dict[Kind, str] = {"rigid": "a rigid", "affine": "an affine", "spline": "a spline"}
# Points whose spread one way is below this share of the other lie on a line: no shear from them.
_FLAT = 0.1
# An exchange of two points must explain this many times what is left to one free parameter.
_CROSSED = 50.0
_FEWEST_CROSSED = 4
_FEWEST_CROSSED_AFFINE = 6
_MOST_CROSSED = 5


def check_landmarks(landmarks: Landmarks, kind: Kind = "affine") -> None:
    """Tell if there are too few landmarks for a fit.

    Raises
    ------
    InputError
        If so.
    """
    least = LEAST_FOR_SPLINE if kind == "spline" else LEAST
    if len(landmarks) < least:
        remedy = "Set more." if kind != "spline" else "Set more, or fit an affine."
        raise InputError(
            f"{len(landmarks)} landmark pairs are too few for {_ARTICLE[kind]} fit; "
            f"at least {least} are needed. {remedy}"
        )


def warnings(landmarks: Landmarks) -> list[str]:
    """Return in plain words what is probably wrong; pairs are numbered from 1."""
    if len(landmarks) < LEAST:
        return [f"{len(landmarks)} of at least {LEAST} pairs are set."]
    told = []
    slides = (("the reference", landmarks.fixed), ("the other slide", landmarks.moving))
    for where, points in slides:
        told += [
            f"Pairs {i + 1} and {j + 1} lie on one spot of {where}. Delete or move one."
            for i, j in _coincident(points)
        ]
    lines = [where for where, points in slides if on_a_line(points)]
    if lines:
        told.append(
            f"The points lie nearly on a line on {' and on '.join(lines)}: they only tell how to "
            "move, turn and scale. Set one off the line."
        )
    told += [
        f"Pairs {i + 1} and {j + 1} are probably swapped. Exchange their points on one slide."
        for i, j in crossed(landmarks)
    ]
    return told


def crossed(landmarks: Landmarks) -> list[tuple[int, int]]:
    """Return the pairs (two indices each) whose moving points are probably swapped.

    Of all exchanges of two moving points the one that lowers the error of the fit most is taken,
    then the next. They are believed if what the last of them explains is far above what is left
    to a free parameter, as in an F-test. Points are complex numbers: with rows z and its conjugate
    a least-squares affine is a linear regression, and so is a similarity with one of them.
    """
    count = len(landmarks)
    fixed, moving = (_as_complex(p) for p in (landmarks.fixed, landmarks.moving))
    if count < _FEWEST_CROSSED or not np.abs(fixed).max() > 0:
        return []
    one = np.ones(count)
    if count >= _FEWEST_CROSSED_AFFINE and not on_a_line(landmarks.fixed):
        designs = [np.stack([one, fixed, fixed.conj()], axis=1)]
    else:
        designs = [np.stack([one, f], axis=1) for f in (fixed, fixed.conj())]
    fits = [_exchanges(design, moving) for design in designs]
    as_set = min(errors[0] for _, errors in fits)
    # A mirrored fit explains the exchange of two points across its axis just as well.
    swaps, errors = min(fits, key=lambda fit: fit[1][-1] * (1 if fit is fits[0] else MIRRORED))
    free = count - designs[0].shape[1]
    tiny = 1e-9 * float(np.square(np.abs(moving)).sum())
    errors = [as_set, *errors[1:]]
    for n in range(len(swaps), 0, -1):
        gained = errors[n - 1] - errors[n]
        if gained > _CROSSED * errors[n] / free + tiny:
            return [(min(s), max(s)) for s in swaps[:n]]
    return []


def _exchanges(
    design: NDArray[np.complex128], moving: NDArray[np.complex128]
) -> tuple[list[tuple[int, int]], list[float]]:
    """Return the best exchanges one after the other, and the squared error before and after each.

    With M = I - H of the regression, exchanging i and j changes the moving points by d (e_i - e_j)
    with d = m_j - m_i, and the squared error by 2 Re(d* (r_i - r_j)) + |d|² (M_ii + M_jj - 2 M_ij).
    """
    q, _ = np.linalg.qr(design)
    free = np.eye(len(moving)) - q @ q.conj().T
    own = free.diagonal().real
    weight = own[:, None] + own[None, :] - 2 * free.real
    moving, swaps = moving.copy(), []
    left = free @ moving
    errors = [float(np.square(np.abs(left)).sum())]
    for _ in range(min(_MOST_CROSSED, max(1, len(moving) // 4))):
        d = moving[None, :] - moving[:, None]
        change = 2 * (d.conj() * (left[:, None] - left[None, :])).real + np.abs(d) ** 2 * weight
        i, j = (int(n) for n in np.unravel_index(int(np.argmin(change)), change.shape))
        if not change[i, j] < 0:
            break
        moving[[i, j]] = moving[[j, i]]
        left = free @ moving
        swaps.append((i, j))
        errors.append(float(np.square(np.abs(left)).sum()))
    return swaps, errors


def _as_complex(points: Points) -> NDArray[np.complex128]:
    centred = points - points.mean(0) if len(points) else points
    return np.asarray(centred[:, 0] + 1j * centred[:, 1])


def _coincident(points: Points) -> list[tuple[int, int]]:
    apart = np.linalg.norm(points[:, None] - points[None, :], axis=2)
    near = np.triu(apart <= 1e-6 * max(float(apart.max()), 1e-6), k=1)
    return [(int(i), int(j)) for i, j in np.argwhere(near)]


def on_a_line(points: Points) -> bool:
    """Return whether points lie nearly on a line, or on one spot."""
    spread = np.linalg.svd(points - points.mean(0), compute_uv=False)
    return len(spread) < 2 or bool(spread[1] < _FLAT * spread[0]) or not spread[0] > 0
