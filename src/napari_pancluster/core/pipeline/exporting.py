"""The step `export`: the newest map of a run as files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from napari_pancluster.core import artefacts
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.export.areas import write_areas
from napari_pancluster.core.export.content import Content
from napari_pancluster.core.export.h5ad import write_h5ad
from napari_pancluster.core.export.images import write_label_images
from napari_pancluster.core.export.label_zarr import write_label_zarrs
from napari_pancluster.core.export.tables import write_tables
from napari_pancluster.core.pipeline.mapping import is_calibrated
from napari_pancluster.core.pipeline.opening import (
    chosen_run,
    current,
    open_stack,
    registration_key,
    require,
)
from napari_pancluster.core.pipeline.viewing import edits_of
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import Project


def _pictures(folder: Path, content: Content) -> list[Path]:
    from napari_pancluster.core.export.pictures import write_pictures

    return write_pictures(folder, content)


Writer = Callable[[Path, Content], list[Path]]
FORMATS: dict[str, Writer] = {
    "ome-tiff": write_label_images,
    "ome-zarr": write_label_zarrs,
    "geojson": write_areas,
    "csv": write_tables,
    "png": _pictures,
    "h5ad": write_h5ad,
}


def export(
    project: Project,
    out: Path,
    formats: Sequence[str],
    *,
    run: str | None = None,
    geojson_for: Sequence[str] = (),
) -> Task[dict[str, Any]]:
    """Write the newest map of a run into a folder, in each of the formats.

    Parameters
    ----------
    geojson_for
        Stains that get the areas of the clusters in pixels of their own slide, too.

    Raises
    ------
    InputError
        If a format or a stain is unknown, or the folder cannot be written.
    """
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or not formats:
        raise InputError(
            f"--to {','.join(unknown)!s} is not known. Choose from: {', '.join(FORMATS)}."
        )
    if geojson_for and "geojson" not in formats:
        raise InputError("--geojson-for needs geojson among the formats of --to. Add it.")
    content = open_content(project, run)
    writers: dict[str, Writer] = {**FORMATS, "geojson": partial(write_areas, stains=geojson_for)}
    out = out.expanduser().absolute()
    files: list[Path] = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for number, name in enumerate(formats):
            yield Progress("Exporting", number, len(formats))
            files += writers[name](out, content)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror or error}). Choose another folder."
        ) from error
    return {"files": [str(f) for f in files]}


def carried_stains(project: Project) -> tuple[str, ...]:
    """Return the names of the stains that are registered in some case, beside the references."""
    found = {
        record.name
        for case in project.state.cases
        for record in case.stains
        if record.name != case.reference
        and (kept := project.artefact(registration_key(case.name, record.name))) is not None
        and kept.summary["status"] != "failed"
    }
    return tuple(sorted(found))


def open_content(project: Project, run: str | None = None) -> Content:
    """Return the newest map of a run and all that belongs to it.

    Raises
    ------
    ProjectError
        If there is no map, or it is out of date.
    """
    run = chosen_run(project, run)
    remedy = f"pancluster map {project.root}"
    clustering = artefacts.read_clustering(require(project, f"map/{run}", remedy))
    table, latents = artefacts.read_latents(require(project, f"latents/{run}", remedy))
    stains = [s for c in project.state.cases for s in c.stains]
    return Content(
        stacks={case.name: open_stack(project, case) for case in project.state.cases},
        table=table,
        latents=latents,
        clustering=clustering,
        edits=edits_of(project, run, clustering.k),
        embedding=current(project, f"embed/{run}", artefacts.read_embedding),
        scores=current(project, f"select-k/{run}", artefacts.read_scores),
        unit="µm" if is_calibrated(project) else "px",
        nominal=any(s.mpp_source == "nominal" for s in stains),
        run=run,
        sheet={case.name: case.extra for case in project.state.cases},
        channels=tuple(project.state.artefacts[f"train/{run}"].summary.get("stains", ())),
    )
