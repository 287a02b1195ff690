"""Training runs that are not finished: what each was asked for, and who is at work on it."""

from __future__ import annotations

import json
import os
import shutil
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from napari_pancluster.core.errors import ProjectError
from napari_pancluster.core.project import Project

# What a resumed run may be given anew: none of it makes the network another one.
MAY_CHANGE = ("device", "threads", "batch", "learning_rate")
_NOTE, _STORE = "run.json", "store"


def read_note(project: Project, run: str) -> dict[str, Any]:
    """Return what an unfinished run was started with, `config` and `inputs`, and its `worker`.

    Raises
    ------
    ProjectError
        If it cannot be read.
    """
    file = project.run_folder(run) / _NOTE
    try:
        note = json.loads(file.read_text())
        found = {name: note[name] for name in ("config", "inputs")}
        return {**found, "worker": note.get("worker")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(f"{file} cannot be read ({error}). Train anew.") from error


def write_note(
    project: Project, run: str, *, config: Mapping[str, Any], inputs: tuple[str, ...]
) -> Path:
    """Note what a run is started with, and that this process is at work on it; return its folder.

    Raises
    ------
    ProjectError
        If it cannot be written.
    """
    folder = project.run_folder(run)
    note = {"config": config, "inputs": inputs, "worker": _this_process()}
    partial = folder / f"{_NOTE}.partial"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(note, indent=1))
        os.replace(partial, folder / _NOTE)
    except OSError as error:
        raise ProjectError(
            f"{folder} cannot be written ({error.strerror}). Check the folder."
        ) from error
    return folder


def run_to_resume(project: Project) -> str:
    """Return the newest unfinished run that no other process is at work on.

    Raises
    ------
    ProjectError
        If there is none.
    """
    runs = project.unfinished_runs()
    if not runs:
        raise ProjectError(
            f"{project.root} has no interrupted training to resume. Leave out --resume."
        )
    idle = [run for run in runs if not _is_worked_on(project, run)]
    if not idle:
        raise ProjectError(
            f"The training in {project.root} is still running in another process. "
            "Wait for it, or cancel it there."
        )
    return idle[0]


def store_folder(folder: Path) -> Path:
    """Return where a run keeps its patches while it trains."""
    return folder / _STORE


def clear_stores(project: Project) -> None:
    """Delete the patches of runs whose process is gone: a gigabyte that can be cut again."""
    for run in project.unfinished_runs():
        if not _is_worked_on(project, run):
            shutil.rmtree(store_folder(project.run_folder(run)), ignore_errors=True)


def _this_process() -> dict[str, Any]:
    import psutil

    # A number alone may be another program's by the time it is looked at.
    started = psutil.Process().create_time()
    return {"pid": os.getpid(), "started": started, "host": socket.gethostname()}


def _is_worked_on(project: Project, run: str) -> bool:
    """Return whether another process of this machine trains a run at this moment."""
    import psutil

    try:
        worker = read_note(project, run)["worker"]
        if worker["host"] != socket.gethostname() or worker["pid"] == os.getpid():
            return False
        return bool(psutil.Process(worker["pid"]).create_time() == worker["started"])
    except (ProjectError, psutil.Error, KeyError, TypeError):
        return False
