"""The table of landmarks: one line a pair, with how far it is off."""

from __future__ import annotations

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_pancluster.core.pipeline.marking import Judgement

WORST = QColor("#F08030")
_COLUMNS = ("Pair", "Error now", "Leave one out")
_COLUMN_TIPS = (
    "Its number in the picture. Click a line to go there.",
    "How far the registration there is misses the point that was set on the stain.",
    "How far the fit of all other pairs misses it.",
)
_MOST_PX = 150


class LandmarkTable(QTableWidget):
    """The pairs of a stain; it holds no truth, and tells which one was chosen."""

    chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__(0, len(_COLUMNS))
        self.setHorizontalHeaderLabels(_COLUMNS)
        for column, tip in enumerate(_COLUMN_TIPS):
            self.horizontalHeaderItem(column).setToolTip(tip)
        self.setAccessibleName("Landmark pairs")
        self.verticalHeader().hide()
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        header = self.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.ResizeToContents)
        header.setHighlightSections(False)
        self.setMaximumHeight(_MOST_PX)
        self._filling = False
        self.itemSelectionChanged.connect(self._on_selection)

    @property
    def rows(self) -> set[int]:
        """Numbers of the pairs that are chosen."""
        return {index.row() for index in self.selectionModel().selectedRows()}

    def show_pairs(self, judged: Judgement | None, unit: str) -> None:
        """Show how good each pair is; nothing is chosen then.

        Parameters
        ----------
        unit
            Of the errors: "µm" or "px".
        """
        self._filling = True
        self.clearSelection()
        self.setRowCount(judged.count if judged is not None else 0)
        if judged is not None:
            self._fill(judged)
        for column, name in enumerate(_COLUMNS[1:], 1):
            self.horizontalHeaderItem(column).setText(f"{name} ({unit})")
        self.setVisible(self.rowCount() > 0)
        self._filling = False

    def _fill(self, judged: Judgement) -> None:
        errors = (judged.now, judged.left_out)
        for row in range(judged.count):
            texts = [str(row + 1), *("–" if e is None else f"{e[row]:.3g}" for e in errors)]
            for column, text in enumerate(texts):
                self.setItem(row, column, _cell(text, worst=row == judged.worst))

    def _on_selection(self) -> None:
        rows = self.rows
        if len(rows) == 1 and not self._filling:
            self.chosen.emit(rows.pop())


def _cell(text: str, *, worst: bool) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    if worst:
        font = item.font()
        font.setBold(True)
        item.setFont(font)
        item.setForeground(QBrush(WORST))
        item.setToolTip("The worst pair. Click to go there.")
    return item
