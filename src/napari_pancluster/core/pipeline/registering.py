"""The step `register`, and mapping points with its result."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from napari_pancluster.core import artefacts
from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.pipeline.opening import (
    atomic,
    make_overviews,
    open_stack,
    open_stain,
    registration_key,
)
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import CaseRecord, Project
from napari_pancluster.core.registration import (
    Landmarks,
    Registration,
    read_landmarks,
    register_pair,
)
from napari_pancluster.core.registration.images import Matrix
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transfer import Transfer


@atomic
def register(
    project: Project,
    config: RegisterConfig,
    *,
    cases: Sequence[str] = (),
    stains: Sequence[str] = (),
    landmarks: Mapping[str, Path | Landmarks] | None = None,
    starts: Mapping[str, Matrix] | None = None,
    only_missing: bool = False,
) -> Task[dict[str, Any]]:
    """Register every moving stain onto the reference of its case.

    Parameters
    ----------
    cases, stains
        Restrict the work to these; empty: all.
    landmarks
        Per stain, matched points that steer it, or a CSV of them.
    starts
        Per stain, where a person has put it: (3, 3), fixed µm to moving µm.
    only_missing
        Leave alone what is registered and up to date.
    """
    landmarks, starts = landmarks or {}, starts or {}
    chosen = [project.case(name) for name in cases] or list(project.state.cases)
    _check_stains(chosen, {*stains, *landmarks, *starts})
    for case in chosen:
        yield from make_overviews(project, case)
        fixed = open_stain(project, case.stain(case.reference))
        for record in case.stains:
            wanted = not stains or record.name in stains
            if record.name == case.reference or not wanted:
                continue
            key = registration_key(case.name, record.name)
            if only_missing and project.artefact(key) is not None and not project.is_stale(key):
                continue
            moving = open_stain(project, record)
            points = landmarks.get(record.name)
            if isinstance(points, Path):
                points = read_landmarks(points, fixed.slide, moving.slide)
            yield Progress(f"Registering {moving.name}")
            result = yield from register_pair(
                fixed, moving, config, points, starts.get(record.name)
            )
            _keep(project, case, fixed, moving, result)
    return {"results": registration_results(project, [c.name for c in chosen], stains)}


def registration_results(
    project: Project, cases: Sequence[str], stains: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the reports of what is registered."""
    results = []
    for case in map(project.case, cases):
        for record in case.stains:
            found = project.artefact(registration_key(case.name, record.name))
            if found is not None and (not stains or record.name in stains):
                results.append({"case": case.name, **found.summary})
    return results


def _check_stains(cases: Sequence[CaseRecord], wanted: set[str]) -> None:
    moving = {s.name for case in cases for s in case.stains if s.name != case.reference}
    for name in sorted(wanted - moving):
        raise InputError(
            f"{name!r} is no moving stain of these cases. They have: {', '.join(sorted(moving))}."
        )


def _keep(
    project: Project, case: CaseRecord, fixed: Stain, moving: Stain, result: Registration
) -> None:
    inputs = (case.stain(fixed.name).token, case.stain(moving.name).token)
    summary = asdict(result.report)
    with project.writing(registration_key(case.name, moving.name), inputs, summary) as folder:
        if result.transform is not None:
            artefacts.write_transform(folder, result.transform)
        if result.confidence is not None:
            artefacts.write_confidence(folder, result.confidence)


def map_points(
    project: Project, *, case: str, from_: str, to: str, source: Path, target: Path
) -> dict[str, Any]:
    """Map points of one stain's slide into another's, both in level-0 px.

    Rows keep their order and their other columns; no coordinate is ever missing.
    """
    way = Transfer.between(open_stack(project, project.case(case)), from_, to)
    rows, columns = _read_rows(source)
    xy = np.array(
        [[_number(row, c, source, n) for c in "xy"] for n, row in enumerate(rows, 2)], np.float64
    )
    mapped = way.px(xy.reshape(-1, 2)[:, ::-1])
    height, width = way.target.shape
    outside = ((mapped < 0) | (mapped > [height, width])).any(axis=1)
    try:
        with target.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            for row, (y, x) in zip(rows, mapped, strict=True):
                writer.writerow({**row, "x": f"{x:.4f}", "y": f"{y:.4f}"})
    except OSError as error:
        raise InputError(
            f"{target} cannot be written ({error.strerror}). Choose another file."
        ) from error
    return {"n": len(rows), "outside": int(outside.sum())}


def _read_rows(source: Path) -> tuple[list[dict[str, str]], list[str]]:
    try:
        with source.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            rows = list(reader)
            columns = list(reader.fieldnames or [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{source} cannot be read ({error}). Give a CSV file with columns x,y."
        ) from error
    if not {"x", "y"} <= set(columns):
        raise InputError(f"{source} lacks the columns x,y. Give level-0 pixels under these names.")
    return rows, columns


def _number(row: Mapping[str, str], column: str, source: Path, line: int) -> float:
    try:
        value = float(row[column])
    except (TypeError, ValueError):
        value = float("nan")
    if not np.isfinite(value):
        raise InputError(f"{source}, line {line}: {column} is {row[column]!r}, not a number.")
    return value
