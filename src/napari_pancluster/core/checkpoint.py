"""A trained network on disk: weights as safetensors, everything else as JSON; no pickle."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from napari_pancluster.core.errors import InputError, ProjectError
from napari_pancluster.core.model import PatchNetwork, Pooling
from napari_pancluster.core.plain_features import FeatureNetwork

Network = PatchNetwork | FeatureNetwork
_WEIGHTS, _CARD = "model.safetensors", "model.json"


def make_patch_network(
    config: Mapping[str, Any], stains: int, heads: Sequence[int]
) -> PatchNetwork:
    """Return an untrained network as a training configuration asks for it."""
    pooling: Pooling = "texture"
    if config.get("recipe") == "published":
        pooling = "flat"
    elif config["patch_px"] == "both":
        pooling = "both"
    side = config["patch_px"] if pooling == "flat" and config["patch_px"] != "both" else 128
    return PatchNetwork(
        stains,
        heads,
        width=config["width"],
        latent=config["latent"],
        pooling=pooling,
        patch_px=side,
    )


def encode_patches(
    network: Network, patches: NDArray[np.float32], present: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Return the latents (B, D) of densities (B, C, P, P), by a network in evaluation mode.

    Parameters
    ----------
    present
        (B, stains) whether a patch has a stain.
    """
    device = network.device
    with torch.inference_mode():
        x = torch.from_numpy(patches).to(device, memory_format=torch.channels_last)
        shown = torch.from_numpy(present.astype(np.float32)).to(device)
        latents: torch.Tensor = network.encode(network.normalise(x, shown))[1]
    return latents.float().cpu().numpy()


@dataclass(frozen=True)
class Checkpoint:
    """What is needed to encode a patch as in training.

    Attributes
    ----------
    weights
        State of the network; and ``decided.K.weight`` and ``decided.K.bias``, see `decide`.
    stains
        Names in channel order.
    heads
        Every k the run holds.
    k
        The one asked for.
    mpp, patch_px
        Working pixel size (µm/px) and side of a patch.
    config
        The training configuration, as saved.
    history
        One entry an epoch: stage and losses.
    """

    weights: dict[str, torch.Tensor]
    stains: tuple[str, ...]
    heads: tuple[int, ...]
    ks: tuple[int, ...]
    k: int
    mpp: float
    patch_px: int
    config: dict[str, Any]
    history: tuple[dict[str, Any], ...] = field(default=())

    def check_k(self, k: int) -> None:
        """Raise InputError where the run holds no clustering into `k`."""
        if k not in self.ks:
            raise InputError(
                f"This run holds k = {self.ks[0]} to {self.ks[-1]}, not {k}. "
                f"Train with --k {k}, or choose another."
            )

    def head(self, k: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return weight (k, D) and bias (k,) of what clusters the latents into `k`."""
        name = f"decided.{k}"
        if f"{name}.weight" not in self.weights:
            name = f"heads.{self.heads.index(k)}"
        return self.weights[f"{name}.weight"].numpy(), self.weights[f"{name}.bias"].numpy()

    @property
    def voters(self) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        """Weight (k, D) and bias (k,) of every head whose votes decided; none if none did."""
        voted = self.config.get("pretraining") != 1
        if not voted or not any(name.startswith("decided.") for name in self.weights):
            return []
        names = [f"heads.{n}" for n in range(len(self.heads))]
        return [
            (self.weights[f"{n}.weight"].numpy(), self.weights[f"{n}.bias"].numpy()) for n in names
        ]

    def network(self) -> Network:
        """Return the network with its weights, ready to encode."""
        network: Network
        if self.config.get("recipe") == "baseline":
            network = FeatureNetwork(len(self.stains), self.heads, patch_px=self.patch_px)
        else:
            network = make_patch_network(self.config, len(self.stains), self.heads)
        try:
            # What the heads decided on together is beside them, not of them.
            own = {n: t for n, t in self.weights.items() if not n.startswith("decided.")}
            network.load_state_dict(own)
        except RuntimeError as error:
            raise ProjectError(
                "The trained network is of another version of the program. Train again."
            ) from error
        return network.eval()


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint into an existing folder."""
    save_tensors(folder / _WEIGHTS, checkpoint.weights)
    card = {k: v for k, v in vars(checkpoint).items() if k != "weights"}
    (folder / _CARD).write_text(json.dumps(card, indent=1))


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    ProjectError
        If it is missing or damaged.
    """
    try:
        card = json.loads((folder / _CARD).read_text())
        weights = load_file(folder / _WEIGHTS)
        return Checkpoint(
            weights=weights,
            stains=tuple(card.pop("stains")),
            heads=tuple(card.pop("heads")),
            ks=tuple(card.pop("ks")),
            history=tuple(card.pop("history")),
            **card,
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ProjectError(
            f"The trained network in {folder} cannot be read ({error}). Train again."
        ) from error


def save_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], notes: dict[str, str] | None = None
) -> None:
    """Write tensors so that a crash or a power cut leaves the old file or the new one.

    Raises
    ------
    OSError
        If they cannot be written; the disk may be full.
    """
    partial = path.with_suffix(".partial")
    plain = {k: v.detach().cpu().contiguous() for k, v in tensors.items()}
    try:
        save_file(plain, partial, notes)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    except SafetensorError as error:
        full = "os error 28" in str(error) or "os error 112" in str(error)
        number = errno.ENOSPC if full else errno.EIO
        raise OSError(number, "the disk is full" if full else str(error), str(path)) from error
    finally:
        partial.unlink(missing_ok=True)
