"""The dock with the scatter: brush points, see what is selected, look at a patch in every stain."""

from __future__ import annotations

from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtWidgets import (
    QButtonGroup,
    QComboBox,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
    QWidget,
)

from napari_pancluster._session import Session
from napari_pancluster._widgets.canvas import ScatterCanvas, Tool
from napari_pancluster._widgets.tissue import combination
from napari_pancluster.core.selection import Combine

_TOOL_TIPS = {
    Tool.LASSO: "Draw around points with the mouse held down.",
    Tool.POLYGON: "Click corner after corner; double-click or Enter closes, Escape gives up.",
    Tool.RECTANGLE: "Drag a rectangle over points.",
    Tool.PAN: "Drag to move the picture. The wheel zooms with every tool.",
}
_HOW_TIPS = {
    Combine.REPLACE: ("New", "What you outline becomes the selection."),
    Combine.ADD: ("Add", "What you outline is added to the selection (or hold Shift)."),
    Combine.SUBTRACT: ("Remove", "What you outline is taken away (or hold Ctrl)."),
}


class ScatterWidget(QWidget):
    """Points, tools and the state of the selection.

    Parameters
    ----------
    session
        What it shows and writes to.
    """

    flown_to = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.canvas = ScatterCanvas()
        self._picked = False
        self._colour = QComboBox()
        self._title = QLabel()
        self._summary = QLabel("Nothing selected")
        self._build()
        self.canvas.outlined.connect(self._on_outlined)
        self.canvas.clicked.connect(self._on_clicked)
        self.canvas.double_clicked.connect(self._on_double_clicked)
        self.canvas.hovered.connect(session.point_at)
        session.results_changed.connect(self._on_results)
        session.clusters_changed.connect(self._on_colours)
        session.selection_changed.connect(self._on_selection)
        session.colouring_changed.connect(self._on_colours)
        session.hover_changed.connect(self._on_hover)
        self._on_results()

    def close_session(self) -> None:
        """Stop listening to the session."""
        session = self._session
        session.results_changed.disconnect(self._on_results)
        session.clusters_changed.disconnect(self._on_colours)
        session.selection_changed.disconnect(self._on_selection)
        session.colouring_changed.disconnect(self._on_colours)
        session.hover_changed.disconnect(self._on_hover)

    def sizeHint(self) -> QSize:
        """Return a size that leaves room for the tissue."""
        return QSize(620, 300)

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.setSpacing(3)
        bar = QHBoxLayout()
        bar.setSpacing(2)
        tools = QButtonGroup(self)
        for tool, tip in _TOOL_TIPS.items():
            button = _toggle(str(tool), tip, chosen=tool is self.canvas.tool)
            button.clicked.connect(lambda _=False, t=tool: self._on_tool(t))
            tools.addButton(button)
            bar.addWidget(button)
        bar.addSpacing(10)
        hows = QButtonGroup(self)
        for how, (text, tip) in _HOW_TIPS.items():
            button = _toggle(text, tip, chosen=how is Combine.REPLACE)
            button.clicked.connect(lambda _=False, h=how: self._on_how(h))
            hows.addButton(button)
            bar.addWidget(button)
        bar.addSpacing(10)
        fit = _button("Fit", "Show all points.")
        fit.clicked.connect(self.canvas.fit)
        clear = _button("Clear", "Select nothing.")
        clear.clicked.connect(self._session.select_none)
        bar.addWidget(fit)
        bar.addWidget(clear)
        bar.addSpacing(10)
        bar.addWidget(self._title, stretch=1)
        layout.addLayout(bar)
        label = QLabel("Colour by")
        label.setBuddy(self._colour)
        self._colour.setToolTip("What the points are coloured by.")
        self._colour.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToContents)
        self._colour.setMaximumWidth(220)
        self._colour.setAccessibleName("Colour the points by")
        self._colour.activated.connect(self._on_column)
        native = self.canvas.scene.native
        native.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        native.setAccessibleName("Scatter of all patches")
        layout.addWidget(native, stretch=1)
        foot = QHBoxLayout()
        self._summary.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        for text in (self._summary, self._title):
            # Long texts are cut in a narrow window; they must not widen it.
            text.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Preferred)
        foot.addWidget(self._summary, stretch=1)
        foot.addWidget(label)
        foot.addWidget(self._colour)
        layout.addLayout(foot)

    # The user

    def _on_tool(self, tool: Tool) -> None:
        self.canvas.drop_outline()
        self.canvas.tool = tool

    def _on_how(self, how: Combine) -> None:
        self._session.how = how

    def _on_column(self) -> None:
        self._session.colour_by(self._colour.currentText())

    def _on_outlined(self, outline: Any, modifiers: Any) -> None:
        self._session.select_in_scatter(outline, combination(modifiers, self._session.how))

    def _on_double_clicked(self, row: int) -> None:
        # Its first click picked the patch; who wants to go there keeps what was selected.
        if self._picked:
            self._session.undo()
            self._picked = False
        self.flown_to.emit(row)

    def _on_clicked(self, row: int | None, modifiers: Any) -> None:
        before = self._session.selection
        self._pick(row, combination(modifiers, self._session.how))
        self._picked = self._session.selection is not before

    def _pick(self, row: int | None, how: Combine) -> None:
        if row is not None:
            self._session.pick(row, how)
        elif how is Combine.REPLACE:
            self._session.select_none()

    # The session

    def _on_results(self) -> None:
        results = self._session.results
        self.canvas.show_points(self._session.coords)
        self._colour.clear()
        self._colour.addItems(self._session.columns)
        if results is not None:
            name, count = results.embedding_name, len(results.table)
            waits = "" if name == "UMAP" else "; the UMAP is not computed yet"
            self._title.setToolTip(f"{name} of {count:,} patches{waits}")
        self._on_colours()

    def _on_colours(self) -> None:
        self._colour.setCurrentText(self._session.column)
        colouring = self._session.colouring
        self.canvas.show_colours(colouring, self._session.selection)
        self._title.setText(self._session.scatter_in_words(colouring))
        self._say_selection()

    def _on_selection(self) -> None:
        self.canvas.show_selection(self._session.selection)
        self._say_selection()

    def _say_selection(self) -> None:
        words = self._session.selection_in_words()
        self._summary.setText(words)
        self._summary.setToolTip(words)

    def _on_hover(self) -> None:
        self.canvas.mark(self._session.hover)


def _toggle(text: str, tip: str, *, chosen: bool) -> QPushButton:
    button = _button(text, tip)
    button.setCheckable(True)
    button.setChecked(chosen)
    return button


def _button(text: str, tip: str) -> QPushButton:
    button = QPushButton(text)
    button.setStyleSheet("padding: 2px 7px;")
    button.setToolTip(tip)
    button.setAccessibleName(text)
    button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
    return button
