"""Landmarks in the window: clicked in turns, moved, deleted, undone, judged, kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gestures import event
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)
from qtpy.QtCore import Qt
from qtpy.QtTest import QTest

from napari_pancluster import _layers
from napari_pancluster._widgets.landmarks_box import LandmarksBox
from napari_pancluster.core.pipeline.marking import kept_landmarks
from napari_pancluster.core.project import Project
from napari_pancluster.core.registration.landmarks import Landmarks, write_landmarks
from napari_pancluster.core.registration.quality import with_field
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform

# µm of the reference, which has 1280 × 2000 µm.
SPOTS = np.array([[300.0, 400.0], [900.0, 500.0], [500.0, 1500.0], [1000.0, 1200.0], [650, 900]])
SHIFT = np.array([[1.0, 0.0, 20.0], [0.0, 1.0, -30.0], [0.0, 0.0, 1.0]])


@pytest.fixture
def stack(islands: Path, two_tissues: Path) -> SlideStack:
    """Two slides of 2 µm/px, not registered."""
    stains = (
        Stain.of("HE", open_slide(islands)),
        Stain.of("PAS", open_slide(two_tissues).with_mpp(2.0)),
    )
    return SlideStack("block", "HE", stains)


@pytest.fixture
def box(main: Any, stack: SlideStack, qtbot: Any) -> Iterator[Any]:
    """The box, setting landmarks on two slides that are registered with a shift."""
    main.session.case = "block"
    main.session.show_stack(stack.with_transform(Transform("HE", "PAS", SHIFT)))
    box = LandmarksBox(main.viewer, main.session)
    qtbot.addWidget(box)
    box.told = []
    box.complained.connect(box.told.append)
    box.start()
    yield box
    box.close_session()


@pytest.fixture
def click(main: Any, wait: Callable[..., None]) -> Callable[..., None]:
    """Return a function that clicks a place, in µm of what is shown, as napari reports it."""

    def do(um: Any, mpp: float = 2.0) -> None:
        layer = main.viewer.layers.selection.active
        world = np.asarray(um, np.float64) - mpp / 2
        mouse_press_callbacks(layer, event("mouse_press", world))
        mouse_release_callbacks(layer, event("mouse_release", world))
        wait_turn(wait)

    return do


def wait_turn(wait: Callable[..., None]) -> None:
    """Let what waits for napari's own event to end be done."""
    from qtpy.QtCore import QTimer

    done: list[bool] = []
    QTimer.singleShot(0, lambda: done.append(True))
    wait(lambda: bool(done))


def click_pairs(click: Any, spots: Any = SPOTS, away: Any = 0.0) -> None:
    for spot in spots:
        click(spot)
        click(spot + away)


def shown(main: Any, side: str) -> Any:
    layers = [x for x in main.viewer.layers if x.metadata.get("pancluster") == _layers.LANDMARKS]
    return next(x for x in layers if x.metadata["side"] == side)


def visible_slides(main: Any) -> list[str]:
    slides = [x for x in main.viewer.layers if x.metadata.get("pancluster") == _layers.SLIDE]
    return [x.metadata["stain"] for x in slides if x.visible]


def test_clicks_in_turns_make_pairs(main: Any, box: Any, click: Any) -> None:
    layers = main.viewer.layers
    assert visible_slides(main) == ["HE"] and layers.selection.active == shown(main, "fixed")
    assert "Click a spot on HE" in box.step.text() and "number 1" in box.step.text()
    click(SPOTS[0])
    assert visible_slides(main) == ["PAS"] and layers.selection.active == shown(main, "moving")
    assert box.step.text() == "Click the same spot 1 on PAS." and len(box.landmarks) == 0
    click(SPOTS[0] + 7)
    assert visible_slides(main) == ["HE"] and len(box.landmarks) == 1
    np.testing.assert_allclose(box.landmarks.fixed, SPOTS[:1])
    # The registered layer shows the moving slide warped: 20 µm down and 30 µm left of there.
    np.testing.assert_allclose(box.landmarks.moving, SPOTS[:1] + 7 + [20, -30])
    click_pairs(click, SPOTS[1:])
    assert list(shown(main, "moving").features["number"].str.rstrip(" !")) == list("12345")
    np.testing.assert_allclose(shown(main, "fixed").data, SPOTS - 1)
    ends = next(x for x in layers if x.metadata.get("pancluster") == _layers.RESIDUALS)
    np.testing.assert_allclose(ends.data[0], [SPOTS[0] - 1, [7, 7]])


