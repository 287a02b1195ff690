"""Putting a slide on the reference by hand, as the start of its registration."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from napari.layers import Image, Layer
from napari.viewer import Viewer
from psygnal import Signal as Notice
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QDoubleSpinBox, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_pancluster import _layers
from napari_pancluster._session import Session
from napari_pancluster._widgets.own_layers import remove_layers, tagged
from napari_pancluster._widgets.rows import button_row, labelled_rows, push_button
from napari_pancluster._widgets.side_by_side import Sight
from napari_pancluster._widgets.work import Work
from napari_pancluster.core.by_hand import Placement, placement_of
from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.slide import Slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain

_CACHE_MB = 64
_QUARTER = 90.0
_DECIMALS = 1
# An arrow key moves it by a pixel of the screen, with Shift so many times as far.
_FAR = 10.0
_ARROWS = {"Up": (-1, 0), "Down": (1, 0), "Left": (0, -1), "Right": (0, 1)}
_HOW = (
    "Drag the slide to move it, its round handle to turn it; the space bar and a drag move the "
    "view. After a click on the slide, arrow keys nudge it, with Shift further."
)
_HOW_LARGE = " Its pixel size is not known: drag a corner to make it as large as the reference."


class HandMove:
    """A slide that is being moved: its layer, where it lies, and what was in sight before.

    Parameters
    ----------
    viewer
        Where it is shown.
    stack, stain
        The case, and the stain as the project knows it.
    unit
        Of napari's world.
    """

    changed = Notice()

    def __init__(self, viewer: Viewer, stack: SlideStack, stain: Stain, *, unit: str) -> None:
        self._viewer, self._slide = viewer, stain.slide
        self._reference: Slide = stack.stain(stack.reference).slide
        self.case, self.stain = stack.case, stain.name
        self.first = self.placement = placement_of(stack, stain)
        camera = viewer.scene.camera
        self._view = camera.center, camera.zoom
        self._sight = Sight.of(viewer)
        below = [x for x in tagged(viewer, _layers.SLIDE) if x.metadata["stain"] == stack.reference]
        self._sight.only(*below)
        data = _layers.hand_layer(stack, stain, self.placement.onto, unit=unit, cache_mb=_CACHE_MB)
        self.layer: Image = viewer.add_layer(Layer.create(*data))
        viewer.layers.selection.active = self.layer
        self.layer.mode = "transform"
        viewer.reset_view(layers=[*below, self.layer])
        self._bind_arrows()
        self.layer.events.affine.connect(self._on_affine)

    def end(self) -> None:
        """Take the slide away, and bring back what was in sight."""
        self.layer.events.affine.disconnect(self._on_affine)
        remove_layers(self._viewer, [self.layer])
        self._sight.restore(self._viewer)
        camera = self._viewer.scene.camera
        camera.center, camera.zoom = self._view

    def put(self, placement: Placement) -> None:
        """Put the slide somewhere else."""
        self.placement = placement
        with self.layer.events.affine.blocker(self._on_affine):
            self.layer.affine = _layers.hand_affine(placement.onto, self._slide, self._reference)
        self.changed.emit()

    def nudge(self, down: float, right: float) -> None:
        """Move the slide by screen pixels."""
        px = 1.0 / self._viewer.scene.camera.zoom
        self.put(self.placement.moved(down * px, right * px))

    def _bind_arrows(self) -> None:
        for key, (down, right) in _ARROWS.items():
            for keys, far in ((key, 1.0), (f"Shift-{key}", _FAR)):
                self.layer.bind_key(keys, self._nudger(down * far, right * far), overwrite=True)

    def _nudger(self, down: float, right: float) -> Callable[[Any], None]:
        # A function with a name: napari looks at it.
        def nudge(layer: Any) -> None:
            self.nudge(down, right)

        return nudge

    def _on_affine(self, event: Any) -> None:
        """Take over what a drag did, as far as it may."""
        affine = np.asarray(self.layer.affine.affine_matrix, np.float64)
        onto = _layers.onto_reference(affine, self._slide, self._reference)
        dragged = self.placement.dragged(onto)
        if dragged.onto is onto:
            self.placement = dragged
            self.changed.emit()
        else:
            self.put(dragged)


class ByHandBox(QWidget):
    """Lets a person drag, turn and flip a slide, and registers it from there.

    Parameters
    ----------
    viewer, session, work
        Where it is moved, what is looked at, and who registers it.
    config
        Returns how to register, or None where the form has a mistake. Default: as proposed.
    """

    complained = Signal(str)
    started = Signal()

    def __init__(
        self,
        viewer: Viewer,
        session: Session,
        work: Work,
        *,
        config: Callable[[], RegisterConfig | None] = RegisterConfig,
    ) -> None:
        super().__init__()
        self._viewer, self._session, self._work = viewer, session, work
        self._config = config
        self.moving: HandMove | None = None
        self.stain, self.turn = QComboBox(), QDoubleSpinBox()
        self._numbers, self._how = QLabel(), QLabel()
        self._tools = QWidget()
        self._build()
        self.turn.valueChanged.connect(self._on_turn)
        viewer.layers.events.removed.connect(self._on_removed)
        session.stack_changed.connect(self._on_stack)
        session.case_changed.connect(self.cancel)
        self._on_stack()

    def close_session(self) -> None:
        """Stop moving and listening."""
        self.cancel()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._session.stack_changed.disconnect(self._on_stack)
        self._session.case_changed.disconnect(self.cancel)

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        tip = "Put this slide on the reference by hand, as the start of its registration."
        line = QHBoxLayout()
        line.addLayout(labelled_rows((("By hand", self.stain, tip),)), stretch=1)
        self._go = push_button("Move by hand", tip, self.start)
        line.addWidget(self._go)
        layout.addLayout(line)
        self._build_tools()
        layout.addWidget(self._tools)

    def _build_tools(self) -> None:
        self.turn.setRange(-180.0, 180.0)
        self.turn.setWrapping(True)
        self.turn.setDecimals(_DECIMALS)
        self.turn.setSuffix("°")
        self.turn.setKeyboardTracking(False)
        column = QVBoxLayout(self._tools)
        column.setContentsMargins(0, 0, 0, 0)
        tip = "How far the picture is turned counter-clockwise on the screen, about its middle."
        line = QHBoxLayout()
        line.addLayout(labelled_rows((("Turn", self.turn, tip),)), stretch=1)
        left, right = (partial(self.turn_by, by) for by in (_QUARTER, -_QUARTER))
        line.addLayout(
            button_row(
                ("↺ 90°", "A quarter turn counter-clockwise.", left),
                ("↻ 90°", "A quarter turn clockwise.", right),
                ("Flip", "Mirror it left to right: the section lies face down.", self.flip),
            )
        )
        column.addLayout(line)
        for label in (self._numbers, self._how):
            label.setWordWrap(True)
            column.addWidget(label)
        column.addLayout(
            button_row(
                ("Use as start", "Register this stain from here.", self.use),
                ("Reset", "Put it back where it was at first.", self.reset),
                ("Cancel", "Stop moving; nothing is changed.", self.cancel),
            )
        )

    # Moving

    def start(self) -> None:
        """Show the chosen slide over the reference, to be moved."""
        stack, name = self._session.stack, self.stain.currentText()
        if stack is None or not name:
            return
        self.cancel()
        self.started.emit()
        stain = self._as_known(stack, name)
        self.moving = HandMove(self._viewer, stack, stain, unit=self._session.unit)
        self.moving.changed.connect(self._say)
        self._how.setText(_HOW + (_HOW_LARGE if self.moving.placement.scalable else ""))
        self._show_tools()
        self._say()

    def _as_known(self, stack: SlideStack, name: str) -> Stain:
        """Return a stain without the pixel size that only a registration has estimated."""
        stain, project = stack.stain(name), self._session.project
        if project is None or project.case(stack.case).stain(name).mpp is not None:
            return stain
        return stain.with_mpp(None)

    def turn_by(self, degrees: float) -> None:
        """Turn the slide further, counter-clockwise."""
        if self.moving is not None:
            self.moving.put(self.moving.placement.turned(degrees))

    def flip(self) -> None:
        """Mirror the slide left to right."""
        if self.moving is not None:
            self.moving.put(self.moving.placement.mirrored())

    def reset(self) -> None:
        """Put the slide back where it was at first."""
        if self.moving is not None:
            self.moving.put(self.moving.first)

    def use(self) -> None:
        """Register the stain from where it lies now."""
        move, config = self.moving, self._config()
        if move is None or config is None:
            return
        if self._session.project is None:
            self.complained.emit("Make a project of these slides first (panel Slides).")
            return
        self.cancel()
        self._work.register(
            config,
            cases=[move.case],
            stains=[move.stain],
            starts={move.stain: move.placement.start},
        )

    def cancel(self) -> None:
        """Stop moving; the view becomes what it was."""
        move, self.moving = self.moving, None
        if move is not None:
            move.end()
        self._show_tools()

    # What changed

    def _on_stack(self) -> None:
        self.cancel()
        stack, before = self._session.stack, self.stain.currentText()
        self.stain.clear()
        self.stain.addItems([s.name for s in stack.moving] if stack else [])
        self.stain.setCurrentIndex(max(0, self.stain.findText(before)))
        self.setEnabled(self.stain.count() > 0)

    def _on_removed(self, event: Any) -> None:
        if self.moving is not None and self.moving.layer not in self._viewer.layers:
            self.cancel()

    def _on_turn(self, value: float) -> None:
        if self.moving is None:
            return
        angle = self.moving.placement.rotation_deg
        # Not where the box only shows, rounded, how it lies.
        if abs(value - _signed(angle)) > 0.5 * 10**-_DECIMALS:
            self.turn_by(value - angle)

    def _show_tools(self) -> None:
        moving = self.moving is not None
        self._tools.setVisible(moving)
        self._go.setEnabled(not moving)
        self.stain.setEnabled(not moving)

    def _say(self) -> None:
        if self.moving is None:
            return
        placement = self.moving.placement
        self.turn.setValue(_signed(placement.rotation_deg))
        self._numbers.setText(_in_words(placement, self._centre(), self._session.unit))

    def _centre(self) -> tuple[float, float]:
        stack = self._session.stack
        assert stack is not None
        return stack.extent.height / 2, stack.extent.width / 2


def _signed(degrees: float) -> float:
    """Return an angle as the box shows it, (-180, 180]."""
    shown = round(degrees, _DECIMALS) % 360.0
    return shown - 360.0 if shown > 180.0 else shown


def _in_words(placement: Placement, centre: tuple[float, float], unit: str) -> str:
    """Return how a slide lies: turned, flipped, and how far from the middle of the reference."""
    down, right = (a - b for a, b in zip(placement.place, centre, strict=True))
    px = "µm" if unit == "um" else "px"
    angle = _signed(placement.rotation_deg)
    turned = f"Turned by {abs(angle):.1f}° {'counter-clockwise' if angle >= 0 else 'clockwise'}"
    flipped = ", flipped" if placement.flipped else ""
    moved = (
        f"{abs(right):,.0f} {px} {'right' if right >= 0 else 'left'}, "
        f"{abs(down):,.0f} {px} {'down' if down >= 0 else 'up'}"
    )
    size = f" Pixel size {placement.scale:.4g} µm/px." if placement.scalable else ""
    return f"{turned}{flipped}. Moved by {moved}.{size}"
