"""Points in a picture: where they fall, which is on top, which is nearest."""

from __future__ import annotations

import numpy as np
import pytest

from napari_pancluster.core.raster import Frame, disc_radius, draw, nearest, place

POINTS = np.array([[0, 0], [10, 0], [0, 5], [10, 5]], np.float32)


def test_all_points_are_in_the_picture_of_everything_and_up_is_up() -> None:
    frame = Frame.around(POINTS, (100, 300))
    pixels = frame.to_pixels(POINTS)
    assert (pixels >= 0).all() and (pixels[:, 0] < 300).all() and (pixels[:, 1] < 100).all()
    assert pixels[2, 1] < pixels[0, 1], "larger y is higher up"
    assert np.allclose(frame.to_plane(pixels), POINTS, atol=1e-6)
    assert len(place(POINTS, frame).rows) == 4


def test_zooming_keeps_the_pixel_under_the_mouse_and_panning_follows_it() -> None:
    frame = Frame.around(POINTS, (100, 300))
    at = (40.0, 70.0)
    before = frame.to_plane(np.array([at]))
    assert np.allclose(frame.zoomed(3.0, at).to_plane(np.array([at])), before)
    moved = frame.panned(15, -8).to_plane(np.array([[at[0] + 15, at[1] - 8]]))
    assert np.allclose(moved, before)


def test_far_points_and_points_that_are_nowhere_are_left_out() -> None:
    coords = np.array([[0, 0], [1e12, 0], [-1e12, 3], [np.nan, 0]], np.float32)
    with np.errstate(invalid="raise"):
        places = place(coords, Frame((0, 0), 1.0, (50, 50)))
    assert places.rows.tolist() == [0]


def test_a_drawn_point_is_a_disc_of_its_value_and_selected_points_lie_on_top() -> None:
    coords = np.array([[0, 0], [1, 0]], np.float32)
    places = place(coords, Frame((0, 0), 1.0, (21, 21)))
    values, top = np.array([7, 9], np.uint8), np.array([True, False])
    picture, lit = draw(places, values, top, 3)
    assert picture[10, 10] == 7 and lit[10, 10]
    assert picture[10, 14] == 9 and not lit[10, 14]
    assert picture[10, 13] == 7, "the disc of the selected point covers the other's"
    assert (picture == 7).sum() == pytest.approx(np.pi * 3.4**2, rel=0.1)


def test_value_zero_is_not_drawn_even_when_selected() -> None:
    places = place(POINTS, Frame.around(POINTS, (60, 60)))
    picture, lit = draw(places, np.array([0, 0, 3, 0], np.uint8), np.ones(4, bool), 1)
    assert set(np.unique(picture)) == {0, 3} and lit.sum() == (picture > 0).sum()


def test_nearest_finds_the_point_within_reach_only() -> None:
    frame = Frame.around(POINTS, (100, 300))
    places = place(POINTS, frame)
    for row, (x, y) in enumerate(frame.to_pixels(POINTS)):
        assert nearest(places, (x + 2, y - 2), 6) == row
    assert nearest(places, (150.0, 50.0), 6) is None


def test_crowds_are_drawn_smaller_and_grow_when_zoomed_in() -> None:
    assert disc_radius(1_000, 1) > disc_radius(100_000, 1) > disc_radius(5_000_000, 1)
    assert disc_radius(5_000_000, 16) > disc_radius(5_000_000, 1)