def test_the_live_line_table_and_doubts(main: Any, box: Any, click: Any) -> None:
    assert not box.go.isEnabled() and "takes 3 pairs; there are 0" in box.reason.text()
    click_pairs(click, SPOTS[:2], away=[3, 4])
    assert "2 of at least 3" in box.doubts.text()
    click_pairs(click, SPOTS[2:], away=[3, 4])
    said = box.line.text().replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith("5 pairs · error now 5 µm median (0.21 % of the diagonal), 5 µm p90")
    assert "leave one out" in said and "(affine)" in said
    assert box.doubts.text() == "" and box.go.isEnabled()
    assert [box.table.item(n, 1).text() for n in range(5)] == ["5"] * 5
    click([400, 1000])
    click([440, 1070])
    assert "6 pairs" in box.line.text() and box.table.item(5, 0).font().bold()
    assert list(shown(main, "fixed").features["number"]) == ["1", "2", "3", "4", "5", "6 !"]
    box.use.setCurrentIndex(box.use.findData("spline"))
    box.use.activated.emit(box.use.currentIndex())
    assert not box.go.isEnabled() and "takes 10 pairs; there are 6" in box.reason.text()
    box.use.setCurrentIndex(box.use.findData("rigid"))
    box.use.activated.emit(box.use.currentIndex())
    assert box.go.isEnabled() and "(rigid)" in box.line.text()


def test_swapped_points_are_told(box: Any, click: Any) -> None:
    for n, partner in enumerate((0, 2, 1, 3, 4)):
        click(SPOTS[n])
        click(SPOTS[partner])
    click_pairs(click, np.array([[400.0, 1000.0]]))
    assert "Pairs 2 and 3 are probably swapped" in box.doubts.text()


def test_points_are_dragged_on_either_slide(
    main: Any, box: Any, click: Any, wait: Callable[..., None]
) -> None:
    click_pairs(click)
    box.turn()
    layer = main.viewer.layers.selection.active
    start, end = SPOTS[1] - 1, SPOTS[1] + [40, 50] - 1
    mouse_press_callbacks(layer, event("mouse_press", start))
    assert not layer.mouse_pan, "the tissue must not move with the point"
    for n in range(1, 4):
        place = start + (end - start) * n / 3
        mouse_move_callbacks(layer, event("mouse_move", place, pos=(50, 50 + 10 * n)))
    mouse_release_callbacks(layer, event("mouse_release", end, pos=(50, 80)))
    wait_turn(wait)
    assert layer.mouse_pan and len(box.landmarks) == 5
    np.testing.assert_allclose(box.landmarks.moving[1], SPOTS[1] + [40, 50] + [20, -30])
    np.testing.assert_allclose(box.landmarks.fixed, SPOTS)
    box.undo()
    np.testing.assert_allclose(box.landmarks.moving, SPOTS + SHIFT[:2, 2])


def test_dragging_the_tissue_sets_nothing(main: Any, box: Any, wait: Callable[..., None]) -> None:
    layer = main.viewer.layers.selection.active
    assert layer.mouse_pan
    mouse_press_callbacks(layer, event("mouse_press", SPOTS[0]))
    mouse_move_callbacks(layer, event("mouse_move", SPOTS[1], pos=(50, 90)))
    mouse_release_callbacks(layer, event("mouse_release", SPOTS[1], pos=(50, 90)))
    wait_turn(wait)
    assert box.layers.side == "fixed" and len(layer.data) == 0


def test_several_steps_are_taken_back(main: Any, box: Any, click: Any) -> None:
    click_pairs(click, SPOTS[:2])
    click(SPOTS[2])
    assert visible_slides(main) == ["PAS"]
    box.undo()
    assert len(shown(main, "fixed").data) == 2
    QTest.keyClick(box, Qt.Key.Key_Z, Qt.KeyboardModifier.ControlModifier)
    # The second pair has lost its partner, and PAS is where it belongs.
    assert len(box.landmarks) == 1 and visible_slides(main) == ["PAS"]
    click(SPOTS[1] + 5)
    np.testing.assert_allclose(box.landmarks.moving[1], SPOTS[1] + 5 + [20, -30])
    for _ in range(9):
        box.undo()
    assert len(box.landmarks) == 0 and not box.undo_button.isEnabled()


