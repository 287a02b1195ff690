"""The session: one truth for k, edits and selection, with a history."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import make_results

from napari_pancluster._session import Session
from napari_pancluster.core.edits import Hide, Merge, Rename
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.selection import Combine


@pytest.fixture
def session(islands: Path) -> Session:
    found = Session()
    found.show_results(make_results(islands, cases=2))
    found.show_case("case0")
    return found


def _count(signal: Any) -> list[int]:
    calls: list[int] = []
    signal.connect(lambda *_: calls.append(1))
    return calls


def test_a_write_equal_to_the_present_value_emits_nothing(session: Session) -> None:
    selected, clusters = _count(session.selection_changed), _count(session.clusters_changed)
    session.select_none()
    session.choose_k(session.k)
    session.select_labels([2])
    session.select_labels([2])
    assert len(selected) == 1 and not clusters
    coloured, hovered = _count(session.colouring_changed), _count(session.hover_changed)
    session.colour_by("Cluster")
    session.colour_by("no such column")
    session.point_at(None)
    assert not coloured and not hovered
    session.colour_by("Case")
    session.point_at(3)
    session.point_at(3)
    assert len(coloured) == 1 and len(hovered) == 1


def test_selections_combine(session: Session) -> None:
    session.select_labels([1])
    one = session.selection.copy()
    session.select(session.labels == 2, Combine.ADD)
    assert np.array_equal(session.selection, one | (session.labels == 2))
    session.select(one, Combine.SUBTRACT)
    assert np.array_equal(session.selection, session.labels == 2)
    assert session.summary.share(2) == 1


def test_a_click_picks_the_patch_its_area_or_its_cluster(session: Session) -> None:
    row = 40
    session.pick(row)
    assert session.selection.sum() == 1 and session.selection[row]
    session.pick_what = "cluster"
    session.pick(row)
    assert np.array_equal(session.selection, session.labels == session.labels[row])
    session.pick_what = "area"
    session.pick(row)
    area = session.selection
    assert 1 < area.sum() < (session.labels == session.labels[row]).sum()
    assert not area[session.results.table.rows_of(1)].any(), "an area ends with its case"


def test_what_is_hidden_cannot_be_selected(session: Session) -> None:
    session.select(np.ones(len(session.labels), bool))
    session.edit(Hide(label=3))
    assert not session.selection[session.labels == 3].any() and session.selection.any()
    session.select_labels([3])
    assert not session.selection.any()
    session.undo()
    session.undo()
    assert session.selection.all()


def test_undo_brings_back_k_edits_and_selection(session: Session) -> None:
    start = (session.k, session.edits, session.selection.copy())
    session.edit(Rename(label=1, name="Acini"))
    session.edit(Merge(labels=(1, 2), into=1))
    session.select_labels([1])
    session.choose_k(4)
    session.edit(Hide(label=4))
    assert session.edits.hidden == {4}
    for _ in range(5):
        session.undo()
    assert not session.can_undo
    assert session.k == start[0] and session.edits == start[1]
    assert np.array_equal(session.selection, start[2])
    for _ in range(5):
        session.redo()
    assert session.k == 4 and session.edits.hidden == {4} and not session.can_redo
    session.choose_k(5)
    assert session.edits.name(1) == "Acini" and session.edits.labels == (1, 3, 4, 5)


def test_a_refused_edit_changes_nothing(session: Session) -> None:
    with pytest.raises(InputError):
        session.edit(Merge(labels=(1, 9), into=1))
    assert not session.can_undo and session.edits.operations == ()


def test_a_new_step_drops_what_was_undone(session: Session) -> None:
    session.select_labels([1])
    session.undo()
    session.select_labels([2])
    assert not session.can_redo and session.can_undo


def test_unsaved_edits_are_those_the_project_does_not_hold(session: Session) -> None:
    assert session.unsaved_edits() == []
    session.edit(Rename(label=1, name="Acini"))
    (edits,) = session.unsaved_edits()
    session.mark_saved(edits)
    assert session.unsaved_edits() == []
    session.undo()
    assert session.unsaved_edits() == [session.edits]


def test_rows_cells_and_images_of_the_case_agree(session: Session) -> None:
    session.show_case("case1")
    grid, rows = session.grid, session.results.table.rows_of(1)
    assert grid is not None
    image = session.label_image()
    for position in (0, 17, len(grid.index) - 1):
        cell = tuple(int(v) for v in grid.index[position])
        assert session.map.row_at(cell) == rows.start + position
        assert image[cell] == session.labels[rows.start + position]
    assert session.map.row_at((0, 0)) is None and image[0, 0] == 0
    session.pick(rows.start + 17)
    assert (session.selection_image() == 1).sum() == 1
    assert (session.selection_image() == 2).sum() == len(grid.index) - 1
    session.show_case("case0")
    assert (session.selection_image() == 1).sum() == 0


def test_an_outline_on_the_tissue_selects_the_cells_centred_in_it(session: Session) -> None:
    grid = session.grid
    assert grid is not None
    low, high = grid.centres[10], grid.centres[10] + 3 * grid.cell_um
    (top, left), (bottom, right) = low - 1, high + 1
    box = np.array([[top, left], [top, right], [bottom, right], [bottom, left]])
    session.select_outlined(box)
    chosen = grid.centres[session.selection[session.results.table.rows_of(0)]]
    assert ((chosen >= low - 1) & (chosen <= high + 1)).all() and len(chosen) == 16


@pytest.mark.parametrize("column", ["Cluster", "Case", "Certainty", "Position left to right"])
def test_every_column_colours_every_patch_but_the_hidden(session: Session, column: str) -> None:
    assert column in session.columns
    session.colour_by(column)
    assert session.colouring is not None and (session.colouring.values > 0).all()
    session.edit(Hide(label=2))
    assert np.array_equal(session.colouring.values == 0, session.labels == 2)


def test_words_for_the_selection(session: Session) -> None:
    assert session.selection_in_words() == "Nothing selected"
    session.edit(Rename(label=2, name="Islets"))
    session.select_labels([2])
    words = session.selection_in_words()
    assert f"{(session.labels == 2).sum():,} patches" in words and "Islets 100%" in words
    assert "mm²" in words
