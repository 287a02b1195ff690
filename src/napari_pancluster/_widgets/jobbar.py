"""The line at the foot of the window: what runs, how long it still takes, and what went wrong."""

from __future__ import annotations

import time

from qtpy.QtCore import Qt
from qtpy.QtWidgets import (
    QHBoxLayout,
    QLabel,
    QProgressBar,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_pancluster._widgets.jobs import Job, Jobs
from napari_pancluster.core.progress import Pace, Progress

_SECONDS_A_MINUTE = 60
# Several broken slides dropped at once are told one after the other.
_TOGETHER_S = 3.0
_GOOD, _BAD = "#4EB265", "#F08030"


class JobBar(QWidget):
    """Progress, time left, Cancel and messages.

    Parameters
    ----------
    jobs
        What it reports.
    """

    def __init__(self, jobs: Jobs) -> None:
        super().__init__()
        self._jobs = jobs
        self._pace = Pace()
        self._shown: Job | None = None
        self._complained = 0.0
        self._stage = QLabel()
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(10)
        self._left = QLabel()
        self._left.setAlignment(Qt.AlignmentFlag.AlignRight)
        self._cancel = QPushButton("Cancel")
        self._cancel.setToolTip("Stop; the project stays as it was before this step.")
        self._cancel.clicked.connect(jobs.cancel)
        self._pause = QPushButton("Pause")
        self._pause.setToolTip("Hold, and leave the processor to others; or go on.")
        self._pause.clicked.connect(jobs.pause)
        self._message = QLabel()
        self._message.setWordWrap(True)
        self._message.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._message.setAccessibleName("Message")
        self._message.hide()
        self._work = QWidget()
        line = QHBoxLayout()
        line.addWidget(self._stage, stretch=1)
        line.addWidget(self._pause)
        line.addWidget(self._cancel)
        work = QVBoxLayout(self._work)
        work.setContentsMargins(0, 0, 0, 0)
        work.addLayout(line)
        work.addWidget(self._bar)
        # A line of its own: beside the buttons, neither it nor the stage could be read.
        work.addWidget(self._left)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(6, 2, 6, 4)
        layout.addWidget(self._message)
        layout.addWidget(self._work)
        self._work.hide()
        jobs.changed.connect(self._on_changed)
        jobs.progressed.connect(self._on_progress)
        jobs.failed.connect(self.complain)
        jobs.cancelled.connect(self._on_cancelled)
        jobs.succeeded.connect(lambda title: self.say(f"{title}: done."))

    def say(self, text: str) -> None:
        """Show good news."""
        self._show(text, _GOOD)

    def complain(self, text: str) -> None:
        """Show what went wrong, and what helps; together with what was said a moment ago."""
        now = time.monotonic()
        if self.message and now - self._complained < _TOGETHER_S and text not in self.message:
            text = f"{self.message}\n{text}"
        self._complained = now
        self._show(text, _BAD)

    @property
    def message(self) -> str:
        """The message that is shown."""
        return self._message.text() if not self._message.isHidden() else ""

    def _show(self, text: str, colour: str) -> None:
        self._message.setText(text)
        self._message.setStyleSheet(f"border-left: 3px solid {colour}; padding: 3px 6px;")
        self._message.setVisible(bool(text))

    def _on_cancelled(self, title: str) -> None:
        self.say(f"{title} was cancelled. What was finished before is kept, nothing else changed.")

    def _on_changed(self) -> None:
        job = self._jobs.current
        self._work.setVisible(job is not None)
        if job is None:
            self._shown = None
            return
        stopping = job.cancelled.is_set()
        self._cancel.setEnabled(not stopping)
        self._pause.setVisible(job.paused is not None)
        self._pause.setEnabled(not stopping)
        paused = job.paused is not None and job.paused.is_set()
        self._pause.setText("Go on" if paused else "Pause")
        if job is self._shown and not stopping:
            return
        self._shown = job
        if stopping:
            self._stage.setText(f"{job.title}: stopping …")
        else:
            self._pace = Pace()
            self._stage.setText(f"{job.title} …")
            self._left.setText("")
            self._bar.setRange(0, 0)
            if not job.quiet:
                self._show("", _GOOD)

    def _on_progress(self, progress: Progress) -> None:
        job = self._jobs.current
        if job is None or job.cancelled.is_set():
            return
        self._pace.update(progress)
        self._stage.setText(progress.stage)
        self._bar.setRange(0, progress.total)
        self._bar.setValue(progress.done)
        self._left.setText(_in_words(self._pace, progress))


def _in_words(pace: Pace, progress: Progress) -> str:
    rate = progress.values.get("patches_per_s")
    parts = [f"{rate:,.0f} patches/s"] if rate else []
    if not rate and pace.rate and progress.total:
        parts.append(f"{pace.rate:,.3g}/s")
    if pace.seconds_left is not None:
        seconds = round(pace.seconds_left)
        minutes, rest = divmod(seconds, _SECONDS_A_MINUTE)
        parts.append(f"{minutes} min {rest:02d} s left" if minutes else f"{rest} s left")
    return " · ".join(parts)
