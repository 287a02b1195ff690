"""Small reads beside the window; only the newest request counts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from qtpy.QtCore import QObject, Signal

from napari_pancluster._widgets.jobs import sentence

_Request = tuple[Callable[[], Any], Callable[[Any], object]]


class Loader(QObject):
    """Runs one request at a time in a thread; of those that wait, the newest replaces the rest."""

    failed = Signal(str)
    _arrived = Signal(object, object, str)

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="pancluster-read")
        self._busy = False
        self._closed = False
        self._next: _Request | None = None
        self._arrived.connect(self._deliver)

    @property
    def busy(self) -> bool:
        """Whether a request is being worked on."""
        return self._busy

    def ask(self, read: Callable[[], Any], deliver: Callable[[Any], object]) -> None:
        """Call `read` in the thread, then `deliver` with its result in the window's thread."""
        if self._closed:
            return
        if self._busy:
            self._next = (read, deliver)
        else:
            self._busy = True
            self._pool.submit(self._work, read, deliver)

    def forget(self) -> None:
        """Drop what waits."""
        self._next = None

    def close(self) -> None:
        """Stop; what is being read is dropped, and nothing more is asked or delivered."""
        self._closed = True
        self._next = None
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _work(self, read: Callable[[], Any], deliver: Callable[[Any], object]) -> None:
        try:
            result, error = read(), ""
        # The same border as a job's: whatever is raised must reach the user.
        except Exception as problem:
            result, error = None, sentence(problem)
        self._arrived.emit(deliver, result, error)

    def _deliver(self, deliver: Callable[[Any], object], result: Any, error: str) -> None:
        self._busy = False
        # A result that was on its way when the window closed: who asked may be gone.
        if self._closed:
            return
        if error:
            self.failed.emit(error)
        elif self._next is None:
            deliver(result)
        if self._next is not None:
            request, self._next = self._next, None
            self.ask(*request)
