"""The bending that places are judged by: an elastic field on top of the affine, coarse to fine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.registration.forces import LocalStats, forces
from napari_pancluster.core.registration.images import WorkImage, lay
from napari_pancluster.core.transform import Transform

Field = NDArray[np.float32]

# Serial sections do not match cell by cell, so the field must stay stiff. The same section
# stained again does match, and gives itself away by how much of its structure is explained: then
# a second, softer pass is due.
_SAME_SECTION = 0.3
_SAME_DAMPING = 0.2
_SETTLED_PX = 0.01


@dataclass(frozen=True)
class ElasticSchedule:
    """How the field is found; lengths in px of each level unless said.

    Attributes
    ----------
    sides
        Longer side of the picture at each level.
    """

    sides: tuple[int, ...] = (96, 192, 384)
    iterations: tuple[int, ...] = (30, 30, 20)
    window: int = 13
    # Share of the longer side over which forces are gathered (a local Lucas–Kanade window).
    gather: float = 0.01
    # The same for the field itself: the elasticity that decides the result.
    elastic: float = 0.01
    damping: float = 3.0

    def stiffened(self, factor: float) -> ElasticSchedule:
        """Return the schedule with `factor` times the elasticity."""
        return replace(self, elastic=self.elastic * factor)

    def softened(self) -> ElasticSchedule:
        """Return the schedule of the second pass, for the same section stained again."""
        return replace(self, damping=_SAME_DAMPING)


def find_displacement(
    fixed: WorkImage, moving: WorkImage, start: Transform, *, stiffness: float = 1.0
) -> Task[tuple[Field, float]]:
    """Return the field that, before the start, best matches moving to fixed.

    Parameters
    ----------
    stiffness
        Factor on the elasticity.

    Returns
    -------
    field
        (2, rows, cols) in µm, row then col.
    spacing
        Its pixel size in µm; the first sample lies at half of it.
    """
    schedule = ElasticSchedule().stiffened(stiffness)
    spacing = level_sizes(fixed, moving, schedule.sides, schedule.iterations)[0][0]
    field = np.zeros((2, *fixed.at(spacing).shape), np.float32)
    field, spacing, agreement = yield from _descend(fixed, moving, start, schedule, field, spacing)
    if agreement >= _SAME_SECTION:
        field, spacing, _ = yield from _descend(
            fixed, moving, start, schedule.softened(), field, spacing
        )
    return field * np.float32(spacing), spacing


def _descend(
    fixed: WorkImage,
    moving: WorkImage,
    start: Transform,
    schedule: ElasticSchedule,
    field: Field,
    spacing: float,
) -> Task[tuple[Field, float, float]]:
    """Return the field (px) after every level, its spacing, and how well the pictures agree."""
    levels = level_sizes(fixed, moving, schedule.sides, schedule.iterations)
    total = sum(iterations for _, iterations in levels)
    done, agreement = 0, 0.0
    for mpp, iterations in levels:
        level = _Level(fixed.at(mpp), moving.at(mpp), start, schedule)
        field = resize(field, level.shape, spacing / mpp)
        spacing = mpp
        for n in range(iterations):
            yield Progress("Fitting the deformation", done + n, total)
            field, change = level.step(field)
            if change < _SETTLED_PX:
                break
        done += iterations
        agreement = level.agreement
    return field, spacing, agreement


def level_sizes(
    fixed: WorkImage, moving: WorkImage, sides: Sequence[int], counts: Sequence[int]
) -> list[tuple[float, int]]:
    """Return the pixel size of each level the images are fine enough for, with its count."""
    finest = max(fixed.mpp, moving.mpp)
    levels: list[tuple[float, int]] = []
    for side, count in zip(sides, counts, strict=True):
        mpp = max(fixed.long_um / side, finest)
        if not levels or mpp < levels[-1][0] * 0.8:
            levels.append((mpp, count))
    return levels


class Stage(Protocol):
    """A deformable stage: returns the field (2, rows, cols) in µm and its spacing in µm."""

    def __call__(
        self, fixed: WorkImage, moving: WorkImage, start: Transform, *, stiffness: float
    ) -> Task[tuple[Field, float]]:
        """Find the field that, before the start, best matches moving to fixed."""
        ...


class _Level:
    """One pixel size: its pictures, and the step that improves a field on them."""

    def __init__(
        self, fixed: WorkImage, moving: WorkImage, start: Transform, schedule: ElasticSchedule
    ) -> None:
        self._stats = LocalStats.of(fixed.density, fixed.tissue, schedule.window)
        laid = lay(fixed, moving, start)
        self._picture, self._weight = laid.density, laid.weight(fixed)
        side = max(fixed.shape)
        self._gather = schedule.gather * side
        self._elastic = schedule.elastic * side
        self._damping = schedule.damping
        self._grid = np.indices(fixed.shape, np.float32)
        self.shape = fixed.shape
        self.agreement = 0.0

    def step(self, field: Field) -> tuple[Field, float]:
        """Return the field after one iteration, and by how many px it moved at most."""
        at = self._grid + field
        warped = ndimage.map_coordinates(self._picture, at, order=1, mode="nearest")
        weight = ndimage.map_coordinates(self._weight, at, order=1, mode="constant")
        force = forces(self._stats, warped, weight)
        total = max(float(weight.sum()), 1.0)
        self.agreement = float((force.correlation**2 * weight).sum()) / total
        pull = np.stack([smooth(p, self._gather) for p in force.pull])
        rr, rc, cc = (smooth(c, self._gather) for c in force.curvature)
        damp = self._damping * float((rr + cc).sum()) / total / 2 + 1e-9
        rr, cc = rr + damp, cc + damp
        det = rr * cc - rc * rc
        update = np.stack([cc * pull[0] - rc * pull[1], rr * pull[1] - rc * pull[0]]) / det
        length = np.sqrt((update**2).sum(0))
        update *= np.minimum(1.0, 1.0 / np.maximum(length, 1e-6))
        fresh = np.stack([smooth(f + u, self._elastic) for f, u in zip(field, update, strict=True)])
        return fresh, float(np.abs(fresh - field).max())


def smooth(image: Field, sigma: float) -> Field:
    """Return a Gaussian mean."""
    return np.asarray(ndimage.gaussian_filter(image, sigma, mode="nearest", truncate=3.0))


def resize(field: Field, shape: tuple[int, int], factor: float) -> Field:
    """Return a field in px resampled to a grid `factor` times as fine."""
    at = [(np.arange(n) + 0.5) / factor - 0.5 for n in shape]
    grid = np.stack(np.meshgrid(*at, indexing="ij"))
    parts = [ndimage.map_coordinates(f, grid, order=1, mode="nearest") for f in field]
    return np.asarray(np.stack(parts) * factor, np.float32)
