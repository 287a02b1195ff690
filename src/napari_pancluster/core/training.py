"""Training: autoencoder first, then autoencoder and clustering heads together."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_pancluster.core.checkpoint import Checkpoint
from napari_pancluster.core.config import TrainConfig
from napari_pancluster.core.dataset import PatchStore, ViewConfig, view
from napari_pancluster.core.errors import InputError, TrainingError
from napari_pancluster.core.losses import (
    mutual_information_loss,
    reconstruction_loss,
    redundancy_loss,
)
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.run_state import RunState
from napari_pancluster.core.stack import CHANNELS
from napari_pancluster.core.threads import ThreadPacer

# Heads with more clusters than anyone wants keep the latents rich.
_EXTRA_HEADS = (30, 60)
# Patches that are looked at to see whether there is anything to learn.
_LOOKED_AT = 256
# Clusters cannot be told apart in fewer patches at a time.
_LEAST_BATCH = 4
# Weight of these, and of the k asked for, against 1 for each of the other heads.
_HEAVY = 4.0


def choose_device(wanted: str) -> torch.device:
    """Return the device to run on.

    Raises
    ------
    InputError
        If the one asked for is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, usable in there.items() if usable))
    if not there[wanted]:
        raise InputError(f"--device {wanted} is not available on this machine. Use --device auto.")
    return torch.device(wanted)


