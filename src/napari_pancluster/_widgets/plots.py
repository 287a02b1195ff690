"""Small curves in a panel: the losses of a training, the indices over k."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from qtpy.QtCore import Signal
from qtpy.QtGui import QPalette
from qtpy.QtWidgets import QVBoxLayout, QWidget

from napari_pancluster.core.validation import BETTER, PLAIN_NAMES, ValidationScores

_LINE, _SUGGESTED = "#7BAFDE", "#F4A736"
# Drawing takes a tenth of a second; the training needs the processor more.
_REDRAW_S = 1.0
_LOSSES = {
    "reconstruction": "Reconstruction (lower is better)",
    "clustering": "Clustering (lower is better)",
}


class Plot(QWidget):
    """A matplotlib figure in the colours of the window.

    Parameters
    ----------
    height
        In pixels.
    """

    def __init__(self, height: int) -> None:
        super().__init__()
        self._figure: Any = None
        self._canvas: Any = None
        self._text: dict[str, Any] = {}
        self.setFixedHeight(height)

    def _make_canvas(self) -> None:
        """Make the figure when there is something to draw: matplotlib takes a moment."""
        from matplotlib.backends.backend_qtagg import FigureCanvasQTAgg
        from matplotlib.figure import Figure

        self._figure = Figure(layout="constrained")
        self._canvas = FigureCanvasQTAgg(self._figure)
        self._canvas.mpl_connect("button_press_event", self._on_click)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._canvas)

    def _on_click(self, event: Any) -> None:
        """Nothing happens, unless a plot has a use for clicks."""

    def _clear(self) -> None:
        if self._figure is not None:
            self._figure.clear()
            self._canvas.draw_idle()

    def _axes(self, count: int, *, columns: int) -> list[Any]:
        if self._figure is None:
            self._make_canvas()
        self._figure.clear()
        text = self.palette().color(QPalette.ColorRole.WindowText).name()
        self._figure.set_facecolor(self.palette().color(QPalette.ColorRole.Window).name())
        rows = -(-count // columns)
        panels = list(self._figure.subplots(rows, columns, squeeze=False).ravel())
        for axes in panels[count:]:
            axes.set_visible(False)
        for axes in panels[:count]:
            axes.set_facecolor("none")
            axes.tick_params(colors=text, labelsize=7, length=2)
            for side in axes.spines.values():
                side.set_color(text)
                side.set_linewidth(0.5)
            for name in ("top", "right"):
                axes.spines[name].set_visible(False)
        self._text = {"color": text, "fontsize": 8}
        return panels[:count]


class LossPlot(Plot):
    """The losses of a training while it runs."""

    def __init__(self) -> None:
        super().__init__(150)
        self._values: dict[str, list[tuple[float, float]]] = {}
        self._drawn = 0.0

    def clear(self) -> None:
        """Start a new curve."""
        self._values = {}
        self._clear()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add what a step of the training measured."""
        for name in _LOSSES:
            if name in values:
                self._values.setdefault(name, []).append((step, values[name]))
        if self._values and time.monotonic() - self._drawn >= _REDRAW_S:
            self._drawn = time.monotonic()
            self._draw()

    def _draw(self) -> None:
        panels = self._axes(len(self._values), columns=2)
        for (name, points), axes in zip(self._values.items(), panels, strict=True):
            axes.plot(*zip(*points, strict=True), color=_LINE, lw=1)
            axes.set_title(_LOSSES[name], **self._text)
            axes.set_xlabel("training step", **self._text)
        self._canvas.draw_idle()


class IndexPlot(Plot):
    """The validation indices over k; a click chooses k."""

    k_chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__(210)
        self._scores: ValidationScores | None = None
        self._marks: list[Any] = []

    def show_scores(self, scores: ValidationScores | None, k: int) -> None:
        """Show other scores, and which k is looked at."""
        self._scores = scores
        self._marks = []
        if scores is None:
            self._clear()
            return
        panels = self._axes(len(BETTER), columns=3)
        for (name, better), axes in zip(BETTER.items(), panels, strict=True):
            mean, std = scores.mean[name], scores.std[name]
            axes.plot(scores.k, mean, color=_LINE, lw=1, marker="o", ms=2)
            axes.fill_between(scores.k, mean - std, mean + std, color=_LINE, alpha=0.3, lw=0)
            axes.axvline(scores.suggested_k, color=_SUGGESTED, lw=1)
            arrow = "↑" if better == "higher" else "↓"
            axes.set_title(f"{PLAIN_NAMES[name]} {arrow}", **self._text)
            self._marks.append(axes.axvline(k, color=self._text["color"], lw=1, ls="--"))
        self._canvas.draw_idle()

    def mark(self, k: int) -> None:
        """Show which k is looked at."""
        for line in self._marks:
            line.set_xdata([k, k])
        if self._marks:
            self._canvas.draw_idle()

    def _on_click(self, event: Any) -> None:
        if self._scores is not None and event.xdata is not None:
            ks: Sequence[int] = [int(k) for k in self._scores.k]
            self.k_chosen.emit(min(ks, key=lambda k: abs(k - event.xdata)))
