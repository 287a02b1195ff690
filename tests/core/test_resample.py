"""Resampling of images."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import map_coordinates

from napari_pancluster.core.resample import interpolate


def test_between_pixels_an_image_is_bilinear_and_its_edge_holds() -> None:
    rng = np.random.default_rng(0)
    image = rng.random((40, 57, 3), np.float32)
    at = np.stack([rng.uniform(-5, 45, (30, 20)), rng.uniform(-5, 62, (30, 20))])
    found = interpolate(image, at.astype(np.float32))
    expected = [map_coordinates(image[..., c], at, order=1, mode="nearest") for c in range(3)]
    assert found.shape == (3, 30, 20)
    assert np.abs(found - np.stack(expected)).max() < 1e-5
