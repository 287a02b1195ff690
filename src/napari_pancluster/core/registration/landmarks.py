"""Corresponding points a person has set on two sections, and the table they come from."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.replacing import replacing
from napari_pancluster.core.slide import Slide

COLUMNS = ("fixed_x", "fixed_y", "moving_x", "moving_y")
# Pairs that tell a move and a turn.
LEAST = 3

Points = NDArray[np.float64]


@dataclass(frozen=True)
class Landmarks:
    """Pairs of points.

    Attributes
    ----------
    fixed, moving
        (N, 2) row, col in µm of each slide. Where the moving slide has no pixel size, `moving`
        is in its level-0 px.
    """

    fixed: Points
    moving: Points

    def __len__(self) -> int:
        return len(self.fixed)

    def without(self, index: int) -> Landmarks:
        """Return all pairs but one."""
        return Landmarks(np.delete(self.fixed, index, 0), np.delete(self.moving, index, 0))


def read_landmarks(
    path: str | Path, fixed: Slide, moving: Slide, *, least: int = LEAST
) -> Landmarks:
    """Read landmarks from a CSV table ``fixed_x,fixed_y,moving_x,moving_y`` in level-0 px.

    Raises
    ------
    InputError
        If the file is missing, lacks a column, holds something that is no number, has fewer than
        `least` rows, or a point lies outside its slide.
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
    if len(rows) < least:
        raise InputError(
            f"The landmarks {path} have {len(rows)} rows; at least {least} are needed."
        )
    table = np.array([_numbers(path, n, row) for n, row in enumerate(rows, start=2)])
    fixed_px, moving_px = table[:, [1, 0]], table[:, [3, 2]]
    for name, slide, px in (("fixed", fixed, fixed_px), ("moving", moving, moving_px)):
        _check_inside(path, name, slide, px)
    return landmarks_of_px(fixed_px, moving_px, fixed, moving)


def write_landmarks(
    path: str | Path, landmarks: Landmarks, fixed_slide: Slide, moving_slide: Slide
) -> None:
    """Write landmarks as `read_landmarks` reads them.

    Raises
    ------
    InputError
        If the file cannot be written; one that was there stays as it was.
    """
    fixed, moving = px_of_landmarks(landmarks, fixed_slide, moving_slide)
    target = Path(path)
    with replacing(target) as partial, partial.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for row in np.hstack([fixed[:, ::-1], moving[:, ::-1]]):
            writer.writerow([f"{value:.4f}" for value in row])


def landmarks_of_px(fixed_px: Points, moving_px: Points, fixed: Slide, moving: Slide) -> Landmarks:
    """Return landmarks of points (N, 2), row and col in level-0 px of the two slides."""
    return Landmarks(fixed_px * fixed.um_per_px_yx, moving_px * _moving_unit(moving))


def px_of_landmarks(landmarks: Landmarks, fixed: Slide, moving: Slide) -> tuple[Points, Points]:
    """Return the points of landmarks, (N, 2) row and col in level-0 px of the two slides."""
    return landmarks.fixed / fixed.um_per_px_yx, landmarks.moving / _moving_unit(moving)


def _moving_unit(moving: Slide) -> Points:
    return moving.with_mpp(moving.mpp or 1.0).um_per_px_yx


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


def _check_inside(path: str | Path, name: str, slide: Slide, px: Points) -> None:
    rows, cols = slide.shape
    outside = ((px < 0) | (px > (rows, cols))).any(axis=1)
    if outside.any():
        lines = _listed(np.flatnonzero(outside) + 2)
        raise InputError(
            f"The landmarks {path}, line {lines}: {name}_x,{name}_y lies outside "
            f"{slide.path.name}, which has {cols} × {rows} px. Give px of its largest level, "
            "and check that the columns are not exchanged."
        )


def _listed(numbers: NDArray[np.int64]) -> str:
    words = [str(n) for n in numbers[:8]]
    return ", ".join(words) + (" …" if len(numbers) > 8 else "")
