"""The child process of `spawned`: drives one task, reports it, and does as it is told.

Started as ``python -P -m napari_pancluster.core.child``. Reads one JSON line from stdin, the order
(function, arguments), then a word a line: ``pause``, ``go``, ``stop``. Writes a JSON line for each
`Progress`, warning, and the end. The end of stdin is the end of the parent: nobody waits any more.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.progress import Progress, Task

PAUSED = "Paused"
_INTERVAL_S = 0.05
# What a task may still take to stop by itself when the parent is gone.
_LAST_S = 5.0
_PACKAGE = str(Path(__file__).resolve().parents[1])


class _Parent:
    """The other end of both pipes.

    Parameters
    ----------
    out
        Where its lines go.
    """

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._read = b""
        self._going = threading.Event()
        self._going.set()
        self.wants_no_more = threading.Event()

    @property
    def paused(self) -> bool:
        """Return whether the work shall hold."""
        return not self._going.is_set()

    def order(self) -> dict[str, Any]:
        """Return what is to be done, and listen to commands from now on."""
        order: dict[str, Any] = json.loads(self._line())
        threading.Thread(target=self._listen, daemon=True).start()
        return order

    def wait_to_go_on(self) -> None:
        """Return when the work may go on, or shall stop."""
        self._going.wait()

    def tell(self, kind: str, what: Any = None) -> None:
        """Send a line; a parent that is gone wants no more of it."""
        try:
            self._out.write(json.dumps([kind, what]) + "\n")
            self._out.flush()
        except OSError:
            self.wants_no_more.set()

    def _line(self) -> bytes:
        # Not through sys.stdin: a thread that holds its lock would keep Python from ending.
        while b"\n" not in self._read:
            some = os.read(0, 65536)
            if not some:
                return b""
            self._read += some
        line, _, self._read = self._read.partition(b"\n")
        return line

    def _listen(self) -> None:
        word = b"go"
        while word in (b"pause", b"go"):
            word = self._line()
            if word == b"pause":
                self._going.clear()
            elif word == b"go":
                self._going.set()
        self.wants_no_more.set()
        self._going.set()
        if not word:
            time.sleep(_LAST_S)
            os._exit(1)


def main() -> None:
    """Do what the parent orders, and end with this process."""
    # The parent decides what a Ctrl-C at the terminal of both means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print must not come between the lines.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    parent = _Parent(out)
    order = parent.order()
    warnings.showwarning = _teller(parent)
    parent.tell(*_outcome(order, parent))
    sys.stderr.flush()
    # Memory, that of a GPU too, is given back now, not after libraries have been taken down.
    os._exit(0)


def _outcome(order: dict[str, Any], parent: _Parent) -> tuple[str, Any]:
    """Run the task of an order; return how it ended, in one word and with what."""
    try:
        return _drive(_function(order["function"])(*order["args"], **order["kwargs"]), parent)
    # The border between the processes: whatever is raised must reach the other side.
    except Exception as error:
        if not isinstance(error, PanclusterError):
            traceback.print_exc()
        return "error", _as_json(error)


def _drive(task: Task[Any], parent: _Parent) -> tuple[str, Any]:
    stage, shown = "", 0.0
    try:
        while not parent.wants_no_more.is_set():
            try:
                progress = next(task)
            except StopIteration as stop:
                return "result", stop.value
            now = time.monotonic()
            if progress.stage != stage or now - shown >= _INTERVAL_S:
                stage, shown = progress.stage, now
                parent.tell("progress", vars(progress))
            if parent.paused:
                stage = PAUSED
                parent.tell("progress", vars(Progress(PAUSED, progress.done, progress.total)))
                parent.wait_to_go_on()
        return "stopped", None
    finally:
        task.close()


def _function(name: str) -> Callable[..., Task[Any]]:
    module, _, function = name.partition(":")
    found: Callable[..., Task[Any]] = getattr(importlib.import_module(module), function)
    return found


def _as_json(error: Exception) -> dict[str, Any]:
    found = {"class": type(error).__name__, "text": str(error)}
    if not isinstance(error, OSError) or error.errno is None:
        return found
    file = None if error.filename is None else str(error.filename)
    return {**found, "system": [error.errno, error.strerror, file]}


def _teller(parent: _Parent) -> Callable[..., None]:
    """Return a function that tells the parent our own warnings, and the terminal all others."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: Any, filename: str, *rest: Any, **more: Any) -> None:
        if Path(filename).is_relative_to(_PACKAGE):
            parent.tell("warning", str(message))
        else:
            usual(message, category, filename, *rest, **more)

    return show


if __name__ == "__main__":
    main()
