"""Two hundred random actions leave no two views in disagreement; undoing all leads back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from gestures import circle, click_line, click_tissue, drag, world_of
from qtpy.QtCore import Qt

from napari_pancluster import _layers
from napari_pancluster._widgets.canvas import Tool
from napari_pancluster._widgets.clusters import _NAME, _PATCHES
from napari_pancluster.core.selection import Combine

ACTIONS = 200


def _agree(main: Any) -> None:
    """Compare what table, layers, scatter and session say."""
    session, table, canvas = main.session, main.clusters.table, main.scatter.canvas
    edits, image = session.edits, session.label_image()
    assert np.array_equal(main.tissue.map.data, image)
    chosen = session.selection_image()
    assert np.array_equal(main.tissue.selected.data, chosen)
    rows = session.results.table.rows_of(session.results.grid_number(session.case))
    assert (chosen == _layers.SELECTED).sum() == session.selection[rows].sum()
    assert np.array_equal(canvas._selection, session.selection)
    assert np.array_equal(canvas._colouring.values, session.colouring.values)
    assert edits.shown[session.labels[session.selection]].all()
    names = [table.item(r, _NAME).text() for r in range(table.rowCount())]
    assert names == [edits.name(n) for n in edits.labels]
    counts = [int(table.item(r, _PATCHES).text().replace(",", "")) for r in range(len(names))]
    assert counts == [int((session.labels == n).sum()) for n in edits.labels]
    whole = [
        n
        for n, count in zip(edits.labels, counts, strict=True)
        if count and session.selection[session.labels == n].all()
    ]
    assert table.chosen == whole
    ticked = [table.item(r, _NAME).checkState() == Qt.CheckState.Checked for r in range(len(names))]
    assert ticked == [n not in edits.hidden for n in edits.labels]
    assert main.clusters.k.value() == session.k
    assert f"{session.selection.sum():,} patches" in main.scatter._summary.text() or (
        not session.selection.any() and main.scatter._summary.text() == "Nothing selected"
    )


def _actions(main: Any, rng: np.random.Generator) -> list[Callable[[], object]]:
    session, panel, canvas = main.session, main.clusters, main.scatter.canvas
    table = panel.table

    def some_row() -> int:
        return int(rng.integers(table.rowCount()))

    def lasso() -> None:
        canvas.tool = Tool.LASSO
        middle = (float(rng.uniform(50, 550)), float(rng.uniform(50, 250)))
        drag(canvas.scene, circle(middle, float(rng.uniform(5, 120)), 12))

    def rectangle() -> None:
        canvas.tool = Tool.RECTANGLE
        drag(canvas.scene, rng.uniform(0, 300, (3, 2)))

    def line() -> None:
        click_line(table, some_row(), adding=bool(rng.integers(2)))

    def click_place() -> None:
        rows = session.results.table.rows_of(session.results.grid_number(session.case))
        click_tissue(main, world_of(main, int(rng.integers(rows.start, rows.stop))))

    def rename() -> None:
        table.item(some_row(), _NAME).setText(f"Tissue {rng.integers(100)}")

    def tick() -> None:
        item = table.item(some_row(), _NAME)
        shown = item.checkState() == Qt.CheckState.Checked
        item.setCheckState(Qt.CheckState.Unchecked if shown else Qt.CheckState.Checked)

    def other_case() -> None:
        session.show_case(f"case{rng.integers(2)}")

    return [
        lasso,
        rectangle,
        line,
        click_place,
        rename,
        tick,
        other_case,
        panel._merge.click,
        panel._undo.click,
        panel._redo.click,
        lambda: panel.k.setValue(int(rng.integers(2, 7))),
        lambda: main.scatter._on_how(rng.choice(list(Combine))),
        lambda: session.colour_by(str(rng.choice(session.columns))),
        lambda: setattr(session, "pick_what", str(rng.choice(["patch", "area", "cluster"]))),
        lambda: session.point_at(int(rng.integers(len(session.labels)))),
        lambda: main.tissue.fly_to(int(rng.integers(len(session.labels)))),
        session.select_none,
        canvas.fit,
        lambda: canvas.scene.events.mouse_wheel(pos=(100, 90), delta=(0, float(rng.normal()))),
        lambda: main._on_hide_key(main.viewer),
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_random_actions_never_raise_nor_disagree(explored: Any, seed: int) -> None:
    rng = np.random.default_rng(seed)
    explored.scatter.canvas.scene.size = (600, 300)
    explored.scatter.canvas.fit()
    session = explored.session
    start = (session.k, session.edits, session.selection.copy())
    actions = _actions(explored, rng)
    done: set[int] = set()
    for _ in range(ACTIONS):
        number = int(rng.integers(len(actions)))
        actions[number]()
        done.add(number)
        _agree(explored)
    assert len(done) == len(actions) and session.can_undo
    while session.can_undo:
        explored.clusters._undo.click()
        _agree(explored)
    assert (session.k, session.edits) == start[:2]
    assert np.array_equal(session.selection, start[2])