def test_pairs_are_deleted_in_both_layers(
    main: Any, box: Any, click: Any, wait: Callable[..., None]
) -> None:
    click_pairs(click)
    box.table.selectRow(1)
    np.testing.assert_allclose(main.viewer.scene.camera.center[-2:], SPOTS[1] - 1)
    box.delete_button.click()
    np.testing.assert_allclose(box.landmarks.fixed, np.delete(SPOTS, 1, 0))
    # The key Delete on the tissue is napari's own.
    click(SPOTS[3] + 0.5)
    assert len(box.landmarks) == 4, "a click on a point chooses it"
    assert box.table.selectionModel().selectedRows()[0].row() == 2
    main.viewer.layers.selection.active.remove_selected()
    wait_turn(wait)
    np.testing.assert_allclose(box.landmarks.fixed, SPOTS[[0, 2, 4]])
    np.testing.assert_allclose(box.landmarks.moving, SPOTS[[0, 2, 4]] + SHIFT[:2, 2])
    assert len(shown(main, "moving").data) == len(shown(main, "fixed").data) == 3
    box.delete()
    assert "Choose a pair" in box.told[-1] and len(box.landmarks) == 3


def test_what_makes_no_sense_is_put_back(
    main: Any, box: Any, click: Any, wait: Callable[..., None]
) -> None:
    click_pairs(click, SPOTS[:3])
    click([-50, 300])
    assert "beside the slide" in box.told[-1] and len(shown(main, "fixed").data) == 3
    layer = shown(main, "fixed")
    layer.add(np.array([[10.0, 10.0], [20.0, 20.0]]))
    wait_turn(wait)
    assert len(layer.data) == 3 and len(box.landmarks) == 3
    assert "It gets number 4" in box.step.text()


def test_another_layer_pauses_and_the_button_goes_on(main: Any, box: Any, click: Any) -> None:
    click(SPOTS[0])
    main.viewer.layers.selection.active = main.viewer.layers["HE"]
    assert "Paused" in box.step.text() and box.look.text() == "Show PAS"
    box.look.click()
    assert main.viewer.layers.selection.active == shown(main, "moving")
    assert "Click the same spot 1 on PAS" in box.step.text()
    main.viewer.layers.selection.active = shown(main, "fixed")
    assert visible_slides(main) == ["HE"]


def test_tables_go_out_and_come_in(box: Any, click: Any, stack: SlideStack, tmp_path: Path) -> None:
    click_pairs(click, away=[3, 4])
    box.write(tmp_path / "pairs.csv")
    before = box.landmarks
    header, first = (tmp_path / "pairs.csv").read_text().splitlines()[:2]
    assert header == "fixed_x,fixed_y,moving_x,moving_y"
    assert [float(v) for v in first.split(",")] == [200, 150, 187, 161.5]
    box.delete_button.setFocus()
    for _ in range(3):
        box.undo()
    box.read(tmp_path / "pairs.csv")
    np.testing.assert_allclose(box.landmarks.fixed, before.fixed, atol=1e-3)
    np.testing.assert_allclose(box.landmarks.moving, before.moving, atol=1e-3)
    (tmp_path / "bad.csv").write_text("fixed_x,fixed_y,moving_x,moving_y\n1,2,3,99999\n")
    box.read(tmp_path / "bad.csv")
    assert "moving_x,moving_y lies outside" in box.told[-1] and len(box.landmarks) == 5
    box.read(tmp_path / "none.csv")
    assert "cannot be read" in box.told[-1] and len(box.landmarks) == 5
    box.write(tmp_path / "no folder" / "pairs.csv")
    assert "cannot be written" in box.told[-1]


def test_what_was_set_stays_when_the_registration_changes(
    main: Any, box: Any, click: Any, stack: SlideStack
) -> None:
    click_pairs(click)
    marks, before = box.landmarks, box.line.text()
    # A field of one size everywhere: 40 µm further down than the shift alone.
    field = np.zeros((2, 64, 100), np.float32)
    field[0] = 40
    other = with_field(Transform("HE", "PAS", SHIFT), field, 20.0)
    main.session.show_stack(stack.with_transform(other))
    assert box.landmarks is not None and box.layers.open
    np.testing.assert_array_equal(box.landmarks.fixed, marks.fixed)
    np.testing.assert_array_equal(box.landmarks.moving, marks.moving)
    np.testing.assert_allclose(shown(main, "moving").data, SPOTS - [40, 0] - 1, atol=1e-3)
    np.testing.assert_allclose(shown(main, "fixed").data, SPOTS - 1)
    assert box.line.text() != before and "error now 40" in box.line.text()
    assert main.viewer.layers.selection.active == shown(main, "fixed"), "and clicks go on"
    click([200, 1800])
    click([200, 1800])
    np.testing.assert_allclose(box.landmarks.moving[-1], [260, 1770])


