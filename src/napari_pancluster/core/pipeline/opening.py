"""From the project's records to slides, stacks and masks in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from napari_pancluster.core import artefacts
from napari_pancluster.core.errors import ProjectError, SlideError
from napari_pancluster.core.overview import (
    Overview,
    blank_overview,
    build_overview,
    read_overview,
    with_overview,
)
from napari_pancluster.core.profile import with_profile
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import Project
from napari_pancluster.core.records import CaseRecord, StainRecord
from napari_pancluster.core.slide import Slide, open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.tissue_mask import TissueMask

Options = ParamSpec("Options")
R = TypeVar("R")


def atomic(
    step: Callable[Concatenate[Project, Options], Task[R]],
) -> Callable[Concatenate[Project, Options], Task[R]]:
    """Let a step commit all of its artefacts at its end, or none where it is cancelled or fails."""

    def whole(project: Project, /, *args: Options.args, **kwargs: Options.kwargs) -> Task[R]:
        with project.batch():
            return (yield from step(project, *args, **kwargs))

    return wraps(step)(whole)


def registration_key(case: str, stain: str) -> str:
    """Return the key of the registration of one stain."""
    return f"register/{case}/{stain}"


def tissue_key(case: str) -> str:
    """Return the key of the tissue mask of a case."""
    return f"tissue/{case}"


def open_stain(project: Project, record: StainRecord) -> Stain:
    """Open a slide at the pixel size the project gives it, with its overview if it is there.

    Raises
    ------
    SlideError
        If the file is gone, unreadable, or another than when the project was made.
    """
    if not Path(record.path).exists():
        raise SlideError(
            f"{record.path} (stain {record.name}) is gone. If it was moved, find it again: "
            f"Slides panel, Find moved slides, or pancluster relocate {project.root} FOLDER"
        )
    slide = open_slide(Path(record.path))
    if slide.fingerprint != record.fingerprint:
        raise SlideError(
            f"{record.path} (stain {record.name}) has changed since the project was made. "
            "Restore the file or make a new project."
        )
    if record.profiled:
        slide = with_profile(slide)
    overview = read_overview(slide, project.overview_folder(record.fingerprint))
    if overview is not None:
        slide = with_overview(slide, overview)
    slide = replace(
        slide,
        mpp=record.mpp,
        oblong=record.oblong,
        full_scale=record.full_scale or slide.full_scale,
    )
    return Stain(
        name=record.name,
        slide=slide,
        background=record.background,
        modality=record.modality,
        picked=record.picked,
        bright=record.bright,
        gain=record.gain,
    )


def open_stack(project: Project, case: CaseRecord) -> SlideStack:
    """Open all slides of a case, with the registrations that are current."""
    stains, transforms, confidences, doubtful = [], {}, {}, set()
    for record in case.stains:
        stain = open_stain(project, record)
        found = project.artefact(registration_key(case.name, record.name))
        if found is not None and found.summary["status"] != "failed":
            folder = project.folder(found)
            transforms[record.name] = artefacts.read_transform(folder)
            confidence = artefacts.read_confidence(folder)
            if confidence is not None:
                confidences[record.name] = confidence
            if found.summary["status"] == "doubtful":
                doubtful.add(record.name)
            if record.mpp is None:
                stain = stain.with_mpp(found.summary["mpp_estimated"])
        stains.append(stain)
    return SlideStack(
        case.name,
        case.reference,
        tuple(stains),
        transforms,
        confidences=confidences,
        doubtful=frozenset(doubtful),
    )


def make_overviews(project: Project, case: CaseRecord) -> Task[bool]:
    """Give every slide of a case the coarse levels it lacks; return whether any did.

    A cache, not a result: it changes no value by more than rounding, and is kept at once.
    """
    made = False
    for record in case.stains:
        slide = open_stain(project, record).slide
        if slide.lacks_overview:
            folder = project.overview_folder(record.fingerprint)
            yield from build_overview(slide, folder, record.name)
            made = True
    return made


@dataclass(frozen=True)
class Growing:
    """A slide that is shown while its overview is built."""

    stain: str
    slide: Slide
    overview: Overview


def with_growing(stack: SlideStack) -> tuple[SlideStack, list[Growing]]:
    """Return a stack to look at, and what is to be built for it while it is looked at."""
    growing, stains = [], []
    for stain in stack.stains:
        if stain.slide.lacks_overview:
            growing.append(Growing(stain.name, stain.slide, blank_overview(stain.slide)))
            stain = replace(stain, slide=with_overview(stain.slide, growing[-1].overview))
        stains.append(stain)
    return replace(stack, stains=tuple(stains)), growing


def keep_growing(project: Project, growing: Sequence[Growing]) -> Task[None]:
    """Build overviews, shown and kept."""
    for item in growing:
        folder = project.overview_folder(item.slide.fingerprint)
        yield from build_overview(item.slide, folder, item.stain, [item.overview])


def tissue_of(project: Project, stack: SlideStack) -> Task[TissueMask]:
    """Return the tissue of a case's reference slide; found once, then kept."""
    key = tissue_key(stack.case)
    found = project.artefact(key)
    if found is not None and not project.is_stale(key):
        return artefacts.read_tissue(project.folder(found))
    # The window needs this module, and opens without scikit-image.
    from napari_pancluster.core.tissue import find_tissue

    yield Progress(f"Finding tissue of {stack.case}")
    tissue = find_tissue(stack.stain(stack.reference))
    token = project.case(stack.case).stain(stack.reference).token
    # Named by its content: an interrupted training finds the same tissue when it is resumed.
    id_ = hashlib.sha256(token.encode() + tissue.mask.tobytes()).hexdigest()[:12]
    with project.writing(key, (token,), {"area_mm2": tissue.area_mm2}, id_=id_) as folder:
        artefacts.write_tissue(folder, tissue)
    return tissue


def frame_inputs(project: Project) -> tuple[str, ...]:
    """Return the ids of everything that defines the registered stacks of all cases."""
    ids = []
    for case in project.state.cases:
        found = [project.artefact(tissue_key(case.name))]
        found += [project.artefact(registration_key(case.name, s.name)) for s in case.stains]
        ids += [a.id for a in found if a is not None]
        ids += [s.token for s in case.stains]
    return tuple(ids)


def chosen_run(project: Project, run: str | None) -> str:
    """Return a run's id, the newest where none is named.

    Raises
    ------
    ProjectError
        If there is no such run.
    """
    runs = project.runs()
    if not runs:
        raise ProjectError(
            f"{project.root} has no trained network yet. Train one: pancluster train {project.root}"
        )
    if run is None:
        return runs[-1]
    if run not in runs:
        raise ProjectError(f"{project.root} has no run {run!r}. It has: {', '.join(runs)}.")
    return run


def require(project: Project, key: str, remedy: str) -> Path:
    """Return the folder of an artefact that must be there and up to date."""
    found = project.artefact(key)
    if found is None or project.is_stale(key):
        state = "missing" if found is None else "out of date"
        raise ProjectError(
            f"The {key.split('/')[0]} result of {project.root} is {state}. First: {remedy}"
        )
    return project.folder(found)


def current(project: Project, key: str, read: Callable[[Path], R]) -> R | None:
    """Return what an artefact holds, or None where it is missing or out of date."""
    found = project.artefact(key)
    if found is None or project.is_stale(key):
        return None
    return read(project.folder(found))
