"""The table of slides: picture, case, stain, pixel size, reference, and what to beware of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QBrush, QColor
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from napari_pancluster._widgets.pictures import picture_icon
from napari_pancluster.core.looking import SlideLook

_HEADER = ("Stain", "Case", "µm/px", "Ref.", "Channels", "File")
STAIN, CASE, MPP, REFERENCE, CHANNELS, FILE = range(len(_HEADER))
_TIPS = (
    "The stain's name, proposed from the file's name and colours. Double-click to change it.",
    "The animal or block the slide belongs to. Double-click to change it.",
    "Pixel size. Double-click to enter it, or the objective as 20x; ? lets registration estimate "
    "a moving slide's.",
    "Tick the slide of each case that the others are registered onto. H&E is a good choice.",
    "One to three channels of a fluorescence slide, by number or name, with commas between.",
    "Where the slide lies. It stays there.",
)
_FIELDS = {STAIN: "stain", CASE: "case", MPP: "mpp", CHANNELS: "channels"}
_ROW_PX, _ICON = 40, QSize(46, 36)
_DOUBT = QColor("#F08030")
_UNKNOWN, _FIRST_THREE = "enter …", "first 3"


@dataclass(frozen=True)
class SlideLine:
    """A slide as the table shows it.

    Attributes
    ----------
    mpp
        As typed or known; empty where it is neither.
    given
        Names of the fields that a person filled in; proposals leave them alone.
    look
        Picture, size and warnings, when they are read.
    note
        What to say of the slide beside the file's name until then.
    """

    path: Path
    stain: str
    case: str = "case"
    mpp: str = ""
    reference: bool = False
    channels: str = ""
    given: frozenset[str] = frozenset()
    look: SlideLook | None = None
    note: str = ""

    @property
    def about(self) -> str:
        """Two lines: the file, and what it is."""
        size = self.look.size if self.look else self.note
        return f"{self.path.name}\n{size}" if size else self.path.name

    @property
    def tip(self) -> str:
        """All that is known of the file."""
        return "\n".join((str(self.path), *self.warnings))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What to beware of; a pixel size that a person gave is not doubted."""
        if self.look is None:
            return ()
        size = () if self.mpp or not self.look.size_warning else (self.look.size_warning,)
        return (*size, *self.look.warnings)

    def filled(self, column: int, text: str) -> SlideLine:
        """Return the line with what the user typed into a cell."""
        name, value = _FIELDS[column], text.strip()
        changes: dict[str, Any] = {name: value, "given": self.given | {name}}
        return replace(self, **changes)

    def proposed(self, **names: str) -> SlideLine:
        """Return the line with proposals where nobody filled anything in."""
        changes: dict[str, Any] = {k: v for k, v in names.items() if k not in self.given}
        return replace(self, **changes)


class SlideTable(QTableWidget):
    """One line a slide.

    It holds no truth: it shows lines and tells what the user did to them.
    """

    filled = Signal(int, int, str)
    reference_chosen = Signal(int)

    def __init__(self) -> None:
        super().__init__(0, len(_HEADER))
        self.setHorizontalHeaderLabels(_HEADER)
        for column, tip in enumerate(_TIPS):
            self.horizontalHeaderItem(column).setToolTip(tip)
        self.setAccessibleName("Slides")
        self.setIconSize(_ICON)
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(_ROW_PX)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        header = self.horizontalHeader()
        header.setMinimumSectionSize(30)
        for column in range(len(_HEADER)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(FILE, QHeaderView.ResizeMode.Stretch)
        self.itemChanged.connect(self._on_item)
        self._filling = False

    @property
    def row(self) -> int | None:
        """The line that is lit, if any."""
        rows = {index.row() for index in self.selectionModel().selectedRows()}
        return rows.pop() if rows else None

    def show_lines(self, lines: Sequence[SlideLine], *, editable: bool) -> None:
        """Show slides; those of a project are not edited here."""
        lit = self.row
        self._filling = True
        self.setRowCount(len(lines))
        for row, line in enumerate(lines):
            self._fill(row, line, editable=editable)
        self._filling = False
        several = len({line.case for line in lines}) > 1
        self.setColumnHidden(CASE, not editable and not several)
        self.setColumnHidden(CHANNELS, not editable or not any(map(_has_choice, lines)))
        if lit is not None and lit < len(lines):
            self.selectRow(lit)
        self.setFixedHeight(
            self.horizontalHeader().sizeHint().height() + 6 + max(1, len(lines)) * _ROW_PX
        )

    def _fill(self, row: int, line: SlideLine, *, editable: bool) -> None:
        texts = (line.stain, line.case, line.mpp, "", line.channels, line.about)
        for column, text in enumerate(texts):
            item = QTableWidgetItem(text)
            flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
            if editable and column in _FIELDS:
                flags |= Qt.ItemFlag.ItemIsEditable
            item.setFlags(flags)
            self.setItem(row, column, item)
        self.item(row, FILE).setToolTip(line.tip)
        if line.look is not None:
            icon = picture_icon(line.look.picture, _ICON.width(), _ICON.height())
            self.item(row, STAIN).setIcon(icon)
            if line.warnings:
                self.item(row, FILE).setText(f"⚠ {line.about}")
        if _has_choice(line) and line.look is not None:
            names = line.look.channel_names or [str(n + 1) for n in range(line.look.channels)]
            self.item(row, CHANNELS).setToolTip(f"There are: {', '.join(names)}")
            if not line.channels:
                self.item(row, CHANNELS).setText(_FIRST_THREE)
        size = self.item(row, MPP)
        if editable and not line.mpp:
            size.setText(_UNKNOWN)
            size.setForeground(QBrush(_DOUBT))
            size.setToolTip("Not known. Double-click to enter it.")
        self._fill_reference(row, line, editable=editable)

    def _fill_reference(self, row: int, line: SlideLine, *, editable: bool) -> None:
        item = self.item(row, REFERENCE)
        if not editable:
            item.setText("●" if line.reference else "")
            return
        item.setFlags(item.flags() | Qt.ItemFlag.ItemIsUserCheckable)
        item.setCheckState(Qt.CheckState.Checked if line.reference else Qt.CheckState.Unchecked)

    def _on_item(self, item: QTableWidgetItem) -> None:
        if self._filling:
            return
        if item.column() == REFERENCE:
            self.reference_chosen.emit(item.row())
        elif item.column() in _FIELDS and item.text() not in (_UNKNOWN, _FIRST_THREE):
            self.filled.emit(item.row(), item.column(), item.text())


def _has_choice(line: SlideLine) -> bool:
    return line.look is not None and not line.look.rgb and line.look.channels > 1
