"""Training: autoencoder first, then autoencoder and clustering heads together."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from napari_pancluster.core.checkpoint import Checkpoint, save_tensors
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
from napari_pancluster.core.threads import ThreadPacer

# Heads with more clusters than anyone wants keep the latents rich.
_EXTRA_HEADS = (30, 60)
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


@dataclass
class _Run:
    """The state of a training run between epochs."""

    network: PatchNetwork
    optimiser: torch.optim.Optimizer
    device: torch.device
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def on_cpu(self) -> bool:
        """Return whether torch's threads do the work."""
        return self.device.type == "cpu"


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
        If there are fewer patches than clusters, or the loss stops being a number.
    """
    wanted = max(config.ks)
    if len(store) < wanted:
        raise TrainingError(
            f"{len(store)} training patches are fewer than {wanted} clusters. "
            "Use more --patches or a smaller k."
        )
    state = _start(store, config)
    _restore(state, folder)
    trial = partial(_trial, state, store, config)
    pacer = ThreadPacer(trial, threads=config.threads) if state.on_cpu else None
    try:
        while state.epoch < config.epochs:
            yield from _epoch(state, store, config, pacer)
            _save(state, folder)
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
    state: _Run, store: PatchStore, config: TrainConfig, pacer: ThreadPacer | None
) -> Task[None]:
    steps = _steps_per_epoch(config)
    sums: dict[str, float] = {}
    for number, (rows, rng) in enumerate(_batches(store, config, state.epoch)):
        began = time.perf_counter()
        values = _step(state, store, config, rows, rng, number / steps)
        seconds = max(time.perf_counter() - began, 1e-9)
        if pacer is not None:
            pacer.watch(seconds)
        for name, value in values.items():
            sums[name] = sums.get(name, 0.0) + value / steps
        values["patches_per_s"] = 2 * len(rows) / seconds
        stage = "Training clusters" if "clustering" in values else "Training autoencoder"
        yield Progress(stage, state.epoch * steps + number + 1, config.epochs * steps, values)
    state.epoch += 1
    state.history.append({"epoch": state.epoch, **sums})


def _trial(state: _Run, store: PatchStore, config: TrainConfig) -> None:
    """Do the forward and backward work of a step on a copy of the network."""
    network = deepcopy(state.network).train()
    side = config.patch_px
    shape = (2 * min(config.batch, len(store)), store.codes.shape[1], side, side)
    od = torch.zeros(shape).to(memory_format=torch.channels_last)
    present = torch.ones(shape[0], store.stains)
    losses = _losses(network, od, present, config, joint=True)
    sum(losses.values(), torch.zeros(())).backward()  # type: ignore[no-untyped-call]


def _start(store: PatchStore, config: TrainConfig) -> _Run:
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
    return _Run(network, torch.optim.Adam(network.parameters(), lr=config.learning_rate), device)


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


def _step(
    state: _Run,
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
            "The loss is no longer a number. Lower the learning rate and train again."
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


def _save(state: _Run, folder: Path) -> None:
    tensors = {f"model.{n}": t for n, t in state.network.state_dict().items()}
    for number, entry in state.optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{number}.{name}": t for name, t in entry.items()}
    save_tensors(folder / "state.safetensors", tensors)
    unfinished = folder / "state.json.partial"
    unfinished.write_text(json.dumps({"epoch": state.epoch, "history": state.history}))
    unfinished.replace(folder / "state.json")


def _restore(state: _Run, folder: Path) -> None:
    if not (folder / "state.json").exists():
        return
    kept = json.loads((folder / "state.json").read_text())
    tensors = load_file(folder / "state.safetensors", device=str(state.device))
    state.network.load_state_dict(
        {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
    )
    entries: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("adam."):
            _, number, key = name.split(".")
            entries.setdefault(int(number), {})[key] = tensor
    state.optimiser.load_state_dict({**state.optimiser.state_dict(), "state": entries})
    state.epoch, state.history = kept["epoch"], kept["history"]
