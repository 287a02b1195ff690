"""The versions of a registration: kept by name, gone back to, locked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from napari.viewer import Viewer
from qtpy.QtCore import Signal
from qtpy.QtGui import QFont
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QInputDialog,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_pancluster._session import Session
from napari_pancluster._widgets.jobs import Jobs
from napari_pancluster._widgets.rows import labelled_rows, push_button
from napari_pancluster._widgets.work import Work
from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.pipeline.versions import Versions, choose_versions, made_in_words
from napari_pancluster.core.project import Project

_IN_USE, _CHOOSE = "in use", "Choose a version to go back to it or to rename it."
_COLUMNS = ("Version", "Made", "Status", "Overlap")
_TIPS = (
    "Its name, or how it was made; the one in use comes first, then the last used.",
    "When it was registered.",
    "ok, doubtful or failed; the tooltip of a line says why.",
    "Dice overlap of the tissue masks after registration; 1 is perfect.",
)
_KEEP_TIP = "Give the registration in use a name; it is kept for good."
_BACK_TIP = "Put the chosen version in use again; the one in use now is kept. Nothing is computed."
_RENAME_TIP = "Give the chosen version another name; it is kept for good."
_LOCK_TIP = "The registration in use stays: Register and Do all steps leave this stain alone."
_MOST_LINES, _LINE_PX = 6, 24


class VersionsBox(QWidget):
    """The versions of the registrations of the case that is shown.

    Parameters
    ----------
    viewer, session, work, jobs
        Where it belongs to, what is looked at, who shows it anew, and what may be running.
    """

    complained = Signal(str)

    def __init__(self, viewer: Viewer, session: Session, work: Work, jobs: Jobs) -> None:
        super().__init__()
        self._viewer, self._session, self._work, self._jobs = viewer, session, work, jobs
        self.stain, self.table = QComboBox(), QTableWidget(0, len(_COLUMNS))
        self.locked = QCheckBox("Locked")
        self._hint = QLabel()
        self._lines: list[dict[str, Any]] = []
        self._build()
        self.stain.activated.connect(self.refresh)
        self.table.itemSelectionChanged.connect(self._say)
        self.locked.clicked.connect(self._on_locked)
        session.project_changed.connect(self.refresh)
        session.case_changed.connect(self.refresh)
        jobs.changed.connect(self._say)
        self.refresh()

    def close_session(self) -> None:
        """Stop listening."""
        self._session.project_changed.disconnect(self.refresh)
        self._session.case_changed.disconnect(self.refresh)
        self._jobs.changed.disconnect(self._say)

    # Building

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addLayout(labelled_rows([("Versions of", self.stain, "The registered stain.")]))
        self._build_table()
        layout.addWidget(self.table)
        self.keep_as = push_button("Keep as …", _KEEP_TIP, self._on_keep)
        self.go_back = push_button("Go back to it", _BACK_TIP, self.revert)
        self.name_anew = push_button("Rename …", _RENAME_TIP, self._on_rename)
        row = QHBoxLayout()
        for button in (self.keep_as, self.go_back, self.name_anew, self.locked):
            row.addWidget(button)
        layout.addLayout(row)
        self.locked.setToolTip(_LOCK_TIP)
        self._hint.setWordWrap(True)
        layout.addWidget(self._hint)

    def _build_table(self) -> None:
        table = self.table
        table.setHorizontalHeaderLabels(_COLUMNS)
        for column, tip in enumerate(_TIPS):
            table.horizontalHeaderItem(column).setToolTip(tip)
        table.setAccessibleName("Versions of the registration")
        table.verticalHeader().hide()
        table.verticalHeader().setDefaultSectionSize(_LINE_PX)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        header = table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)

    # What there is

    @property
    def versions(self) -> Versions | None:
        """The versions of the stain that is chosen."""
        project, stain = self._session.project, self.stain.currentText()
        return Versions(project, self._session.case, stain) if project and stain else None

    @property
    def chosen(self) -> Mapping[str, Any] | None:
        """The version that is chosen in the table."""
        rows = self.table.selectionModel().selectedRows()
        return self._lines[rows[0].row()] if rows else None

    def choose(self, stain: str) -> None:
        """Show the versions of another stain."""
        if self.stain.findText(stain) >= 0:
            self.stain.setCurrentText(stain)
            self.refresh()

    def refresh(self) -> None:
        """Show what the project has of the stain that is chosen."""
        project, before = self._session.project, self.stain.currentText()
        found = choose_versions(project, case=self._session.case) if project else []
        registered = [v.stain for v in found if v.project.artefact(v.key) is not None]
        self.stain.clear()
        self.stain.addItems(registered)
        self.stain.setCurrentIndex(max(0, self.stain.findText(before)))
        self._fill()
        self._say()

    def _fill(self) -> None:
        told = self.versions.describe() if self.versions else None
        before = self.chosen["id"] if self.chosen else None
        self._lines = _lines(told) if told else []
        self.locked.setChecked(bool(told and told["locked"]))
        self.table.clearSelection()
        self.table.setRowCount(len(self._lines))
        for row, line in enumerate(self._lines):
            for column, text in enumerate(_texts(line)):
                item = QTableWidgetItem(text)
                item.setToolTip(_tip(line))
                if line["in_use"]:
                    item.setFont(_bold(item.font()))
                self.table.setItem(row, column, item)
            if line["id"] == before:
                self.table.selectRow(row)
        lines = min(max(1, len(self._lines)), _MOST_LINES)
        head = self.table.horizontalHeader().sizeHint().height()
        self.table.setFixedHeight(head + 6 + lines * _LINE_PX)

    def _say(self) -> None:
        """Let do what can be done now, and say why the rest cannot."""
        reason = self._busy_because()
        current = self._lines[0] if self._lines else None
        chosen, locked = self.chosen, self.locked.isChecked()
        other = chosen is not None and not chosen["in_use"]
        free = bool(self._lines) and not reason
        self.keep_as.setEnabled(free and current is not None and not current["named"])
        self.go_back.setEnabled(free and other and not locked)
        self.name_anew.setEnabled(free and chosen is not None and chosen["name"] is not None)
        self.locked.setEnabled(free)
        self.table.setEnabled(bool(self._lines))
        if not reason and other and locked:
            reason = "Locked: the registration in use stays. Unlock it to go back to another."
        choose = _CHOOSE if chosen is None and len(self._lines) > 1 else ""
        self._hint.setText(reason or _last_failed(self._lines) or choose)
        self._hint.setVisible(bool(self._hint.text()))

    def _busy_because(self) -> str:
        if not self._lines:
            return "Nothing of this case is registered yet."
        job = self._jobs.current if self._jobs.busy else None
        return f"Wait until this is done: {job.title}." if job else ""

    # What the user does

    def keep(self, name: str) -> None:
        """Keep the registration in use under a name."""
        self._do(lambda versions: versions.keep(name))

    def revert(self) -> None:
        """Go back to the chosen version, and show it."""
        chosen = self.chosen
        if chosen is not None and chosen["name"] is not None:
            name = chosen["name"]
            if self._do(lambda versions: versions.revert(name)):
                self._work.reload()

    def rename(self, name: str) -> None:
        """Give the chosen version another name."""
        chosen = self.chosen
        if chosen is not None and chosen["name"] is not None:
            old = chosen["name"]
            self._do(lambda versions: versions.rename(old, name))

    def _do(self, act: Callable[[Versions], object]) -> bool:
        """Change the project and show it; return whether it could be."""
        versions = self.versions
        if versions is None:
            return False
        try:
            # Anew: another window may have changed it since.
            project = Project.open(versions.project.root)
            self._session.show_project(project)
            act(replace(versions, project=project))
        except PanclusterError as error:
            self.complained.emit(str(error))
            return False
        self._session.show_project(project)
        return True

    def _on_keep(self) -> None:
        self._ask("Keep as", "A name for the registration in use:", "", self.keep)

    def _on_rename(self) -> None:
        if self.chosen is not None:
            self._ask("Rename", "Another name:", str(self.chosen["name"]), self.rename)

    def _ask(self, title: str, label: str, text: str, call: Callable[[str], None]) -> None:
        name, given = QInputDialog.getText(self, title, label, text=text)
        if given:
            call(name)

    def _on_locked(self, _: bool = False) -> None:
        locked = self.locked.isChecked()
        self._do(lambda versions: versions.lock(locked=locked))


def _lines(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the version in use, then the others, the last used first."""
    if told["current"] is None:
        return []
    used = next((k for k in told["kept"] if k["in_use"]), None)
    first = used or {**told["current"], "named": False, "in_use": True}
    return [first, *(k for k in told["kept"] if not k["in_use"])]


