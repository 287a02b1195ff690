"""The step `train`: patches of the registered stacks in, a network out."""

from __future__ import annotations

import secrets
import shutil
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from napari_pancluster.core.checkpoint import Checkpoint, write_checkpoint
from napari_pancluster.core.config import MapConfig, SelectConfig, TrainConfig
from napari_pancluster.core.consensus import agreed
from napari_pancluster.core.dataset import build_store, open_store
from napari_pancluster.core.devices import choose_device
from napari_pancluster.core.doubts import doubts
from napari_pancluster.core.errors import InputError, ProjectError
from napari_pancluster.core.middles import MOST_PATCHES, fresh_latents
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.patches import PatchSample, check_patch_fits, sample_positions
from napari_pancluster.core.pipeline.mapping import select_clusters
from napari_pancluster.core.pipeline.opening import (
    atomic,
    frame_inputs,
    make_overviews,
    open_stack,
    tissue_of,
)
from napari_pancluster.core.pipeline.unfinished import (
    MAY_CHANGE,
    clear_stores,
    read_note,
    run_to_resume,
    store_folder,
    write_note,
)
from napari_pancluster.core.progress import Progress, Task, run
from napari_pancluster.core.project import Project
from napari_pancluster.core.ranks import Ranks
from napari_pancluster.core.stack import CHANNELS, SlideStack
from napari_pancluster.core.tissue_mask import TissueMask
from napari_pancluster.core.training import train

_FINER = 0.99
# For the checkpoints, the network and the maps.
_SPARE_BYTES = 64 * 2**20


def train_network(
    project: Project, given: Mapping[str, Any], *, resume: bool = False
) -> Task[dict[str, Any]]:
    """Train one network over all cases; with k "auto", choose k by the validation indices.

    Parameters
    ----------
    given
        Fields of `TrainConfig` that were asked for; the rest has its default.
    resume
        Go on with the newest interrupted run.
    """
    summary = yield from _train(project, given, resume=resume)
    return (yield from _with_k(project, summary))


