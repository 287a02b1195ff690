"""A project from slides or from a sample sheet."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import Project


def create_project(
    path: Path, entries: Sequence[SlideEntry], *, uncalibrated: bool = False, nominal: bool = False
) -> Task[Path]:
    """Look at every slide once and make a project of them; return its folder.

    Parameters
    ----------
    path, entries
        Where, and of what; pixels stay where they are.
    uncalibrated, nominal
        As in `make_cases`.
    """
    yield Progress("Looking at the slides")
    cases = make_cases(entries, uncalibrated=uncalibrated, nominal=nominal)
    return Project.create(path, cases).root