def _texts(line: Mapping[str, Any]) -> tuple[str, ...]:
    dice = line["dice_after"]
    # The name that one has by itself says when it was made, which has a column.
    name = line["name"] if line["named"] else line["way"]
    return (
        f"{_IN_USE}: {name}" if line["in_use"] else name,
        made_in_words(line["created"]),
        "out of date" if line["stale"] else line["status"],
        "–" if dice is None or line["status"] == "failed" else f"{dice:.2f}",
    )


def _tip(line: Mapping[str, Any]) -> str:
    tre = line["tre_um"]
    parts = [
        line["name"] or "",
        f"{line['status']}: {line['reason']}",
        f"Landmarks: median error {tre['median']:.1f} µm" if tre else "",
        "Out of date: the slides have changed since." if line["stale"] else "",
    ]
    return "\n".join(p for p in parts if p)


def _last_failed(lines: list[dict[str, Any]]) -> str:
    """Return that the last attempt failed and changed nothing, where it is so."""
    last = lines[1] if len(lines) > 1 else None
    if last is None or last["status"] != "failed" or last["created"] < lines[0]["created"]:
        return ""
    return f"A newer registration failed, this one stays in use. {last['reason']}"


def _bold(font: QFont) -> QFont:
    font.setBold(True)
    return font
