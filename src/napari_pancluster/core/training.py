"""Training: autoencoder first, then autoencoder and clustering heads together."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from napari_pancluster.core.ahead import Ahead
from napari_pancluster.core.checkpoint import Checkpoint, Network, make_patch_network
from napari_pancluster.core.config import TrainConfig
from napari_pancluster.core.dataset import PatchStore, Views, view
from napari_pancluster.core.devices import (
    choose_device,
    free_memory,
    is_lost,
    is_out_of_memory,
    named,
    repeatable,
)
from napari_pancluster.core.errors import TrainingError
from napari_pancluster.core.plain_features import fit_baseline
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.ranks import Ranks
from napari_pancluster.core.recipes import EXTRA_HEADS, Recipe, recipe_of
from napari_pancluster.core.run_state import RunState
from napari_pancluster.core.stack import CHANNELS
from napari_pancluster.core.threads import ThreadPacer

# Patches that are looked at to see whether there is anything to learn.
_LOOKED_AT = 256
# Clusters cannot be told apart in fewer patches at a time.
_LEAST_BATCH = 4


def train(
    store: PatchStore, config: TrainConfig, *, stains: tuple[str, ...], mpp: float, folder: Path
) -> Task[Checkpoint]:
    """Train on a patch store; continues from the last epoch kept in `folder`, if any.

    Parameters
    ----------
    store
        The crops to learn from.
    stains
        Their stains, in channel order.
    mpp
        Their pixel size, µm/px.
    folder
        Where the state is kept after every epoch.

    Raises
    ------
    TrainingError
        If there is nothing to learn from, the loss stops being a number, memory does not suffice
        for the smallest batch, or the device is lost.
    """
    wanted = max(config.ks)
    if len(store.learnt) < wanted:
        raise TrainingError(
            f"{len(store.learnt)} training patches are fewer than {wanted} clusters. "
            "Use more --patches or a smaller k."
        )
    _check_contrast(store, stains)
    if config.recipe == "baseline":
        features = yield from fit_baseline(
            store, ks=config.ks, seed=config.seed, patch_px=config.window_px
        )
        return _checkpoint(features, config, stains, mpp)
    state, recipe, ranks = _start(store, config), recipe_of(config), Ranks.found()
    state.restore(folder)
    trial = partial(_trial, state, store, config, recipe)
    pacer = ThreadPacer(trial, threads=config.threads) if state.on_cpu else None
    try:
        while state.epoch < config.epochs:
            yield from _epoch(state, store, config, recipe, pacer)
            if ranks.rank == 0:
                state.save(folder)
    except RuntimeError as error:
        if not is_lost(state.device, error):
            raise
        raise TrainingError(
            f"{named(state.device)} stopped working ({_first_line(error)}) in epoch "
            f"{state.epoch + 1}. What was trained before is kept: resume, on the CPU if it does "
            "not come back (--resume --device cpu)."
        ) from error
    finally:
        if pacer is not None:
            pacer.restore()
    return _checkpoint(state.network, config, stains, mpp, tuple(state.history))


def _checkpoint(
    network: Network,
    config: TrainConfig,
    stains: tuple[str, ...],
    mpp: float,
    history: tuple[dict[str, Any], ...] = (),
) -> Checkpoint:
    return Checkpoint(
        weights={n: t.detach().cpu().clone() for n, t in network.state_dict().items()},
        stains=stains,
        heads=network.heads_k,
        ks=config.ks,
        k=config.k if isinstance(config.k, int) else 0,
        mpp=mpp,
        patch_px=config.window_px,
        config=config.model_dump(),
        history=history,
    )


def _epoch(
    state: RunState,
    store: PatchStore,
    config: TrainConfig,
    recipe: Recipe,
    pacer: ThreadPacer | None,
) -> Task[None]:
    steps = _steps_per_epoch(config)
    sums: dict[str, float] = {}
    stage = ""
    started = time.perf_counter()
    with Ahead(_views(store, config, recipe, state.epoch)) as ahead:
        for number, views in enumerate(ahead):
            began = time.perf_counter()
            done = (state.epoch + number / steps) / config.epochs
            values = _whole_step(state, views, config, recipe, done)
            seconds = max(time.perf_counter() - began, 1e-9)
            if pacer is not None:
                pacer.watch(seconds)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value / steps
            values["patches_per_s"] = len(views) * Ranks.found().count / seconds
            values["waiting"] = ahead.waited_s / max(time.perf_counter() - started, 1e-9)
            stage = f"Training {recipe.stage(done)} on {named(state.device)}"
            at = state.epoch * steps + number + 1
            yield Progress(stage, at, config.epochs * steps, values)
    state.epoch += 1
    state.history.append({"epoch": state.epoch, **sums})


def _trial(state: RunState, store: PatchStore, config: TrainConfig, recipe: Recipe) -> None:
    """Do the forward and backward work of a step on a copy of the network."""
    network = deepcopy(state.network).train()
    side = config.window_px
    shape = (recipe.copies * min(config.batch, len(store.learnt)), store.codes.shape[1], side, side)
    od = torch.zeros(shape).to(memory_format=torch.channels_last)
    views = Views(od, torch.ones(shape[0], store.stains))
    recipe.losses(network, views, 1.0).total.backward()  # type: ignore[no-untyped-call]


def _check_contrast(store: PatchStore, stains: tuple[str, ...]) -> None:
    """Refuse patches that are all alike; warn of a stain that is the same everywhere."""
    rows = np.linspace(0, len(store) - 1, min(_LOOKED_AT, len(store))).astype(np.int64)
    codes, present = store.codes[rows], store.present[rows]
    if (codes == codes[:1]).all():
        raise TrainingError(
            "All training patches are alike: there is nothing to tell apart. Check that the "
            "slides show stained tissue, and the pixel size and the tissue mask."
        )
    for number, stain in enumerate(stains):
        mine = codes[present[:, number], number * CHANNELS : (number + 1) * CHANNELS]
        if mine.size and (mine == mine[:1, :, :1, :1]).all():
            warnings.warn(
                f"{stain} is the same everywhere and tells no tissue from another. "
                "Check its slide, or leave the stain out."
            )


def _start(store: PatchStore, config: TrainConfig) -> RunState:
    device = choose_device(config.device)
    # Seeded initial weights without touching the caller's random numbers.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = make_patch_network(config.model_dump(), store.stains, (*config.ks, *EXTRA_HEADS))
    mean, std = store.channel_statistics()
    network.od_mean.copy_(torch.from_numpy(mean))  # type: ignore[operator]
    network.od_std.copy_(torch.from_numpy(std))  # type: ignore[operator]
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    return RunState(network, optimiser, device, config.batch)


def _steps_per_epoch(config: TrainConfig) -> int:
    return max(1, config.patches // config.batch)


def _views(store: PatchStore, config: TrainConfig, recipe: Recipe, epoch: int) -> Iterator[Views]:
    """Yield what every step of an epoch is shown; it is as long whatever the disk space allowed."""
    ranks = Ranks.found()
    rng = np.random.default_rng((config.seed, epoch))
    learnt = store.learnt
    batch, steps = min(config.batch, len(learnt)), _steps_per_epoch(config)
    rounds = -(-steps * batch // len(learnt))
    order = np.concatenate([learnt[rng.permutation(len(learnt))] for _ in range(rounds)])
    if ranks.rank:
        rng = np.random.default_rng((config.seed, epoch, ranks.rank))
    for number in range(steps):
        rows = order[number * batch : (number + 1) * batch][ranks.rank :: ranks.count]
        side = recipe.side(epoch / config.epochs)
        copies = range(recipe.copies)
        yield Views.together([view(store, rows, recipe.views, rng, patch_px=side) for _ in copies])


def _whole_step(
    state: RunState, views: Views, config: TrainConfig, recipe: Recipe, done: float
) -> dict[str, float]:
    """Take a step, or several with fewer patches each once they do not fit; return mean losses."""
    waiting, values = [views], list[dict[str, float]]()
    while waiting:
        some = waiting.pop(0)
        patches = len(some) // recipe.copies
        if patches > state.batch:
            waiting[:0] = some.halves(recipe.copies)
            continue
        try:
            values.append(_step(state, some, config, recipe, done))
            continue
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, whose error would keep the memory of the step.
        _halve(state, patches)
        waiting.insert(0, some)
    return {name: float(np.mean([v[name] for v in values])) for name in values[0]}


def _halve(state: RunState, batch: int) -> None:
    """Go on with half the batch that did not fit into memory, and say so."""
    state.optimiser.zero_grad(set_to_none=True)
    free_memory(state.device)
    # With others, all would have to halve theirs.
    if batch < 2 * _LEAST_BATCH or Ranks.found().count > 1:
        raise TrainingError(
            f"There is not enough memory on {named(state.device)} for a batch of {batch}. Close "
            "other programs, then resume, perhaps with a smaller --batch or with --device cpu. "
            "What was trained before is kept."
        )
    state.batch = batch // 2
    warnings.warn(
        f"There is not enough memory on {named(state.device)} for a batch of {batch}. "
        f"Training goes on with {state.batch}."
    )


def _step(
    state: RunState, views: Views, config: TrainConfig, recipe: Recipe, done: float
) -> dict[str, float]:
    """Take one step of the optimiser and return its losses."""
    network, device = state.network.train(), state.device
    for group in state.optimiser.param_groups:
        group["lr"] = config.learning_rate * max(0.02, 0.5 * (1 + float(np.cos(np.pi * done))))
    with repeatable(device):
        losses = recipe.losses(network, views.to(device), done)
        state.optimiser.zero_grad(set_to_none=True)
        losses.total.backward()  # type: ignore[no-untyped-call]
    Ranks.found().average_gradients(network)
    state.optimiser.step()
    values = losses.values()
    if not all(np.isfinite(v) for v in values.values()):
        raise TrainingError(
            f"The loss is no longer a number in epoch {state.epoch + 1}. What was trained before "
            "is kept: resume with a lower learning rate (--resume --learning-rate "
            f"{config.learning_rate / 4:g}), or train anew with it."
        )
    return values


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