def test_a_stain_that_is_not_registered_is_marked_on_its_own_slide(
    main: Any, box: Any, click: Any, stack: SlideStack
) -> None:
    own = SPOTS[:, ::-1] * [1.0, 0.8] + [0, 100]
    main.session.show_stack(stack)
    for n, spot in enumerate(SPOTS):
        click(spot)
        assert visible_slides(main) == ["PAS"]
        assert shown(main, "moving").visible and not shown(main, "fixed").visible
        if n == 4:
            # Four pairs tell where the fifth must be.
            center = main.viewer.scene.camera.center[-2:]
            np.testing.assert_allclose(center, own[4] - 1, atol=1e-6)
        click(own[n])
    np.testing.assert_allclose(box.landmarks.moving, own)
    assert "not registered yet" in box.line.text() and "error now" not in box.line.text()
    np.testing.assert_allclose(shown(main, "moving").data, own - 1)


def test_a_slide_without_pixel_size_has_its_landmarks_in_px(
    main: Any, box: Any, click: Any, stack: SlideStack, make_project: Any, islands: Path
) -> None:
    unknown = Stain.of("PAS", stack.stain("PAS").slide.with_mpp(None))
    bare = replace(stack, stains=(stack.stains[0], unknown))
    main.session.show_stack(bare)
    click(SPOTS[0])
    click([100, 200], mpp=1.0)
    np.testing.assert_allclose(box.landmarks.moving, [[100, 200]])
    assert "(px)" in box.table.horizontalHeaderItem(1).text()


@pytest.mark.slow
def test_an_estimated_pixel_size_leaves_landmarks_in_px(
    main: Any, make_project: Any, islands: Path, two_tissues: Path, stack: SlideStack, qtbot: Any
) -> None:
    project = make_project(HE=islands, PAS=two_tissues)
    (case,) = project.state.cases
    stains = (case.stains[0], case.stains[1].model_copy(update={"mpp": None}))
    cases = (case.model_copy(update={"stains": stains}),)
    state = project.state.model_copy(update={"cases": cases})
    main.session.project, main.session.case = Project(project.root, state), "block"
    main.session.show_stack(stack.with_transform(Transform("HE", "PAS", SHIFT)))
    box = LandmarksBox(main.viewer, main.session)
    qtbot.addWidget(box)
    box.read(_table(stack, SPOTS, SPOTS + SHIFT[:2, 2], project.root.parent / "p.csv"))
    np.testing.assert_allclose(box.landmarks.moving, (SPOTS + SHIFT[:2, 2]) / 2, atol=1e-3)
    assert "error now" in box.line.text() and float(box.table.item(0, 1).text()) < 0.01
    box.start()
    np.testing.assert_allclose(shown(main, "moving").data, SPOTS - 1, atol=1e-3)
    box.finish()
    main.session.project = None
    box.close_session()


def _table(stack: SlideStack, fixed: np.ndarray, moving: np.ndarray, path: Path) -> Path:
    slides = (stack.stain(n).slide for n in ("HE", "PAS"))
    write_landmarks(path, Landmarks(fixed, moving), *slides)
    return path


def test_the_wish_to_register_is_passed_on(box: Any, click: Any) -> None:
    wishes: list[Any] = []
    box.wanted.connect(lambda *wish: wishes.append(wish))
    click_pairs(click)
    keys = [box.use.itemData(n) for n in range(box.use.count())]
    assert keys == ["start", "pull", "rigid", "affine", "spline"]
    box.use.setCurrentIndex(3)
    box.go.click()
    ((stain, landmarks, key),) = wishes
    assert (stain, key) == ("PAS", "affine")
    np.testing.assert_allclose(landmarks.fixed, SPOTS)


def test_the_view_is_as_it_was_when_all_is_done(main: Any, box: Any, click: Any) -> None:
    click_pairs(click, SPOTS[:1])
    click(SPOTS[1])
    box.set.click()
    assert not box.layers.open and box.set.text() == "Set landmarks"
    assert visible_slides(main) == ["HE"]
    assert [x.metadata["pancluster"] for x in main.viewer.layers] == ["slide", "slide"]
    box.set.click()
    assert box.layers.open and box.step.text() == "Click the same spot 2 on PAS.", "it waited"
    assert len(shown(main, "fixed").data) == 2


