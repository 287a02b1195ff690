"""Comparing a registered stain with the reference: in one picture, side by side, or blinking."""

from __future__ import annotations

from typing import Any

from napari.layers import Image, Layer
from napari.viewer import Viewer
from qtpy.QtCore import Qt, QTimer, Signal
from qtpy.QtWidgets import QComboBox, QLabel, QSlider, QVBoxLayout, QWidget

from napari_pancluster import _layers
from napari_pancluster._session import Session
from napari_pancluster._widgets.own_layers import newest, remove_layers, tagged
from napari_pancluster._widgets.rows import labelled_rows
from napari_pancluster._widgets.side_by_side import SideBySide
from napari_pancluster.core.comparing import Comparison, Mode

_OFF, _SIDE, _BLINK = "off", "Side by side", "Blink"
_BLINK_MS = 700
_STEPS = 1000


class CompareBox(QWidget):
    """Shows where two sections disagree.

    Parameters
    ----------
    viewer, session
        Where it is shown, and what is looked at.
    """

    complained = Signal(str)
    started = Signal()

    def __init__(self, viewer: Viewer, session: Session) -> None:
        super().__init__()
        self._viewer, self._session = viewer, session
        self.stain, self.mode, self.curtain = QComboBox(), QComboBox(), QSlider()
        self.side = SideBySide(viewer, self)
        self._comparison: Comparison | None = None
        self._hint = QLabel()
        self._hint.setWordWrap(True)
        self._timer = QTimer(self)
        self._timer.setInterval(_BLINK_MS)
        self._build()
        self.stain.activated.connect(self.refresh)
        self.mode.activated.connect(self.refresh)
        self.curtain.valueChanged.connect(self._on_curtain)
        self._timer.timeout.connect(self._on_blink)
        self.side.ended.connect(self.switch_off)
        session.stack_changed.connect(self._on_stack)
        self._on_stack()

    def close_session(self) -> None:
        """Stop blinking and listening, and show one picture again."""
        self._timer.stop()
        self.side.end()
        self._session.stack_changed.disconnect(self._on_stack)

    def _build(self) -> None:
        self.mode.addItems([_OFF, *Mode, _SIDE, _BLINK])
        self.curtain.setOrientation(Qt.Orientation.Horizontal)
        self.curtain.setRange(0, _STEPS)
        self.curtain.setValue(_STEPS // 2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(
            labelled_rows(
                (
                    ("Compare", self.stain, "The registered stain to compare with the reference."),
                    ("as", self.mode, "How both share one picture."),
                    (
                        "Curtain",
                        self.curtain,
                        "Left of it the reference, right of it the other stain.",
                    ),
                )
            )
        )
        layout.addWidget(self._hint)

    @property
    def layer(self) -> Image | None:
        """The layer of the comparison, while there is one."""
        return newest(self._viewer, _layers.COMPARE)

    def _on_stack(self) -> None:
        stack = self._session.stack
        names = [n for n in stack.registered if n != stack.reference] if stack else []
        self.stain.clear()
        self.stain.addItems(names)
        self.mode.setCurrentText(_OFF)
        self.setEnabled(bool(names))
        self.refresh()

    def switch_off(self) -> None:
        """Compare nothing."""
        self.mode.setCurrentText(_OFF)
        self.refresh()

    def refresh(self) -> None:
        """Show the comparison that is chosen."""
        self._stop()
        stack, name, mode = self._session.stack, self.stain.currentText(), self.mode.currentText()
        self.curtain.setEnabled(mode == Mode.CURTAIN)
        self._hint.setText("")
        if stack is None or not name or mode == _OFF:
            return
        self.started.emit()
        if mode == _SIDE:
            self._show_side_by_side(stack.reference, name)
            return
        if mode == _BLINK:
            self._hint.setText(f"{stack.reference} and {name} in turns.")
            self._timer.start()
            return
        self._comparison = Comparison(stack, name, Mode(mode))
        self._comparison.split = self.curtain.value() / _STEPS
        if mode == Mode.OVERLAY:
            self._hint.setText(f"Blue: {stack.reference} alone. Orange: {name} alone. Dark: both.")
        data = _layers.compare_layer(stack, self._comparison, name, unit=self._session.unit)
        self._viewer.add_layer(Layer.create(*data))

    def _show_side_by_side(self, reference: str, moving: str) -> None:
        left, right = self._layer_of(reference), self._layer_of(moving)
        if left is None or right is None:
            self.mode.setCurrentText(_OFF)
            self.complained.emit(
                f"A layer of {reference} or {moving} was removed. Show the case anew: choose "
                "another case and come back, or open the project again."
            )
            return
        self._hint.setText(
            f"Left {reference}, right {moving}. Both move together; the cross is at the same "
            "place of the tissue."
        )
        self.side.start(left, right, unit=self._session.unit)

    def _stop(self) -> None:
        self.side.end()
        if self._timer.isActive():
            self._timer.stop()
            self._show_moving(on=False)
        if self.layer is not None:
            remove_layers(self._viewer, [self.layer])
        self._comparison = None

    def _on_curtain(self, value: int) -> None:
        layer = self.layer
        if layer is not None and self._comparison is not None:
            self._comparison.split = value / _STEPS
            layer.refresh(thumbnail=False, highlight=False, extent=False)

    def _on_blink(self) -> None:
        layer = self._layer_of(self.stain.currentText())
        if layer is not None:
            self._show_moving(on=not layer.visible)

    def _show_moving(self, *, on: bool) -> None:
        layer = self._layer_of(self.stain.currentText())
        if layer is None:
            return
        reference = self._session.stack.reference if self._session.stack else ""
        layer.visible = on
        for other in tagged(self._viewer, _layers.SLIDE):
            if other.metadata.get("stain") == reference:
                other.visible = not on

    def _layer_of(self, name: str) -> Any:
        slides = tagged(self._viewer, _layers.SLIDE)
        return next((x for x in slides if x.metadata.get("stain") == name), None)
