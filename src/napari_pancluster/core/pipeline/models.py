"""Trained networks outside their project: exported with their card, and found again."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from napari_pancluster.core.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from napari_pancluster.core.errors import InputError, ProjectError
from napari_pancluster.core.model_card import (
    CURVES,
    GALLERY,
    ModelCard,
    StainSeen,
    read_card,
    write_card,
)
from napari_pancluster.core.pipeline.opening import chosen_run
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import Project, project_path
from napari_pancluster.core.stack import CHANNELS

PICTURES = (GALLERY, CURVES)
_NETWORK = "model.json"


@dataclass(frozen=True)
class Model:
    """A trained network with its card.

    Attributes
    ----------
    name
        What to call it: that of its folder.
    pictures
        Files that show what it found.
    """

    name: str
    checkpoint: Checkpoint
    card: ModelCard
    pictures: tuple[Path, ...] = ()


def open_model(source: str) -> Model:
    """Return the model in a folder made by `export_model`, or in ``PROJECT`` or ``PROJECT:RUN``.

    Raises
    ------
    InputError
        If there is none.
    """
    folder = Path(source).expanduser()
    if (folder / _NETWORK).is_file():
        return _read_model(folder.absolute(), folder.absolute().name)
    if project_path(folder).is_dir():
        return model_of(Project.open(folder))
    path, _, run = source.rpartition(":")
    if path and project_path(Path(path)).is_dir():
        return model_of(Project.open(Path(path)), run)
    raise InputError(
        f"--model {source} is neither a folder made by 'pancluster model' nor a project. "
        "Give the folder, PROJECT or PROJECT:RUN."
    )


def model_of(project: Project, run: str | None = None) -> Model:
    """Return the network of a run with its card.

    Raises
    ------
    ProjectError
        If there is no such run.
    """
    run = chosen_run(project, run)
    folder = project.folder(project.state.artefacts[f"train/{run}"])
    name = f"{project.root.stem}:{run}"
    # One that was applied here brought its card along.
    if read_card(folder) is not None:
        return _read_model(folder, name)
    checkpoint = read_checkpoint(folder)
    return Model(name, checkpoint, _card_of(project, run, checkpoint))


def export_model(project: Project, out: Path, *, run: str | None = None) -> Task[dict[str, Any]]:
    """Write the network of a run into a folder, with its card, curves and gallery.

    Raises
    ------
    InputError
        If the folder holds a model already or cannot be written.
    """
    model = model_of(project, run)
    out = out.expanduser().absolute()
    if (out / _NETWORK).exists():
        raise InputError(f"{out} holds a model already. Choose another folder or delete it.")
    yield Progress("Exporting the model")
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_checkpoint(out, model.checkpoint)
        pictures = _copied(model.pictures, out) or _drawn(project, chosen_run(project, run), out)
        write_card(out, model.card, pictures)
    except OSError as error:
        raise InputError(
            f"{out} cannot be written ({error.strerror or error}). Choose another folder."
        ) from error
    return {
        "model": str(out),
        "run": model.card.run,
        "files": sorted(str(f) for f in out.iterdir() if f.is_file()),
    }


def write_model(folder: Path, model: Model) -> None:
    """Write a model that is applied into the folder of its artefact."""
    write_checkpoint(folder, model.checkpoint)
    write_card(folder, model.card, _copied(model.pictures, folder))


def _copied(pictures: tuple[Path, ...], folder: Path) -> tuple[str, ...]:
    for picture in pictures:
        shutil.copyfile(picture, folder / picture.name)
    return tuple(p.name for p in pictures)


def _drawn(project: Project, run: str, out: Path) -> tuple[str, ...]:
    """Draw what there is: a gallery needs a map, and curves need `select-k`."""
    from napari_pancluster.core.export.pictures import curves_picture, gallery_picture
    from napari_pancluster.core.pipeline.exporting import open_content

    try:
        content = open_content(project, run)
    except ProjectError:
        return ()
    drawn = [gallery_picture(out / GALLERY, content)]
    if content.scores is not None and len(content.scores.k) > 1:
        drawn.append(curves_picture(out / CURVES, content))
    return tuple(p.name for p in drawn)


def _read_model(folder: Path, name: str) -> Model:
    checkpoint = read_checkpoint(folder)
    card = read_card(folder) or _bare_card(checkpoint, name)
    pictures = tuple(folder / p for p in PICTURES if (folder / p).is_file())
    return Model(name, checkpoint, card, pictures)


def _bare_card(checkpoint: Checkpoint, run: str) -> ModelCard:
    """Return what the network itself tells."""
    return ModelCard(
        run=run,
        mpp=checkpoint.mpp,
        patch_px=checkpoint.patch_px,
        stains=tuple(
            StainSeen(name=name, **densities_seen(checkpoint, n))
            for n, name in enumerate(checkpoint.stains)
        ),
        ks=checkpoint.ks,
        k=checkpoint.k or None,
        config=checkpoint.config,
    )


def _card_of(project: Project, run: str, checkpoint: Checkpoint) -> ModelCard:
    record = project.state.artefacts[f"train/{run}"]
    summary = record.summary
    scores = project.artefact(f"select-k/{run}")
    curves = None if scores is None else scores.summary
    used = [s for c in project.state.cases for s in c.stains if s.name in checkpoint.stains]
    versions = summary.get("versions", {})
    bare = _bare_card(checkpoint, run)
    return bare.model_copy(
        update={
            "trained": record.created,
            "program": versions.get("napari-pancluster", project.state.written_by),
            "torch": versions.get("torch"),
            "device": summary["device"],
            "seconds": summary["seconds"],
            "calibrated": all(s.mpp_source != "uncalibrated" for s in used),
            "cases": len(project.state.cases),
            "slides": tuple(Path(s.path).name for s in used),
            "stains": tuple(_seen(project, s) for s in bare.stains),
            "k": bare.k or (int(curves["suggested_k"]) if curves else None),
            "curves": curves,
            "losses": summary["losses"],
            "clusters": _given_by_people(project, run, checkpoint),
        }
    )


def _seen(project: Project, stain: StainSeen) -> StainSeen:
    """Return what is known of a stain with what its slides tell."""
    records = [s for c in project.state.cases for s in c.stains if s.name == stain.name]
    if not records:
        return stain
    sizes = [s.mpp for s in records if s.mpp is not None]
    more = {
        "modality": records[0].modality,
        "picked": records[0].picked,
        "slide_mpp": (min(sizes), max(sizes)) if sizes else None,
    }
    return stain.model_copy(update=more)


def densities_seen(checkpoint: Checkpoint, number: int) -> dict[str, tuple[float, ...]]:
    """Return mean and spread of a stain's channels in training; empty where it is not known."""
    channels = slice(number * CHANNELS, (number + 1) * CHANNELS)
    return {
        name: tuple(float(v) for v in checkpoint.weights[name][channels])
        for name in ("od_mean", "od_std")
        if name in checkpoint.weights
    }


def _given_by_people(
    project: Project, run: str, checkpoint: Checkpoint
) -> dict[int, list[dict[str, Any]]]:
    from napari_pancluster.core.pipeline.viewing import edits_of

    edits = {k: json.loads(edits_of(project, run, k).to_json()) for k in checkpoint.ks}
    return {k: operations for k, operations in edits.items() if operations}
