"""Landmarks: the same spots clicked on the reference and on another stain, judged as they come."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari.viewer import Viewer
from qtpy.QtCore import QEvent, Qt, QTimer, Signal
from qtpy.QtGui import QKeyEvent, QKeySequence
from qtpy.QtWidgets import QComboBox, QFileDialog, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_pancluster._session import Session
from napari_pancluster._widgets.landmark_frames import Frames
from napari_pancluster._widgets.landmark_layers import LandmarkLayers
from napari_pancluster._widgets.landmark_table import WORST, LandmarkTable
from napari_pancluster._widgets.rows import labelled_rows, push_button
from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.pipeline.marking import (
    Judgement,
    Marking,
    Marks,
    judge_landmarks,
    keep_landmarks,
    kept_landmarks,
)
from napari_pancluster.core.project import Project
from napari_pancluster.core.registration.landmark_checks import LEAST_FOR_SPLINE, Kind
from napari_pancluster.core.registration.landmarks import (
    LEAST,
    Landmarks,
    read_landmarks,
    write_landmarks,
)
from napari_pancluster.core.stack import SlideStack

# Key, words, what is fitted where one is left out, and how many pairs it takes.
_USES: tuple[tuple[str, str, Kind, int], ...] = (
    ("start", "as the start, then the pictures", "affine", LEAST),
    ("pull", "to pull the deformation too", "spline", LEAST_FOR_SPLINE),
    ("rigid", "alone (rigid)", "rigid", LEAST),
    ("affine", "alone (affine)", "affine", LEAST),
    ("spline", "alone (spline)", "spline", LEAST_FOR_SPLINE),
)
_SAVE_MS = 1500
_CSV = "Tables (*.csv)"


class LandmarksBox(QWidget):
    """Sets, judges and keeps the landmarks of the stains of the case that is shown.

    Parameters
    ----------
    viewer, session
        Where they are set, and what is looked at.
    """

    complained = Signal(str)
    # Stain, Landmarks, and one of the keys "start", "pull", "rigid", "affine" and "spline".
    wanted = Signal(str, object, str)

    def __init__(self, viewer: Viewer, session: Session) -> None:
        super().__init__()
        self._session = session
        self.layers = LandmarkLayers(viewer, session, self)
        self._project: Project | None = None
        self._markings: dict[tuple[str, str], Marking] = {}
        self._unsaved: set[tuple[str, str]] = set()
        self._key: tuple[str, str] | None = None
        self._frames: Frames | None = None
        self._judged: Judgement | None = None
        self._save_timer = QTimer(self)
        self._save_timer.setSingleShot(True)
        self._save_timer.setInterval(_SAVE_MS)
        self._build()
        self._connect()
        self._on_stack()

    def close_session(self) -> None:
        """Keep what is set, and let go of viewer and session; the layers stay."""
        self.layers.leave()
        self.save()
        self._session.stack_changed.disconnect(self._on_stack)
        self._session.project_changed.disconnect(self._follow_project)

    # Building

    def _build(self) -> None:
        self.stain, self.use = QComboBox(), QComboBox()
        for key, words, _, _ in _USES:
            self.use.addItem(words, key)
        self.step, self.line, self.doubts, self.reason = (QLabel() for _ in range(4))
        for label in (self.step, self.line, self.doubts, self.reason):
            label.setWordWrap(True)
        self.doubts.setStyleSheet(f"color: {WORST.name()}")
        self.set = push_button("Set landmarks", "Click the same spots on both slides in turns.")
        self.set.setCheckable(True)
        self.look = push_button("Show the other slide", "Look at the other slide.", self.turn)
        self.undo_button = push_button("Undo", "Take the last step back (Ctrl+Z).", self.undo)
        tip = "Delete the pairs that are chosen in the table or on the tissue (Del)."
        self.delete_button = push_button("Delete", tip, self.delete)
        tip = "Replace the pairs by those of a table in level-0 px."
        self.read_button = push_button("Read CSV …", tip, self._on_read)
        tip = "Write the pairs as a table in level-0 px."
        self.write_button = push_button("Write CSV …", tip, self._on_write)
        tip = "Register this stain again, with its landmarks."
        self.go = push_button("Register with landmarks", tip, self._on_go)
        self.table = LandmarkTable()
        self._lay_out()

    def _lay_out(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        tip = "The stain whose landmarks are set; the others keep theirs."
        layout.addLayout(labelled_rows((("Landmarks of", self.stain, tip),)))
        layout.addLayout(_row(self.set, self.look))
        layout.addWidget(self.step)
        buttons = (self.undo_button, self.delete_button, self.read_button, self.write_button)
        layout.addLayout(_row(*buttons))
        for widget in (self.line, self.doubts, self.table):
            layout.addWidget(widget)
        tip = "What the landmarks do when the stain is registered."
        layout.addLayout(labelled_rows((("Use them", self.use, tip),)))
        layout.addWidget(self.go)
        layout.addWidget(self.reason)

    def _connect(self) -> None:
        self.stain.activated.connect(lambda _: self._choose())
        self.use.activated.connect(lambda _: self._refresh())
        self.set.clicked.connect(lambda on: self.start() if on else self.finish())
        self.table.chosen.connect(self.layers.fly_to)
        self._save_timer.timeout.connect(self.save)
        layers = self.layers
        layers.edited.connect(self._do)
        layers.chosen.connect(self.table.selectRow)
        layers.looked.connect(self._say_step)
        layers.undone.connect(self.undo)
        layers.lost.connect(self.finish)
        layers.complained.connect(self.complained)
        self._session.stack_changed.connect(self._on_stack)
        self._session.project_changed.connect(self._follow_project)

    # What is looked at

    @property
    def landmarks(self) -> Landmarks:
        """The pairs of the stain that is chosen."""
        return self._marks.landmarks

    @property
    def _marks(self) -> Marks:
        return self._markings[self._key].now if self._key is not None else Marks()

    def _follow_project(self) -> None:
        project, before = self._session.project, self._project
        if project is before:
            return
        if project is None or before is None or project.root != before.root:
            self.finish()
            self._markings.clear()
            self._unsaved.clear()
            self._key = None
        self._project = project

    def _on_stack(self) -> None:
        self._follow_project()
        stack, chosen = self._session.stack, self.stain.currentText()
        names = [s.name for s in stack.moving] if stack is not None else []
        self.stain.clear()
        self.stain.addItems(names)
        if chosen in names:
            self.stain.setCurrentText(chosen)
        self.setEnabled(bool(names))
        self._choose()

    def _choose(self) -> None:
        """Take the stain that is chosen, or the same one after its registration changed."""
        stack, name = self._session.stack, self.stain.currentText()
        key = (stack.case, name) if stack is not None and name else None
        if key != self._key:
            self.finish()
        self._key, self._frames = key, None
        if stack is not None and key is not None:
            if key not in self._markings:
                self._markings[key] = Marking(self._kept(key))
            self._frames = Frames.of(stack, name, self._known_mpp(stack, name))
            self.layers.follow(self._frames)
        self._refresh()
        self.layers.show_next()

    def _kept(self, key: tuple[str, str]) -> Landmarks | None:
        if self._project is None:
            return None
        try:
            return kept_landmarks(self._project, *key)
        except PanclusterError as error:
            self.complained.emit(str(error))
            return None

    def _known_mpp(self, stack: SlideStack, stain: str) -> float | None:
        """Return the pixel size that the project, not a registration, gives a moving slide."""
        if self._project is not None:
            return self._project.case(stack.case).stain(stain).mpp
        return stack.stain(stain).slide.mpp

    # What the user does

    def start(self) -> None:
        """Show the landmarks on the tissue, and take clicks there."""
        if not self.layers.open and self._frames is not None and self._key is not None:
            self.layers.start(self._frames, self._key[0])
            self._refresh()
            self.layers.show_next()
        self._say()

    def finish(self) -> None:
        """Take the layers away and keep the landmarks."""
        self.layers.stop()
        self.save()
        self._say()

    def turn(self) -> None:
        """Look at the other slide."""
        self.layers.turn()

    def undo(self) -> None:
        """Take the last step back."""
        if self._key is None or not self._markings[self._key].can_undo:
            return
        self._markings[self._key].undo()
        self._changed()
        self.layers.show_next()

    def delete(self) -> None:
        """Delete the pairs that are chosen in the table or on the tissue."""
        rows = self.table.rows | self.layers.selected
        if not rows:
            self.complained.emit("Choose a pair in the table, or click its point, to delete it.")
            return
        self._do(self._marks.without(rows))

    def read(self, path: Path) -> None:
        """Replace the pairs by those of a table; a bad table changes nothing."""
        if self._frames is None:
            return
        try:
            found = read_landmarks(path, *self._frames.table_slides, least=1)
        except PanclusterError as error:
            self.complained.emit(str(error))
            return
        self._do(Marks(found.fixed, found.moving))

    def write(self, path: Path) -> None:
        """Write the pairs as a table."""
        if self._frames is None:
            return
        try:
            write_landmarks(path, self.landmarks, *self._frames.table_slides)
        except PanclusterError as error:
            self.complained.emit(str(error))

    def _on_read(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Landmarks", "", _CSV)
        if path:
            self.read(Path(path))

    def _on_write(self) -> None:
        name = "_".join((*(self._key or ()), "landmarks.csv"))
        path, _ = QFileDialog.getSaveFileName(self, "Landmarks", name, _CSV)
        if path:
            self.write(Path(path))

    def _on_go(self) -> None:
        if self._key is not None:
            self.save()
            self.wanted.emit(self._key[1], self.landmarks, self.use.currentData())

    def event(self, event: QEvent) -> bool:
        """Take Ctrl+Z and Del for the landmarks, before the window's shortcuts do."""
        if event.type() == QEvent.Type.ShortcutOverride and self._verb(event) is not None:
            event.accept()
            return True
        return bool(super().event(event))

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Do what Ctrl+Z and Del say."""
        verb = self._verb(event)
        if verb is None:
            super().keyPressEvent(event)
        else:
            verb()

    def _verb(self, event: Any) -> Callable[[], None] | None:
        if not self.layers.open:
            return None
        if event.matches(QKeySequence.StandardKey.Undo):
            return self.undo
        return self.delete if event.key() == Qt.Key.Key_Delete else None

    # Keeping

    def _do(self, marks: Marks) -> None:
        if self._key is None:
            return
        if marks is self._marks:
            # A click that meant nothing: the layers show a point too many.
            self._paint()
            return
        self._markings[self._key].do(marks)
        self._changed()

    def _changed(self) -> None:
        assert self._key is not None
        self._unsaved.add(self._key)
        self._save_timer.start()
        self._refresh()

    def save(self) -> None:
        """Keep in the project what is not kept yet."""
        self._save_timer.stop()
        if self._project is None:
            return
        try:
            for key in sorted(self._unsaved):
                keep_landmarks(self._project, *key, self._markings[key].now.landmarks)
                self._unsaved.discard(key)
        except PanclusterError as error:
            self.complained.emit(str(error))

    # Showing

    @property
    def _unit_name(self) -> str:
        frames, stack = self._frames, self._session.stack
        if frames is None or stack is None or self._session.unit != "um":
            return "px"
        return "px" if stack.stain(frames.moving).slide.mpp is None else "µm"

    def _refresh(self) -> None:
        """Judge the pairs, and show them on the tissue, in the table and in words."""
        frames, self._judged = self._frames, None
        if frames is not None:
            self._judged = judge_landmarks(
                frames.in_um(self.landmarks),
                frames.transform,
                kind=_USES[self.use.currentIndex()][2],
                extent=frames.slide("fixed").extent,
                scale_known=frames.known_mpp is not None,
            )
        self._paint()
        self.table.show_pairs(self._judged, self._unit_name)
        self._say()

    def _paint(self) -> None:
        self.layers.paint(self._marks, self._judged.worst if self._judged else None)

    def _say(self) -> None:
        judged, key = self._judged, self._key
        self.line.setText(judged.words(self._unit_name) if judged else "")
        self.doubts.setText("\n".join(judged.warnings) if judged and judged.count else "")
        self.doubts.setVisible(bool(self.doubts.text()))
        _, _, _, least = _USES[self.use.currentIndex()]
        count = judged.count if judged else 0
        self.go.setEnabled(count >= least)
        self.reason.setText(
            "" if count >= least else f"This takes {least} pairs; there are {count}."
        )
        self.reason.setVisible(count < least)
        self.undo_button.setEnabled(key is not None and self._markings[key].can_undo)
        self.delete_button.setEnabled(self.layers.open or count > 0)
        self.write_button.setEnabled(count > 0)
        self.set.setChecked(self.layers.open)
        self.set.setText("Done" if self.layers.open else "Set landmarks")
        self.look.setEnabled(self.layers.open)
        self._say_step()

    def _say_step(self) -> None:
        """Say what the next click does."""
        self.step.setVisible(self.layers.open)
        self.step.setText(self.layers.next_step)
        if self.layers.open:
            self.look.setText(f"Show {self.layers.turn_to}")


def _row(*widgets: QWidget) -> QHBoxLayout:
    row = QHBoxLayout()
    for widget in widgets:
        row.addWidget(widget)
    return row
