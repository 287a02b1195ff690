"""The panel Slides: which slides make a case, and which project is open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari.viewer import Viewer
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_pancluster import _layers
from napari_pancluster._session import Session
from napari_pancluster._widgets.work import Work
from napari_pancluster.core.cases import SlideEntry, entries_of_sheet
from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.project import CaseRecord, project_path

_HEADER = ("Stain", "µm/px", "Reference", "File")
_STAIN, _MPP, _REFERENCE, _FILE = range(len(_HEADER))
_TIPS = (
    "The stain's name. Double-click to change it.",
    "Pixel size of the slide. Double-click to enter it; ? lets registration estimate a moving "
    "slide's.",
    "Tick the slide that all others are registered onto. H&E is a good choice.",
    "Where the slide lies. It stays there.",
)
_ROW_PX = 24
_SOURCES = {
    "file": "from the file",
    "user": "entered",
    "nominal": "nominal",
    "unknown": "estimated by registration",
    "uncalibrated": "1 px = 1 unit",
}
_SLIDES = "Slides (*.svs *.ndpi *.mrxs *.scn *.bif *.vms *.tif *.tiff *.png *.jpg);;All files (*)"


@dataclass(frozen=True)
class _Draft:
    """A slide that is open in the viewer and belongs to no project yet."""

    stain: str
    path: Path
    mpp: float | None
    nominal: bool
    case: str


class SlidesPanel(QWidget):
    """Slides to be put together, or those of the open project.

    Parameters
    ----------
    viewer, session, work
        What it shows, and what it asks for.
    """

    complained = Signal(str)

    def __init__(self, viewer: Viewer, session: Session, work: Work) -> None:
        super().__init__()
        self._viewer = viewer
        self._session = session
        self._work = work
        self._what = QLabel()
        self._what.setWordWrap(True)
        self.table = QTableWidget(0, len(_HEADER))
        self._cases = QComboBox()
        self._create = QPushButton("Create project …")
        self._build()
        session.project_changed.connect(self.refresh)
        session.case_changed.connect(self.refresh)
        viewer.layers.events.inserted.connect(self._on_layers)
        viewer.layers.events.removed.connect(self._on_layers)
        self.refresh()

    def close_session(self) -> None:
        """Stop listening."""
        self._session.project_changed.disconnect(self.refresh)
        self._session.case_changed.disconnect(self.refresh)
        self._viewer.layers.events.inserted.disconnect(self._on_layers)
        self._viewer.layers.events.removed.disconnect(self._on_layers)

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self._what)
        line = QHBoxLayout()
        for text, tip, call in (
            ("Open slides …", "Choose the slides of one block of tissue.", self._on_open_slides),
            ("Sample sheet …", "A CSV with case,stain,path,mpp,reference.", self._on_sheet),
            ("Open project …", "A folder NAME.pancluster.", self._on_open_project),
        ):
            button = QPushButton(text)
            button.setToolTip(tip)
            button.clicked.connect(call)
            line.addWidget(button)
        layout.addLayout(line)
        case = QHBoxLayout()
        self._case_label = QLabel("Case")
        self._case_label.setBuddy(self._cases)
        self._cases.setToolTip("The animal or block whose slides are shown.")
        self._cases.setAccessibleName("Case")
        self._cases.activated.connect(lambda: self._session.show_case(self._cases.currentText()))
        case.addWidget(self._case_label)
        case.addWidget(self._cases, stretch=1)
        layout.addLayout(case)
        self.table.setHorizontalHeaderLabels(_HEADER)
        for column, tip in enumerate(_TIPS):
            self.table.horizontalHeaderItem(column).setToolTip(tip)
        self.table.setAccessibleName("Slides")
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(_ROW_PX)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        header = self.table.horizontalHeader()
        for column in (_STAIN, _MPP, _REFERENCE):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_FILE, QHeaderView.ResizeMode.Stretch)
        self.table.itemChanged.connect(self._on_item)
        layout.addWidget(self.table)
        self._create.setToolTip("Choose a folder for the results. The slides stay where they are.")
        self._create.clicked.connect(self._on_create)
        layout.addWidget(self._create)
        layout.addStretch()

    # What is shown

    def refresh(self) -> None:
        """Show the project's slides, or those that wait in the viewer."""
        project = self._session.project
        drafts = self._drafts()
        self.table.blockSignals(True)
        if project is not None:
            self._what.setText(f"<b>{project.root.stem}</b><br>{project.root.parent}")
            self._cases.clear()
            self._cases.addItems([c.name for c in project.state.cases])
            self._cases.setCurrentText(self._session.case)
            self._fill_case(project.case(self._session.case))
        else:
            self._what.setText(
                "Check names, pixel sizes and reference, then create the project."
                if drafts
                else "Drop the slides of one block of tissue on the window, or open them here."
            )
            self._fill_drafts(drafts)
        self.table.blockSignals(False)
        several = project is not None and len(project.state.cases) > 1
        self._cases.setVisible(several)
        self._case_label.setVisible(several)
        self._create.setVisible(bool(drafts) and project is None)
        self.table.setVisible(self.table.rowCount() > 0)
        rows = max(2, self.table.rowCount())
        self.table.setFixedHeight(
            self.table.horizontalHeader().sizeHint().height() + 6 + rows * _ROW_PX
        )

    def _fill_case(self, case: CaseRecord) -> None:
        self.table.setRowCount(len(case.stains))
        for row, stain in enumerate(case.stains):
            size = "–" if stain.mpp is None else f"{stain.mpp:g} ({_SOURCES[stain.mpp_source]})"
            mark = "●" if stain.name == case.reference else ""
            for column, text in enumerate((stain.name, size, mark, Path(stain.path).name)):
                item = QTableWidgetItem(text)
                item.setFlags(Qt.ItemFlag.ItemIsEnabled)
                item.setToolTip(stain.path if column == _FILE else "")
                self.table.setItem(row, column, item)

    def _fill_drafts(self, drafts: list[_Draft]) -> None:
        kept = {
            self.table.item(r, _FILE).toolTip(): [self.table.item(r, c) for c in range(_FILE)]
            for r in range(self.table.rowCount())
            if self.table.item(r, _REFERENCE).flags() & Qt.ItemFlag.ItemIsUserCheckable
        }
        lines = []
        for n, draft in enumerate(drafts):
            size = "" if draft.mpp is None else f"{draft.mpp:g}"
            old = kept.get(str(draft.path))
            texts = [i.text() for i in old[:_REFERENCE]] if old else [draft.stain, size]
            ticked = old[_REFERENCE].checkState() if old else None
            lines.append((draft, texts, ticked if ticked is not None else _tick(on=n == 0)))
        self.table.setRowCount(len(drafts))
        for row, (draft, texts, ticked) in enumerate(lines):
            for column, text in enumerate((*texts, "", draft.path.name)):
                item = QTableWidgetItem(text)
                editable = column in (_STAIN, _MPP)
                item.setFlags(
                    Qt.ItemFlag.ItemIsEnabled
                    | (Qt.ItemFlag.ItemIsEditable if editable else Qt.ItemFlag.NoItemFlags)
                )
                self.table.setItem(row, column, item)
            self.table.item(row, _FILE).setToolTip(str(draft.path))
            reference = self.table.item(row, _REFERENCE)
            reference.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
            reference.setCheckState(ticked)

    def _drafts(self) -> list[_Draft]:
        found: dict[str, _Draft] = {}
        for layer in self._viewer.layers:
            facts = layer.metadata
            if (
                facts.get("pancluster") == _layers.SLIDE
                and "path" in facts
                and not facts.get("case")
            ):
                found[facts["path"]] = _Draft(
                    stain=facts.get("stain") or layer.name,
                    path=Path(facts["path"]),
                    mpp=facts["mpp"],
                    nominal=bool(facts.get("nominal")),
                    case=facts.get("sample") or "case",
                )
        return list(found.values())

    # What the user does

    def _on_layers(self, event: Any = None) -> None:
        if self._session.project is None:
            self.refresh()

    def _on_item(self, item: QTableWidgetItem) -> None:
        """Keep exactly one reference ticked."""
        if item.column() != _REFERENCE:
            return
        self.table.blockSignals(True)
        for row in range(self.table.rowCount()):
            self.table.item(row, _REFERENCE).setCheckState(_tick(on=row == item.row()))
        self.table.blockSignals(False)

    def _on_open_slides(self) -> None:
        files, _ = QFileDialog.getOpenFileNames(self, "Slides of one block of tissue", "", _SLIDES)
        if files:
            self._session.show_project(None)
            self.open_slides(files)

    def open_slides(self, files: list[str]) -> None:
        """Open slides in the viewer as a case to be."""
        try:
            self._viewer.open(files, plugin="napari-pancluster")
        except PanclusterError as error:
            self.complained.emit(str(error))

    def _on_open_project(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "A folder NAME.pancluster")
        if folder:
            self._work.open_project(Path(folder))

    def _on_sheet(self) -> None:
        sheet, _ = QFileDialog.getOpenFileName(self, "Sample sheet", "", "Tables (*.csv)")
        if not sheet:
            return
        try:
            entries = entries_of_sheet(Path(sheet))
        except PanclusterError as error:
            self.complained.emit(str(error))
            return
        self._ask_and_create(Path(sheet).stem, entries, nominal=False)

    def _on_create(self) -> None:
        drafts = self._drafts()
        name = drafts[0].case if drafts[0].case != "case" else drafts[0].path.parent.name
        self._ask_and_create(name, self.entries(), nominal=all(d.nominal for d in drafts))

    def entries(self) -> list[SlideEntry]:
        """Return the slides as the table has them."""
        entries = []
        for row, draft in enumerate(self._drafts()):
            shown = "" if draft.mpp is None else f"{draft.mpp:g}"
            size = self.table.item(row, _MPP).text().strip()
            # The file's own value is left to the file, all digits of it.
            mpp = "" if size == shown and not draft.nominal else size
            entries.append(
                SlideEntry(
                    draft.case,
                    self.table.item(row, _STAIN).text().strip(),
                    draft.path,
                    mpp,
                    self.table.item(row, _REFERENCE).checkState() == Qt.CheckState.Checked,
                )
            )
        return entries

    def _ask_and_create(self, name: str, entries: list[SlideEntry], *, nominal: bool) -> None:
        start = str(Path.home() / f"{name}.pancluster")
        path, _ = QFileDialog.getSaveFileName(self, "Folder of the new project", start)
        if path:
            self.create(project_path(Path(path)), entries, nominal=nominal)

    def create(self, path: Path, entries: list[SlideEntry], *, nominal: bool) -> None:
        """Make the project and open it in the place of the loose slides."""
        self._work.create(path, entries, nominal=nominal)


def _tick(*, on: bool) -> Any:
    return Qt.CheckState.Checked if on else Qt.CheckState.Unchecked
