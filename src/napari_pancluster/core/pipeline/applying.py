"""A network trained elsewhere on the slides of this project, and what may be wrong with that."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from napari_pancluster.core.checkpoint import Checkpoint
from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.model_card import ModelCard
from napari_pancluster.core.pipeline.models import Model, densities_seen, open_model, write_model
from napari_pancluster.core.pipeline.opening import open_stack
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import Project
from napari_pancluster.core.records import StainRecord
from napari_pancluster.core.stack import CHANNELS, SlideStack

Densities = Mapping[str, Mapping[str, list[float | None]]]

_FINER = 0.99
# Pixel sizes of slides within this factor of those seen in training count as the same.
_SAME_MPP = 1.25
_DENSER = 1.5
_CONTRAST = 1.6
_LEAST_OD = 0.02


def apply_model(project: Project, source: str) -> Task[str]:
    """Take a network from elsewhere into a project, as a run that was not trained there.

    The same network is taken once. What people called its clusters comes with it.

    Parameters
    ----------
    source
        See `open_model`.

    Returns
    -------
    run
        Its id.

    Raises
    ------
    InputError
        If the project has none of its stains, another kind of them, or too coarse pixels.
    """
    yield Progress("Reading the model")
    model = open_model(source)
    stains = _matched(model.checkpoint.stains, project)
    _check_kinds(project, model.card, stains)
    stacks = [open_stack(project, case) for case in project.state.cases]
    _check_pixels(stacks, model, stains)
    told = [*_told_of_stains(project, model, stains), *_told_of_pixels(project, model.card, stains)]
    names = tuple(stains.get(name, name) for name in model.checkpoint.stains)
    run = f"applied-{_fingerprint(model.checkpoint, names)}"
    if project.artefact(f"train/{run}") is None:
        _take_in(project, run, _renamed(model, names), told)
    return run


def strangeness(
    project: Project, run: str, checkpoint: Checkpoint, densities: Densities
) -> list[str]:
    """Return in sentences how slides differ from those an applied network was trained on.

    Empty for a network that was trained here.

    Parameters
    ----------
    densities
        By case, ``mean`` and ``std`` of every channel in tissue.
    """
    applied = project.state.artefacts[f"train/{run}"].summary.get("applied")
    if applied is None:
        return []
    told = list(applied["warnings"])
    for number, stain in enumerate(checkpoint.stains):
        seen = densities_seen(checkpoint, number)
        for case, found in densities.items():
            channels = slice(number * CHANNELS, (number + 1) * CHANNELS)
            mean, std = found["mean"][channels], found["std"][channels]
            if seen and None not in mean:
                here = {"od_mean": mean, "od_std": std}
                told += _told_of_density(f"{stain} of case {case}", here, seen)
    return told


def _matched(stains: Sequence[str], project: Project) -> dict[str, str]:
    """Return the project's name of every stain of a model that the project has.

    "H&E", "he" and "HE" are one.
    """
    own = {_plain(s.name): s.name for c in project.state.cases for s in c.stains}
    found = {name: own[_plain(name)] for name in stains if _plain(name) in own}
    if not found:
        raise InputError(
            f"The model was trained on {', '.join(stains)}; {project.root.name} has "
            f"{', '.join(own.values())}. Apply a model of these stains, or train one."
        )
    return found


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


def _records(project: Project, name: str) -> list[StainRecord]:
    return [s for c in project.state.cases for s in c.stains if s.name == name]


def _check_kinds(project: Project, card: ModelCard, stains: Mapping[str, str]) -> None:
    """Refuse a brightfield model for fluorescence, and px for µm; warnings would not do."""
    for theirs, ours in stains.items():
        kind = card.stain(theirs).modality
        for record in _records(project, ours):
            if kind is not None and record.modality != kind:
                raise InputError(
                    f"The model was trained on {theirs} in {kind}; {record.path} is "
                    f"{record.modality}. Apply a model of such slides, or train one."
                )
            if card.calibrated != (record.mpp_source != "uncalibrated"):
                where = "the model" if not card.calibrated else project.root.name
                raise InputError(
                    f"Pixel sizes of {where} are not calibrated, the others are: patches would "
                    "not be of the same size. Give the pixel sizes with pancluster new --mpp."
                )


def _check_pixels(stacks: Sequence[SlideStack], model: Model, stains: Mapping[str, str]) -> None:
    mpp = model.checkpoint.mpp
    for stack in stacks:
        for stain in stack.stains:
            read = stain.name in stains.values() and stain.name in stack.registered
            if read and mpp < stain.slide.um_per_px * _FINER:
                raise InputError(
                    f"The model works at {mpp:g} µm/px, finer than {stain.name} of case "
                    f"{stack.case}, which has {stain.slide.um_per_px:g}. Apply a model trained at "
                    f"--mpp {stain.slide.um_per_px:g} or more."
                )


def _told_of_stains(project: Project, model: Model, stains: Mapping[str, str]) -> list[str]:
    told = [
        f"{project.root.name} has no {name}, which the model was trained with. It counts as "
        "missing everywhere; clusters may be misplaced."
        for name in model.checkpoint.stains
        if name not in stains
    ]
    own = dict.fromkeys(s.name for c in project.state.cases for s in c.stains)
    told += [
        f"{name} is not looked at: the model was not trained with it."
        for name in own
        if name not in stains.values()
    ]
    told += [
        f"{ours} is read from other channels than {theirs} was in training."
        for theirs, ours in stains.items()
        if (seen := model.card.stain(theirs).picked)
        and any(r.picked != seen for r in _records(project, ours))
    ]
    return told


def _told_of_pixels(project: Project, card: ModelCard, stains: Mapping[str, str]) -> list[str]:
    told = []
    for theirs, ours in stains.items():
        sizes = card.stain(theirs).slide_mpp
        own = [r.mpp for r in _records(project, ours) if r.mpp is not None]
        if sizes is None:
            continue
        for mpp in dict.fromkeys(own):
            if not sizes[0] / _SAME_MPP <= mpp <= sizes[1] * _SAME_MPP:
                seen = f"{sizes[0]:g}" + (f" to {sizes[1]:g}" if sizes[1] != sizes[0] else "")
                told.append(
                    f"{ours} was scanned at {mpp:g} µm/px, the slides the model was trained on at "
                    f"{seen}: both are read at {card.mpp:g}, but may differ in sharpness."
                )
    return told


def _told_of_density(
    what: str, here: Mapping[str, Sequence[Any]], seen: Mapping[str, Sequence[float]]
) -> list[str]:
    """Return a sentence where a stain is of another density, contrast or hue than in training."""
    remedy = "Clusters may be misplaced: compare the map with the slide, or train on such slides."
    mean, their_mean = (np.maximum(v["od_mean"], 0) + _LEAST_OD for v in (here, seen))
    std, their_std = (np.maximum(v["od_std"], 0) + _LEAST_OD for v in (here, seen))
    density, contrast = mean.mean() / their_mean.mean(), std.mean() / their_std.mean()
    hue = (mean / their_mean) / density
    if max(density, 1 / density) > _DENSER:
        found = f"{'denser' if density > 1 else 'paler'} than in the slides of the model (mean "
        found += f"density {mean.mean():.2f}, there {their_mean.mean():.2f})"
    elif max(hue.max(), 1 / hue.min()) > _DENSER:
        found = "of another colour than in the slides of the model"
    elif max(contrast, 1 / contrast) > _CONTRAST:
        found = f"{'more' if contrast > 1 else 'less'} varied than in the slides of the model "
        found += f"(spread of the density {std.mean():.2f}, there {their_std.mean():.2f})"
    else:
        return []
    return [f"{what} is {found}. {remedy}"]


def _fingerprint(checkpoint: Checkpoint, names: tuple[str, ...]) -> str:
    """Return what tells a network from others: the same one is the same run when applied again."""
    found = hashlib.sha256(json.dumps([names, checkpoint.mpp, checkpoint.ks]).encode())
    for name, tensor in sorted(checkpoint.weights.items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()[:12]


def _renamed(model: Model, names: tuple[str, ...]) -> Model:
    """Return a model under the project's names of its stains, for whatever device there is."""
    config = {**model.checkpoint.config, "device": "auto"}
    return replace(model, checkpoint=replace(model.checkpoint, stains=names, config=config))


def _take_in(project: Project, run: str, model: Model, told: list[str]) -> None:
    from napari_pancluster.core.pipeline.viewing import save_edits

    card, checkpoint = model.card, model.checkpoint
    summary = {
        "run": run,
        "k": card.k or 0,
        "device": card.device,
        "patches_per_s": None,
        "epochs": len(checkpoint.history),
        "losses": card.losses,
        "seconds": card.seconds,
        "stains": list(checkpoint.stains),
        "mpp": checkpoint.mpp,
        "config": checkpoint.config,
        "applied": {
            "model": model.name,
            "run": card.run,
            "trained": card.trained,
            "warnings": told,
        },
    }
    # Made from none of this project's slides: a change of theirs leaves it as good as it was.
    with project.writing(f"train/{run}", (), summary, id_=run) as folder:
        write_model(folder, model)
    for k, operations in card.clusters.items():
        save_edits(project, run, ClusterEdits.from_json(k, json.dumps(operations)))