def mixed_precision(device: torch.device) -> bool:
    """Return whether bfloat16 pays: on GPUs that have it and on CPUs with its instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and probe is not None and bool(probe())


def _named(device: torch.device) -> str:
    """Return what to call a device in a message."""
    if device.type == "cuda":
        return f"CUDA ({torch.cuda.get_device_name(device)})"
    return {"cpu": "CPU", "mps": "MPS (Apple GPU)"}[device.type]


def _repeatable(device: torch.device) -> AbstractContextManager[object]:
    """Let the same seed give the same result on the same device."""
    if device.type != "cuda":
        return nullcontext()
    # cuDNN's fastest gradients of a convolution add up in any order.
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)


def _is_out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return "out of memory" in str(error).lower() or "can't allocate memory" in str(error)


def _is_lost(device: torch.device, error: RuntimeError) -> bool:
    """Return whether an error says that the device no longer answers."""
    lost = getattr(torch, "AcceleratorError", ())
    return isinstance(error, lost) or (device.type != "cpu" and "error: " in str(error))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]


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
    if len(store) < wanted:
        raise TrainingError(
            f"{len(store)} training patches are fewer than {wanted} clusters. "
            "Use more --patches or a smaller k."
        )
    _check_contrast(store, stains)
    state = _start(store, config)
    state.restore(folder)
    trial = partial(_trial, state, store, config)
    pacer = ThreadPacer(trial, threads=config.threads) if state.on_cpu else None
    try:
        while state.epoch < config.epochs:
            yield from _epoch(state, store, config, pacer)
            state.save(folder)
    except RuntimeError as error:
        if not _is_lost(state.device, error):
            raise
        raise TrainingError(
            f"{_named(state.device)} stopped working ({_first_line(error)}) in epoch "
            f"{state.epoch + 1}. What was trained before is kept: resume, on the CPU if it does "
            "not come back (--resume --device cpu)."
        ) from error
    finally:
        if pacer is not None:
            pacer.restore()
    return Checkpoint(
        weights={n: t.detach().cpu().clone() for n, t in state.network.state_dict().items()},
        stains=stains,
        heads=state.network.heads_k,
        ks=config.ks,
        k=config.k if isinstance(config.k, int) else 0,
        mpp=mpp,
        patch_px=config.patch_px,
        config=config.model_dump(),
        history=tuple(state.history),
    )


def _epoch(
    state: RunState, store: PatchStore, config: TrainConfig, pacer: ThreadPacer | None
) -> Task[None]:
    steps = _steps_per_epoch(config)
    sums: dict[str, float] = {}
    for number, (rows, rng) in enumerate(_batches(store, config, state.epoch)):
        began = time.perf_counter()
        values = _whole_step(state, store, config, rows, rng, number / steps)
        seconds = max(time.perf_counter() - began, 1e-9)
        if pacer is not None:
            pacer.watch(seconds)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value / steps
        values["patches_per_s"] = 2 * len(rows) / seconds
        what = "clusters" if "clustering" in values else "autoencoder"
        stage = f"Training {what} on {_named(state.device)}"
        yield Progress(stage, state.epoch * steps + number + 1, config.epochs * steps, values)
    state.epoch += 1
    state.history.append({"epoch": state.epoch, **sums})


def _trial(state: RunState, store: PatchStore, config: TrainConfig) -> None:
    """Do the forward and backward work of a step on a copy of the network."""
    network = deepcopy(state.network).train()
    side = config.patch_px
    shape = (2 * min(config.batch, len(store)), store.codes.shape[1], side, side)
    od = torch.zeros(shape).to(memory_format=torch.channels_last)
    present = torch.ones(shape[0], store.stains)
    losses = _losses(network, od, present, config, joint=True)
    sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]


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
        network = PatchNetwork(
            store.stains, (*config.ks, *_EXTRA_HEADS), width=config.width, latent=config.latent
        )
    mean, std = store.channel_statistics()
    network.od_mean.copy_(torch.from_numpy(mean))  # type: ignore[operator]
    network.od_std.copy_(torch.from_numpy(std))  # type: ignore[operator]
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate)
    return RunState(network, optimiser, device, config.batch)


def _steps_per_epoch(config: TrainConfig) -> int:
    return max(1, config.patches // config.batch)


def _batches(
    store: PatchStore, config: TrainConfig, epoch: int
) -> Iterator[tuple[NDArray[np.int64], np.random.Generator]]:
    """Yield the rows of every step of an epoch; it is as long whatever the disk space allowed."""
    rng = np.random.default_rng((config.seed, epoch))
    batch, steps = min(config.batch, len(store)), _steps_per_epoch(config)
    rounds = -(-steps * batch // len(store))
    order = np.concatenate([rng.permutation(len(store)) for _ in range(rounds)])
    for number in range(steps):
        yield order[number * batch : (number + 1) * batch], rng


def _whole_step(
    state: RunState,
    store: PatchStore,
    config: TrainConfig,
    rows: NDArray[np.int64],
    rng: np.random.Generator,
    part: float,
) -> dict[str, float]:
    """Take a step, or several with fewer patches each once they do not fit; return mean losses."""
    waiting, values = [rows], list[dict[str, float]]()
    while waiting:
        some = waiting.pop(0)
        if len(some) > state.batch:
            waiting[:0] = np.array_split(some, 2)
            continue
        try:
            values.append(_step(state, store, config, some, rng, part))
            continue
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
        # Outside the handler, whose error would keep the memory of the step.
        _halve(state, len(some))
        waiting.insert(0, some)
    return {name: float(np.mean([v[name] for v in values])) for name in values[0]}


def _halve(state: RunState, batch: int) -> None:
    """Go on with half the batch that did not fit into memory, and say so."""
    state.optimiser.zero_grad(set_to_none=True)
    if state.device.type == "cuda":
        torch.cuda.empty_cache()
    elif state.device.type == "mps":
        torch.mps.empty_cache()
    if batch < 2 * _LEAST_BATCH:
        raise TrainingError(
            f"There is not enough memory on {_named(state.device)} for a batch of {batch}. Close "
            "other programs, then resume, or use --device cpu. What was trained before is kept."
        )
    state.batch = batch // 2
    warnings.warn(
        f"There is not enough memory on {_named(state.device)} for a batch of {batch}. "
        f"Training goes on with {state.batch}."
    )


def _step(
    state: RunState,
    store: PatchStore,
    config: TrainConfig,
    rows: NDArray[np.int64],
    rng: np.random.Generator,
    part: float,
) -> dict[str, float]:
    """Take one step of the optimiser and return its losses."""
    network, device = state.network.train(), state.device
    done = (state.epoch + part) / config.epochs
    for group in state.optimiser.param_groups:
        group["lr"] = config.learning_rate * max(0.02, 0.5 * (1 + float(np.cos(np.pi * done))))
    views = ViewConfig(config.shift_px, config.stain_jitter)
    pairs = [view(store, rows, views, rng) for _ in (0, 1)]
    od = torch.cat([p[0] for p in pairs]).to(device, memory_format=torch.channels_last)
    present = torch.cat([p[1] for p in pairs]).to(device)
    with _repeatable(device):
        losses = _losses(network, od, present, config, joint=done >= config.pretraining)
        total = losses["reconstruction"]
        if "clustering" in losses:
            total = config.reconstruction * total + losses["clustering"]
            total = total + config.redundancy * losses["redundancy"]
        state.optimiser.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
    state.optimiser.step()
    values = {name: float(loss.detach()) for name, loss in losses.items()}
    if not all(np.isfinite(v) for v in values.values()):
        raise TrainingError(
            f"The loss is no longer a number in epoch {state.epoch + 1}. What was trained before "
            "is kept: resume with a lower learning rate (--resume --learning-rate "
            f"{config.learning_rate / 4:g}), or train anew with it."
        )
    return values


def _losses(
    network: PatchNetwork,
    od: torch.Tensor,
    present: torch.Tensor,
    config: TrainConfig,
    *,
    joint: bool,
) -> dict[str, torch.Tensor]:
    """Return the losses of a batch whose two halves are two views of the same patches."""
    half = len(od) // 2
    with torch.autocast(od.device.type, torch.bfloat16, enabled=mixed_precision(od.device)):
        x = network.normalise(od, present)
        z, latents = network.encode(x)
        # Decoding costs as much as all the rest; beside the clusters, a part of the batch will do.
        shown = max(1, half // 4) if joint else half
        rebuilt = network.decode(z[:shown])
    losses = {"reconstruction": reconstruction_loss(rebuilt, x[:shown], present[:shown])}
    if joint:
        losses["clustering"] = _clustering_loss(network, latents, config)
        losses["redundancy"] = redundancy_loss(latents[:half], latents[half:])
    return losses


def _clustering_loss(
    network: PatchNetwork, latents: torch.Tensor, config: TrainConfig
) -> torch.Tensor:
    half = len(latents) // 2
    total, weights = torch.zeros((), device=latents.device), 0.0
    for k, logits in zip(network.heads_k, network.logits(latents), strict=True):
        weight = _HEAVY if k == config.k or k in _EXTRA_HEADS else 1.0
        loss = mutual_information_loss(logits[:half], logits[half:], balance=config.balance)
        total = total + weight * loss
        weights += weight
    return total / weights
