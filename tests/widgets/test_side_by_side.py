"""The reference left and a registered stain right, with one camera and one cursor."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from drawing import GLASS, texture, write_slide
from qtpy.QtCore import QPoint, Qt
from qtpy.QtTest import QTest

from napari_pancluster import _layers
from napari_pancluster._session import Session
from napari_pancluster._widgets.compare_box import CompareBox
from napari_pancluster._widgets.tissue import TissueView
from napari_pancluster.core.slide import Slide, open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform

SIDE, OFF = "Side by side", "off"
TURNED = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 2400.0], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> SlideStack:
    """Three stains of 1600 × 2400 px at 1 µm, one of them registered by a quarter turn."""
    folder = tmp_path_factory.mktemp("beside")
    rgb = np.full((1600, 2400, 3), GLASS, np.uint8)
    rgb[300:1200, 500:1900] = texture((900, 1400), coarse=True)
    stains = []
    for name, image in (("HE", rgb), ("PAS", np.rot90(rgb, -1)), ("CD3", rgb)):
        path = write_slide(folder / f"{name}.ome.tif", np.ascontiguousarray(image), 1.0, levels=4)
        stains.append(Stain.of(name, open_slide(path)))
    found = SlideStack("block", "HE", tuple(stains))
    return found.with_transform(Transform("HE", "PAS", TURNED))


@pytest.fixture
def box(make_napari_viewer: Any, stack: SlideStack, qtbot: Any) -> Iterator[Any]:
    """The compare box alone over a window that is shown: only there cells have a size."""
    viewer, session = make_napari_viewer(show=True), Session()
    tissue = TissueView(viewer, session, cache_mb=32)
    session.show_stack(stack)
    widget = CompareBox(viewer, session)
    qtbot.addWidget(widget)
    # The first drawing gives the canvas its size.
    qtbot.wait(200)
    viewer.reset_view()
    yield widget
    widget.close_session()
    tissue.close()


def _choose(box: Any, mode: str, qtbot: Any) -> None:
    box.mode.setCurrentText(mode)
    box.refresh()
    qtbot.wait(50)


def _cells(viewer: Any) -> list[list[str]]:
    grid = viewer.canvas.grid
    return [
        [viewer.layers[n].name for n in found] for _, found in grid.iter_viewboxes(viewer.layers)
    ]


def _cursors(viewer: Any) -> list[Any]:
    return [x for x in viewer.layers if x.metadata.get("pancluster") == _layers.CURSOR]


def _native(box: Any) -> Any:
    return box._viewer.window._qt_viewer.canvas.native


def _point(box: Any, at: QPoint, qtbot: Any) -> None:
    QTest.mouseMove(_native(box), at - QPoint(9, 9))
    qtbot.wait(30)
    QTest.mouseMove(_native(box), at)
    qtbot.wait(60)


def test_each_has_its_cell_and_nothing_else_is_shown(box: Any, qtbot: Any) -> None:
    viewer = box._viewer
    viewer.layers["CD3 (not registered)"].visible = True
    _choose(box, SIDE, qtbot)
    assert _cells(viewer) == [["HE", "Cursor left"], ["PAS (registered)", "Cursor right"]]
    assert not viewer.layers["CD3 (not registered)"].visible
    left, right = _halves(viewer)
    # Both show the section: the registered one is turned back.
    for half in (left, right):
        assert (half[..., 1] < 200).mean() > 0.02 and (half > 230).all(-1).any()
    # A layer that comes meanwhile shares the reference's cell.
    viewer.add_image(np.zeros((4, 4)), name="map", units=("um", "um"), axis_labels=("y", "x"))
    qtbot.wait(50)
    assert _cells(viewer) == [["HE", "map", "Cursor left"], ["PAS (registered)", "Cursor right"]]


def _halves(viewer: Any) -> tuple[np.ndarray, np.ndarray]:
    picture = viewer.screenshot(canvas_only=True, flash=False)[..., :3]
    middle = picture.shape[1] // 2
    return picture[:, :middle], picture[:, picture.shape[1] - middle :]


def _cyan(half: np.ndarray) -> np.ndarray:
    """Middle of what is drawn in the cursor's colour, row and col."""
    red, green, blue = np.moveaxis(half.astype(int), -1, 0)
    found = np.argwhere((red < 60) & (green > 150) & (blue > 170))
    assert len(found) > 20
    return found.mean(0)


