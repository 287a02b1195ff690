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
from napari_pancluster.core.pipeline.versions import refuse_locked, succeed
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import Project
from napari_pancluster.core.records import CaseRecord
from napari_pancluster.core.registration import (
    Landmarks,
    Registration,
    RegistrationReport,
    read_landmarks,
    register_pair,
)
from napari_pancluster.core.registration.chain import better, neighbour_of, register_along
from napari_pancluster.core.registration.images import Matrix
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transfer import Transfer

_KEPT = "the registration before stays"


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

    The registration before is kept, and stays in use where the new one failed. Locked stains are
    left alone.

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

    Raises
    ------
    InputError
        If a stain that is named is locked in all of these cases, or no moving stain.
    """
    landmarks, starts = landmarks or {}, starts or {}
    chosen = [project.case(name) for name in cases] or list(project.state.cases)
    named = {*stains, *landmarks, *starts}
    _check_stains(chosen, named)
    refuse_locked(project, chosen, named)
    failed: dict[str, dict[str, Any]] = {}
    for case in chosen:
        yield from make_overviews(project, case)
        work = _Case(project, case, config)
        for name in work.moving:
            key = registration_key(case.name, name)
            if (stains and name not in stains) or key in project.state.locked:
                continue
            if only_missing and project.artefact(key) is not None and not project.is_stale(key):
                continue
            result = yield from work.register(name, landmarks.get(name), starts.get(name))
            if not work.keep(result):
                failed[key] = {**asdict(result.report), "kept": _KEPT}
    results = []
    for found in registration_results(project, [c.name for c in chosen], stains):
        key = registration_key(found["case"], found["stain"])
        results.append({**found, "kept": None, **failed.get(key, {})})
    return {"results": results}


def registration_results(
    project: Project, cases: Sequence[str], stains: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Return the reports of what is registered, and whether it is locked."""
    results = []
    for case in map(project.case, cases):
        for record in case.stains:
            key = registration_key(case.name, record.name)
            found = project.artefact(key)
            if found is not None and (not stains or record.name in stains):
                locked = key in project.state.locked
                results.append({"case": case.name, **found.summary, "locked": locked})
    return results


def kept_before(result: Mapping[str, Any]) -> list[str]:
    """Return in words which registrations failed, where the one before stays in use."""
    return [
        f"{row['stain']} of {row['case']}: {row['reason']} The registration before stays in use."
        for row in result["results"]
        if row["kept"]
    ]


def _check_stains(cases: Sequence[CaseRecord], wanted: set[str]) -> None:
    moving = {s.name for case in cases for s in case.stains if s.name != case.reference}
    for name in sorted(wanted - moving):
        raise InputError(
            f"{name!r} is no moving stain of these cases. They have: {', '.join(sorted(moving))}."
        )


class _Case:
    """One case while its stains are registered."""

    def __init__(self, project: Project, case: CaseRecord, config: RegisterConfig) -> None:
        self._project, self._case, self._config = project, case, config
        self._reference = open_stain(project, case.stain(case.reference))
        self._order = [s.name for s in case.stains]

    @property
    def moving(self) -> list[str]:
        """Every stain but the reference, the nearest ones in the order of sections first."""
        at = self._order.index(self._case.reference)
        names = sorted(self._order, key=lambda name: abs(self._order.index(name) - at))
        return [name for name in names if name != self._case.reference]

    def register(
        self, name: str, landmarks: Path | Landmarks | None, start: Matrix | None
    ) -> Task[Registration]:
        """Register one stain the way that is configured."""
        yield Progress(f"Registering {name}")
        moving = open_stain(self._project, self._case.stain(name))
        if isinstance(landmarks, Path):
            landmarks = read_landmarks(landmarks, self._reference.slide, moving.slide)
        strategy = self._config.strategy
        steered = landmarks is not None or start is not None
        neighbour = neighbour_of(self._order, self._case.reference, name)
        known = None if steered else self._known(neighbour)
        if known is None or strategy == "reference":
            return (
                yield from register_pair(self._reference, moving, self._config, landmarks, start)
            )
        between = open_stain(self._project, self._case.stain(neighbour))
        if strategy == "order":
            return (yield from self._along(between, moving, known))
        straight = yield from register_pair(self._reference, moving, self._config)
        if straight.report.status == "ok":
            return straight
        yield Progress(f"Registering {name} by way of {neighbour}")
        return better(straight, (yield from self._along(between, moving, known)))

    def _along(self, between: Stain, moving: Stain, known: Registration) -> Task[Registration]:
        if between.slide.mpp is None and known.report.mpp_estimated is not None:
            between = between.with_mpp(known.report.mpp_estimated)
        return register_along(self._reference, between, moving, known, self._config)

    def _known(self, name: str) -> Registration | None:
        """Return how a neighbour was registered; None for the reference, or where it was not."""
        key = registration_key(self._case.name, name)
        found = self._project.artefact(key)
        if found is None or found.summary["status"] == "failed" or self._project.is_stale(key):
            return None
        fields = RegistrationReport.__dataclass_fields__
        report = RegistrationReport(**{k: v for k, v in found.summary.items() if k in fields})
        return Registration(artefacts.read_transform(self._project.folder(found)), report)

    def keep(self, result: Registration) -> bool:
        """Commit a registration; return whether it is the one in use now."""
        project, moving = self._project, self._case.stain(result.report.stain)
        tokens = (self._case.stain(self._case.reference).token, moving.token)
        summary, key = asdict(result.report), registration_key(self._case.name, moving.name)
        with project.writing(key, tokens, summary, place=succeed) as folder:
            if result.transform is not None:
                artefacts.write_transform(folder, result.transform)
            if result.confidence is not None:
                artefacts.write_confidence(folder, result.confidence)
        return project.state.artefacts[key].id == folder.name


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
