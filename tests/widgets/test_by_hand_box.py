"""A slide dragged, turned and flipped by hand, and registered from there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import GLASS, write_slide
from napari.layers.base._base_constants import InteractionBoxHandle
from napari.layers.utils.interaction_box import generate_transform_box_from_layer
from qtpy.QtCore import QEvent, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication
from scipy.ndimage import gaussian_filter, rotate

from napari_pancluster import _layers
from napari_pancluster._session import Session
from napari_pancluster._widgets.by_hand_box import ByHandBox
from napari_pancluster._widgets.tissue import TissueView
from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.project import Project
from napari_pancluster.core.registration.search import orientation_of
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform

SHEARED = np.array([[0.82, -0.55, 130.25], [0.61, 0.79, -47.5], [0.0, 0.0, 1.0]])
ANGLE = 140


class Registrar:
    """Stands in for the work: remembers what it was asked to register."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def register(self, config: RegisterConfig, **options: Any) -> None:
        self.asked.append({"config": config, **options})


@pytest.fixture(scope="module")
def section(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A lopsided section at 2 µm/px, and the same at 4 µm/px turned by 140° on its slide."""
    rng = np.random.default_rng(3)
    r, c = np.mgrid[:640, :900] / 640.0
    shape = (np.hypot(r - 0.5, 1.1 * (c - 0.6)) < 0.36) | (np.hypot(r - 0.35, c - 1.0) < 0.2)
    grain = sum(
        weight * field / field.std()
        for weight, field in (
            (w, gaussian_filter(rng.normal(size=r.shape), s)) for w, s in ((0.5, 14), (0.4, 6))
        )
    )
    strength = gaussian_filter(shape.astype(float), 1.5) * np.clip(1 + 0.5 * grain, 0.2, 2.2)
    folder = tmp_path_factory.mktemp("sections")
    paths = []
    for name, image, colour, mpp in (
        ("HE", strength, (0.15, 0.45, 0.25), 2.0),
        ("PAS", rotate(strength, ANGLE, order=1)[::2, ::2], (0.5, 0.35, 0.12), 4.0),
    ):
        rgb = np.clip(GLASS * 10 ** -(image[..., None] * np.array(colour)), 0, 255)
        paths.append(write_slide(folder / f"{name}.ome.tif", rgb.astype(np.uint8), mpp, levels=3))
    return paths[0], paths[1]


@pytest.fixture
def project(main: Any, section: tuple[Path, Path], tmp_path: Path, wait: Any) -> Any:
    """The main widget with a project of both sections."""
    entries = [SlideEntry("block", n, p) for n, p in zip(("HE", "PAS"), section, strict=True)]
    main.open_project(Project.create(tmp_path / "p.pancluster", make_cases(entries)).root)
    wait(lambda: main.session.stack is not None)
    return main


@pytest.fixture
def registrar() -> Registrar:
    return Registrar()


@pytest.fixture
def box(project: Any, registrar: Registrar, qtbot: Any) -> Iterator[Any]:
    widget = ByHandBox(project.viewer, project.session, registrar)  # type: ignore[arg-type]
    qtbot.addWidget(widget)
    yield widget
    widget.cancel()


@pytest.fixture
def mouse(
    make_napari_viewer: Any, section: tuple[Path, Path], registrar: Registrar, qtbot: Any
) -> Iterator[Any]:
    """The box alone over a window that is shown: only there vispy takes what a mouse does."""
    viewer, session = make_napari_viewer(show=True), Session()
    tissue = TissueView(viewer, session, cache_mb=16)
    session.show_stack(_stack(section))
    widget = ByHandBox(viewer, session, registrar)  # type: ignore[arg-type]
    qtbot.addWidget(widget)
    widget.start()
    # The first drawing gives the canvas its size.
    qtbot.wait(200)
    viewer.reset_view()
    yield widget
    widget.close_session()
    tissue.close()


def _stack(section: tuple[Path, Path]) -> SlideStack:
    stains = [Stain.of(n, open_slide(p)) for n, p in zip(("HE", "PAS"), section, strict=True)]
    return SlideStack("block", "HE", tuple(stains))


def _canvas(box: Any) -> Any:
    return box._viewer.window._qt_viewer.canvas


def _pixel(box: Any, world: Any) -> QPoint:
    """The screen pixel nearest to a place of the world."""
    view = _canvas(box).view
    x, y = (view.transform * view.scene.transform).map([world[1], world[0]])[:2]
    return QPoint(round(float(x)), round(float(y)))


def _world(box: Any, pixel: QPoint) -> np.ndarray:
    canvas = _canvas(box)
    return np.array(canvas._map_canvas2world((pixel.x(), pixel.y()), canvas.view))


def _drag(box: Any, start: QPoint, end: QPoint, qtbot: Any) -> None:
    """What a hand does with the mouse on napari's canvas."""
    native = _canvas(box).native
    QTest.mouseMove(native, start)
    QTest.mousePress(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, start)
    for share in (0.3, 0.7, 1.0):
        at = QPointF(start + (end - start) * share).toPoint()
        event = QMouseEvent(
            QEvent.Type.MouseMove,
            QPointF(at),
            QPointF(native.mapToGlobal(at)),
            Qt.MouseButton.NoButton,
            Qt.MouseButton.LeftButton,
            Qt.KeyboardModifier.NoModifier,
        )
        QApplication.sendEvent(native, event)
        # napari drops moves that follow too fast.
        qtbot.wait(20)
    QTest.mouseRelease(native, Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier, end)


def _handle(box: Any, which: InteractionBoxHandle) -> np.ndarray:
    layer = box.moving.layer
    corner = generate_transform_box_from_layer(layer, (0, 1))[which]
    return np.asarray(layer.data_to_world(corner))


def _middle(box: Any) -> np.ndarray:
    placement = box.moving.placement
    return np.array(placement.place) - 1.0


def _shown(box: Any) -> np.ndarray:
    return np.asarray(box.moving.layer.affine.affine_matrix)


def test_pixels_of_the_slide_lie_where_the_matrix_says(project: Any, box: Any) -> None:
    box.start()
    box.turn.setValue(33.0)
    box.flip()
    box.moving.put(box.moving.placement.moved(17.5, -260.25))
    # Pixel (100, 31) of a slide of 4 µm on a reference of 2 µm, both from corner to centre.
    moving_um = np.array([100.5 * 4.0, 31.5 * 4.0, 1.0])
    on_reference = np.linalg.inv(box.moving.placement.start) @ moving_um
    world = np.asarray(box.moving.layer.data_to_world([100, 31]))
    assert world == pytest.approx(on_reference[:2] - 1.0, abs=1e-9)


def test_a_mouse_moves_it_by_as_much_as_the_mouse_moves(mouse: Any, qtbot: Any) -> None:
    box = mouse
    before, start = box.moving.placement, _pixel(box, _middle(box) + np.array([60, -45]))
    end = start + QPoint(37, -12)
    _drag(box, start, end, qtbot)
    by = _world(box, end) - _world(box, start)
    assert np.abs(by).min() > 10
    assert box.moving.placement.onto == pytest.approx(before.moved(*by).onto, abs=1e-9)
    assert "Moved by" in box._numbers.text()


def test_the_round_handle_turns_it_about_its_middle(mouse: Any, qtbot: Any) -> None:
    box = mouse
    before, middle = box.moving.placement, _middle(box)
    start = _pixel(box, _handle(box, InteractionBoxHandle.ROTATION))
    end = start + QPoint(90, 70)
    _drag(box, start, end, qtbot)
    # From the handle, straight above the middle, to where the mouse ended.
    right, up = _world(box, end)[1] - middle[1], middle[0] - _world(box, end)[0]
    angle = np.rad2deg(np.arctan2(up, right)) - 90
    assert angle < -10
    assert box.moving.placement.onto == pytest.approx(before.turned(angle).onto, abs=1e-6)
    assert box.turn.value() == pytest.approx(angle, abs=0.06)
    assert f"{-angle:.1f}° clockwise" in box._numbers.text()


def test_no_handle_makes_a_slide_of_known_pixel_size_larger(mouse: Any, qtbot: Any) -> None:
    box = mouse
    before = _shown(box)
    start = _pixel(box, _handle(box, InteractionBoxHandle.BOTTOM_RIGHT))
    _drag(box, start, start + QPoint(40, 60), qtbot)
    assert np.array_equal(_shown(box), before)


def test_arrow_keys_nudge_it_by_screen_pixels(mouse: Any) -> None:
    box = mouse
    before, px = box.moving.placement, 1 / box._viewer.scene.camera.zoom
    native = _canvas(box).native
    QTest.keyClick(native, Qt.Key.Key_Left)
    QTest.keyClick(native, Qt.Key.Key_Down, Qt.KeyboardModifier.ShiftModifier)
    assert box.moving.placement.onto == pytest.approx(before.moved(10 * px, -px).onto)


def test_fields_turn_flip_and_reset(box: Any) -> None:
    box.start()
    first = box.moving.placement
    box.turn.setValue(-33.3)
    assert box.moving.placement.onto == pytest.approx(first.turned(-33.3).onto)
    box.turn_by(-90)
    assert box.turn.value() == pytest.approx(-123.3)
    box.flip()
    assert box.turn.value() == pytest.approx(123.3) and "flipped" in box._numbers.text()
    box.reset()
    assert box.moving.placement is first and box.turn.value() == 0
    assert np.array_equal(_shown(box), _layers.hand_affine(first.onto, *_slides(box)))


def _slides(box: Any) -> tuple[Any, Any]:
    stack = box._session.stack
    return stack.stain("PAS").slide, stack.stain("HE").slide


def test_untouched_it_starts_from_its_registration(
    project: Any, box: Any, registrar: Registrar
) -> None:
    project.session.show_stack(
        project.session.stack.with_transform(Transform("HE", "PAS", SHEARED))
    )
    box.start()
    box.use()
    (asked,) = registrar.asked
    assert asked["cases"] == ["block"] and asked["stains"] == ["PAS"]
    assert np.abs(asked["starts"]["PAS"] - SHEARED).max() < 1e-9
    assert isinstance(asked["config"], RegisterConfig) and box.moving is None


def test_cancel_leaves_all_as_it_was(project: Any, box: Any, registrar: Registrar) -> None:
    viewer = project.viewer
    viewer.add_image(np.zeros((4, 4)), name="mine", units=("um", "um"), axis_labels=("y", "x"))
    viewer.layers["PAS (not registered)"].visible = True
    viewer.layers.selection.active = viewer.layers["mine"]
    viewer.scene.camera.center, viewer.scene.camera.zoom = (0, 77.0, 99.0), 3.25

    def seen() -> Any:
        camera = viewer.scene.camera
        layers = [(x.name, x.visible, str(getattr(x, "mode", ""))) for x in viewer.layers]
        return layers, viewer.layers.selection.active, camera.center, camera.zoom

    before = seen()
    box.start()
    assert [x.name for x in viewer.layers if x.visible] == ["HE", "PAS (by hand)"]
    assert str(viewer.layers.selection.active.mode) == "transform"
    box.turn_by(20)
    box.cancel()
    assert seen() == before and not registrar.asked
    assert box._tools.isHidden()


def test_what_happens_meanwhile_ends_it_without_harm(project: Any, box: Any) -> None:
    session, viewer = project.session, project.viewer

    def gone() -> bool:
        left = [x for x in viewer.layers if x.metadata.get("pancluster") == _layers.HAND]
        return box.moving is None and not left and box._viewer.layers["HE"].visible

    box.start()
    session.show_stack(session.stack)
    assert gone()
    box.start()
    session.case_changed.emit()
    assert gone()
    box.start()
    viewer.layers.remove(box.moving.layer)
    assert gone()
    box.start()
    project.viewer.layers.remove(viewer.layers["PAS (not registered)"])
    box.close_session()
    assert gone()


def test_again_and_again(mouse: Any, qtbot: Any) -> None:
    """napari 0.9.2 crashes where it frees a layer's buffers in the wrong OpenGL context."""
    for _ in range(4):
        mouse.cancel()
        qtbot.wait(50)
        mouse.start()
        qtbot.wait(50)
    assert len(mouse._viewer.layers) == 3


def test_a_pixel_size_that_is_not_known_is_found_by_hand(
    mouse: Any, registrar: Registrar, qtbot: Any
) -> None:
    box = mouse
    stack = box._session.stack
    box._session.show_stack(
        replace(stack, stains=(stack.stains[0], stack.stains[1].with_mpp(None)))
    )
    box.start()
    before = box.moving.placement.scale
    start = _pixel(box, _handle(box, InteractionBoxHandle.BOTTOM_RIGHT))
    _drag(box, start, start + QPoint(40, 60), qtbot)
    grown = box.moving.placement
    assert grown.scale > 1.05 * before and "Pixel size" in box._numbers.text()
    assert grown.onto[:2, :2] == pytest.approx(grown.scale * np.eye(2))
    world = np.asarray(box.moving.layer.data_to_world([100, 31]))
    assert world == pytest.approx((grown.onto @ [100.5, 31.5, 1.0])[:2] - 1.0, abs=1e-9)
    # Without a project nothing can be registered, and that is said.
    heard: list[str] = []
    box.complained.connect(heard.append)
    box.use()
    assert "project" in heard[0] and not registrar.asked


def test_a_section_put_roughly_is_registered_from_there(
    project: Any, qtbot: Any, wait: Callable[..., None]
) -> None:
    box = ByHandBox(
        project.viewer,
        project.session,
        project.work,
        config=lambda: RegisterConfig(deformable=False),
    )
    qtbot.addWidget(box)
    box.start()
    # The picture was turned by 140° when its slide was drawn: back, but for a hand's 7°.
    box.turn.setValue(-ANGLE + 7.0)
    box.moving.put(box.moving.placement.moved(70.0, -55.0))
    box.use()
    wait(lambda: "PAS" in project.session.stack.transforms)
    found = project.session.stack.transforms["PAS"]
    rotation, flipped, scale = orientation_of(found.affine)
    assert rotation == pytest.approx(ANGLE, abs=1.0) and not flipped
    assert scale == pytest.approx(1.0, abs=0.02)
    # The middle of the picture stayed the middle of the larger picture it was turned in.
    assert found.to_moving(np.array([[640.0, 900.0]]))[0] == pytest.approx(
        np.array(_middle_of(project.session.stack.stain("PAS").slide)), abs=12.0
    )
    assert project.viewer.layers["PAS (registered)"] is not None
    box.close_session()


def _middle_of(slide: Any) -> tuple[float, float]:
    return slide.extent.height / 2, slide.extent.width / 2
