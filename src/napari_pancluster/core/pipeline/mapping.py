"""The steps after training: encode every patch once, then `select-k`, `map` and `embed`."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from napari_pancluster.core import artefacts
from napari_pancluster.core.clustering import cluster
from napari_pancluster.core.config import EmbedConfig, MapConfig, SelectConfig
from napari_pancluster.core.embedding import embed
from napari_pancluster.core.errors import ClusterDoubt, InputError
from napari_pancluster.core.latents import Clustering
from napari_pancluster.core.patches import PatchTable, whole_patches
from napari_pancluster.core.pipeline.applying import apply_model, strangeness
from napari_pancluster.core.pipeline.encoding import checkpoint_of, doubts_of, encoding, latents_of
from napari_pancluster.core.pipeline.naming_over import carry_names
from napari_pancluster.core.pipeline.opening import chosen_run
from napari_pancluster.core.progress import Task
from napari_pancluster.core.project import Project
from napari_pancluster.core.smoothing import smooth
from napari_pancluster.core.validation import BETTER, ValidationScores, select_k
from napari_pancluster.core.votes import condensed_votes


@encoding
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
    encoded = yield from latents_of(project, run, map_config.stride_px)
    latents = encoded.latents
    clusterings = [cluster(latents, checkpoint, k) for k in (ks or checkpoint.ks)]
    # Clusters are judged by the votes of all heads; where there are none, by the latents.
    voters = checkpoint.voters
    values = condensed_votes(latents.values, voters) if voters else latents.values
    whole = np.flatnonzero(whole_patches(latents.present, encoded.table.grid_id))
    scores = yield from select_k(
        values[whole],
        encoded.table.grid_id[whole],
        [clustering.only(whole) for clustering in clusterings],
        config,
        zscored=not voters,
    )
    summary = scores_json(scores)
    with project.writing(f"select-k/{run}", (encoded.id,), summary) as folder:
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


@encoding
def map_clusters(
    project: Project,
    config: MapConfig,
    *,
    run: str | None = None,
    k: int | None = None,
    model: str | None = None,
    scheduler: str | None = None,
) -> Task[dict[str, Any]]:
    """Assign every tissue cell of every case to one of k clusters.

    Parameters
    ----------
    run
        A run of the project; the newest where none is named.
    model
        A trained network from elsewhere instead: a folder made by `export_model`, or a project,
        ``PROJECT`` or ``PROJECT:RUN``.
    scheduler
        Address of a `dask.distributed` scheduler that encodes the cases; None for this machine.
    """
    if model is not None:
        if run is not None:
            raise InputError("Both --run and --model were given. Use one of them.")
        run = yield from apply_model(project, model)
    run = chosen_run(project, run)
    checkpoint = checkpoint_of(project, run)
    k = k if k is not None else default_k(project, run)
    checkpoint.check_k(k)
    encoded = yield from latents_of(project, run, config.stride_px, scheduler=scheduler)
    clustering = cluster(encoded.latents, checkpoint, k)
    if config.smooth:
        clustering = smooth(clustering, encoded.table)
    told = [*strangeness(project, run, checkpoint, encoded.densities), *doubts_of(project, run, k)]
    summary = {
        "run": run,
        "k": k,
        "cases": case_areas(encoded.table, clustering, calibrated=is_calibrated(project)),
        "patches_per_s": encoded.patches_per_s,
        "stride_px": encoded.table.grids[0].stride_px,
        "smoothed": config.smooth,
        "warnings": told,
    }
    if project.artefact(f"map/{run}") is None:
        summary["names"] = carry_names(project, run, encoded.table, clustering)
    with project.writing(f"map/{run}", (run, encoded.id), summary) as folder:
        artefacts.write_clustering(folder, clustering)
    for text in told:
        warnings.warn(text, ClusterDoubt)
    return summary


@encoding
def embed_patches(
    project: Project, config: EmbedConfig, *, run: str | None = None
) -> Task[dict[str, Any]]:
    """Lay the latents of all patches out in the plane."""
    began = time.perf_counter()
    run = chosen_run(project, run)
    encoded = yield from latents_of(project, run, None)
    embedding = yield from embed(encoded.latents.values, config)
    summary = {"points": len(embedding.rows), "seconds": time.perf_counter() - began}
    with project.writing(f"embed/{run}", (encoded.id,), summary) as folder:
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
