"""The step `describe`: what the clusters of a run are."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from napari_pancluster.core.checkpoint import read_checkpoint
from napari_pancluster.core.clustering import cluster
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.export.content import Content
from napari_pancluster.core.export.description import (
    Row,
    agreement_rows,
    area_rows,
    group_rows,
    neighbour_rows,
    stain_rows,
    write_description,
)
from napari_pancluster.core.pipeline.exporting import open_content
from napari_pancluster.core.pipeline.opening import chosen_run
from napari_pancluster.core.pipeline.viewing import edits_of
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import Project
from napari_pancluster.core.smoothing import smooth
from napari_pancluster.core.statistics.agreement import agreement
from napari_pancluster.core.statistics.areas import CaseAreas
from napari_pancluster.core.statistics.classes import read_classes
from napari_pancluster.core.statistics.neighbourhood import neighbourhood
from napari_pancluster.core.statistics.stain_profile import StainProfile, measure_stains
from napari_pancluster.core.transfer import Transfer

_NOT_GIVEN = "not given"


@dataclass(frozen=True)
class Annotated:
    """Annotations to compare with.

    Attributes
    ----------
    path
        GeoJSON as QuPath writes it.
    case, stain
        Whose slide was annotated. Default: the only case, its reference.
    """

    path: Path
    case: str | None = None
    stain: str | None = None


def describe_clusters(
    project: Project,
    *,
    run: str | None = None,
    k: int | None = None,
    group: str | None = None,
    annotated: Annotated | None = None,
    out: Path | None = None,
) -> Task[dict[str, Any]]:
    """Measure what the clusters are: their stains, neighbours, areas and, if asked, classes.

    Parameters
    ----------
    k
        Number of clusters. Default: that of the map.
    group
        A column of the sample sheet.
    out
        Folder for the tables and the heat map. Default: nothing is written.

    Raises
    ------
    InputError, ProjectError
        If there is no map, no such k or column, or the annotations cannot be used.
    """
    run = chosen_run(project, run)
    yield Progress("Reading the map")
    content = _with_k(open_content(project, run), project, run, k)
    labels, edits = content.labels, content.edits
    areas = CaseAreas.of(content.table, content.row_labels, labels, calibrated=content.calibrated)
    # What may be refused comes before the slides are read.
    groups = _groups(project, areas, group, content) if group is not None else []
    compared = _compare(project, content, annotated) if annotated is not None else None
    folder = _made(out) if out is not None else None
    near = neighbourhood(content.table, content.row_labels, labels)
    profile = yield from measure_stains(content.stacks, content.table, content.row_labels, labels)
    tables = {
        "stain_od": stain_rows(profile, edits),
        "neighbours": neighbour_rows(near, edits),
        "areas": area_rows(areas, edits),
        "groups": groups,
        "annotations": compared.pop("cells") if compared else [],
    }
    files = _write(folder, tables, profile, content) if folder is not None else []
    result: dict[str, Any] = {"run": run, "k": content.clustering.k, **tables}
    result["missing"] = [{"case": c, "stain": s} for c, s in profile.missing]
    result["agreement"] = compared
    result["files"] = [str(f) for f in files]
    return result


def _with_k(content: Content, project: Project, run: str, k: int | None) -> Content:
    """Return the content with another number of clusters that the run holds."""
    if k is None or k == content.clustering.k:
        return content
    network = read_checkpoint(project.folder(project.state.artefacts[f"train/{run}"]))
    clustering = cluster(content.latents, network, k)
    if project.state.artefacts[f"map/{run}"].summary.get("smoothed"):
        clustering = smooth(clustering, content.table)
    return replace(content, clustering=clustering, edits=edits_of(project, run, k))


def _groups(project: Project, areas: CaseAreas, column: str, content: Content) -> list[Row]:
    extras = [project.case(name).extra for name in areas.cases]
    known = list(dict.fromkeys(name for extra in extras for name in extra))
    if column not in known:
        there = f"It has: {', '.join(known)}" if known else "It has none but those of the slides"
        raise InputError(
            f"The sample sheet of {project.root.name} has no column {column!r} that says the same "
            f"of all slides of a case. {there}. Fill it in for every slide, then make the project "
            "with: pancluster new --sheet"
        )
    values = [extra.get(column) or _NOT_GIVEN for extra in extras]
    return group_rows(column, areas.by_group(values), areas.labels, content.edits)


def _compare(project: Project, content: Content, annotated: Annotated) -> dict[str, Any]:
    """Return how the map agrees with annotations, the table under "cells"."""
    names = [grid.case for grid in content.table.grids]
    case = annotated.case or names[0]
    if annotated.case is None and len(names) > 1:
        raise InputError("Annotations belong to one slide. Name its case with --case.")
    stack = content.stacks[project.case(case).name]
    stain = annotated.stain or stack.reference
    number = names.index(case)
    grid = content.table.grids[number]
    # It says so where the stain is not there or not registered.
    way = Transfer.between(stack, stack.reference, stain)
    areas = read_classes(annotated.path, way.target.shape)
    own = content.row_labels[content.table.rows_of(number)]
    found = agreement(grid, own, content.labels, areas, way)
    cell_mm2 = grid.cell_um**2 * 1e-6 if content.calibrated else float(np.nan)
    return {
        "case": case,
        "stain": stain,
        "classes": list(found.classes),
        "ari": found.ari,
        "nmi": found.nmi,
        "annotated_share": found.annotated,
        "cells": agreement_rows(found, content.edits, cell_mm2),
    }


def _made(out: Path) -> Path:
    folder = out.expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made ({error.strerror or error}). Choose another folder."
        ) from error
    return folder


def _write(
    folder: Path, tables: dict[str, list[Row]], profile: StainProfile, content: Content
) -> list[Path]:
    from napari_pancluster.core.export.heat_map import write_heat_map

    try:
        files = write_description(folder, tables)
        files.append(write_heat_map(folder / "stain_od.png", profile, content.edits))
    except OSError as error:
        raise InputError(
            f"{folder} cannot be written ({error.strerror or error}). Choose another folder."
        ) from error
    return files