def test_the_map_is_out_of_the_way_and_clicks_pick_no_patch(
    explored: Any, qtbot: Any, stack: SlideStack, click: Any
) -> None:
    session = explored.session
    session.show_stack(replace(stack, case="case0"))
    box = LandmarksBox(explored.viewer, session)
    qtbot.addWidget(box)
    box.start()
    assert not explored.tissue.map.visible
    world = SPOTS[0] - 1
    for target in (explored.viewer, explored.viewer.layers.selection.active):
        mouse_press_callbacks(target, event("mouse_press", world))
        mouse_release_callbacks(target, event("mouse_release", world))
    assert not session.selection.any()
    box.finish()
    assert explored.tissue.map.visible
    box.close_session()


@pytest.mark.slow
def test_layers_that_are_taken_away_end_it_without_loss(
    main: Any, box: Any, click: Any, wait: Callable[..., None]
) -> None:
    click_pairs(click, SPOTS[:3])
    main.viewer.layers.remove(shown(main, "moving"))
    wait(lambda: not box.layers.open)
    assert len(box.landmarks) == 3 and not box.set.isChecked()
    assert len(main.viewer.layers) == 2


def test_closing_while_points_are_set(main: Any, box: Any, click: Any) -> None:
    click_pairs(click, SPOTS[:2])
    layer = shown(main, "fixed")
    box.close_session()
    assert layer in main.viewer.layers and str(layer.mode) == "pan_zoom"
    layer.add([5.0, 5.0])
    main.session.show_stack(None)
    assert len(box.landmarks) == 2


@pytest.fixture
def kept(
    main: Any, make_project: Any, islands: Path, two_tissues: Path, wait: Any, qtbot: Any
) -> Iterator[Any]:
    """The box over a project of two slides, not registered."""
    main.open_project(make_project(HE=islands, PAS=two_tissues).root)
    wait(lambda: main.session.stack is not None)
    box = LandmarksBox(main.viewer, main.session)
    qtbot.addWidget(box)
    yield box
    box.close_session()


def test_landmarks_are_kept_with_the_project(
    main: Any, kept: Any, click: Any, wait: Any, qtbot: Any
) -> None:
    root = main.session.project.root

    def in_project() -> int:
        found = kept_landmarks(Project.open(root), "block", "PAS")
        return 0 if found is None else len(found)

    kept.start()
    for spot in SPOTS[:3]:
        click(spot)
        click(spot / 5, mpp=0.5)
    wait(lambda: in_project() == 3)
    click(SPOTS[3])
    click(SPOTS[3] / 5, mpp=0.5)
    kept.finish()
    assert in_project() == 4
    again = LandmarksBox(main.viewer, main.session)
    qtbot.addWidget(again)
    np.testing.assert_allclose(again.landmarks.fixed, SPOTS[:4])
    np.testing.assert_allclose(again.landmarks.moving, SPOTS[:4] / 5)
    again.close_session()
    # A step re-opens the same project: nothing is lost, and steps can still be taken back.
    main.session.show_project(Project.open(root))
    assert len(kept.landmarks) == 4 and kept.undo_button.isEnabled()


@pytest.mark.slow
def test_another_project_gets_none_of_these_landmarks(
    main: Any, kept: Any, click: Any, wait: Any, islands: Path, two_tissues: Path, tmp_path: Path
) -> None:
    from napari_pancluster.core.cases import SlideEntry, make_cases

    root = main.session.project.root
    kept.start()
    click(SPOTS[0])
    click(SPOTS[0] / 5, mpp=0.5)
    entries = [SlideEntry("block", "HE", islands), SlideEntry("block", "PAS", two_tissues)]
    main.open_project(Project.create(tmp_path / "other.pancluster", make_cases(entries)).root)
    assert not kept.layers.open
    wait(lambda: main.session.stack is not None)
    assert len(kept.landmarks) == 0 and not kept.undo_button.isEnabled()
    found = kept_landmarks(Project.open(root), "block", "PAS")
    assert found is not None and len(found) == 1
    assert kept_landmarks(main.session.project, "block", "PAS") is None


def test_a_project_that_cannot_be_written_keeps_them_in_the_window(
    main: Any, kept: Any, click: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from napari_pancluster._widgets import landmarks_box
    from napari_pancluster.core.errors import ProjectError

    def refuse(*_: Any) -> None:
        raise ProjectError("The disk is full.")

    told: list[str] = []
    kept.complained.connect(told.append)
    kept.start()
    click(SPOTS[0])
    click(SPOTS[0] / 5, mpp=0.5)
    with monkeypatch.context() as patched:
        patched.setattr(landmarks_box, "keep_landmarks", refuse)
        kept.finish()
    assert told == ["The disk is full."] and len(kept.landmarks) == 1
    kept.save()
    assert len(kept_landmarks(main.session.project, "block", "PAS")) == 1
