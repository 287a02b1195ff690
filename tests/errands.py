"""Tasks for a child process, which imports them by name."""

from __future__ import annotations

import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

from napari_pancluster.core import errors
from napari_pancluster.core.progress import Progress, Task

WINDOWS = ("napari", "qtpy", "PySide6", "PyQt6", "magicgui", "vispy", "superqt")


def count(to: int, file: str = "", seconds: float = 0.0) -> Task[dict[str, Any]]:
    """Count, keep the number in a file, and say there when the task was closed."""
    path = Path(file)
    try:
        for n in range(to):
            if file:
                path.write_text(f"{os.getpid()} {n}")
            time.sleep(seconds)
            yield Progress("Counting", n + 1, to, {"half": n / 2})
        return {"counted": to, "pid": os.getpid()}
    finally:
        if file:
            path.with_suffix(".closed").touch()


def sleep(file: str) -> Task[None]:
    """Never come to the next step."""
    yield Progress("Sleeping")
    Path(file).write_text(str(os.getpid()))
    time.sleep(600)


def fail(name: str, text: str) -> Task[None]:
    """Raise one of our errors, or one of Python's."""
    yield Progress("Failing")
    if name == "OSError":
        raise OSError(28, "No space left on device", "a.zarr")
    kinds = {"MemoryError": MemoryError, "ValueError": ValueError, **vars(errors)}
    raise kinds[name](text)


def crash(number: int) -> Task[None]:
    """End by a signal."""
    yield Progress("Crashing")
    sys.stderr.write("last words\n")
    os.kill(os.getpid(), number)
    time.sleep(600)


def chatter() -> Task[list[str]]:
    """Print, warn, and return which modules of the window are there."""
    import napari_pancluster.core.pipeline.everything

    sys.stdout.write("to be ignored\n")
    sys.stdout.flush()
    os.write(1, b'["result", 0]\n')
    own = str(Path(napari_pancluster.__file__).parent / "core" / "model.py")
    warnings.warn_explicit("Ours.", UserWarning, own, 1)
    warnings.warn_explicit("Another's.", UserWarning, "/elsewhere/torch/nn.py", 1)
    yield Progress("Chattering")
    return [name for name in WINDOWS if name in sys.modules]
