"""Pixel size by other means: an objective's power, or a line of known length."""

from __future__ import annotations

from typing import Any

import numpy as np
from napari.layers import Shapes
from napari.viewer import Viewer
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QInputDialog, QLabel, QPushButton, QWidget

from napari_pancluster import _layers
from napari_pancluster._widgets.own_layers import tagged

_POWERS = ("40x", "20x", "10x", "5x")
_LAYER = "Line of known length"
_LONGEST_UM = 1e6


class CalibrationBar(QWidget):
    """Asks for a pixel size and tells it as text, as a user would type it."""

    measured = Signal(str)
    complained = Signal(str)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Shapes | None = None
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        label = QLabel("Pixel size from")
        self._power = QComboBox()
        self._power.addItems(["objective …", *_POWERS])
        self._power.setToolTip(
            "Of the scan: 40x is 0.25 µm/px, 20x is 0.5. For the lit slide, or for all."
        )
        self._power.setAccessibleName("Objective of the scan")
        self._power.activated.connect(self._on_power)
        label.setBuddy(self._power)
        line = QPushButton("Draw a line …")
        line.setToolTip("Draw a line whose length you know, such as a scale bar in the picture.")
        line.clicked.connect(self.start_line)
        layout.addWidget(label)
        layout.addWidget(self._power)
        layout.addWidget(line)
        layout.addStretch()

    def _on_power(self, index: int) -> None:
        if index > 0:
            self.measured.emit(self._power.itemText(index))
        self._power.setCurrentIndex(0)

    def start_line(self) -> None:
        """Make ready for the user to draw."""
        slides = tagged(self._viewer, _layers.SLIDE)
        if not slides:
            self.complained.emit("Open a slide first, then draw a line on it.")
            return
        if self._layer is None or self._layer not in self._viewer.layers:
            self._layer = self._viewer.add_shapes(
                None,
                name=_LAYER,
                ndim=2,
                edge_color="#00E5FF",
                edge_width=2 * float(slides[-1].scale[-1]),
                units=slides[-1].units,
            )
            self._layer.events.data.connect(self._on_line)
        self._viewer.layers.selection.active = self._layer
        self._layer.mode = "add_line"

    def _on_line(self, event: Any) -> None:
        if str(event.action) == "added" and self._layer is not None and len(self._layer.data):
            line = np.asarray(self._layer.data[-1], np.float64)[:, -2:]
            # Not inside napari's own event: the layer is still busy with the new shape.
            QTimer.singleShot(0, lambda: self._ask(line))

    def _ask(self, line: np.ndarray) -> None:
        if self._layer is None:
            return
        # Emptied, and neither removed nor hidden: napari 0.9.2 crashes in OpenGL at the first
        # drawing after a Shapes layer went, or after another layer went from under a hidden one.
        with self._layer.events.data.blocker(self._on_line):
            self._layer.data = []
        self._layer.mode = "pan_zoom"
        self._viewer.layers.selection.active = self._slide_shown()
        length, ok = QInputDialog.getDouble(
            self, "Known length", "Length of the line in µm:", 100.0, 0.001, _LONGEST_UM, 3
        )
        if ok:
            self.take(line, length)

    def take(self, line: np.ndarray, length_um: float) -> None:
        """Tell the pixel size at which a line (2, 2) of the world is that long."""
        slide = self._slide_shown()
        pixels = np.abs(np.diff(line, axis=0)[0]) / np.asarray(slide.scale[-2:], np.float64)
        # Down counts as across: a pixel's shape is the file's to know.
        across = float(np.hypot(pixels[0] * slide.scale[-2] / slide.scale[-1], pixels[1]))
        if across < 1:
            self.complained.emit("The line is shorter than a pixel. Draw a longer one.")
            return
        self.measured.emit(f"{length_um / across:.6g}")

    def _slide_shown(self) -> Any:
        slides = tagged(self._viewer, _layers.SLIDE)
        return next((x for x in reversed(slides) if x.visible), slides[-1])
