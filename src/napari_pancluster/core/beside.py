"""A blocking call of a library, made a `Task`: it runs beside, and can be given up."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Generic, Self, TypeVar

from napari_pancluster.core.progress import Progress, Task

R = TypeVar("R")
Beat = Callable[[int, int], None]
_LOOK_S = 0.1


class _GivenUp(BaseException):
    """Raised inside the thread when nobody waits for its result any more."""


class Beside(Generic[R]):
    """Runs a function in a thread of its own while `watch` reports.

    Left early, the thread is told to stop at its next beat and its result is dropped: Python
    cannot interrupt a library in the middle of a call, but nobody has to wait for it either.

    Parameters
    ----------
    function
        Called with a `Beat`: a function to call with ``done, total`` now and then.
    """

    def __init__(self, function: Callable[[Beat], R]) -> None:
        self._function = function
        self._given_up = threading.Event()
        self._at = (0, 0)
        self._result: list[R] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the thread up if it is not done."""
        self._given_up.set()

    def watch(self, stage: str) -> Task[R]:
        """Yield progress until the function is done; return its result or raise its error."""
        while self._thread.is_alive():
            yield Progress(stage, *self._at)
            self._thread.join(_LOOK_S)
        if self._error is not None:
            raise self._error
        return self._result[0]

    def _beat(self, done: int, total: int) -> None:
        if self._given_up.is_set():
            raise _GivenUp
        self._at = (done, total)

    def _work(self) -> None:
        try:
            self._beat(0, 0)
            self._result.append(self._function(self._beat))
        # Kept and raised again in the thread that waits; if nobody waits, nobody wants it.
        except BaseException as error:
            self._error = error
