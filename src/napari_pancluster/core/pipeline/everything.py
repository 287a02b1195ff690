"""The step `run`: all that is missing or stale, in order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from napari_pancluster.core.config import EmbedConfig, MapConfig, RegisterConfig, SelectConfig
from napari_pancluster.core.errors import RegistrationError
from napari_pancluster.core.pipeline.describe import step_states
from napari_pancluster.core.pipeline.mapping import (
    embed_patches,
    map_clusters,
    select_clusters,
)
from napari_pancluster.core.pipeline.registering import register, registration_results
from napari_pancluster.core.pipeline.training import train_network
from napari_pancluster.core.progress import Task
from napari_pancluster.core.project import Project

Warn = Callable[[str], object]


def run_all(
    project: Project,
    *,
    train: Mapping[str, Any],
    register_config: RegisterConfig | None = None,
    map_config: MapConfig | None = None,
    embed_config: EmbedConfig | None = None,
    select_config: SelectConfig | None = None,
    strict: bool = False,
    warn: Warn = lambda _: None,
) -> Task[dict[str, Any]]:
    """Do every step that is missing or stale and return each step's result under its name.

    Parameters
    ----------
    train
        Fields of `TrainConfig` asked for. A finished run is kept when it fits them and holds the k.
    strict
        Fail when no moving stain could be registered.
    warn
        Told, in a sentence, what the user should know.

    Raises
    ------
    RegistrationError
        With `strict`, if the reference alone is left of a case.
    """
    map_config = map_config or MapConfig()
    results: dict[str, Any] = {"project": str(project.root)}
    results["register"] = yield from register(
        project, register_config or RegisterConfig(), only_missing=True
    )
    _look_at(project, warn, strict=strict)
    run, k = _fitting_run(project, train), train.get("k", None)
    k = k if isinstance(k, int) else None
    if run is None:
        results["train"] = yield from train_network(project, train)
        run = results["train"]["run"]
    else:
        results["train"] = project.state.artefacts[f"train/{run}"].summary
    results["select-k"] = yield from _unless_done(
        project,
        "select-k",
        run,
        lambda _: True,
        lambda: select_clusters(project, select_config or SelectConfig(), map_config, run=run),
    )
    if train.get("k") == "auto":
        k = int(results["select-k"]["suggested_k"])
    results["map"] = yield from _unless_done(
        project,
        "map",
        run,
        lambda summary: (
            k in (None, summary["k"])
            and summary.get("smoothed", False) == map_config.smooth
            and _same_stride(project, run, map_config)
        ),
        lambda: map_clusters(project, map_config, run=run, k=k),
    )
    results["embed"] = yield from _unless_done(
        project,
        "embed",
        run,
        lambda _: True,
        lambda: embed_patches(project, embed_config or EmbedConfig(), run=run),
    )
    results["train"] = {**results["train"], "k": results["map"]["k"]}
    return results


def train_and_map(
    project: Project, given: Mapping[str, Any], map_config: MapConfig, *, resume: bool = False
) -> Task[dict[str, Any]]:
    """Train, judge every k, and map with the k asked for or suggested."""
    trained = yield from train_network(project, given, resume=resume)
    run = trained["run"]
    if project.artefact(f"select-k/{run}") is None:
        yield from select_clusters(project, SelectConfig(), map_config, run=run)
    return (yield from map_clusters(project, map_config, run=run))


def _unless_done(
    project: Project,
    step: str,
    run: str,
    fits: Callable[[dict[str, Any]], bool],
    task: Callable[[], Task[dict[str, Any]]],
) -> Task[dict[str, Any]]:
    key = f"{step}/{run}"
    found = project.artefact(key)
    if found is not None and not project.is_stale(key) and fits(found.summary):
        return found.summary
    return (yield from task())


def _same_stride(project: Project, run: str, config: MapConfig) -> bool:
    latents = project.artefact(f"latents/{run}")
    return latents is not None and config.stride_px in (None, latents.summary["stride_px"])


def _fitting_run(project: Project, given: Mapping[str, Any]) -> str | None:
    """Return the newest run if it is up to date, was trained as asked, and holds the k."""
    if step_states(project)["train"] != "done":
        return None
    run = project.runs()[-1]
    config = project.state.artefacts[f"train/{run}"].summary["config"]
    same = all(config[name] == value for name, value in given.items() if name != "k")
    k = given.get("k", "auto")
    held = k == "auto" or k == config["k"] or config["k_min"] <= k <= config["k_max"]
    return run if same and held else None


def _look_at(project: Project, warn: Warn, *, strict: bool) -> None:
    results = registration_results(project, [c.name for c in project.state.cases])
    for result in results:
        if result["status"] != "ok":
            left_out = " It is left out." if result["status"] == "failed" else ""
            warn(
                f"{result['stain']} of case {result['case']}: registration "
                f"{result['status']}: {result['reason']}{left_out}"
            )
    for case in project.state.cases:
        mine = [r for r in results if r["case"] == case.name]
        if strict and mine and all(r["status"] == "failed" for r in mine):
            raise RegistrationError(
                f"No stain of case {case.name} could be registered, only {case.reference} is left. "
                "Check the slides, give --landmarks, or leave out --strict."
            )
