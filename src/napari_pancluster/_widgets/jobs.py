"""Slow work beside the window: one job at a time, with progress, Cancel and errors in words."""

from __future__ import annotations

import errno
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from napari.qt.threading import create_worker
from qtpy.QtCore import QCoreApplication, QObject, Signal

from napari_pancluster.core import heap
from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.progress import Task

_log = logging.getLogger(__name__)
_INTERVAL_S = 0.1
_MEMORY = (
    "There is not enough memory. Close other programs, use a smaller batch (Train, more settings), "
    "or choose the CPU as device."
)


@dataclass
class Job:
    """A piece of slow work.

    Attributes
    ----------
    title
        For the user.
    make_task
        Called in the worker; makes the task from frozen inputs.
    done
        Called in the window's thread with the result.
    quiet
        Housekeeping: nobody is asked before it is stopped.
    gives_way
        Can wait: it is stopped when another job is asked for, and starts anew after that.
    paused
        The task holds while this is set; None where it cannot.
    """

    title: str
    make_task: Callable[[], Task[Any]]
    done: Callable[[Any], object]
    quiet: bool = False
    gives_way: bool = False
    paused: threading.Event | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass(frozen=True)
class _Outcome:
    """How a job ended. A value, because napari loses errors that a worker raises."""

    result: Any = None
    error: str = ""
    cancelled: bool = False


class Jobs(QObject):
    """Runs jobs in a napari worker, one after the other."""

    changed = Signal()
    progressed = Signal(object)
    failed = Signal(str)
    cancelled = Signal(str)
    succeeded = Signal(str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._current: Job | None = None
        self._waiting: deque[Job] = deque()
        self._later: deque[Job] = deque()
        self._displaced: Job | None = None

    @property
    def current(self) -> Job | None:
        """The job that is running."""
        return self._current

    @property
    def busy(self) -> bool:
        """Whether something runs that the user asked for."""
        return self._current is not None and not self._current.quiet

    def start(self, job: Job) -> None:
        """Run a job now, or after those that were asked for before."""
        if job.gives_way:
            # A newer one of its title is taken instead of it.
            self._later = deque(j for j in self._later if j.title != job.title)
            self._later.append(job)
        else:
            self._waiting.append(job)
        self._displace(job)
        self._next()

    def _displace(self, by: Job) -> None:
        """Stop a running job that can wait; queue it anew unless a newer one takes its place."""
        job = self._current
        if job is None or not job.gives_way or job.cancelled.is_set():
            return
        if by.gives_way and by.title != job.title:
            return
        if not by.gives_way:
            self._later.appendleft(replace(job, cancelled=threading.Event()))
        self._displaced = job
        self.cancel()

    def cancel(self) -> None:
        """Ask the running job to stop at its next step; the project stays as it was."""
        if self._current is not None:
            self._current.cancelled.set()
            self.changed.emit()

    def pause(self) -> None:
        """Let the running job hold, or go on."""
        if self._current is None or self._current.paused is None:
            return
        paused = self._current.paused
        paused.clear() if paused.is_set() else paused.set()
        self.changed.emit()

    def stop(self, patience_s: float = 30.0) -> bool:
        """Stop everything and wait for it; return whether it stopped in time."""
        self._waiting.clear()
        self._later.clear()
        deadline = time.monotonic() + patience_s
        while self._current is not None and time.monotonic() < deadline:
            self._current.cancelled.set()
            QCoreApplication.processEvents()
            time.sleep(0.01)
        # napari learns a moment later that its worker is done, and would ask about it.
        for _ in range(5):
            QCoreApplication.processEvents()
            time.sleep(0.01)
        return self._current is None

    def _next(self) -> None:
        if self._current is not None:
            return
        if self._waiting:
            job = self._waiting.popleft()
        elif self._later:
            job = self._later.popleft()
        else:
            return
        self._current = job
        worker = create_worker(_drive, job)
        worker.yielded.connect(self.progressed)
        worker.returned.connect(self._end)
        self.changed.emit()
        worker.start()

    def _end(self, outcome: _Outcome) -> None:
        job, self._current = self._current, None
        assert job is not None
        self.changed.emit()
        if outcome.error:
            self.failed.emit(outcome.error)
        elif outcome.cancelled:
            if job is not self._displaced:
                self.cancelled.emit(job.title)
        else:
            self._deliver(job, outcome.result)
        self._next()

    def _deliver(self, job: Job, result: Any) -> None:
        if not job.quiet:
            self.succeeded.emit(job.title)
        try:
            job.done(result)
        except PanclusterError as error:
            self.failed.emit(str(error))


def _drive(job: Job) -> Task[_Outcome]:
    """Drive a job's task in the worker; every error becomes part of the outcome."""
    stage, shown, told = "", 0.0, None
    task: Task[Any] | None = None
    try:
        task = job.make_task()
        while not job.cancelled.is_set():
            try:
                progress = next(task)
            except StopIteration as stop:
                return _Outcome(result=stop.value)
            # A task in another process says again where it stands while nothing new comes.
            if progress == told:
                continue
            now = time.monotonic()
            if progress.stage != stage or now - shown >= _INTERVAL_S:
                stage, shown, told = progress.stage, now, progress
                yield progress
        return _Outcome(cancelled=True)
    # The border between the science and the window: whatever is raised must reach the user.
    except Exception as error:
        return _Outcome(error=sentence(error))
    finally:
        if task is not None:
            task.close()
        del task
        heap.trim()


def sentence(error: Exception) -> str:
    """Return what went wrong and what helps, for a person."""
    if isinstance(error, PanclusterError):
        return str(error)
    _log.error("A job failed", exc_info=error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return _MEMORY
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "The disk is full. Free some space and try again; the project is as it was."
    if isinstance(error, OSError):
        what = error.filename or "A file"
        return f"{what}: {error.strerror or error}. Check the path, its permissions and the disk."
    return (
        f"Something unforeseen happened ({type(error).__name__}: {error}). The project is as it "
        "was; the terminal has the details, please report them."
    )
