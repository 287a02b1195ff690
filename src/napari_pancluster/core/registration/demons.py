"""The other deformable stage: SimpleITK's demons on locally normalised density."""

from __future__ import annotations

import numpy as np

from napari_pancluster.core._sitk import demons
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.registration.deformable import Field, level_sizes, resize, smooth
from napari_pancluster.core.registration.images import FloatImage, WorkImage, lay
from napari_pancluster.core.transform import Transform

_SIDES = (128, 256, 512)
_ITERATIONS = (60, 40, 20)
# Between two yields: short, so that Cancel is answered.
_AT_ONCE = 10
_NORMALISE_SHARE = 0.02
_SMOOTH_SHARE = 0.02


def find_demons_displacement(
    fixed: WorkImage, moving: WorkImage, start: Transform, *, stiffness: float = 1.0
) -> Task[tuple[Field, float]]:
    """Return the field that, before the start, best matches moving to fixed.

    Returns
    -------
    field
        (2, rows, cols) in µm, row then col.
    spacing
        Its pixel size in µm; the first sample lies at half of it.
    """
    levels = level_sizes(fixed, moving, _SIDES, _ITERATIONS)
    spacing, total, done = levels[0][0], sum(count for _, count in levels), 0
    field = np.zeros((2, *fixed.at(spacing).shape), np.float32)
    for mpp, iterations in levels:
        target, source = fixed.at(mpp), moving.at(mpp)
        laid = lay(target, source, start)
        weight = laid.weight(target)
        side = max(target.shape)
        sigma = _NORMALISE_SHARE * side
        picture = local_contrast(target.density, weight, sigma)
        warped = local_contrast(laid.density, weight, sigma)
        field = resize(field, target.shape, spacing / mpp)
        spacing = mpp
        smooth_px = max(1.0, _SMOOTH_SHARE * side * stiffness)
        for _ in range(iterations // _AT_ONCE):
            yield Progress("Fitting the deformation", done, total)
            field = demons(picture, warped, field, iterations=_AT_ONCE, smooth_px=smooth_px)
            done += _AT_ONCE
    return field * np.float32(spacing), spacing


def local_contrast(image: FloatImage, weight: FloatImage, sigma: float) -> FloatImage:
    """Return a picture less its local mean over its local deviation, 0 where nothing compares."""
    mean = smooth(image, sigma)
    deviation = np.sqrt(np.maximum(smooth(image * image, sigma) - mean * mean, 0))
    floor = 0.1 * float(deviation.max()) + 1e-6
    return np.asarray((image - mean) / (deviation + floor) * (weight > 0), np.float32)
