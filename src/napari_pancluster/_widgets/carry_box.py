"""Carrying between stains: points, annotations and labels; and what other programs can use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from napari.viewer import Viewer
from qtpy.QtCore import Qt, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QCheckBox,
    QComboBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QVBoxLayout,
    QWidget,
)

from napari_pancluster._session import Session
from napari_pancluster._widgets.rows import labelled_rows, push_button
from napari_pancluster._widgets.work import Work

_ANY = "Points, annotations, labels (*.csv *.geojson *.json *.tif *.tiff)"
# By the ending of the file: how a file of the same kind may end, the best way first.
_ENDINGS = {
    ".csv": (".csv",),
    ".geojson": (".geojson", ".json"),
    ".json": (".geojson", ".json"),
    ".tif": (".ome.tif", ".tif", ".tiff"),
    ".tiff": (".ome.tif", ".tif", ".tiff"),
}
_WHAT = {".csv": "point", ".geojson": "object", ".json": "object"}
_FORMATS: dict[str, Literal["ome-tiff", "ome-zarr"]] = {
    "OME-TIFF": "ome-tiff",
    "OME-Zarr": "ome-zarr",
}
_MOST_NAMED = 8


class CarryBox(QWidget):
    """Carries files between the stains of the case that is shown, and writes registrations.

    Parameters
    ----------
    viewer, session, work
        Where it belongs to, what is looked at, and who does the work.
    """

    complained = Signal(str)

    def __init__(self, viewer: Viewer, session: Session, work: Work) -> None:
        super().__init__()
        self._viewer, self._session, self._work = viewer, session, work
        self.from_, self.to = QComboBox(), QComboBox()
        self.file = QLineEdit()
        self.format = QComboBox()
        self.all_cases = QCheckBox("of all cases")
        self._told = QLabel()
        self._folder = Path()
        self._build()
        session.stack_changed.connect(self.refresh)
        session.case_changed.connect(self._on_case)
        session.project_changed.connect(self.refresh)
        self.refresh()

    def close_session(self) -> None:
        """Stop listening."""
        self._session.stack_changed.disconnect(self.refresh)
        self._session.case_changed.disconnect(self._on_case)
        self._session.project_changed.disconnect(self.refresh)

    # Building

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._add_carrying(layout)
        self._add_writing(layout)
        self._told.setWordWrap(True)
        self._told.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._told.setAccessibleName("What was written")
        self._told.hide()
        layout.addWidget(self._told)
        self._show = push_button("Show the folder", "Open the folder of these files.", self._open)
        self._show.hide()
        layout.addWidget(self._show)

    def _add_carrying(self, layout: QVBoxLayout) -> None:
        self.file.setPlaceholderText("CSV, GeoJSON or TIFF …")
        choose = push_button("Choose …", "Choose the file to carry over.", self._on_choose)
        line = QWidget()
        row = QHBoxLayout(line)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.file, stretch=1)
        row.addWidget(choose)
        tip = (
            "Points (CSV with columns x and y in pixels of the slide's largest level), annotations "
            "(GeoJSON from QuPath), or a label image (TIFF with a pixel size)."
        )
        self.file.setAccessibleName("File")
        self.file.setToolTip(tip)
        layout.addLayout(
            labelled_rows(
                (
                    ("From stain", self.from_, "The stain on whose own slide the file was made."),
                    ("To stain", self.to, "The stain on whose own slide it is wanted."),
                    ("File", line, tip),
                )
            )
        )
        tip = "Write the file anew, in the place it has on the other stain's own slide."
        self._carry = push_button("Carry over …", tip, self._on_carry)
        layout.addWidget(self._carry)

    def _add_writing(self, layout: QVBoxLayout) -> None:
        tip = (
            "Write every registration as an ITK transform (.h5), with a JSON file that says what "
            "it means."
        )
        self._transforms = push_button("Write transforms …", tip, self._on_transforms)
        tip = "Write every registered slide as it lies on the reference; this may take minutes."
        self._slides = push_button("Write registered slides …", tip, self._on_slides)
        self.format.addItems(list(_FORMATS))
        self.format.setToolTip(
            "OME-TIFF opens in QuPath and Fiji; OME-Zarr is a folder, without any loss."
        )
        self.format.setAccessibleName("Format of the slides")
        self.all_cases.setToolTip("Write those of every case of the project, not of this one only.")
        layout.addWidget(self._transforms)
        row = QHBoxLayout()
        row.addWidget(self._slides, stretch=1)
        row.addWidget(self.format)
        layout.addLayout(row)
        layout.addWidget(self.all_cases)

    # What is looked at

    def refresh(self) -> None:
        """Show what can be carried where."""
        session, stack = self._session, self._session.stack
        # While another case is on its way, its slides are not known.
        known = stack is not None and stack.case == session.case
        names = list(stack.registered) if stack is not None and known else []
        chosen = self.from_.currentText(), self.to.currentText()
        for combo, before in zip((self.from_, self.to), chosen, strict=True):
            combo.clear()
            combo.addItems(names)
            combo.setCurrentText(before)
        if len(names) > 1 and self.from_.currentText() == self.to.currentText():
            self.to.setCurrentText(next(n for n in names if n != self.from_.currentText()))
        self.setEnabled(len(names) > 1 and session.project is not None)
        cases = session.project.state.cases if session.project is not None else ()
        self.all_cases.setVisible(len(cases) > 1)

    def _on_case(self) -> None:
        self._told.hide()
        self._show.hide()
        self.refresh()

    @property
    def _cases(self) -> tuple[str, ...]:
        """The cases to write; none means all."""
        every = self.all_cases.isChecked() and not self.all_cases.isHidden()
        return () if every else (self._session.case,)

    # What the user does

    def _on_choose(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "File to carry over", self.file.text(), _ANY)
        if path:
            self.file.setText(path)

    def _on_carry(self) -> None:
        source = self.source
        if source is None:
            return
        proposed = source.with_name(self._proposed_name(source))
        kinds = " ".join(f"*{ending}" for ending in _ENDINGS[source.suffix.lower()])
        path, _ = QFileDialog.getSaveFileName(
            self, f"File on {self.to.currentText()}", str(proposed), f"Files ({kinds})"
        )
        if path:
            self.carry(Path(path))

    def _on_transforms(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the transforms")
        if folder:
            self.write_transforms(Path(folder))

    def _on_slides(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the registered slides")
        if folder:
            self.write_slides(Path(folder))

    @property
    def source(self) -> Path | None:
        """The file to carry over; None after saying what is wrong with it."""
        text = self.file.text().strip()
        wrong = ""
        if not text:
            wrong = "Choose the file to carry over: points, annotations or a label image."
        elif self.from_.currentText() == self.to.currentText():
            wrong = f"From and to are both {self.to.currentText()}. Choose two stains."
        elif Path(text).suffix.lower() not in _ENDINGS:
            wrong = (
                f"{text} is none of the files that can be carried over. Choose a CSV file of "
                "points, GeoJSON annotations or a label image as TIFF."
            )
        elif not Path(text).is_file():
            wrong = f"There is no file {text}. Choose it again."
        if wrong:
            self.complained.emit(wrong)
            return None
        return Path(text)

    def carry(self, target: Path) -> None:
        """Carry the file over and write it."""
        source = self.source
        if source is None:
            return
        endings = _ENDINGS[source.suffix.lower()]
        if not target.name.lower().endswith(endings):
            self.complained.emit(
                f"{target.name} does not end in {' or '.join(endings)}, as what comes of "
                f"{source.name} has to. Choose another name."
            )
            return
        if target.exists() and target.samefile(source):
            self.complained.emit(f"{source.name} would be overwritten. Choose another file.")
            return
        from_, to = self.from_.currentText(), self.to.currentText()

        def done(found: Mapping[str, Any]) -> None:
            self._tell(_carried(found, source, from_, to), [target])

        self._work.transfer_file(source, target, from_=from_, to=to, done=done)

    def write_transforms(self, folder: Path) -> None:
        """Write the registrations into a folder."""

        def done(files: Sequence[str]) -> None:
            self._tell_written("transform", len(files) // 2, files)

        self._work.export_transforms(folder, done, cases=self._cases)

    def write_slides(self, folder: Path) -> None:
        """Write the registered slides into a folder."""

        def done(files: Sequence[str]) -> None:
            self._tell_written("registered slide", len(files), files)

        format_ = _FORMATS[self.format.currentText()]
        self._work.warp_slides(folder, format_, done, cases=self._cases)

    # What came of it

    def _proposed_name(self, source: Path) -> str:
        ending = source.suffix.lower()
        stem = source.stem.removesuffix(".ome") if ending in (".tif", ".tiff") else source.stem
        best = ending if ending == ".json" else _ENDINGS[ending][0]
        return f"{stem}_on_{self.to.currentText()}{best}"

    def _tell_written(self, what: str, count: int, files: Sequence[str]) -> None:
        if not files:
            self.complained.emit(f"There is no {what} to write: nothing is registered.")
            return
        self._tell(f"{count} {what}{'s' if count > 1 else ''} written", [Path(f) for f in files])

    def _tell(self, words: str, files: Sequence[Path]) -> None:
        self._folder = files[0].parent
        names = [file.name for file in files[:_MOST_NAMED]]
        more = len(files) - len(names)
        names += [f"and {more} more"] if more else []
        self._told.setText(f"{words}, in {self._folder}:\n" + "\n".join(names))
        self._told.show()
        self._show.show()

    def _open(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._folder)))


def _carried(found: Mapping[str, Any], source: Path, from_: str, to: str) -> str:
    """Return what was carried over, for people."""
    way = f"carried from {from_} to {to}"
    if "n" not in found:
        return f"Label image {way}, {found['cols']:,} × {found['rows']:,} px"
    what = _WHAT[source.suffix.lower()] + ("s" if found["n"] != 1 else "")
    outside = f" ({found['outside']:,} off its slide)" if found["outside"] else ""
    return f"{found['n']:,} {what} {way}{outside}"
