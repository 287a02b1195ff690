"""What a slide or a project is: the step `info`."""

from __future__ import annotations

from typing import Any, Literal

from napari_pancluster.core.pipeline.opening import registration_key
from napari_pancluster.core.pipeline.registering import registration_results
from napari_pancluster.core.project import Project

State = Literal["done", "stale", "missing"]
RUN_STEPS = ("select-k", "map", "embed")


def describe_project(project: Project) -> dict[str, Any]:
    """Return cases, stains and where every step stands."""
    stains = dict.fromkeys(s.name for c in project.state.cases for s in c.stains)
    return {
        "project": str(project.root),
        "cases": [c.name for c in project.state.cases],
        "stains": list(stains),
        "steps": step_states(project),
        "pixel_sizes": [
            {"case": c.name, "stain": s.name, "mpp": s.mpp, "source": s.mpp_source}
            for c in project.state.cases
            for s in c.stains
        ],
        "runs": project.runs(),
    }


def step_states(project: Project) -> dict[str, State]:
    """Return for every step whether it is done, stale or missing; runs: the newest one's."""
    registrations = [
        registration_key(case.name, stain.name)
        for case in project.state.cases
        for stain in case.stains
        if stain.name != case.reference
    ]
    runs = project.runs()
    steps: dict[str, State] = {"register": _worst([_state(project, k) for k in registrations])}
    steps["train"] = _state(project, f"train/{runs[-1]}") if runs else "missing"
    for step in RUN_STEPS:
        steps[step] = _state(project, f"{step}/{runs[-1]}") if runs else "missing"
    return steps


def _state(project: Project, key: str) -> State:
    if project.artefact(key) is None:
        return "missing"
    return "stale" if project.is_stale(key) else "done"


def _worst(states: list[State]) -> State:
    for state in ("missing", "stale"):
        if state in states:
            return state
    return "done"


def steps_in_words(project: Project) -> dict[str, tuple[State, str]]:
    """Return, step by step, where it stands and what there is to know, for people."""
    states = step_states(project)
    runs = project.runs()
    trained = project.artefact(f"train/{runs[-1]}") if runs else None
    mapped = project.artefact(f"map/{runs[-1]}") if runs else None
    done = {
        "register": _registered_in_words(project),
        "train": trained_in_words(trained.summary) if trained else "",
        "map": f"Mapped with {mapped.summary['k']} clusters." if mapped else "",
        "select-k": "The validation indices are computed.",
        "embed": "The UMAP is computed.",
    }
    words = {
        "missing": "Not done yet.",
        "stale": "Out of date: what it was made from has changed. Do it again.",
    }
    return {step: (state, words.get(state, done[step])) for step, state in states.items()}


def trained_in_words(summary: dict[str, Any]) -> str:
    """Return what a training run was, for people."""
    config = summary["config"]
    applied, side = summary.get("applied"), config["patch_px"]
    patches = "64 and 128 px patches" if side == "both" else f"{side} px patches"
    what = f"on {patches} at {summary['mpp']:.3g} µm/px ({', '.join(summary['stains'])}"
    if applied is not None:
        return f"Not trained here: {applied['model']}, applied {what})."
    if config.get("recipe") == "baseline":
        return f"Plain features and k-means, no network, {what})."
    recipe = "as published, " if config.get("recipe") == "published" else ""
    return f"Trained {summary['epochs']} epochs {recipe}{what}; {summary['device']})."


def _registered_in_words(project: Project) -> str:
    results = registration_results(project, [c.name for c in project.state.cases])
    if not results:
        return "One stain only: nothing to register."
    counts = {
        status: sum(r["status"] == status for r in results)
        for status in ("ok", "doubtful", "failed")
    }
    found = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    return f"Registered: {found}."
