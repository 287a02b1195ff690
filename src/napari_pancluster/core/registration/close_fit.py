"""The last stage: the section that was found is followed closely, by its density and texture.

It bends too readily to tell right places from wrong ones: those are judged by the stiffer field of
`deformable`, and only the one that was chosen is fitted here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.registration.deformable import Field, level_sizes, resize
from napari_pancluster.core.registration.forces import LocalStats, descent
from napari_pancluster.core.registration.images import WorkImage, lay
from napari_pancluster.core.registration.membrane import Knots, Membrane
from napari_pancluster.core.registration.planes import Planes
from napari_pancluster.core.transform import Transform

# Longer side of the picture in px at each level, and cells of the grid of splines along it.
_SIDES, _CELLS = (128, 256, 512), (15, 30, 60)
_ITERATIONS = 20
_WINDOW_PX = 13
# How much explained structure a strain must bring: a strain of a tenth all over, 0.8 % of it.
# Accuracy is the same to 0.01 % of the diagonal from half of it to twice.
_TENSION = 0.8
# Serial sections do not match cell by cell. The same section stained again does, and gives itself
# away by how much of its structure is explained: then a second, softer pass is due.
_SAME_SECTION, _SAME_SOFTER = 0.3, 0.1
_SETTLED_PX, _LONGEST_STEP_PX = 0.02, 2.0


def find_close_displacement(
    fixed: WorkImage, moving: WorkImage, start: Transform, *, stiffness: float = 1.0
) -> Task[tuple[Field, float]]:
    """Return the field that, before the start, best matches moving to fixed.

    Parameters
    ----------
    stiffness
        Factor on how far a pull reaches.

    Returns
    -------
    field
        (2, rows, cols) in µm, row then col.
    spacing
        Its pixel size in µm; the first sample lies at half of it.
    """
    yield Progress("Fitting the deformation")
    fixed_planes = Planes.of(fixed)
    yield Progress("Fitting the deformation")
    pictures = _Pictures(fixed, moving, fixed_planes, Planes.of(moving), start)
    spacing = level_sizes(fixed, moving, _SIDES, _CELLS)[0][0]
    field = np.zeros((2, *fixed.at(spacing).shape), np.float32)
    tension = _TENSION * stiffness**2
    field, spacing, agreement = yield from _descend(pictures, tension, field, spacing)
    if agreement >= _SAME_SECTION:
        softer = tension * _SAME_SOFTER
        field, spacing, _ = yield from _descend(pictures, softer, field, spacing)
    return field * np.float32(spacing), spacing


@dataclass(frozen=True)
class _Pictures:
    """Two sections, what they are compared by, and how the moving one is laid to begin with."""

    fixed: WorkImage
    moving: WorkImage
    fixed_planes: Planes
    moving_planes: Planes
    start: Transform


def _descend(
    pictures: _Pictures, tension: float, field: Field, spacing: float
) -> Task[tuple[Field, float, float]]:
    """Return the field (px) after every level, its spacing, and how well the pictures agree."""
    levels = level_sizes(pictures.fixed, pictures.moving, _SIDES, _CELLS)
    agreement = 0.0
    for number, (mpp, cells) in enumerate(levels):
        done, total = number * _ITERATIONS, len(levels) * _ITERATIONS
        yield Progress("Fitting the deformation", done, total)
        level = _Level(pictures, mpp, cells, tension)
        knots = level.membrane.knots(resize(field, level.shape, spacing / mpp))
        spacing = mpp
        for n in range(_ITERATIONS):
            yield Progress("Fitting the deformation", done + n, total)
            knots, change = level.step(knots)
            if change < _SETTLED_PX:
                break
        field, agreement = level.membrane.field(knots), level.agreement
    return field, spacing, agreement


class _Level:
    """One pixel size: its pictures, and the step that improves the knots of a membrane on them."""

    def __init__(self, pictures: _Pictures, mpp: float, cells: int, tension: float) -> None:
        fixed = pictures.fixed.at(mpp)
        values = pictures.fixed_planes.at(mpp).values
        self._stats = [LocalStats.of(v, fixed.tissue, _WINDOW_PX) for v in values]
        self._planes = pictures.moving_planes.at(mpp).laid(fixed, pictures.start)
        self._weight = lay(fixed, pictures.moving.at(mpp), pictures.start).weight(fixed)
        # The less of the picture is tissue, the less there is to hold against the tension.
        self._tension = tension * float(self._weight.mean())
        self._grid = np.indices(fixed.shape, np.float32)
        self.membrane = Membrane(fixed.shape, cells)
        self.shape = fixed.shape
        self.agreement = 0.0

    def step(self, knots: Knots) -> tuple[Knots, float]:
        """Return the knots after one iteration, and by how many px they wanted to move at most."""
        at = self._grid + self.membrane.field(knots)
        weight = ndimage.map_coordinates(self._weight, at, order=1, mode="constant")
        pull = np.zeros((2, *self.shape), np.float32)
        curvature = np.zeros((3, *self.shape), np.float32)
        agreement = 0.0
        for stats, plane in zip(self._stats, self._planes, strict=True):
            warped = ndimage.map_coordinates(plane, at, order=1, mode="nearest")
            force = descent(stats, warped, weight)
            pull += force.pull / len(self._stats)
            curvature += force.curvature / len(self._stats)
            agreement += float((force.correlation**2 * weight).sum()) / len(self._stats)
        self.agreement = agreement / max(float(weight.sum()), 1.0)
        move, longest = self.membrane.step(knots, pull, curvature, self._tension)
        return knots + move * min(1.0, _LONGEST_STEP_PX / max(longest, 1e-9)), longest
