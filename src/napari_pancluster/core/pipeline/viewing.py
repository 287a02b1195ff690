"""From a project to what the window shows, and the user's edits back into it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from napari_pancluster.core import artefacts
from napari_pancluster.core.clustering import cluster
from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.embedding import pca
from napari_pancluster.core.latents import Latents
from napari_pancluster.core.patches import PatchTable
from napari_pancluster.core.pipeline.encoding import checkpoint_of, doubts_of
from napari_pancluster.core.pipeline.mapping import is_calibrated
from napari_pancluster.core.pipeline.opening import chosen_run, current, open_stack, require
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import Project
from napari_pancluster.core.results import Results
from napari_pancluster.core.smoothing import smooth

# Patches assigned at once: bounds the memory of their probabilities.
_ROWS = 100_000


def open_results(project: Project, run: str | None = None) -> Task[Results]:
    """Read the newest map of a run, and assign its patches for every k the run holds.

    Raises
    ------
    ProjectError
        If there is no map, or it is out of date.
    """
    run = chosen_run(project, run)
    remedy = f"pancluster map {project.root}"
    yield Progress("Reading the map")
    require(project, f"map/{run}", remedy)
    mapped = project.state.artefacts[f"map/{run}"].summary
    k, smoothed = int(mapped["k"]), bool(mapped.get("smoothed", False))
    table, latents = artefacts.read_latents(require(project, f"latents/{run}", remedy))
    checkpoint = checkpoint_of(project, run)
    assignments = {n: np.empty(len(table), np.uint8) for n in checkpoint.ks}
    certainty = {n: np.empty(len(table), np.uint8) for n in checkpoint.ks}
    for rows, part_table in _parts(table, by_case=smoothed):
        yield Progress("Reading the map", rows.start, len(table))
        part = Latents(latents.values[rows], latents.present[rows])
        for n in checkpoint.ks:
            found = cluster(part, checkpoint, n)
            if part_table is not None:
                found = smooth(found, part_table)
            assignments[n][rows] = found.assignments
            certainty[n][rows] = np.round(255 * found.certainty)
    embedding = current(project, f"embed/{run}", artefacts.read_embedding)
    cell_um = table.grids[0].cell_um
    return Results(
        run=run,
        stacks={case.name: open_stack(project, case) for case in project.state.cases},
        table=table,
        latents=latents.values,
        assignments=assignments,
        certainty=certainty,
        embedding=embedding if embedding is not None else pca(latents.values),
        embedding_name="UMAP" if embedding is not None else "PCA",
        scores=current(project, f"select-k/{run}", artefacts.read_scores),
        k=k,
        edits={n: edits_of(project, run, n) for n in checkpoint.ks},
        cell_mm2=cell_um**2 * 1e-6 if is_calibrated(project) else None,
        sheet=_sheet_columns(project, [grid.case for grid in table.grids]),
        smoothed=smoothed,
        doubts={n: doubts_of(project, run, n) for n in checkpoint.ks},
        present=latents.present,
        channels=checkpoint.stains,
    )


def _parts(table: PatchTable, *, by_case: bool) -> Iterator[tuple[slice, PatchTable | None]]:
    """Yield rows to assign at once; with the table of a case, where neighbours count."""
    if by_case:
        yield from ((table.rows_of(n), PatchTable((g,))) for n, g in enumerate(table.grids))
        return
    yield from ((slice(n, n + _ROWS), None) for n in range(0, len(table), _ROWS))


def _sheet_columns(project: Project, cases: list[str]) -> dict[str, tuple[str, ...]]:
    """Return what the sample sheet says of every case; empty where a case lacks a column."""
    extras = [project.case(name).extra for name in cases]
    names = dict.fromkeys(name for extra in extras for name in extra)
    return {name: tuple(extra.get(name, "") for extra in extras) for name in names}


def edits_of(project: Project, run: str, k: int) -> ClusterEdits:
    """Return what the user made of the k clusters of a run."""
    return current(project, edits_key(run, k), artefacts.read_edits) or ClusterEdits(k)


def save_edits(project: Project, run: str, edits: ClusterEdits) -> None:
    """Keep what the user made of a clustering.

    Raises
    ------
    ProjectError
        If the project cannot be written.
    """
    summary = {"k": edits.k, "operations": len(edits.operations)}
    with project.writing(edits_key(run, edits.k), (run,), summary) as folder:
        artefacts.write_edits(folder, edits)


def edits_key(run: str, k: int) -> str:
    """Return the key of the user's edits of the k clusters of a run."""
    return f"edits/{run}/{k}"
