"""A task in a child process: its result, its errors, Cancel, Pause, and the end of either side."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import errands
import psutil
import pytest

from napari_pancluster.core.errors import PanclusterError, SlideError
from napari_pancluster.core.progress import Progress, run
from napari_pancluster.core.spawned import spawned

posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")

_PARENT = """
import sys
import errands
from napari_pancluster.core.progress import run
from napari_pancluster.core.spawned import spawned
run(spawned(errands.count, 10_000, sys.argv[1], 0.02))
"""


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child import the errands; one that is asked to do a test's work has one thread."""
    monkeypatch.setenv("PYTHONPATH", str(Path(errands.__file__).parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture
def until() -> Callable[[Callable[[], bool]], None]:
    """Return a function that waits until something is true."""

    def wait(true: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not true():
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.02)

    return wait


def count_of(file: Path) -> int:
    """Return the number that a counting child keeps in its file."""
    text = file.read_text() if file.exists() else ""
    return int(text.split()[1]) if " " in text and text.split()[1:] else -1


def pid_of(file: Path) -> int:
    return int(file.read_text().split()[0])


def drive(task: Iterator[Progress], true: Callable[[], bool], seconds: float = 60) -> Progress:
    """Take steps of a task until something is true; return the last progress."""
    deadline = time.monotonic() + seconds
    while True:
        progress = next(task)
        if true():
            return progress
        assert time.monotonic() < deadline, f"in vain; last: {progress}"


def test_progress_comes_while_the_child_works_and_then_its_result(tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = run(spawned(errands.count, 20, seconds=0.06), seen.append)
    assert result["counted"] == 20 and result["pid"] != psutil.Process().pid
    assert not psutil.pid_exists(result["pid"])
    counted = [p.done for p in seen if p.stage == "Counting"]
    assert counted == sorted(counted) and len(set(counted)) >= 15
    last = next(p for p in reversed(seen) if p.stage == "Counting")
    assert last.total == 20 and last.values == {"half": (last.done - 1) / 2}


def test_the_child_has_no_window_and_what_it_prints_disturbs_nothing() -> None:
    told: list[str] = []
    assert run(spawned(errands.chatter, warn=told.append)) == []
    assert told == ["Ours."]


@pytest.mark.parametrize(
    ("name", "text", "kind", "words"),
    [
        ("SlideError", "HE.svs is gone. Find it.", SlideError, r"^HE.svs is gone. Find it.$"),
        ("TrainingError", "CUDA out of memory at last.", PanclusterError, "^CUDA out of memory"),
        ("OSError", "", OSError, "No space left on device: 'a.zarr'"),
        ("ValueError", "odd", ValueError, "^odd$"),
        ("MemoryError", "", PanclusterError, "not enough memory.* Resume it."),
    ],
)
def test_an_error_arrives_as_it_was_raised(
    name: str, text: str, kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind, match=words) as caught:
        run(spawned(errands.fail, name, text, remedy="Resume it."))
    assert type(caught.value).__name__ == name or name == "MemoryError"
    assert getattr(caught.value, "errno", None) == (28 if name == "OSError" else None)


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_crash_is_told_with_what_helps(
    number: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(PanclusterError, match=rf"signal {number:d}.*\. Resume it\.$"):
        run(spawned(errands.crash, int(number), remedy="Resume it."))
    assert "last words" in caplog.text


def test_cancel_asks_first_and_the_child_tidies_up(tmp_path: Path) -> None:
    file = tmp_path / "count"
    task = spawned(errands.count, 10_000, str(file), 0.02)
    drive(task, lambda: count_of(file) > 2)
    began = time.monotonic()
    task.close()
    assert time.monotonic() - began < 3
    assert file.with_suffix(".closed").exists() and not psutil.pid_exists(pid_of(file))


def test_cancel_ends_a_child_that_does_not_listen(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    task = spawned(errands.sleep, str(file))
    drive(task, lambda: file.exists() and bool(file.read_text()))
    # It is silent for ten minutes, and yet whoever drives it is never kept waiting.
    began = time.monotonic()
    next(task)
    assert time.monotonic() - began < 3
    task.close()
    assert time.monotonic() - began < 3
    assert not psutil.pid_exists(pid_of(file))


def test_a_paused_child_does_nothing_and_can_go_on_or_be_cancelled(tmp_path: Path) -> None:
    file, paused = tmp_path / "count", threading.Event()
    task = spawned(errands.count, 10_000, str(file), 0.02, paused=paused)
    drive(task, lambda: count_of(file) > 2)
    paused.set()
    while next(task).stage != "Paused":
        pass
    at = count_of(file)
    for _ in range(8):
        assert next(task).stage == "Paused"
    assert count_of(file) == at
    paused.clear()
    drive(task, lambda: count_of(file) > at + 2)
    assert next(task).stage == "Counting"
    paused.set()
    while next(task).stage != "Paused":
        pass
    began = time.monotonic()
    task.close()
    assert time.monotonic() - began < 3 and file.with_suffix(".closed").exists()


@posix
def test_the_child_ends_with_its_parent(
    tmp_path: Path, until: Callable[[Callable[[], bool]], None]
) -> None:
    file = tmp_path / "count"
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, str(file)])
    until(lambda: count_of(file) > 2)
    child = psutil.Process(pid_of(file))
    parent.kill()
    parent.wait()
    until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, 15)
    assert file.with_suffix(".closed").exists()


def test_where_there_can_be_no_child_the_work_is_done_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    paused = threading.Event()
    task = spawned(errands.count, 3, str(tmp_path / "count"), paused=paused)
    assert next(task).done == 1
    paused.set()
    assert next(task).stage == "Paused"
    paused.clear()
    assert run(task) == {"counted": 3, "pid": psutil.Process().pid}
