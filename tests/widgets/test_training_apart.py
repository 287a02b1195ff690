"""Training from the window: in a process of its own, with Pause, Cancel, Resume and crashes."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from drawing import TINY

from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.config import MapConfig
from napari_pancluster.core.pipeline.describe import step_states
from napari_pancluster.core.pipeline.unfinished import read_note
from napari_pancluster.core.project import Project

GIVEN = {**TINY, "k": 3, "epochs": 500}


@pytest.fixture
def opened(
    main: Any,
    islands: Path,
    tmp_path: Path,
    wait: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """The main widget with a project, without the UMAP, whose import takes half a minute."""
    monkeypatch.setattr("napari_pancluster._widgets.work.Work.embed", lambda self: None)
    root = tmp_path / "window.pancluster"
    Project.create(root, make_cases([SlideEntry("block", "HE", islands)]))
    main.open_project(root)
    wait(lambda: main.session.stack is not None)
    return main


def started(main: Any, wait: Callable[..., None], given: dict[str, Any]) -> Any:
    """Start to train; return its process once an epoch is kept."""
    main.work.train(given, MapConfig())
    project = main.session.project
    wait(lambda: any((project.root / "runs").glob("*/state.safetensors")), 120)
    pid = read_note(project, project.unfinished_runs()[0])["worker"]["pid"]
    assert pid != os.getpid()
    return psutil.Process(pid)


def test_pause_holds_the_process_and_resume_after_cancel_ends_the_training(
    opened: Any, wait: Callable[..., None]
) -> None:
    child = started(opened, wait, {**GIVEN, "epochs": 30})
    stage = opened.bar._stage
    wait(lambda: stage.text().startswith("Training") and "on CPU" in stage.text())
    wait(lambda: "patches/s" in opened.bar._left.text() and "left" in opened.bar._left.text())
    assert not opened.bar._pause.isHidden()
    opened.bar._pause.click()
    wait(lambda: stage.text() == "Paused")
    before = sum(child.cpu_times()[:2])
    time.sleep(1)
    assert sum(child.cpu_times()[:2]) - before < 0.2
    began = time.monotonic()
    opened.bar._cancel.click()
    wait(lambda: opened.jobs.current is None)
    assert time.monotonic() - began < 1
    assert not child.is_running() and not opened.train._resume.isHidden()
    opened.train._resume.click()
    wait(lambda: opened.session.results is not None and opened.jobs.current is None, 180)
    assert opened.session.project.runs() and opened.train._resume.isHidden()
    assert len(opened.train.losses._values["reconstruction"]) >= 1


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
def test_a_crash_is_told_and_can_be_resumed(opened: Any, wait: Callable[..., None]) -> None:
    started(opened, wait, GIVEN).send_signal(signal.SIGKILL)
    wait(lambda: opened.jobs.current is None)
    assert "signal 9" in opened.bar.message and "Resume" in opened.bar.message
    assert not opened.train._resume.isHidden() and opened.train._go.isEnabled()


@pytest.mark.slow
def test_a_warning_of_the_process_reaches_the_window(
    opened: Any, wait: Callable[..., None]
) -> None:
    told: list[str] = []
    opened.work.warned.connect(told.append)
    started(opened, wait, GIVEN)
    opened.bar._cancel.click()
    wait(lambda: opened.jobs.current is None)
    # The disk spoils the newest state.
    (newest,) = (opened.session.project.root / "runs").glob("*/state.safetensors")
    newest.with_name("before.safetensors").write_bytes(newest.read_bytes())
    newest.write_bytes(newest.read_bytes()[:-100])
    opened.train._resume.click()
    wait(lambda: bool(told))
    assert "damaged. It goes on from epoch" in told[0] and opened.jobs.busy
    assert told[0] in opened.bar.message


@pytest.mark.slow
def test_all_steps_are_done_in_a_process_of_their_own(
    opened: Any, wait: Callable[..., None]
) -> None:
    opened.work.everything({**GIVEN, "epochs": 2})
    project = opened.session.project
    wait(lambda: bool(project.unfinished_runs()), 120)
    assert read_note(project, project.unfinished_runs()[0])["worker"]["pid"] != os.getpid()
    wait(lambda: opened.session.results is not None and opened.jobs.current is None, 180)
    # What looks wrong about clusters learnt in seconds may stand there in the place of "done".
    assert set(step_states(opened.session.project).values()) == {"done"}


def test_resuming_takes_over_only_what_may_change_and_was_changed(
    opened: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[dict[str, Any], bool]] = []
    monkeypatch.setattr(
        opened.work, "train", lambda given, _, *, resume: asked.append((dict(given), resume))
    )
    opened.train._on_resume()
    opened.train.form["device"].value = "cpu"
    opened.train._more["seed"].value = 5
    opened.train._on_resume()
    assert asked == [({}, True), ({"device": "cpu"}, True)]
