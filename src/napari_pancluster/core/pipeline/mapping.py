"""The steps after training: encode every patch once, then `select-k`, `map` and `embed`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_pancluster.core import artefacts
from napari_pancluster.core.checkpoint import Checkpoint, read_checkpoint
from napari_pancluster.core.clustering import cluster, encode
from napari_pancluster.core.config import EmbedConfig, MapConfig, SelectConfig
from napari_pancluster.core.embedding import embed
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.latents import Clustering, Latents
from napari_pancluster.core.patches import PatchTable, make_grid
from napari_pancluster.core.pipeline.opening import (
    atomic,
    chosen_run,
    frame_inputs,
    open_stack,
    tissue_of,
)
from napari_pancluster.core.progress import Task
from napari_pancluster.core.project import Project
from napari_pancluster.core.training import choose_device
from napari_pancluster.core.validation import BETTER, ValidationScores, select_k


def checkpoint_of(project: Project, run: str) -> Checkpoint:
    """Return the network of a run."""
    record = project.state.artefacts[f"train/{run}"]
    return read_checkpoint(project.folder(record))


def latents_of(
    project: Project, run: str, stride_px: int | None
) -> Task[tuple[PatchTable, Latents, str, float | None]]:
    """Return the latents of every tissue cell of every case, computed once for a stride.

    Returns
    -------
    table, latents
        Of all cases.
    id
        Of the artefact that holds them.
    patches_per_s
        Of encoding.
    """
    key = f"latents/{run}"
    found = project.artefact(key)
    if (
        found is not None
        and not project.is_stale(key)
        and stride_px in (None, found.summary["stride_px"])
    ):
        return (
            *artefacts.read_latents(project.folder(found)),
            found.id,
            found.summary["patches_per_s"],
        )
    checkpoint = checkpoint_of(project, run)
    stride = stride_px if stride_px is not None else checkpoint.patch_px // 2
    network = checkpoint.network().to(choose_device(checkpoint.config["device"]))
    grids, values, seconds = [], [], 0.0
    for case in project.state.cases:
        stack = open_stack(project, case).select(checkpoint.stains)
        tissue = yield from tissue_of(project, stack)
        grid = make_grid(
            case.name,
            stack.extent,
            tissue,
            mpp=checkpoint.mpp,
            patch_px=checkpoint.patch_px,
            stride_px=stride,
        )
        began = time.perf_counter()
        values.append((yield from encode(stack, grid, network)).values)
        seconds += time.perf_counter() - began
        grids.append(grid)
    table, latents = PatchTable(tuple(grids)), Latents(np.concatenate(values))
    rate = len(table) / max(seconds, 1e-9)
    summary = {"stride_px": stride, "patches": len(table), "patches_per_s": rate}
    with project.writing(key, (run, *frame_inputs(project)), summary) as folder:
        artefacts.write_latents(folder, table, latents)
    return table, latents, project.state.artefacts[key].id, rate


@atomic
def select_clusters(
    project: Project,
    config: SelectConfig,
    map_config: MapConfig,
    *,
    run: str | None = None,
    ks: Sequence[int] = (),
) -> Task[dict[str, Any]]:
    """Compute the validation indices of every k of a run (or of `ks`) and suggest one."""
    run = chosen_run(project, run)
    checkpoint = checkpoint_of(project, run)
    for k in ks:
        checkpoint.check_k(k)
    table, latents, id_, _ = yield from latents_of(project, run, map_config.stride_px)
    clusterings = [cluster(latents, checkpoint, k) for k in (ks or checkpoint.ks)]
    scores = yield from select_k(latents.values, table.grid_id, clusterings, config)
    summary = scores_json(scores)
    with project.writing(f"select-k/{run}", (id_,), summary) as folder:
        artefacts.write_scores(folder, scores)
    return summary


def scores_json(scores: ValidationScores) -> dict[str, Any]:
    """Return the JSON object of `select-k`; an index that is undefined for a k is null."""
    indices = {
        name: {
            "mean": _finite(scores.mean[name]),
            "std": _finite(scores.std[name]),
            "better": better,
        }
        for name, better in BETTER.items()
    }
    return {
        "k": [int(k) for k in scores.k],
        "indices": indices,
        "suggested_k": scores.suggested_k,
        "why": scores.why,
    }


@atomic
def map_clusters(
    project: Project, config: MapConfig, *, run: str | None = None, k: int | None = None
) -> Task[dict[str, Any]]:
    """Assign every tissue cell of every case to one of k clusters."""
    run = chosen_run(project, run)
    checkpoint = checkpoint_of(project, run)
    k = k if k is not None else default_k(project, run)
    checkpoint.check_k(k)
    table, latents, id_, rate = yield from latents_of(project, run, config.stride_px)
    clustering = cluster(latents, checkpoint, k)
    summary = {
        "run": run,
        "k": k,
        "cases": case_areas(table, clustering, calibrated=is_calibrated(project)),
        "patches_per_s": rate,
    }
    with project.writing(f"map/{run}", (run, id_), summary) as folder:
        artefacts.write_clustering(folder, clustering)
    return summary


@atomic
def embed_patches(
    project: Project, config: EmbedConfig, *, run: str | None = None
) -> Task[dict[str, Any]]:
    """Lay the latents of all patches out in the plane."""
    began = time.perf_counter()
    run = chosen_run(project, run)
    _, latents, id_, _ = yield from latents_of(project, run, None)
    embedding = yield from embed(latents.values, config)
    summary = {"points": len(embedding.rows), "seconds": time.perf_counter() - began}
    with project.writing(f"embed/{run}", (id_,), summary) as folder:
        artefacts.write_embedding(folder, embedding)
    return summary


def default_k(project: Project, run: str) -> int:
    """Return the k asked for in training, or else the one that the indices suggest."""
    trained = int(project.state.artefacts[f"train/{run}"].summary["k"])
    if trained:
        return trained
    scores = project.artefact(f"select-k/{run}")
    if scores is None:
        raise InputError(f"No k was chosen for run {run}. Pass --k, or run select-k first.")
    return int(scores.summary["suggested_k"])


def is_calibrated(project: Project) -> bool:
    """Return whether µm are µm: no slide of the project counts pixels as units."""
    return all(s.mpp_source != "uncalibrated" for c in project.state.cases for s in c.stains)


def case_areas(
    table: PatchTable, clustering: Clustering, *, calibrated: bool
) -> list[dict[str, Any]]:
    """Return the number of patches and the area of every label, case by case."""
    cases = []
    for number, grid in enumerate(table.grids):
        counts = np.bincount(clustering.labels[table.rows_of(number)], minlength=clustering.k + 1)[
            1:
        ]
        cell_mm2 = grid.cell_um**2 * 1e-6
        areas = {
            str(n): float(c) * cell_mm2 if calibrated else None for n, c in enumerate(counts, 1)
        }
        cases.append({"case": grid.case, "patches": int(counts.sum()), "area_mm2": areas})
    return cases


def _finite(values: np.ndarray[Any, Any]) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]