@pytest.mark.parametrize("cell", [0, 1])
def test_the_cursor_is_at_the_same_place_of_both(box: Any, cell: int, qtbot: Any) -> None:
    _choose(box, SIDE, qtbot)
    width = _native(box).width() // 2
    at = QPoint(int(width * 0.4) + cell * (width + 2), int(_native(box).height() * 0.55))
    _point(box, at, qtbot)
    left, right = (_cyan(half) for half in _halves(box._viewer))
    assert np.abs(left - right).max() < 2.5
    scale = _halves(box._viewer)[0].shape[1] / width
    inside = np.array([at.y(), at.x() - cell * (width + 2)]) * scale
    assert np.abs((left, right)[cell] - inside).max() < 3
    # It is the same place in both, and as large at every zoom.
    first, second = _cursors(box._viewer)
    assert np.array_equal(first.affine.affine_matrix, second.affine.affine_matrix)
    box._viewer.scene.camera.zoom *= 2
    assert first.affine.affine_matrix[0, 0] == pytest.approx(1 / box._viewer.scene.camera.zoom)


def test_what_is_done_in_one_cell_happens_in_both(box: Any, qtbot: Any) -> None:
    _choose(box, SIDE, qtbot)
    camera, native = box._viewer.scene.camera, _native(box)
    before, width = camera.center, native.width()
    start = QPoint(int(width * 0.8), native.height() // 2)
    QTest.mousePress(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, start)
    QTest.mouseMove(native, start + QPoint(-40, 25))
    qtbot.wait(50)
    QTest.mouseRelease(
        native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, start + QPoint(-40, 25)
    )
    moved = (np.array(camera.center) - before) * camera.zoom
    assert moved[1:] == pytest.approx([-25, 40], abs=1.5)
    left, right = _halves(box._viewer)
    rows = [np.flatnonzero((half[..., 1] < 200).any(1)) for half in (left[60:], right[60:])]
    assert np.abs(rows[0][[0, -1]] - rows[1][[0, -1]]).max() < 6


def test_only_coarse_levels_are_read_for_the_whole(
    box: Any, qtbot: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fine: list[int] = []
    read = Slide.read_level

    def counting(slide: Slide, level: int, *block: int) -> Any:
        fine.append(level)
        return read(slide, level, *block)

    monkeypatch.setattr(Slide, "read_level", counting)
    _choose(box, SIDE, qtbot)
    shown = [box._viewer.layers[n] for n in ("HE", "PAS (registered)")]
    assert min(x.data_level for x in shown) > 0
    assert fine.count(0) == 0


def test_it_ends_as_it_began(box: Any, qtbot: Any) -> None:
    viewer = box._viewer
    viewer.layers["CD3 (not registered)"].visible = True
    viewer.layers.selection.active = viewer.layers["CD3 (not registered)"]

    def seen() -> Any:
        grid = viewer.canvas.grid
        layers = [(x.name, x.visible, x.name_overlay.visible) for x in viewer.layers]
        how = grid.enabled, grid.stride, grid.shape, grid.spacing
        return layers, how, viewer.layers.selection.active, viewer.mouse_move_callbacks[:]

    before, zoom = seen(), viewer.scene.camera.zoom
    _choose(box, SIDE, qtbot)
    assert viewer.scene.camera.zoom < zoom
    _choose(box, OFF, qtbot)
    assert seen() == before and viewer.scene.camera.zoom == pytest.approx(zoom)
    # Another way to compare takes its place.
    _choose(box, SIDE, qtbot)
    _choose(box, "Two colours", qtbot)
    assert not viewer.canvas.grid.enabled and not _cursors(viewer) and box.layer is not None


@pytest.mark.slow
def test_what_the_user_takes_away_ends_it(box: Any, qtbot: Any) -> None:
    viewer = box._viewer
    _choose(box, SIDE, qtbot)
    viewer.canvas.grid.enabled = False
    assert box.mode.currentText() == OFF and not box.side.active and not _cursors(viewer)
    _choose(box, SIDE, qtbot)
    viewer.layers.remove(viewer.layers["PAS (registered)"])
    qtbot.wait(50)
    assert box.mode.currentText() == OFF and not viewer.canvas.grid.enabled
    # There is nothing to show beside it any more, and that is said.
    heard: list[str] = []
    box.complained.connect(heard.append)
    _choose(box, SIDE, qtbot)
    assert "PAS" in heard[0] and box.mode.currentText() == OFF


def test_another_stack_and_closing_end_it(box: Any, stack: SlideStack, qtbot: Any) -> None:
    _choose(box, SIDE, qtbot)
    box._session.show_stack(stack)
    assert box.mode.currentText() == OFF and not box._viewer.canvas.grid.enabled
    _choose(box, SIDE, qtbot)
    box._session.show_stack(None)
    assert not box._viewer.layers and not box._viewer.canvas.grid.enabled
    box._session.show_stack(stack)
    _choose(box, SIDE, qtbot)


@pytest.mark.slow
def test_again_and_again(box: Any, qtbot: Any) -> None:
    """napari 0.9.2 crashes where it frees a layer's buffers in the wrong OpenGL context."""
    for _ in range(4):
        _choose(box, SIDE, qtbot)
        _choose(box, OFF, qtbot)
    assert len(box._viewer.layers) == 3
