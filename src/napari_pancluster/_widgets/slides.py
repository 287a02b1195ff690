"""The panel Slides: which slides make a case, and which project is open."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from napari.viewer import Viewer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QPushButton,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_pancluster import _layers
from napari_pancluster._session import Session
from napari_pancluster._widgets.calibration import CalibrationBar
from napari_pancluster._widgets.dyes import DyesBox
from napari_pancluster._widgets.loader import Loader
from napari_pancluster._widgets.own_layers import remove_layers, tagged
from napari_pancluster._widgets.rows import button_row
from napari_pancluster._widgets.slide_table import MPP, SlideLine, SlideTable
from napari_pancluster._widgets.tissue_box import TissueBox
from napari_pancluster._widgets.work import Work
from napari_pancluster.core.cases import SlideEntry, entries_of_sheet
from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.looking import SlideLook, look_at, propose_names
from napari_pancluster.core.project import project_path
from napari_pancluster.core.records import CaseRecord
from napari_pancluster.core.relocating import missing_slides

_SOURCES = {
    "file": "from the file",
    "user": "entered",
    "nominal": "nominal",
    "unknown": "estimated",
    "uncalibrated": "1 px = 1 unit",
}
_SLIDES = (
    "Slides (*.svs *.ndpi *.mrxs *.scn *.bif *.vms *.vmu *.svslide *.tif *.tiff *.btf *.dcm *.zip "
    "*.ozx *.png *.jpg *.jpeg *.bmp *.webp);;All files (*)"
)
Looks = dict[Path, SlideLook | str]


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
        self.lines: list[SlideLine] = []
        self._looks: Looks = {}
        self.loader = Loader(self)
        self._what = QLabel()
        self._what.setWordWrap(True)
        self.table = SlideTable()
        self._tools = QWidget()
        self.calibration = CalibrationBar(viewer)
        self.tissue = TissueBox(viewer, session, work)
        self.dyes = DyesBox(viewer, session)
        self._more = QVBoxLayout()
        self._cases = QComboBox()
        self._profiles = QCheckBox("Apply colour profiles")
        self._find = QPushButton("Find moved slides …")
        self._create = QPushButton("Create project …")
        self._build()
        self._connect()
        self.refresh()

    def close_session(self) -> None:
        """Stop listening."""
        self.loader.close()
        self.tissue.close_session()
        self.dyes.close_session()
        self._session.project_changed.disconnect(self.refresh)
        self._session.case_changed.disconnect(self.refresh)
        self._viewer.layers.events.inserted.disconnect(self._on_layers)
        self._viewer.layers.events.removed.disconnect(self._on_layers)

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self._what)
        layout.addLayout(
            button_row(
                ("Open slides …", "Choose slides, as many as you like.", self._on_open_slides),
                ("Sample sheet …", "A CSV with case,stain,path,mpp,reference.", self._on_sheet),
                ("Open project …", "A folder NAME.pancluster.", self._on_open_project),
            )
        )
        case = QHBoxLayout()
        self._case_label = QLabel("Case")
        self._case_label.setBuddy(self._cases)
        self._cases.setToolTip("The animal or block whose slides are shown.")
        self._cases.setAccessibleName("Case")
        case.addWidget(self._case_label)
        case.addWidget(self._cases, stretch=1)
        layout.addLayout(case)
        layout.addWidget(self.table)
        tools = QVBoxLayout(self._tools)
        tools.setContentsMargins(0, 0, 0, 0)
        tools.addLayout(
            button_row(
                ("Up", "Move the lit slide up: the order of the sections.", lambda: self._move(-1)),
                ("Down", "Move the lit slide down.", lambda: self._move(1)),
                ("Remove", "Take the lit slide out. Its file stays.", self._on_remove),
            )
        )
        tools.addWidget(self.calibration)
        self._profiles.setToolTip("Convert colours as the ICC profiles in the files say.")
        tools.addWidget(self._profiles)
        layout.addWidget(self._tools)
        self._find.setToolTip("Choose the folder the slides were moved to; they are recognised.")
        layout.addWidget(self._find)
        self._create.setToolTip("Choose a folder for the results. The slides stay where they are.")
        layout.addWidget(self._create)
        for title, tip, box in (
            ("Tissue", "What counts as tissue: find it, paint it, keep it.", self.tissue),
            ("Dyes", "Take a stain apart into its dyes.", self.dyes),
        ):
            more = QCollapsible(title)
            more.toggleButton().setToolTip(tip)
            more.addWidget(box)
            self._more.addWidget(more)
        layout.addLayout(self._more)
        layout.addStretch()

    def _connect(self) -> None:
        self._cases.activated.connect(lambda: self._session.show_case(self._cases.currentText()))
        self.table.filled.connect(self._on_filled)
        self.table.reference_chosen.connect(self._on_reference)
        self.calibration.measured.connect(self._on_measured)
        for part in (self.calibration, self.tissue, self.dyes):
            part.complained.connect(self.complained)
        self.loader.failed.connect(self.complained)
        self._find.clicked.connect(self._on_find)
        self._create.clicked.connect(self._on_create)
        self._session.project_changed.connect(self.refresh)
        self._session.case_changed.connect(self.refresh)
        self._viewer.layers.events.inserted.connect(self._on_layers)
        self._viewer.layers.events.removed.connect(self._on_layers)

    # What is shown

    def refresh(self) -> None:
        """Show the project's slides, or those that wait in the viewer."""
        project = self._session.project
        several = project is not None and len(project.state.cases) > 1
        if project is not None:
            self.lines = self._of_case(project.case(self._session.case))
            self._what.setText(f"<b>{project.root.stem}</b><br>{project.root.parent}")
            self._cases.clear()
            self._cases.addItems([c.name for c in project.state.cases])
            self._cases.setCurrentText(self._session.case)
        else:
            self.lines = self._proposed(self._of_layers())
            self._what.setText(
                "Check names, pixel sizes and reference, then create the project."
                if self.lines
                else "Drop the slides of one block of tissue on the window, or open them here."
            )
        self._cases.setVisible(several)
        self._case_label.setVisible(several)
        for n in range(self._more.count()):
            self._more.itemAt(n).widget().setVisible(project is not None)
        self._find.setVisible(project is not None and bool(missing_slides(project)))
        self._show_lines()
        self._read_looks()

    def _show_lines(self) -> None:
        drafts = self._session.project is None and bool(self.lines)
        self.table.show_lines(self.lines, editable=drafts)
        self.table.setVisible(bool(self.lines))
        self._tools.setVisible(drafts)
        self._create.setVisible(drafts)
        looks = [line.look for line in self.lines]
        self._profiles.setVisible(drafts and any(look and look.profile for look in looks))

    def _of_case(self, case: CaseRecord) -> list[SlideLine]:
        found = []
        for stain in case.stains:
            size = "–" if stain.mpp is None else f"{stain.mpp:g} ({_SOURCES[stain.mpp_source]})"
            path = Path(stain.path)
            found.append(
                SlideLine(
                    path,
                    stain.name,
                    case.name,
                    size,
                    stain.name == case.reference,
                    look=self._look(path),
                    note="" if path.exists() else "not found",
                )
            )
        return found

    def _of_layers(self) -> list[SlideLine]:
        """Return the loose slides, in the user's order and with what the user typed."""
        before = {line.path: line for line in self.lines}
        found: dict[Path, SlideLine] = {}
        for layer in tagged(self._viewer, _layers.SLIDE):
            facts = layer.metadata
            if "path" in facts and not facts.get("case"):
                path = Path(facts["path"])
                found[path] = before.get(path) or _line_of_layer(layer.name, facts)
        order = {path: n for n, path in enumerate(before)}
        lines = sorted(found.values(), key=lambda line: order.get(line.path, len(order)))
        return [replace(line, look=self._look(line.path)) for line in lines]

    def _look(self, path: Path) -> SlideLook | None:
        look = self._looks.get(path)
        return look if isinstance(look, SlideLook) else None

    def _proposed(self, lines: list[SlideLine]) -> list[SlideLine]:
        """Return lines with names from files and colours where nobody gave any."""
        looks = [line.look for line in lines if line.look is not None]
        if looks and len(looks) == len(lines):
            case, stains = propose_names(looks)
            named = zip(lines, stains, strict=True)
            lines = [line.proposed(case=case, stain=stain) for line, stain in named]
        return _with_references(lines)

    # Looks are read beside the window

    def _read_looks(self) -> None:
        paths = [line.path for line in self.lines if line.path not in self._looks]
        if paths:
            self.loader.ask(lambda: _looks_at(paths), self._on_looks)

    def _on_looks(self, looks: Looks) -> None:
        self._looks.update(looks)
        self.refresh()

    # What the user does

    def _on_layers(self, event: Any = None) -> None:
        if self._session.project is None:
            self.refresh()

    def _on_filled(self, row: int, column: int, text: str) -> None:
        self.lines[row] = self.lines[row].filled(column, text)
        self.lines = _with_references(self.lines)
        self._show_lines()

    def _on_reference(self, row: int) -> None:
        case = self.lines[row].case
        others = {n for n, line in enumerate(self.lines) if line.case == case} - {row}
        self.lines = [
            replace(line, given=line.given - {"reference"} if n in others else line.given)
            for n, line in enumerate(self.lines)
        ]
        self.lines[row] = replace(self.lines[row], given=self.lines[row].given | {"reference"})
        self.lines = _with_references(self.lines)
        self._show_lines()

    def _move(self, step: int) -> None:
        row = self.table.row
        if row is not None and 0 <= row + step < len(self.lines):
            lines = self.lines
            lines[row], lines[row + step] = lines[row + step], lines[row]
            self._show_lines()
            self.table.selectRow(row + step)

    def _on_remove(self) -> None:
        row = self.table.row
        if row is None:
            self.complained.emit("Click the slide to remove in the table first.")
            return
        path = str(self.lines[row].path)
        layers = [x for x in self._viewer.layers if x.metadata.get("path") == path]
        remove_layers(self._viewer, layers)

    def _on_measured(self, mpp: str) -> None:
        """Take a pixel size for the lit slide, or for all where none is lit."""
        row = self.table.row
        rows = range(len(self.lines)) if row is None else [row]
        for n in rows:
            self.lines[n] = self.lines[n].filled(MPP, mpp)
        self._show_lines()

    def _on_find(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder the slides were moved to")
        if folder:
            self._work.relocate(Path(folder))

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
        self._ask_and_create(self.lines[0].case, self.entries(), nominal=self.nominal)

    @property
    def nominal(self) -> bool:
        """Whether the pixel sizes are those of a packaged sample."""
        loose = [x.metadata for x in self._viewer.layers if "path" in x.metadata]
        return bool(loose) and all(m.get("nominal") for m in loose)

    def entries(self) -> list[SlideEntry]:
        """Return the slides as the table has them."""
        nominal = self.nominal
        return [
            SlideEntry(
                line.case,
                line.stain,
                line.path,
                # The file's own value is left to the file, all digits of it.
                line.mpp if nominal or "mpp" in line.given else "",
                line.reference,
                line.channels,
                self._profiles.isVisibleTo(self) and self._profiles.isChecked(),
            )
            for line in self.lines
        ]

    def _ask_and_create(self, name: str, entries: list[SlideEntry], *, nominal: bool) -> None:
        start = str(Path.home() / f"{name}.pancluster")
        path, _ = QFileDialog.getSaveFileName(self, "Folder of the new project", start)
        if path:
            self.create(project_path(Path(path)), entries, nominal=nominal)

    def create(self, path: Path, entries: list[SlideEntry], *, nominal: bool) -> None:
        """Make the project and open it in the place of the loose slides."""
        self._work.create(path, entries, nominal=nominal)


def _line_of_layer(name: str, facts: dict[str, Any]) -> SlideLine:
    """Return the line of a slide that was just opened; a sample knows its names."""
    named = {"stain": facts["stain"], "case": facts["sample"]} if facts.get("sample") else {}
    return SlideLine(
        Path(facts["path"]),
        **{"stain": name, **named},
        mpp="" if facts["mpp"] is None else f"{facts['mpp']:g}",
        given=frozenset(named),
    )


def _with_references(lines: Sequence[SlideLine]) -> list[SlideLine]:
    """Return the lines with one reference a case: the ticked one, else H&E, else the first."""
    cases: dict[str, list[SlideLine]] = {}
    for line in lines:
        cases.setdefault(line.case, []).append(line)
    chosen = {}
    for case, group in cases.items():
        ticked = [line for line in group if "reference" in line.given]
        he = [line for line in group if line.stain.upper().replace("&", "") == "HE"]
        chosen[case] = (ticked or he or group)[0].path
    return [replace(line, reference=chosen[line.case] == line.path) for line in lines]


def _looks_at(paths: Sequence[Path]) -> Looks:
    """Look at slides; of one that cannot be read, keep what is wrong with it."""
    found: Looks = {}
    for path in paths:
        try:
            found[path] = look_at(path)
        except PanclusterError as error:
            found[path] = str(error)
    return found
