"""Training in a child process: the same result, Cancel, a crash, and going on after them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from drawing import TINY

from napari_pancluster.core import artefacts
from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.config import MapConfig
from napari_pancluster.core.errors import PanclusterError, ProjectError
from napari_pancluster.core.pipeline import training as step
from napari_pancluster.core.pipeline.apart import train_and_map_apart
from napari_pancluster.core.pipeline.everything import train_and_map
from napari_pancluster.core.pipeline.training import train_network
from napari_pancluster.core.pipeline.unfinished import read_note, run_to_resume
from napari_pancluster.core.progress import Progress, Task, run
from napari_pancluster.core.project import Project

# As many steps an epoch as give time to stop in the middle of one.
GIVEN = {**TINY, "epochs": 3, "patches": 512, "k": 3, "threads": 1}
# The parent of a child repeats its warnings; nonsense learnt in seconds deserves them.
pytestmark = pytest.mark.filterwarnings("ignore:(The c|C)luster")
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child encode with as many threads as the test's own process."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def uninterrupted(islands: Path, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project trained and mapped in this process, at one go."""
    project = _new(islands, tmp_path_factory.mktemp("straight"))
    run(train_and_map(project, GIVEN, MapConfig()))
    return Project.open(project.root)


@pytest.fixture
def project(islands: Path, tmp_path: Path) -> Project:
    return _new(islands, tmp_path)


def _new(slide: Path, folder: Path) -> Project:
    cases = make_cases([SlideEntry("block", "HE", slide)])
    return Project.create(folder / "test.pancluster", cases)


def same(one: Project, two: Project) -> bool:
    """Return whether two projects hold the same latents and clusters, bit by bit."""
    found = []
    for project in (Project.open(one.root), Project.open(two.root)):
        (name,) = project.runs()
        latents, mapped = project.artefact(f"latents/{name}"), project.artefact(f"map/{name}")
        assert latents is not None and mapped is not None
        _, values = artefacts.read_latents(project.folder(latents))
        found.append((values.values, artefacts.read_clustering(project.folder(mapped))))
    (a, at), (b, bt) = found
    return bool((a == b).all() and (at.assignments == bt.assignments).all() and at.k == bt.k)


def until_epoch(task: Task[Any], project: Project, epoch: int) -> Progress:
    """Take steps until the middle of an epoch, numbered from 1, after the one before is kept."""
    steps = int(GIVEN["patches"]) // int(GIVEN["batch"])
    for progress in task:
        if progress.stage.startswith("Training") and progress.done > (epoch - 1) * steps + 1:
            assert list((project.root / "runs").glob("*/state.safetensors"))
            return progress
    raise AssertionError("it ended before")


def test_the_child_makes_what_this_process_would(project: Project, uninterrupted: Project) -> None:
    seen: list[Progress] = []
    before = project.state
    result = run(train_and_map_apart(project, GIVEN, MapConfig()), seen.append)
    assert result["k"] == 3 and result["cases"][0]["patches"] > 50
    assert same(project, uninterrupted)
    losses = {p.done for p in seen if "reconstruction" in p.values and "patches_per_s" in p.values}
    assert len(losses) >= 4, "live losses"
    assert before == project.state, "the child commits; who looks at the project reads it again"
    assert not list((project.root / "runs").iterdir())


def test_cancel_within_a_second_and_resume_ends_like_an_uninterrupted_run(
    project: Project, uninterrupted: Project
) -> None:
    task = train_and_map_apart(project, GIVEN, MapConfig())
    until_epoch(task, project, 2)
    kept = (project.root / "project.json").read_bytes()
    worker = read_note(project, project.unfinished_runs()[0])["worker"]
    with pytest.raises(ProjectError, match="still running in another process"):
        run(train_network(project, {}, resume=True))
    began = time.monotonic()
    task.close()
    assert time.monotonic() - began < 3
    assert not psutil.pid_exists(worker["pid"])
    assert (project.root / "project.json").read_bytes() == kept
    assert not list((project.root / "runs").glob("*/store"))
    run(train_and_map_apart(project, {}, MapConfig(), resume=True))
    assert same(project, uninterrupted)


@posix
def test_a_killed_child_is_told_and_resuming_ends_like_an_uninterrupted_run(
    project: Project, uninterrupted: Project
) -> None:
    task = train_and_map_apart(project, GIVEN, MapConfig())
    until_epoch(task, project, 3)
    worker = read_note(project, project.unfinished_runs()[0])["worker"]
    os.kill(worker["pid"], signal.SIGKILL)
    with pytest.raises(PanclusterError, match=r"signal 9.* Resume in the Train panel"):
        run(task)
    assert not list((project.root / "runs").glob("*/store")), "a gigabyte is not left behind"
    run(train_and_map_apart(project, {}, MapConfig(), resume=True))
    assert same(project, uninterrupted)


def test_what_the_child_refuses_is_told_in_its_words(project: Project) -> None:
    with pytest.raises(ProjectError, match="no interrupted training to resume"):
        run(train_and_map_apart(project, {}, MapConfig(), resume=True))


def test_a_run_that_a_power_cut_ended_is_taken_up_with_patches_cut_anew(
    project: Project, uninterrupted: Project, tmp_path: Path
) -> None:
    task = train_and_map(project, GIVEN, MapConfig())
    until_epoch(task, project, 2)
    (folder,) = (project.root / "runs").iterdir()
    after = tmp_path / "after"
    shutil.copytree(folder, after)
    task.close()
    shutil.rmtree(folder)
    shutil.copytree(after, folder)
    # The disk did not get to writing all of it; and the computer is another one now.
    codes = folder / "store" / "codes.npy"
    codes.write_bytes(codes.read_bytes()[:200] + bytes(codes.stat().st_size - 200))
    note = json.loads((folder / "run.json").read_text())
    note["worker"] |= {"started": 0.0, "pid": 1}
    (folder / "run.json").write_text(json.dumps(note))
    run(train_and_map(Project.open(project.root), {}, MapConfig(), resume=True))
    assert same(project, uninterrupted)


def test_a_disk_without_room_is_told_before_the_patches_are_cut(
    project: Project, monkeypatch: pytest.MonkeyPatch, make_full: Callable[[int], None]
) -> None:
    make_full(65 * 2**20)
    with pytest.raises(ProjectError, match=r"has 65 MB left; .* need \d+ MB.*--store-mb"):
        run(train_network(project, GIVEN))


@pytest.fixture
def make_full(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Return a function that leaves so many bytes free on every disk."""

    def make(free: int) -> None:
        usage = shutil.disk_usage("/")
        found = usage._replace(free=free)
        monkeypatch.setattr(step.shutil, "disk_usage", lambda _: found)

    return make


def test_a_note_that_cannot_be_read_is_told(project: Project) -> None:
    folder = project.run_folder("20260101-000000-abcd")
    folder.mkdir(parents=True)
    (folder / "run.json").write_text('{"config": {')
    assert run_to_resume(project) == folder.name
    with pytest.raises(ProjectError, match=r"run.json cannot be read .* Train anew"):
        run(train_network(project, {}, resume=True))
