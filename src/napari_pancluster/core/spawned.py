"""A task in a process of its own: what it takes is given back, and it can be stopped at once.

A thread of the window's process keeps GPU memory until napari ends, and cannot be stopped inside a
call of a library. Orders and reports are JSON lines over pipes: nothing is pickled, and the child
never imports the program it was started from.
"""

from __future__ import annotations

import builtins
import contextlib
import json
import logging
import queue
import subprocess
import sys
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, TextIO, TypeVar

from napari_pancluster.core import errors
from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.progress import Progress, Task

R = TypeVar("R")
Warn = Callable[[str], object]
_log = logging.getLogger(__name__)
_CHILD = "napari_pancluster.core.child"
_LOOK_S = 0.1
# To stop by itself, and leave nothing behind; a window says "within a second".
_PATIENCE_S = 0.7
_LAST_LINES = 40
_NO_CONSOLE = getattr(subprocess, "CREATE_NO_WINDOW", 0)


def spawned(
    function: Callable[..., Task[R]],
    *args: Any,
    paused: threading.Event | None = None,
    warn: Warn = warnings.warn,
    remedy: str = "Try again.",
    **kwargs: Any,
) -> Task[R]:
    """Drive a task in a child process.

    Closed early, the child is asked to stop, which closes its task, and is killed if it does not
    in time.

    Parameters
    ----------
    function
        Makes the task; at the top of a module that the child can import.
    args, kwargs
        For `function`. They, and the result, are what JSON can hold: tuples come as lists.
    paused
        The child holds after its present step while this is set.
    warn
        Told the child's warnings.
    remedy
        A sentence: what helps when the child crashed.

    Raises
    ------
    PanclusterError
        If the child crashed. What its task raises is raised here.
    """
    # In a frozen application the child would be the application itself.
    if getattr(sys, "frozen", False):
        return (yield from _here(function(*args, **kwargs), paused))
    name = f"{function.__module__}:{function.__qualname__}"
    seen = Progress("Starting")
    yield seen
    with _Child({"function": name, "args": args, "kwargs": kwargs}) as child:
        while True:
            child.hold(paused is not None and paused.is_set())
            kind, what = child.receive(_LOOK_S)
            if kind == "progress":
                seen = Progress(**what)
            elif kind == "warning":
                warn(what)
            elif kind == "result":
                result: R = what
                return result
            elif kind == "error":
                raise _error(what, remedy)
            elif kind in ("gone", "stopped"):
                raise PanclusterError(f"{child.last_words()} {remedy}")
            yield seen


class _Child:
    """A running child process and the pipes to it.

    Parameters
    ----------
    order
        What it shall do.
    """

    def __init__(self, order: dict[str, Any]) -> None:
        self._order = order
        self._held = False
        self._messages: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._errors: deque[str] = deque(maxlen=_LAST_LINES)

    def __enter__(self) -> Self:
        """Start the process."""
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-X", "faulthandler", "-m", _CHILD],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            creationflags=_NO_CONSOLE,
        )
        assert self._process.stdout is not None and self._process.stderr is not None
        self._readers = [
            threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True),
            threading.Thread(target=self._keep, args=(self._process.stderr,), daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self._say(json.dumps(self._order))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Ask the process to stop, if it still runs; end it if it does not."""
        self._say("stop")
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            reader.join(_LOOK_S)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            # What could not be written any more cannot be flushed either.
            with contextlib.suppress(OSError):
                assert pipe is not None
                pipe.close()

    def hold(self, held: bool) -> None:
        """Let the process pause, or go on."""
        if held != self._held:
            self._held = held
            self._say("pause" if held else "go")

    def receive(self, patience_s: float) -> tuple[str, Any]:
        """Return what came from the process; ``("nothing", None)`` where nothing did."""
        try:
            return self._messages.get(timeout=patience_s)
        except queue.Empty:
            return "nothing", None

    def last_words(self) -> str:
        """Return how the process ended, in a sentence; the details go to the log."""
        code = self._process.wait()
        for reader in self._readers:
            reader.join(_LOOK_S)
        _log.error("The process ended (%s):\n%s", code, "".join(self._errors))
        if code == -9:
            how = "was ended by the system (signal 9; often it had too little memory)"
        elif code < 0:
            how = f"crashed (signal {-code})"
        else:
            how = f"ended early (code {code})"
        return f"The process that did the work {how}."

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        # A process that is gone says so itself, by the end of its reports.
        with contextlib.suppress(OSError):
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def _read(self, lines: TextIO) -> None:
        with contextlib.suppress(ValueError, OSError):  # closed, or cut off in the middle of a line
            for line in lines:
                kind, what = json.loads(line)
                self._messages.put((kind, what))
        self._messages.put(("gone", None))

    def _keep(self, lines: TextIO) -> None:
        with contextlib.suppress(ValueError, OSError):
            for line in lines:
                self._errors.append(line)
                _log.debug("%s", line.rstrip())


def _error(what: dict[str, Any], remedy: str) -> Exception:
    """Return an error of the child as one of this process."""
    name, text = what["class"], what["text"]
    if "system" in what:
        return OSError(*what["system"])
    ours = getattr(errors, name, None)
    if isinstance(ours, type) and issubclass(ours, PanclusterError):
        return ours(text)
    if name == "MemoryError" or "out of memory" in text.lower():
        return PanclusterError(
            f"There is not enough memory. Close other programs or use a smaller batch. {remedy}"
        )
    usual = getattr(builtins, name, None)
    if usual in (RuntimeError, ValueError, TypeError, KeyError, AssertionError):
        return usual(text)  # type: ignore[no-any-return]
    return RuntimeError(f"{name}: {text}")


def _here(task: Task[R], paused: threading.Event | None) -> Task[R]:
    """Drive a task in this process, where there can be no other."""
    try:
        while True:
            try:
                yield next(task)
            except StopIteration as stop:
                result: R = stop.value
                return result
            while paused is not None and paused.is_set():
                yield Progress("Paused")
                time.sleep(_LOOK_S)
    finally:
        task.close()
