"""The clusters panel: its table says and does what the session knows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import make_results
from gestures import click_line
from qtpy.QtCore import Qt

from napari_pancluster._widgets.clusters import _NAME, _PATCHES, _SELECTED
from napari_pancluster.core.edits import Hide
from napari_pancluster.core.validation import BETTER, ValidationScores


@pytest.fixture
def table(explored: Any) -> Any:
    return explored.clusters.table


def _texts(table: Any, column: int) -> list[str]:
    return [table.item(row, column).text() for row in range(table.rowCount())]


def test_the_table_counts_every_cluster(explored: Any, table: Any) -> None:
    session = explored.session
    counts = [int((session.labels == n).sum()) for n in session.edits.labels]
    assert [int(t.replace(",", "")) for t in _texts(table, _PATCHES)] == counts
    assert _texts(table, _NAME) == [f"Cluster {n}" for n in range(1, 6)]


def test_clicking_lines_selects_their_patches(explored: Any, table: Any) -> None:
    session = explored.session
    click_line(table, 1)
    assert np.array_equal(session.selection, session.labels == 2)
    click_line(table, 3, adding=True)
    assert np.array_equal(session.selection, np.isin(session.labels, (2, 4)))
    assert table.chosen == [2, 4]


def test_lines_light_up_only_when_all_their_patches_are_selected(explored: Any, table: Any) -> None:
    session = explored.session
    mask = session.labels == 3
    mask[np.flatnonzero(session.labels == 1)[:5]] = True
    session.select(mask)
    assert table.chosen == [3]
    shares = _texts(table, _SELECTED)
    assert shares[0] and shares[2] and not shares[1]


def test_doubts_about_the_clusters_of_a_k_stand_below_the_table(explored: Any) -> None:
    session, said = explored.session, explored.clusters._doubts
    assert said.isHidden()
    other = next(k for k in session.results.ks if k != session.k)
    doubts = {other: ("Cluster 2 is hardly stained.", "The clusters collapsed.")}
    session.show_results(replace(session.results, doubts=doubts))
    assert said.isHidden()
    session.choose_k(other)
    assert said.text() == "⚠ Cluster 2 is hardly stained.\n⚠ The clusters collapsed."
    assert not said.isHidden()


def test_renaming_in_the_table_renames_everywhere(explored: Any, table: Any) -> None:
    table.item(0, _NAME).setText("Acini")
    session = explored.session
    assert session.edits.name(1) == "Acini"
    session.select_labels([1])
    assert "Acini" in explored.scatter._summary.text()
    session.undo()
    session.undo()
    assert _texts(table, _NAME)[0] == "Cluster 1"


def test_the_tick_hides_and_shows(explored: Any, table: Any) -> None:
    session = explored.session
    table.item(2, _NAME).setCheckState(Qt.CheckState.Unchecked)
    assert session.edits.hidden == {3}
    click_line(table, 2)
    assert not session.selection.any() and table.chosen == [], "hidden patches cannot be selected"
    table.item(2, _NAME).setCheckState(Qt.CheckState.Checked)
    assert session.edits.hidden == frozenset()


def test_merging_lit_lines(explored: Any, table: Any) -> None:
    session, panel = explored.session, explored.clusters
    assert not panel._merge.isEnabled()
    click_line(table, 1)
    click_line(table, 4, adding=True)
    both = session.selection.copy()
    panel._merge.click()
    assert session.edits.labels == (1, 2, 3, 4) and np.array_equal(session.labels == 2, both)
    assert table.rowCount() == 4 and table.chosen == [2]
    panel._undo.click()
    assert table.rowCount() == 5 and table.chosen == [2, 5]


def test_another_k_by_number_and_by_curve(explored: Any, table: Any) -> None:
    session, panel = explored.session, explored.clusters
    panel.k.setValue(3)
    assert session.k == 3 and table.rowCount() == 3
    panel.curves.k_chosen.emit(4)
    assert session.k == 4 and panel.k.value() == 4 and table.rowCount() == 4
    assert explored.tissue.map.data.max() == 4
    session.undo()
    assert panel.k.value() == 3


def test_results_with_fewer_k_are_looked_at_with_their_own_k(explored: Any, islands: Path) -> None:
    session = explored.session
    session.choose_k(6)
    session.show_results(make_results(islands, cases=2, k=3))
    assert session.k == 3 and explored.clusters.k.value() == 3 and not session.can_undo
    assert (explored.clusters.k.minimum(), explored.clusters.k.maximum()) == (2, 4)


def test_a_click_on_a_curve_means_the_nearest_k(explored: Any) -> None:
    ks = np.arange(2, 7)
    values = {name: np.linspace(0, 1, 5) for name in BETTER}
    scores = ValidationScores(ks, values, {n: v * 0.1 for n, v in values.items()}, 4, "4: trial.")
    curves, chosen = explored.clusters.curves, []
    curves.show_scores(scores, 5)
    curves.k_chosen.connect(chosen.append)
    curves._on_click(type("Event", (), {"xdata": 3.4})())
    curves._on_click(type("Event", (), {"xdata": None})())
    assert chosen == [3]


def test_the_gallery_shows_patches_of_the_lit_cluster(explored: Any, wait: Any) -> None:
    gallery, session = explored.clusters.gallery, explored.session
    session.select_labels([2])
    wait(lambda: bool(gallery._rows))
    assert all(session.labels[row] == 2 for row in gallery._rows)
    pixels = gallery._strip._columns[0][0]
    assert (pixels.width(), pixels.height()) == (32, 32)
    gallery._strip.chosen.emit(1)
    assert session.hover == gallery._rows[1]
    session.select_none()
    assert gallery._rows == []


def test_the_patch_under_the_pointer_is_shown_in_every_stain(explored: Any, wait: Any) -> None:
    explored.session.point_at(30)
    strip = explored.patch._strip
    wait(lambda: bool(strip._columns))
    assert list(strip._names) == ["HE"] and len(strip._columns[0]) == 1
    assert "Cluster" in explored.patch._caption.text()


def test_undo_is_offered_only_where_there_is_something(explored: Any) -> None:
    panel, session = explored.clusters, explored.session
    assert not panel._undo.isEnabled() and not panel._redo.isEnabled()
    session.edit(Hide(label=1))
    assert panel._undo.isEnabled() and not panel._redo.isEnabled()
    panel._undo.click()
    assert not panel._undo.isEnabled() and panel._redo.isEnabled()
    panel._redo.click()
    assert session.edits.hidden == {1}
