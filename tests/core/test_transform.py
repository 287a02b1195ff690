"""Transforms: forward and back, on points and on grids."""

from __future__ import annotations

import numpy as np
import pytest

from napari_pancluster.core.geometry import Region
from napari_pancluster.core.transform import Transform


@pytest.fixture
def bent() -> Transform:
    """A turn, a shift and a smooth bend, with the bend's inverse by fixed-point iteration."""
    spacing, origin = 20.0, (10.0, 10.0)
    r, c = np.meshgrid(*(origin[0] + spacing * np.arange(40),) * 2, indexing="ij")
    u = np.stack([6 * np.sin(c / 150), 5 * np.cos(r / 170)]).astype(np.float32)
    angle = np.deg2rad(35)
    affine = np.array(
        [[np.cos(angle), -np.sin(angle), 40], [np.sin(angle), np.cos(angle), -25], [0, 0, 1]]
    )
    partial = Transform("HE", "PAS", affine, u, np.zeros_like(u), spacing, origin)
    v = np.zeros((2, 40 * 40))
    points = np.stack([r.ravel(), c.ravel()], 1)
    for _ in range(30):
        v = -partial._sample(u, points + v.T).T
    inverse = v.reshape(u.shape).astype(np.float32)
    return Transform("HE", "PAS", affine, u, inverse, spacing, origin)


def test_there_and_back_is_where_one_was(bent: Transform) -> None:
    points = np.random.default_rng(0).uniform(60, 700, (200, 2))
    assert np.abs(bent.to_fixed(bent.to_moving(points)) - points).max() < 0.1
    assert np.abs(bent.to_moving(points) - points).max() > 20


def test_grid_agrees_with_points(bent: Transform) -> None:
    region = Region(101.5, 203.0, 30 * 1.7, 20 * 1.7)
    grid = bent.moving_grid(region, 1.7)
    r = region.top + (np.arange(30) + 0.5) * 1.7
    c = region.left + (np.arange(20) + 0.5) * 1.7
    points = np.stack(np.meshgrid(r, c, indexing="ij"), -1).reshape(-1, 2)
    assert np.allclose(grid.reshape(2, -1).T, bent.to_moving(points), atol=1e-4)


def test_far_outside_the_field_stays_finite(bent: Transform) -> None:
    far = np.array([[-1e6, 0.0], [1e6, 1e6]])
    assert np.isfinite(bent.to_moving(far)).all() and np.isfinite(bent.to_fixed(far)).all()


def test_identity_moves_nothing() -> None:
    points = np.array([[3.0, 4.0], [-5.0, 6.0]])
    assert np.array_equal(Transform.identity("a", "b").to_moving(points), points)


def test_pixels_agree_with_points_beyond_the_field_and_at_any_size(bent: Transform) -> None:
    flat = Transform("HE", "PAS", bent.affine)
    for transform in (bent, flat):
        for region, mpp in (
            (Region(-150, 600, 90 * 3.0, 100 * 3.0), 3.0),
            (Region(0, 0, 820, 820), 41.0),
            (Region(399.7, 211.1, 5 * 0.25, 4 * 0.25), 0.25),
        ):
            first, at = transform.moving_pixels(region, mpp)
            rows, cols = region.pixel_shape(mpp)
            r = region.top + (np.arange(rows) + 0.5) * mpp
            c = region.left + (np.arange(cols) + 0.5) * mpp
            points = np.stack(np.meshgrid(r, c, indexing="ij"), -1).reshape(-1, 2)
            found = (at.reshape(2, -1).T + np.array(first) + 0.5) * mpp
            assert np.abs(found - transform.to_moving(points)).max() < 1e-3 * mpp