@atomic
def _train(project: Project, given: Mapping[str, Any], *, resume: bool) -> Task[dict[str, Any]]:
    """Train, without choosing k: a network that is done stays when the choice is cancelled."""
    began = time.perf_counter()
    run, config = _begin(project, given, resume=resume)
    stacks, tissues = [], []
    for case in project.state.cases:
        yield from make_overviews(project, case)
        stack = open_stack(project, case)
        stacks.append(stack)
        tissues.append((yield from tissue_of(project, stack)))
    stains = usable_stains(stacks)
    mpp = working_mpp(stacks, stains, config.mpp)
    for tissue in tissues:
        check_patch_fits(tissue, patch_um=config.window_px * mpp, patch_px=config.window_px)
    stacks = [s.select(stains).trusting(config.least_confidence) for s in stacks]
    inputs = frame_inputs(project)
    if resume:
        _check_unchanged(project, run, inputs)
    folder = write_note(project, run, config=config.model_dump(), inputs=inputs)
    patches = store_folder(folder)
    clear_stores(project)
    # This process's own, from before a power cut: whether it is whole is not known.
    shutil.rmtree(patches, ignore_errors=True)
    rates: list[float] = []
    waits: list[float] = []
    try:
        sample = sample_positions(tissues, _affordable(config, len(stains)), config.seed)
        _check_disk(folder, len(sample.centres) * _crop_bytes(config, len(stains)))
        store = yield from build_store(
            stacks,
            sample,
            mpp=mpp,
            patch_px=config.window_px,
            shift_px=config.shift_px,
            folder=patches,
        )
        lacking = dict(zip(stains, (1 - store.present.mean(0)).tolist(), strict=True))
        what = {"config": config.model_dump(), "patches": str(patches), "folder": str(folder)}
        Ranks.found().tell({**what, "stains": list(stains), "mpp": mpp})
        task = train(store, config, stains=stains, mpp=mpp, folder=folder)
        checkpoint = yield from _watch(task, rates, waits)
        checkpoint = yield from _decided(checkpoint, config, stacks, tissues)
        cases = tuple(c.name for c in project.state.cases)
        found = yield from doubts(checkpoint, store, sample.case_id, cases)
    finally:
        # A gigabyte that can be cut again; a resumed run draws the same places.
        shutil.rmtree(patches, ignore_errors=True)
    summary = {
        "run": run,
        "k": checkpoint.k,
        "device": choose_device(config.device).type,
        "patches_per_s": sorted(rates)[len(rates) // 2] if rates else None,
        "waiting": float(np.mean(waits)) if waits else None,
        "patches": len(sample.centres),
        "lacking": lacking,
        "left_out": len(store) - len(store.learnt),
        "unsure": _unsure(stacks, sample, config.least_confidence),
        "doubts": {str(k): list(said) for k, said in found.items() if said},
        "epochs": config.epochs if config.recipe != "baseline" else 0,
        "losses": losses_by_name(checkpoint.history),
        "seconds": time.perf_counter() - began,
        "stains": list(stains),
        "mpp": mpp,
        "config": config.model_dump(),
        "versions": {n: version(n) for n in ("napari-pancluster", "torch")},
    }
    with project.writing(f"train/{run}", inputs, summary, id_=run) as target:
        write_checkpoint(target, checkpoint)
    shutil.rmtree(folder, ignore_errors=True)
    return summary


def _decided(
    checkpoint: Checkpoint,
    config: TrainConfig,
    stacks: list[SlideStack],
    tissues: list[TissueMask],
) -> Task[Checkpoint]:
    """Return a checkpoint with the clusters its heads agree on at places not learnt from."""
    network = checkpoint.network()
    if config.recipe != "default" or not isinstance(network, PatchNetwork):
        return checkpoint
    network.to(choose_device(config.device))
    count = min(MOST_PATCHES, config.patches)
    latents = yield from fresh_latents(
        network,
        stacks,
        sample_positions(tissues, count, config.seed, draw=1),
        mpp=checkpoint.mpp,
        patch_px=checkpoint.patch_px,
    )
    return (yield from agreed(checkpoint, latents))


def help_to_train() -> None:
    """Take a share of the training that the first of torchrun's processes leads."""
    told = Ranks.found().tell()
    config = TrainConfig(**told["config"])
    store = open_store(Path(told["patches"]))
    folder = Path(told["folder"])
    run(train(store, config, stains=tuple(told["stains"]), mpp=told["mpp"], folder=folder))


def usable_stains(stacks: list[SlideStack]) -> tuple[str, ...]:
    """Return the stains that can be read in at least one case, in the order they were given."""
    names = dict.fromkeys(name for stack in stacks for name in stack.names)
    return tuple(n for n in names if any(n in stack.registered for stack in stacks))


def working_mpp(stacks: list[SlideStack], stains: tuple[str, ...], wanted: float | None) -> float:
    """Return the pixel size to work at: the coarsest stain's own unless a coarser one is wanted.

    Raises
    ------
    InputError
        If finer pixels are asked for than a slide has.
    """
    sizes = {
        f"{stain.name} of case {stack.case}": stain.slide.um_per_px
        for stack in stacks
        for stain in stack.stains
        if stain.name in stains and stain.name in stack.registered
    }
    coarsest = max(sizes, key=lambda name: sizes[name])
    if wanted is not None and wanted < sizes[coarsest] * _FINER:
        raise InputError(
            f"--mpp {wanted:g} is finer than {coarsest}, which has {sizes[coarsest]:g} µm/px. "
            f"Use --mpp {sizes[coarsest]:g} or more."
        )
    return wanted if wanted is not None else sizes[coarsest]


def losses_by_name(history: tuple[dict[str, Any], ...]) -> dict[str, list[float | None]]:
    """Return one list of per-epoch values for every loss; None before it was trained."""
    names = dict.fromkeys(n for entry in history for n in entry if n != "epoch")
    return {name: [entry.get(name) for entry in history] for name in names}


def _begin(project: Project, given: Mapping[str, Any], *, resume: bool) -> tuple[str, TrainConfig]:
    if not resume:
        stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
        return f"{stamp}-{secrets.token_hex(2)}", TrainConfig(**given)
    run = run_to_resume(project)
    kept = read_note(project, run)["config"]
    for name, value in given.items():
        if name not in MAY_CHANGE and kept[name] != value:
            raise InputError(
                f"The interrupted run has {name} = {kept[name]}, not {value}. "
                "Leave the option out, or leave out --resume to start anew."
            )
    return run, TrainConfig(**{**kept, **given})


def _unsure(stacks: list[SlideStack], sample: PatchSample, least: float) -> dict[str, float]:
    """Return, per stain, the share of the patches whose middle shows no sign of lying right.

    Of a doubtful stain they count as missing; of another they are taken as they are.
    """
    found = dict.fromkeys(stacks[0].channels, 0.0)
    for number, stack in enumerate(stacks):
        centres = sample.centres[sample.case_id == number]
        for name in found.keys() & stack.confidences.keys():
            low = stack.confidences[name].at(centres) < least
            found[name] += float(low.sum()) / len(sample.centres)
    return found


def _check_unchanged(project: Project, run: str, inputs: tuple[str, ...]) -> None:
    if set(read_note(project, run)["inputs"]) != set(inputs):
        raise ProjectError(
            "The slides or their registration changed since the interrupted run. Train anew."
        )


def _affordable(config: TrainConfig, stains: int) -> int:
    """Return how many crops the patch store may hold."""
    most = config.store_mb * 2**20 // _crop_bytes(config, stains)
    return max(16, min(config.patches, most))


def _crop_bytes(config: TrainConfig, stains: int) -> int:
    side = config.window_px + 2 * config.shift_px
    return side * side * stains * CHANNELS


def _check_disk(folder: Path, needed: int) -> None:
    """Refuse to cut patches that the disk has no room for: writing them would crash."""
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE_BYTES:
        raise ProjectError(
            f"The disk of {folder} has {free / 2**20:.0f} MB left; the training patches need "
            f"{needed / 2**20:.0f} MB and some room beside. Free some space, or lower --store-mb."
        )


def _watch(task: Task[Any], rates: list[float], waits: list[float]) -> Task[Any]:
    try:
        while True:
            try:
                progress = next(task)
            except StopIteration as stop:
                return stop.value
            if "patches_per_s" in progress.values:
                rates.append(progress.values["patches_per_s"])
                waits.append(progress.values["waiting"])
            yield progress
    finally:
        task.close()


def _with_k(project: Project, summary: dict[str, Any]) -> Task[dict[str, Any]]:
    if summary["k"]:
        return summary
    yield Progress("Choosing k")
    scores = yield from select_clusters(project, SelectConfig(), MapConfig(), run=summary["run"])
    return {**summary, "k": scores["suggested_k"]}
