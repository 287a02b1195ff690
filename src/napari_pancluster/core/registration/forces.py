"""The pull of local correlation between two pictures, shared by affine and deformable steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_pancluster.core.registration.images import FloatImage

# Local variance below this share of the mean one is noise of glass and empty stroma.
_NOISE = 0.02


@dataclass(frozen=True)
class LocalStats:
    """Local mean, deviation and variance of a fixed picture, computed once a level.

    Attributes
    ----------
    deviation, variance
        (rows, cols) of the picture about its mean in a box of `window` px.
    """

    image: FloatImage
    deviation: FloatImage
    mean: FloatImage
    variance: FloatImage
    noise: float
    window: int

    @classmethod
    def of(cls, image: FloatImage, weight: FloatImage, window: int) -> LocalStats:
        """Measure a picture; `weight` tells where it counts."""
        mean = box(image, window)
        variance = np.maximum(box(image * image, window) - mean * mean, 0)
        total = max(float(weight.sum()), 1.0)
        noise = _NOISE * float((variance * weight).sum()) / total + 1e-6
        return cls(image, image - mean, mean, variance, noise, window)


@dataclass(frozen=True)
class Forces:
    """Gradient and Gauss–Newton curvature of the local squared correlation.

    Attributes
    ----------
    pull
        (2, rows, cols): rises towards better correlation when the picture is sampled there.
    curvature
        (3, rows, cols): row-row, row-col, col-col.
    correlation
        (rows, cols) signed local correlation.
    """

    pull: NDArray[np.float32]
    curvature: NDArray[np.float32]
    correlation: FloatImage


def box(image: FloatImage, window: int) -> FloatImage:
    """Return the mean over a square of `window` px."""
    return np.asarray(ndimage.uniform_filter(image, window, mode="nearest"), np.float32)


def local_correlation(
    fixed: LocalStats, moving: LocalStats
) -> tuple[FloatImage, FloatImage, FloatImage]:
    """Return signed local correlation, covariance and the product of the variances."""
    covariance = box(fixed.image * moving.image, fixed.window) - fixed.mean * moving.mean
    product = (fixed.variance + fixed.noise) * (moving.variance + moving.noise)
    correlation = np.asarray(covariance / np.sqrt(product), np.float32)
    return correlation, covariance, product


def forces(fixed: LocalStats, warped: FloatImage, weight: FloatImage) -> Forces:
    """Return how each pixel of `warped` wants to be sampled elsewhere.

    With local covariance s_fm and variances s_ff, s_mm, the squared local correlation
    s_fm² / (s_ff s_mm) has the gradient ``2 s_fm / (s_ff s_mm) (f − s_fm / s_mm m) ∇m`` (B. Avants
    et al., Med. Image Anal. 2008); it does not mind a stain that is dark where the other is pale.
    The slopes of both pictures pull, which halves the noise of either.
    """
    moving = LocalStats.of(warped, weight, fixed.window)
    correlation, covariance, product = local_correlation(fixed, moving)
    ratio = covariance / product * weight
    # The exact curvature carries the squared correlation, which is too hasty where it is noise.
    trust = weight * np.minimum(np.abs(correlation), 1)
    pull = np.zeros((2, *warped.shape), np.float32)
    curvature = np.zeros((3, *warped.shape), np.float32)
    for sign, one, other in ((1, moving, fixed), (-1, fixed, moving)):
        spread = one.variance + one.noise
        drive = sign * ratio * (other.deviation - covariance / spread * one.deviation)
        slope_r, slope_c = np.gradient(one.image)
        gain = trust / spread
        pull += np.stack([drive * slope_r, drive * slope_c])
        curvature += np.stack([gain * slope_r**2, gain * slope_r * slope_c, gain * slope_c**2])
    return Forces(pull, curvature, correlation)


def descent(fixed: LocalStats, warped: FloatImage, weight: FloatImage) -> Forces:
    """Return the exact gradient of the summed squared local correlation in the place of a pixel.

    Every window that holds a pixel has its say, not only the one about it: with ``a = s_fm / (s_ff
    s_mm)`` and ``b = a s_fm / s_mm`` of each window and bars for means over windows, the gradient
    is ``2 (ā f − mean(a f̄) − b̄ m + mean(b m̄)) ∇m``.
    """
    moving = LocalStats.of(warped, weight, fixed.window)
    correlation, covariance, product = local_correlation(fixed, moving)
    spread = moving.variance + moving.noise
    a = covariance / product * weight
    b = a * covariance / spread
    size = fixed.window
    drive = box(a, size) * fixed.image - box(a * fixed.mean, size)
    drive -= box(b, size) * warped - box(b * moving.mean, size)
    # The exact curvature carries the squared correlation, which is too hasty where it is noise.
    gain = 2 * box(weight * np.minimum(np.abs(correlation), 1) / spread, size)
    slope_r, slope_c = np.gradient(warped)
    pull = 2 * np.stack([drive * slope_r, drive * slope_c])
    curvature = np.stack([gain * slope_r**2, gain * slope_r * slope_c, gain * slope_c**2])
    return Forces(pull, curvature, correlation)
