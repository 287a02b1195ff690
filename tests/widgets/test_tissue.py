"""The tissue side: layers exactly over the slide, clicks, outlines, flights."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from gestures import click_tissue, event, world_of
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)

from napari_pancluster import _layers
from napari_pancluster.core.edits import Hide, Merge, Recolour
from napari_pancluster.core.palette import cluster_colour


def test_the_map_lies_exactly_over_the_tissue(explored: Any) -> None:
    layer, session = explored.tissue.map, explored.session
    slide = explored.viewer.layers["HE"]
    assert layer.data.dtype == np.uint8 and str(layer.units[0]) == "micrometer"
    for row in (0, 123):
        cell = session.grid.index[row]
        world = layer.data_to_world(cell)
        assert np.allclose(world, world_of(explored, row))
        # The same place in slide pixels: the middle of the cell, corners at whole strides.
        pixel = np.array(slide.world_to_data(world)) + 0.5
        assert np.allclose(pixel, (cell + 0.5) * session.grid.stride_px)
        assert layer.get_value(world, world=True) == session.labels[row]


def test_clicking_tissue_selects_the_patch_under_the_mouse(explored: Any) -> None:
    session = explored.session
    click_tissue(explored, world_of(explored, 57))
    assert np.flatnonzero(session.selection).tolist() == [57]
    click_tissue(explored, world_of(explored, 90), keys=(SimpleNamespace(name="Shift"),))
    assert np.flatnonzero(session.selection).tolist() == [57, 90]
    click_tissue(explored, world_of(explored, 57), keys=(SimpleNamespace(name="Control"),))
    assert np.flatnonzero(session.selection).tolist() == [90]
    click_tissue(explored, (-500.0, -500.0))
    assert not session.selection.any()


def test_dragging_the_tissue_selects_nothing(explored: Any) -> None:
    world = world_of(explored, 57)
    mouse_press_callbacks(explored.viewer, event("mouse_press", world))
    for x in (55, 70, 90):
        mouse_move_callbacks(explored.viewer, event("mouse_move", world, pos=(x, 50)))
    mouse_release_callbacks(explored.viewer, event("mouse_release", world, pos=(90, 50)))
    assert not explored.session.selection.any()


def test_the_selection_layer_tells_selected_from_other_tissue(explored: Any) -> None:
    session, layer = explored.session, explored.tissue.selected
    assert not layer.data.any()
    session.select_labels([2])
    expected = np.where(session.label_image() == 2, _layers.SELECTED, _layers.VEILED)
    assert np.array_equal(layer.data, np.where(session.label_image() > 0, expected, 0))
    session.undo()
    assert not layer.data.any()


def test_moving_over_tissue_points_at_the_patch(explored: Any) -> None:
    viewer = explored.viewer
    mouse_move_callbacks(viewer, event("mouse_move", world_of(explored, 33)))
    assert explored.session.hover == 33
    mouse_move_callbacks(viewer, event("mouse_move", (-99.0, -99.0)))
    assert explored.session.hover is None


@pytest.mark.parametrize("shape", ["polygon", "rectangle", "ellipse"])
def test_an_outline_drawn_in_the_viewer_selects_what_is_in_it(
    explored: Any, shape: str, wait: Any
) -> None:
    explored.tissue.start_outlining()
    layer = explored.viewer.layers["Outline tissue"]
    assert explored.viewer.layers.selection.active == layer
    low, high = world_of(explored, 65) - 1, world_of(explored, 65) + 130
    corners = [low, [low[0], high[1]], high, [high[0], low[1]]]
    layer.add(np.array(corners), shape_type=shape)
    session = explored.session
    wait(lambda: session.selection.any())
    rows = np.flatnonzero(session.selection)
    places = np.stack([world_of(explored, int(r)) for r in rows])
    assert ((places >= low) & (places <= high)).all()
    if shape == "ellipse":
        off = (places - (low + high) / 2) / ((high - low) / 2)
        assert (np.square(off).sum(1) <= 1.01).all()
    assert len(layer.data) == 0, "the outline has done its work"
    click_tissue(explored, world_of(explored, 3))
    assert np.flatnonzero(session.selection).tolist() == [3], "and a click is a click again"


def test_colours_merges_and_hiding_reach_the_layer(explored: Any) -> None:
    session, layer = explored.session, explored.tissue.map
    session.edit(Recolour(label=1, colour="#123456"))
    assert np.allclose(layer.colormap.map(1)[:3], np.array([0x12, 0x34, 0x56]) / 255, atol=0.01)
    session.edit(Merge(labels=(1, 2), into=1))
    assert 2 not in layer.data and np.array_equal(layer.data, session.label_image())
    session.edit(Hide(label=3))
    assert layer.colormap.map(3)[3] == 0 and layer.colormap.map(4)[3] == 1
    for _ in range(3):
        session.undo()
    blue = [int(cluster_colour(1)[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    assert np.allclose(layer.colormap.map(1)[:3], blue, atol=0.01)
    assert np.array_equal(layer.data, session.label_image()) and (layer.data == 2).any()


def test_a_flight_centres_the_patch_and_changes_the_case(explored: Any) -> None:
    session = explored.session
    row = int(session.results.table.case_offsets[1]) + 5
    explored.tissue.fly_to(row)
    assert session.case == "case1" and session.hover == row
    assert np.allclose(explored.viewer.scene.camera.center[-2:], world_of(explored, row))
    assert np.array_equal(explored.tissue.map.data, session.label_image())


def test_another_number_of_clusters_repaints_in_place(explored: Any) -> None:
    layer = explored.tissue.map
    explored.session.choose_k(3)
    assert explored.tissue.map is layer and layer.data.max() == 3


def test_density_is_a_share_where_there_is_tissue(explored: Any) -> None:
    explored.tissue.show_density(2)
    layer = explored.viewer.layers["Density of Cluster 2"]
    tissue = explored.session.label_image() > 0
    assert np.isnan(layer.data[~tissue]).all()
    assert layer.data[tissue].min() >= 0 and layer.data[tissue].max() <= 1
    labels = explored.session.label_image()
    assert layer.data[labels == 2].mean() > layer.data[(labels > 0) & (labels != 2)].mean()
    explored.tissue.show_density(2)
    assert sum("Density" in x.name for x in explored.viewer.layers) == 1


def test_deleted_layers_break_nothing(explored: Any) -> None:
    layers = explored.viewer.layers
    layers.remove("Clusters")
    layers.remove("Selection")
    explored.session.select_labels([1])
    explored.session.choose_k(4)
    explored.tissue.toggle_map()
    assert explored.tissue.map is not None
    assert np.array_equal(explored.tissue.map.data, explored.session.label_image())


def test_the_key_hides_the_map_and_shows_it_again(explored: Any) -> None:
    explored._on_hide_key(explored.viewer)
    assert not explored.tissue.map.visible
    explored._on_hide_key(explored.viewer)
    assert explored.tissue.map.visible
