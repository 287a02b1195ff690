"""Slides that were moved, found again by their fingerprint."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import Project
from napari_pancluster.core.records import StainRecord
from napari_pancluster.core.slide import fingerprint

_MOST_FILES = 200_000
# Parts of an OME-Zarr, not slides of their own.
_INSIDE = ("zarr.json", ".zattrs", ".zgroup")


def missing_slides(project: Project) -> list[StainRecord]:
    """Return the stains whose slide is not where the project knows it."""
    stains = (s for case in project.state.cases for s in case.stains)
    return [s for s in stains if not Path(s.path).exists()]


def relocate(project: Project, folder: Path) -> Task[dict[str, str]]:
    """Look for the missing slides below a folder, and keep where they are now.

    A file of the same name is looked at first, all others then; only one with the same fingerprint
    is taken.

    Returns
    -------
    dict
        The new path of every slide found again, by its old one.

    Raises
    ------
    InputError
        If the folder is not there.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder. Choose the one the slides were moved to.")
    wanted = {s.fingerprint: s for s in missing_slides(project)}
    names = {Path(s.path).name for s in wanted.values()}
    found: dict[str, str] = {}
    places = sorted(_candidates(folder), key=lambda p: p.name not in names)
    for done, place in enumerate(places):
        if not wanted.keys() - found.keys():
            break
        if done % 50 == 0:
            yield Progress("Looking for the slides", done, len(places))
        try:
            mark = fingerprint(place)
        except OSError:
            continue
        if mark in wanted:
            found[mark] = str(place.absolute())
    if found:
        project.move_slides(found)
    return {wanted[p].path: path for p, path in found.items()}


def _candidates(folder: Path) -> Iterator[Path]:
    """Yield files, and the folders that are one slide, below a folder."""
    waiting, seen = [folder], 0
    while waiting and seen < _MOST_FILES:
        try:
            entries = sorted(waiting.pop().iterdir())
        except OSError:
            continue
        if any(e.name in _INSIDE for e in entries):
            yield entries[0].parent
            continue
        for entry in entries:
            seen += 1
            if entry.is_dir():
                waiting.append(entry)
            elif entry.is_file():
                yield entry
