"""Corresponding points a person has set on two sections."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import RBFInterpolator

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.registration.images import Matrix, compose
from napari_pancluster.core.slide import Slide
from napari_pancluster.core.transform import Transform

COLUMNS = ("fixed_x", "fixed_y", "moving_x", "moving_y")
LEAST = 3
LEAST_FOR_SPLINE = 10
# Points whose spread one way is below this share of the other lie on a line: no shear from them.
_FLAT = 0.1


@dataclass(frozen=True)
class Landmarks:
    """Pairs of points.

    Attributes
    ----------
    fixed, moving
        (N, 2) row, col in µm of each slide. Where the moving slide has no pixel size, `moving`
        is in its level-0 px.
    """

    fixed: NDArray[np.float64]
    moving: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.fixed)


def read_landmarks(path: str | Path, fixed: Slide, moving: Slide) -> Landmarks:
    """Read landmarks from a CSV table ``fixed_x,fixed_y,moving_x,moving_y`` in level-0 px.

    Raises
    ------
    InputError
        If the file is missing, lacks a column, holds something that is no number, or has fewer
        than 3 rows.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, skipinitialspace=True)
            names = [name.strip() for name in reader.fieldnames or ()]
            reader.fieldnames = names
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The landmarks {path} cannot be read: {error}.") from error
    missing = [name for name in COLUMNS if name not in names]
    if missing:
        raise InputError(
            f"The landmarks {path} have no column {', '.join(missing)}. "
            f"The first line must be {','.join(COLUMNS)}."
        )
    table = np.array([_numbers(path, n, row) for n, row in enumerate(rows, start=2)])
    if len(table) < LEAST:
        raise InputError(
            f"The landmarks {path} have {len(table)} rows; at least {LEAST} are needed."
        )
    return Landmarks(
        fixed=table[:, [1, 0]] * fixed.um_per_px, moving=table[:, [3, 2]] * (moving.mpp or 1.0)
    )


def _numbers(path: str | Path, line: int, row: dict[str, str | None]) -> list[float]:
    values = []
    for name in COLUMNS:
        text = (row[name] or "").strip()
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not np.isfinite(value):
            raise InputError(
                f"The landmarks {path}, line {line}: {name} is {text!r}; a number of px is needed."
            )
        values.append(value)
    return values


def fit_affine(landmarks: Landmarks) -> Matrix:
    """Return the least-squares (3, 3) affine, fixed µm to moving µm.

    Points that lie nearly on a line, or only just determine an affine, give a similarity.

    Raises
    ------
    InputError
        If all points coincide.
    """
    fixed, moving = landmarks.fixed, landmarks.moving
    f, m = fixed - fixed.mean(0), moving - moving.mean(0)
    spread = np.linalg.svd(f, compute_uv=False)
    if spread[0] < 1e-6 or np.linalg.svd(m, compute_uv=False)[0] < 1e-6:
        raise InputError("All landmarks lie on one spot. Spread them over the tissue.")
    if spread[1] < _FLAT * spread[0]:
        linear = _similarity(f, m)
    else:
        linear = np.linalg.lstsq(f, m, rcond=None)[0].T
    return compose(linear, moving.mean(0) - linear @ fixed.mean(0))


def _similarity(f: NDArray[np.float64], m: NDArray[np.float64]) -> Matrix:
    """Return the (2, 2) similarity, proper unless a mirrored one fits clearly better."""
    best: tuple[float, Matrix] | None = None
    for mirror in (np.eye(2), np.diag([1.0, -1.0])):
        g = f @ mirror
        cosine = float((g * m).sum())
        sine = float((g[:, 0] * m[:, 1] - g[:, 1] * m[:, 0]).sum())
        turn = np.array([[cosine, -sine], [sine, cosine]]) / float((g**2).sum())
        error = float(((g @ turn.T - m) ** 2).sum()) * (1.0 if best is None else 1.2)
        if best is None or error < best[0]:
            best = (error, turn @ mirror)
    assert best is not None
    return best[1]


def errors_um(transform: Transform, landmarks: Landmarks) -> NDArray[np.float64]:
    """Return the target registration error of each landmark, (N,) µm of the moving slide."""
    return np.asarray(
        np.linalg.norm(transform.to_moving(landmarks.fixed) - landmarks.moving, axis=1)
    )


def spline_correction(transform: Transform, landmarks: Landmarks) -> NDArray[np.float32]:
    """Return the smooth field that moves a transform towards its landmarks.

    A smoothing thin-plate spline of what is left at the landmarks, pulled back through the affine.

    Returns
    -------
    ndarray
        (2, rows, cols) µm, to be added to the transform's displacement.
    """
    shape = transform.displacement.shape[1:]
    wanted = (landmarks.moving - transform.affine[:2, 2]) @ np.linalg.inv(
        transform.affine[:2, :2]
    ).T
    sample = transform.to_moving(landmarks.fixed)
    have = (sample - transform.affine[:2, 2]) @ np.linalg.inv(transform.affine[:2, :2]).T
    points, first = np.unique(landmarks.fixed, axis=0, return_index=True)
    scale = max(float(np.ptp(points, axis=0).max()), 1e-6)
    spline = RBFInterpolator(
        points / scale, (wanted - have)[first], kernel="thin_plate_spline", smoothing=0.01
    )
    coarse = [np.linspace(0, n - 1, min(n, 48)) for n in shape]
    at = np.stack(np.meshgrid(*coarse, indexing="ij"), axis=-1).reshape(-1, 2)
    values = spline((at * transform.spacing + transform.origin) / scale)
    grid = values.T.reshape(2, len(coarse[0]), len(coarse[1]))
    return _enlarge(grid, shape)


def _enlarge(grid: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    rows, cols = (
        np.linspace(0, size - 1, n) for size, n in zip(grid.shape[1:], shape, strict=True)
    )
    out = [np.stack([np.interp(cols, np.arange(g.shape[1]), line) for line in g]) for g in grid]
    out = [np.stack([np.interp(rows, np.arange(len(o)), line) for line in o.T], 1) for o in out]
    return np.asarray(out, np.float32)
