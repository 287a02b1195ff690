"""The state of a training run between two epochs, in memory and on disk.

Weights, optimiser and history are one file, replaced as a whole, so that they are always of the
same epoch; the one before stays beside it, in case a disk spoils the last.
"""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from napari_pancluster.core.checkpoint import save_tensors
from napari_pancluster.core.errors import ProjectError
from napari_pancluster.core.model import PatchNetwork

_STATE, _BEFORE, _NEXT = "state.safetensors", "before.safetensors", "next.safetensors"
_NOTES = "run"


@dataclass
class RunState:
    """A training run between epochs.

    Attributes
    ----------
    batch
        Patches a step: those asked for, or fewer once they did not fit into memory.
    epoch
        Epochs that are done.
    history
        Of each: its number and mean losses.
    """

    network: PatchNetwork
    optimiser: torch.optim.Optimizer
    device: torch.device
    batch: int
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def on_cpu(self) -> bool:
        """Return whether torch's threads do the work."""
        return self.device.type == "cpu"

    def save(self, folder: Path) -> None:
        """Keep the state.

        Raises
        ------
        ProjectError
            If it cannot be written; what was kept before is still there.
        """
        tensors = {f"model.{n}": t for n, t in self.network.state_dict().items()}
        for number, entry in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{number}.{name}": t for name, t in entry.items()}
        notes = {"epoch": self.epoch, "batch": self.batch, "history": self.history}
        try:
            save_tensors(folder / _NEXT, tensors, {_NOTES: json.dumps(notes)})
            if (folder / _STATE).exists():
                os.replace(folder / _STATE, folder / _BEFORE)
            os.replace(folder / _NEXT, folder / _STATE)
        except OSError as error:
            raise ProjectError(
                f"Epoch {self.epoch} could not be saved in {folder} "
                f"({error.strerror or error}). Free some disk space, then resume: "
                "what was trained before is kept."
            ) from error

    def restore(self, folder: Path) -> None:
        """Take up the newest state that is kept and whole, if there is any.

        Raises
        ------
        ProjectError
            If there are only damaged ones.
        """
        there = [folder / n for n in (_STATE, _BEFORE) if (folder / n).exists()]
        damaged = ""
        for file in there:
            try:
                self._take(*_read(file))
            except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
                damaged = str(error)
                continue
            if damaged:
                warnings.warn(
                    "The last state of the interrupted training is damaged. "
                    f"It goes on from epoch {self.epoch}, the one before."
                )
            return
        if there:
            raise ProjectError(
                f"The interrupted training in {folder} is damaged ({damaged}). Train anew."
            )

    def _take(self, notes: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        weights, entries = {}, dict[int, dict[str, torch.Tensor]]()
        for name, tensor in tensors.items():
            if name.startswith("model."):
                weights[name.removeprefix("model.")] = tensor
            else:
                _, number, key = name.split(".")
                entries.setdefault(int(number), {})[key] = tensor
        self.network.load_state_dict(weights)
        self.optimiser.load_state_dict({**self.optimiser.state_dict(), "state": entries})
        # A resumed run may ask for a smaller batch, but not for one that did not fit.
        self.batch = min(self.batch, notes["batch"])
        self.epoch, self.history = notes["epoch"], notes["history"]


def _read(file: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    # To the CPU: the optimiser keeps its counters there, and moves all else by itself.
    with safe_open(file, "pt") as kept:
        notes = json.loads((kept.metadata() or {})[_NOTES])
        return notes, {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118
