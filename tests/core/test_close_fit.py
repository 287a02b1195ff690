"""The close fit: its gradient, its membrane, and a bend that it must find again."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from napari_pancluster.core.progress import run
from napari_pancluster.core.registration.close_fit import find_close_displacement
from napari_pancluster.core.registration.forces import LocalStats, descent, local_correlation
from napari_pancluster.core.registration.images import WorkImage
from napari_pancluster.core.registration.membrane import Membrane
from napari_pancluster.core.registration.planes import Planes
from napari_pancluster.core.transform import Transform

_SIDE, _MPP = 260, 4.0
_STRAIGHT = Transform.identity("HE", "PAS")


def _texture(seed: int, side: int = _SIDE) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).normal(size=(side, side))
    image = ndimage.gaussian_filter(noise, 2) / 0.14 + ndimage.gaussian_filter(noise, 8) / 0.035
    return np.asarray(np.maximum(2 + image, 0), np.float32)


def _image(density: NDArray[np.float32]) -> WorkImage:
    return WorkImage(density, np.ones_like(density), _MPP)


def _bend(side: int = _SIDE) -> NDArray[np.float64]:
    """Return a smooth displacement in px, 5 at most."""
    rows, cols = np.indices((side, side)) * np.pi / side
    return 5 * np.stack([np.sin(rows) * np.sin(2 * cols), -np.sin(2 * rows) * np.sin(cols)])


def test_the_gradient_is_that_of_the_summed_squared_correlation() -> None:
    side = 48
    weight = np.ones((side, side), np.float32)
    fixed, moving = _texture(0, side), _texture(1, side)
    stats = LocalStats.of(fixed, weight, 7)
    shift = 1e-3 * _bend(side)

    def explained(step: float) -> float:
        at = np.indices((side, side)) + step * shift
        warped = ndimage.map_coordinates(moving, at, order=3, mode="nearest", output=np.float32)
        other = LocalStats.of(warped, weight, 7)
        return float((local_correlation(stats, other)[0].astype(np.float64) ** 2).sum())

    pull = descent(stats, moving, weight).pull
    foretold = float((pull * shift)[:, 8:-8, 8:-8].sum())
    steps = 50.0
    found = (explained(steps) - explained(-steps)) / (2 * steps)
    assert foretold == pytest.approx(found, rel=0.15)


def test_a_known_bend_is_found_though_the_stain_is_the_other_way_round() -> None:
    fixed = _texture(0)
    inverse = np.indices(fixed.shape) - _bend()
    for _ in range(20):
        parts = [ndimage.map_coordinates(b, inverse, order=1, mode="nearest") for b in _bend()]
        inverse = np.indices(fixed.shape) - np.stack(parts)
    moving = ndimage.map_coordinates(fixed, inverse, order=1, mode="nearest")
    pale = np.asarray(moving.max() - moving, np.float32)
    field, spacing = run(find_close_displacement(_image(fixed), _image(pale), _STRAIGHT))
    zoom = spacing / _MPP
    at = (np.indices(field.shape[1:]) + 0.5) * zoom - 0.5
    truth = np.stack([ndimage.map_coordinates(b, at, order=1, mode="nearest") for b in _bend()])
    error = np.linalg.norm(field / _MPP - truth, axis=0)
    before = np.linalg.norm(truth, axis=0)
    assert np.median(before) > 2
    assert np.median(error) < 0.5
    assert np.percentile(error, 95) < 1.5


def test_pictures_without_likeness_hardly_bend() -> None:
    field, _ = run(find_close_displacement(_image(_texture(0)), _image(_texture(5)), _STRAIGHT))
    slopes = np.stack(np.gradient(field / _MPP, axis=(1, 2)))
    soft, _ = run(
        find_close_displacement(_image(_texture(0)), _image(_texture(5)), _STRAIGHT, stiffness=0.2)
    )
    softer = np.stack(np.gradient(soft / _MPP, axis=(1, 2)))
    assert np.sqrt((slopes**2).mean()) < 0.5 * np.sqrt((softer**2).mean())


def test_a_membrane_that_nothing_pulls_lies_flat_again() -> None:
    membrane = Membrane((60, 80), 8)
    knots = membrane.knots(np.asarray(_bend(80)[:, :60], np.float32))
    assert np.abs(membrane.field(knots) - _bend(80)[:, :60]).max() < 0.1
    nothing = np.zeros((2, 60, 80), np.float32)
    curvature = np.full((3, 60, 80), 1e-6, np.float32)
    for _ in range(5):
        move, _ = membrane.step(knots, nothing, curvature, 1.0)
        knots = knots + move
    assert np.ptp(membrane.field(knots), axis=(1, 2)).max() < 0.1


def test_texture_tells_coarse_from_fine_where_density_is_one() -> None:
    density = np.full((100, 100), 1.0, np.float32)
    density[:, 50:] += np.indices((100, 50)).sum(0) % 2 * 1.5 - 0.75
    texture = Planes.of(_image(density)).values[1]
    assert texture[:, 60:90].mean() > 10 * texture[:, 10:40].mean() + 0.1
