"""The steps that train, each in a process of its own, for a window that goes on living.

Imports neither torch nor the steps: they, and the memory they take, stay in the child.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from napari_pancluster.core.config import MapConfig
from napari_pancluster.core.pipeline.unfinished import clear_stores
from napari_pancluster.core.progress import Task
from napari_pancluster.core.project import Project
from napari_pancluster.core.spawned import Warn, spawned

_REMEDY = (
    "What was finished is kept: Resume in the Train panel goes on from the last epoch, and so does "
    "pancluster train --resume."
)


def train_and_map_apart(
    project: Project,
    given: Mapping[str, Any],
    map_config: MapConfig,
    *,
    resume: bool = False,
    paused: threading.Event | None = None,
    warn: Warn = warnings.warn,
) -> Task[dict[str, Any]]:
    """Do `train_and_map` in a child process, which commits what it makes.

    Parameters
    ----------
    paused
        The training holds while it is set.
    warn
        Told, in a sentence, what the user should know.
    """
    more = {"given": dict(given), "map_config": map_config.model_dump(), "resume": resume}
    return (yield from _apart(_train_and_map, project, more, paused, warn))


def run_all_apart(
    project: Project,
    given: Mapping[str, Any],
    *,
    paused: threading.Event | None = None,
    warn: Warn = warnings.warn,
) -> Task[dict[str, Any]]:
    """Do `run_all` in a child process, which commits what it makes; see `train_and_map_apart`."""
    return (yield from _apart(_run_all, project, {"given": dict(given)}, paused, warn))


def _apart(
    step: Callable[..., Task[dict[str, Any]]],
    project: Project,
    options: dict[str, Any],
    paused: threading.Event | None,
    warn: Warn,
) -> Task[dict[str, Any]]:
    try:
        return (
            yield from spawned(
                step, str(project.root), paused=paused, warn=warn, remedy=_REMEDY, **options
            )
        )
    finally:
        # A child that had to be killed left its patches behind.
        clear_stores(project)


def _train_and_map(
    root: str, *, given: dict[str, Any], map_config: dict[str, Any], resume: bool
) -> Task[dict[str, Any]]:
    from napari_pancluster.core.pipeline.everything import train_and_map

    project = Project.open(Path(root))
    return train_and_map(project, given, MapConfig(**map_config), resume=resume)


def _run_all(root: str, *, given: dict[str, Any]) -> Task[dict[str, Any]]:
    from napari_pancluster.core.pipeline.everything import run_all

    return run_all(Project.open(Path(root)), train=given, warn=warnings.warn)
