"""The table of registrations: one line a stain, what was done and how far it can be trusted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import QAbstractItemView, QTableWidget, QTableWidgetItem

Result = Mapping[str, Any]

_NOTHING, _UM = "–", "µm"
# Shorter errors are told to a tenth.
_EXACT = 10
# A sign beside the word and the colour: nobody has to see the colours.
_SIGNS = {"ok": "✓", "doubtful": "!", "failed": "✗"}
_COLOURS = {"ok": "#4EB265", "doubtful": "#F08030", "failed": "#E0524F"}
_MOST_LINES_PX = 260
_LINE_PX = 24
# Longer names take two lines, so that the numbers have their room.
_NAME_PX = 84


def _status(result: Result) -> str:
    status = str(result.get("status", ""))
    return f"{_SIGNS.get(status, '')} {status}".strip()


def _turned(result: Result) -> str:
    if result.get("rotation_deg") is None or _unmeasured(result):
        return _NOTHING
    return f"{result['rotation_deg']:.0f}°{' flip' if result.get('flipped') else ''}"


def _before_after(name: str) -> Callable[[Result], str]:
    def text(result: Result) -> str:
        before, after = result.get(f"{name}_before"), result.get(f"{name}_after")
        if before is None or after is None or _unmeasured(result):
            return _NOTHING
        return f"{before:.2f}→{after:.2f}"

    return text


def _error(result: Result) -> str:
    tre = result.get("tre_um")
    return _length(tre["median"], result) if tre else _NOTHING


def _time(result: Result) -> str:
    seconds = result.get("seconds")
    return _NOTHING if seconds is None else f"{seconds:.0f} s"


def _locked(result: Result) -> str:
    return "yes" if result.get("locked") else ""


def _unmeasured(result: Result) -> bool:
    """Tell whether it failed before anything could be measured."""
    measured = ("dice_before", "dice_after", "similarity_before", "similarity_after")
    return result.get("status") == "failed" and not any(result.get(key) for key in measured)


def _length(value: float, result: Result) -> str:
    return f"{value:.{1 if value < _EXACT else 0}f} {result.get('unit', _UM)}"


def _turned_tip(result: Result) -> str:
    if _turned(result) == _NOTHING:
        return ""
    flipped = " The section lies face down and was flipped." if result.get("flipped") else ""
    return f"Turned by {result['rotation_deg']:.1f}° counter-clockwise.{flipped}"


def _change_tip(name: str, words: str) -> Callable[[Result], str]:
    def tip(result: Result) -> str:
        if _before_after(name)(result) == _NOTHING:
            return ""
        before, after = result[f"{name}_before"], result[f"{name}_after"]
        return f"{words}: {before:.3f} before, {after:.3f} after."

    return tip


def _error_tip(result: Result) -> str:
    tre = result.get("tre_um")
    if not tre:
        return "Not measured: no landmarks were set."
    median, p90 = (_length(tre[key], result) for key in ("median", "p90"))
    return f"At the landmarks: median {median}, nine in ten below {p90}."


def _locked_tip(result: Result) -> str:
    return "Locked: registering again leaves it as it is." if result.get("locked") else ""


def _no_tip(_: Result) -> str:
    return ""


@dataclass(frozen=True)
class _Column:
    """A column: its header with a tooltip, and what a line says in it, with one of its own."""

    header: str
    header_tip: str
    text: Callable[[Result], str]
    tip: Callable[[Result], str] = _no_tip


_COLUMNS = (
    _Column("Case", "The animal or block.", lambda r: str(r.get("case", ""))),
    _Column("Stain", "The stain that was brought onto the reference.", lambda r: str(r["stain"])),
    _Column(
        "Status",
        "✓ ok: outlines and structures agree. ! doubtful: look at it. ✗ failed: it is left out. "
        "The tooltip of a line says why.",
        _status,
    ),
    _Column(
        "Turned",
        "Degrees counter-clockwise, and whether the section was flipped.",
        _turned,
        _turned_tip,
    ),
    _Column(
        "Overlap",
        "Dice overlap of the tissue masks, before → after registration; 1 is perfect.",
        _before_after("dice"),
        _change_tip("dice", "Overlap of the tissue (Dice)"),
    ),
    _Column(
        "Similarity",
        "Share of the local structure of one section that the other explains, before → after. "
        "Different stains stay well below 1.",
        _before_after("similarity"),
        _change_tip("similarity", "Similarity of the structure"),
    ),
    _Column(
        "Error",
        "Median distance at the landmarks (TRE), where landmarks were set.",
        _error,
        _error_tip,
    ),
    _Column("Time", "How long it took.", _time),
    _Column(
        "Locked",
        "Whether it is kept as it is when the others are registered again.",
        _locked,
        _locked_tip,
    ),
)
HEADERS = tuple(column.header for column in _COLUMNS)
_CASE, _STAIN, _STATUS = range(3)
_ERROR, _LOCKED = HEADERS.index("Error"), HEADERS.index("Locked")


class RegistrationTable(QTableWidget):
    """One line a registered stain.

    It holds no truth: it shows reports and tells which one was clicked.
    """

    chosen = Signal(str, str)

    def __init__(self) -> None:
        super().__init__(0, len(_COLUMNS))
        self.setHorizontalHeaderLabels(HEADERS)
        for number, column in enumerate(_COLUMNS):
            self.horizontalHeaderItem(number).setToolTip(column.header_tip)
        self.setAccessibleName("Registrations")
        self.verticalHeader().hide()
        self.verticalHeader().setMinimumSectionSize(_LINE_PX)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        header = self.horizontalHeader()
        header.setMinimumSectionSize(30)
        header.setHighlightSections(False)
        self._results: tuple[Result, ...] = ()
        self.cellClicked.connect(self._choose)
        self.cellActivated.connect(self._choose)

    def show_results(self, results: Sequence[Result], *, unit: str = _UM) -> None:
        """Show the reports of registrations; the line that was lit stays lit.

        Parameters
        ----------
        unit
            Of errors: "px" where the project is not calibrated.
        """
        lit = self._lit()
        self._results = tuple({**result, "unit": unit} for result in results)
        self.clearSelection()
        self.setRowCount(len(results))
        for row, result in enumerate(self._results):
            self._fill(row, result)
            if (result.get("case"), result["stain"]) == lit:
                self.selectRow(row)
        self.setColumnHidden(_CASE, len({r.get("case") for r in results}) < 2)
        # Room for what is there to be told.
        self.setColumnHidden(_ERROR, not any(result.get("tre_um") for result in results))
        self.setColumnHidden(_LOCKED, not any(result.get("locked") for result in results))
        self._fit()

    def _lit(self) -> tuple[str, str] | None:
        rows = self.selectionModel().selectedRows()
        if not rows:
            return None
        result = self._results[rows[0].row()]
        return result.get("case", ""), result["stain"]

    def _fill(self, row: int, result: Result) -> None:
        # A registration that failed may leave the one before in use, and says so.
        notes = [str(result[key]) for key in ("reason", "kept") if result.get(key)]
        for number, column in enumerate(_COLUMNS):
            item = QTableWidgetItem(column.text(result))
            item.setToolTip("\n".join(line for line in (column.tip(result), *notes) if line))
            if number > _STATUS:
                item.setTextAlignment(Qt.AlignmentFlag.AlignCenter)
            self.setItem(row, number, item)
        colour = _COLOURS.get(result.get("status", ""))
        if colour is not None:
            self.item(row, _STATUS).setForeground(QBrush(QColor(colour)))

    def _fit(self) -> None:
        self.resizeColumnsToContents()
        for column in (_CASE, _STAIN):
            if not self.isColumnHidden(column):
                self.setColumnWidth(column, min(self.columnWidth(column), _NAME_PX))
        self.resizeRowsToContents()
        lines = sum(self.rowHeight(row) for row in range(self.rowCount()))
        head, bar = self.horizontalHeader(), self.horizontalScrollBar()
        height = head.sizeHint().height() + bar.sizeHint().height() + 2 * self.frameWidth()
        self.setFixedHeight(height + min(max(lines, _LINE_PX), _MOST_LINES_PX))

    def _choose(self, row: int, _: int) -> None:
        result = self._results[row]
        self.chosen.emit(result.get("case", ""), result["stain"])
