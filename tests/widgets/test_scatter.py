"""The scatter side: lasso, polygon and rectangle by mouse, hover, pan, zoom and fit."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gestures import circle, click, drag

from napari_pancluster._widgets.canvas import Tool
from napari_pancluster.core.edits import Hide
from napari_pancluster.core.selection import Combine

SHIFT = (SimpleNamespace(name="Shift"),)
CONTROL = (SimpleNamespace(name="Control"),)


@pytest.fixture
def canvas(explored: Any) -> Any:
    found = explored.scatter.canvas
    # Not shown, hence not laid out: give it the size a dock would.
    found.scene.size = (600, 300)
    found.fit()
    return found


def _middle(explored: Any, label: int) -> tuple[float, float]:
    session = explored.session
    pixels = explored.scatter.canvas.frame.to_pixels(session.coords[session.labels == label])
    return tuple(np.median(pixels, axis=0))


def _radius(explored: Any) -> float:
    # Clusters lie 11.8 apart on the ring, with a spread of 0.8.
    return 4.5 * explored.scatter.canvas.frame.scale


def test_a_lasso_selects_the_points_inside(explored: Any, canvas: Any) -> None:
    session = explored.session
    drag(canvas.scene, circle(_middle(explored, 2), _radius(explored)))
    assert np.array_equal(session.selection, session.labels == 2)
    layer = explored.tissue.selected.data
    assert np.array_equal(layer == 1, session.label_image() == 2)


def test_keys_and_buttons_add_and_take_away(explored: Any, canvas: Any) -> None:
    session, radius = explored.session, _radius(explored)
    drag(canvas.scene, circle(_middle(explored, 2), radius))
    drag(canvas.scene, circle(_middle(explored, 3), radius), keys=SHIFT)
    assert np.array_equal(session.selection, np.isin(session.labels, (2, 3)))
    drag(canvas.scene, circle(_middle(explored, 2), radius), keys=CONTROL)
    assert np.array_equal(session.selection, session.labels == 3)
    explored.scatter._on_how(Combine.ADD)
    drag(canvas.scene, circle(_middle(explored, 1), radius))
    assert np.array_equal(session.selection, np.isin(session.labels, (1, 3)))


def test_a_rectangle_and_a_polygon_do_too(explored: Any, canvas: Any) -> None:
    session, radius = explored.session, _radius(explored)
    x, y = _middle(explored, 4)
    canvas.tool = Tool.RECTANGLE
    drag(canvas.scene, [(x - radius, y - radius), (x, y), (x + radius, y + radius)])
    assert np.array_equal(session.selection, session.labels == 4)
    canvas.tool = Tool.POLYGON
    for corner in circle(_middle(explored, 5), radius, 8):
        click(canvas.scene, corner)
    assert np.array_equal(session.selection, session.labels == 4), "not closed yet"
    canvas.scene.events.mouse_double_click(pos=_middle(explored, 5), button=1)
    assert np.array_equal(session.selection, session.labels == 5)


def test_a_click_picks_a_point_and_an_empty_place_picks_none(explored: Any, canvas: Any) -> None:
    session = explored.session
    row = 20
    place = tuple(canvas.frame.to_pixels(session.coords[[row]])[0])
    click(canvas.scene, place)
    (chosen,) = np.flatnonzero(session.selection)
    assert np.abs(canvas.frame.to_pixels(session.coords[[chosen]])[0] - place).max() <= 1
    click(canvas.scene, tuple(canvas.frame.to_pixels(np.zeros((1, 2)))[0]))
    assert not session.selection.any()


def test_hovering_names_the_point_and_a_double_click_flies(explored: Any, canvas: Any) -> None:
    session = explored.session
    place = tuple(canvas.frame.to_pixels(session.coords[[7]])[0])
    canvas.scene.events.mouse_move(pos=place)
    assert session.hover is not None
    at = canvas.frame.to_pixels(session.coords[[session.hover]])[0]
    assert np.abs(at - place).max() <= 1 and canvas._ring.visible
    session.select_labels([3])
    click(canvas.scene, place)
    canvas.scene.events.mouse_double_click(pos=place, button=1)
    assert np.array_equal(session.selection, session.labels == 3), "the flight keeps the selection"
    number, _ = session.results.position(session.hover)
    assert session.case == session.results.table.grids[number].case


def test_hidden_points_are_neither_drawn_nor_picked(explored: Any, canvas: Any) -> None:
    session = explored.session
    session.edit(Hide(label=2))
    canvas.scene.events.mouse_move(pos=_middle(explored, 2))
    assert session.hover is None
    drag(canvas.scene, circle(_middle(explored, 2), _radius(explored)))
    assert not session.selection.any()


def test_the_picture_shows_the_clusters_colours_and_dims_the_rest(
    explored: Any, canvas: Any
) -> None:
    session = explored.session
    x, y = (round(v) for v in _middle(explored, 3))
    colour = session.colouring.colours[3]
    ground = np.zeros(3, np.uint8)
    assert np.array_equal(canvas._picture(ground)[y, x], colour)
    session.select_labels([1])
    dimmed = canvas._picture(ground)[y, x]
    assert (dimmed < colour).any() and (dimmed <= colour).all()
    session.select_labels([3])
    assert np.array_equal(canvas._picture(ground)[y, x], colour)


def test_pan_zoom_and_fit(explored: Any, canvas: Any) -> None:
    canvas.tool = Tool.PAN
    before = canvas.frame
    drag(canvas.scene, [(100, 100), (130, 90), (160, 80)])
    assert canvas.frame == before.panned(60, -20) or np.allclose(
        canvas.frame.centre, before.panned(60, -20).centre
    )
    canvas.scene.events.mouse_wheel(pos=(50, 50), delta=(0, 2))
    assert canvas.frame.scale > before.scale
    canvas.fit()
    assert canvas.frame == before
    assert not explored.session.selection.any()


def test_the_right_button_pans_with_every_tool(explored: Any, canvas: Any) -> None:
    before = canvas.frame
    drag(canvas.scene, [(100, 100), (120, 100)], button=2)
    assert canvas.frame.centre[0] < before.centre[0]
    assert not explored.session.selection.any()


def test_escape_gives_a_polygon_up(explored: Any, canvas: Any) -> None:
    canvas.tool = Tool.POLYGON
    for corner in circle(_middle(explored, 5), 30, 5):
        click(canvas.scene, corner)
    canvas.scene.events.key_press(key=SimpleNamespace(name="Escape"))
    canvas.scene.events.mouse_double_click(pos=(1, 1), button=1)
    assert not explored.session.selection.any()


def test_colour_by_follows_the_box(explored: Any, canvas: Any) -> None:
    box = explored.scatter._colour
    assert [box.itemText(i) for i in range(3)] == ["Cluster", "Case", "Certainty"]
    box.setCurrentText("Case")
    explored.scatter._on_column()
    session = explored.session
    assert session.column == "Case"
    assert np.array_equal(canvas._colouring.values, session.results.table.grid_id + 1)
    assert explored.scatter._title.text().startswith("UMAP · <span")
    assert "</span> case0, " in explored.scatter._title.text()
    session.colour_by("Position left to right")
    assert "dark" in explored.scatter._title.text()
