"""What a training step optimises: the default objective, and the one first published."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch

from napari_pancluster.core.config import TrainConfig
from napari_pancluster.core.dataset import ViewConfig, Views
from napari_pancluster.core.devices import autocast
from napari_pancluster.core.losses import (
    adversarial_loss,
    information_loss,
    mutual_information_loss,
    one_way,
    reconstruction_loss,
    redundancy_loss,
)
from napari_pancluster.core.model import PatchNetwork

Stage = Literal["autoencoder", "clusters", "both together"]
# Heads with more clusters than anyone wants keep the latents rich.
EXTRA_HEADS = (30, 60)
# Weight of these, and of the k asked for, against 1 for each of the other heads.
_HEAVY = 4.0
# Shares of the published training after which the clusters, and then both, are learnt.
_PUBLISHED_STAGES = (0.4, 0.7)
# Share of the default training for which patches of this side do, however large they will be.
_SMALL_PX, _SMALL_SHARE = 64, 0.9


@dataclass(frozen=True)
class Losses:
    """The losses of a step.

    Attributes
    ----------
    parts
        By name, as they are shown.
    weights
        Of the parts in what is optimised; 1 where missing.
    """

    parts: dict[str, torch.Tensor]
    weights: dict[str, float] = field(default_factory=dict)

    @property
    def total(self) -> torch.Tensor:
        """What is optimised."""
        return torch.stack([self.weights.get(n, 1.0) * v for n, v in self.parts.items()]).sum()

    def values(self) -> dict[str, float]:
        """Return the parts as numbers."""
        return {name: float(part.detach()) for name, part in self.parts.items()}


class Recipe(Protocol):
    """How the network is trained.

    Attributes
    ----------
    views
        How patches are shown.
    copies
        Views of every patch in a step.
    """

    views: ViewConfig
    copies: int

    def stage(self, done: float) -> Stage:
        """Return what is trained after a share `done` of the training."""
        ...

    def side(self, done: float) -> int:
        """Return the side of the patches shown after a share `done` of the training, in px."""
        ...

    def losses(self, network: PatchNetwork, views: Views, done: float) -> Losses:
        """Return the losses of a step."""
        ...


def recipe_of(config: TrainConfig) -> Recipe:
    """Return the recipe that a configuration names."""
    return Published(config) if config.recipe == "published" else Invariant(config)


class Invariant:
    """The default: clusters that do not mind what a tissue does not mind.

    Two views of a patch differ by a small shift, an orientation, the strength of the stains and
    at times a missing stain; they are to be the same cluster, and all latents of use.
    """

    copies = 2

    def __init__(self, config: TrainConfig) -> None:
        self._config = config
        self.views = ViewConfig(config.shift_px, config.stain_jitter, config.stain_dropout)

    def stage(self, done: float) -> Stage:
        """Return what is trained after a share `done` of the training."""
        pretraining = done < self._config.pretraining
        return "autoencoder" if pretraining else "clusters"

    def side(self, done: float) -> int:
        """Return the side of the patches shown after a share `done` of the training, in px.

        The convolutions and what is pooled of them do not know how large a patch is: most of what
        they learn is learnt on small ones, at a quarter of the time. The last epoch at least is
        one of patches as they will be.
        """
        epochs = self._config.epochs
        small = min(round(_SMALL_SHARE * epochs), epochs - 1)
        return _SMALL_PX if round(done * epochs) < small else self._config.window_px

    def losses(self, network: PatchNetwork, views: Views, done: float) -> Losses:
        """Return the losses of a step."""
        config, half = self._config, len(views) // 2
        joint = self.stage(done) != "autoencoder"
        with autocast(views.od.device):
            x = network.normalise(views.od, views.present)
            z, latents = network.encode(x)
            # Decoding costs as much as all the rest; beside the clusters, a part will do.
            some = max(1, half // 4) if joint else half
            rebuilt = network.decode(z[:some])
        rebuilding = reconstruction_loss(rebuilt, x[:some], views.present[:some])
        if not joint:
            return Losses({"reconstruction": rebuilding})
        shown = views.present.sum(dim=1).reshape(2, half)
        clustering = [
            mutual_information_loss(z[:half], z[half:], shown, balance=config.balance)
            for z in network.logits(latents)
        ]
        parts = {
            "reconstruction": rebuilding,
            "clustering": _weighted(network.heads_k, clustering, config),
            "redundancy": redundancy_loss(*one_way(latents[:half], latents[half:], shown)),
        }
        weights = {"reconstruction": config.reconstruction, "redundancy": config.redundancy}
        return Losses(parts, weights)


class Published:
    """The method as first proposed: every patch as it is, and adversarial smoothing.

    First the autoencoder; then the clusters on its latents, by information maximisation with
    virtual adversarial smoothing (Hu et al., ICML 2017); then both together.
    """

    copies = 1
    views = ViewConfig(0, 0.0, turned=False)

    def __init__(self, config: TrainConfig) -> None:
        self._config = config

    def stage(self, done: float) -> Stage:
        """Return what is trained after a share `done` of the training."""
        clusters, both = _PUBLISHED_STAGES
        if done < clusters:
            return "autoencoder"
        return "clusters" if done < both else "both together"

    def side(self, done: float) -> int:
        """Return the side of the patches shown after a share `done` of the training, in px."""
        return self._config.window_px

    def losses(self, network: PatchNetwork, views: Views, done: float) -> Losses:
        """Return the losses of a step."""
        config, stage = self._config, self.stage(done)
        with autocast(views.od.device):
            x = network.normalise(views.od, views.present)
            z, latents = network.encode(x)
            rebuilt = network.decode(z)
        parts = {"reconstruction": reconstruction_loss(rebuilt, x, views.present)}
        if stage == "autoencoder":
            return Losses(parts)
        if stage == "clusters":
            latents = latents.detach()
        informed = [information_loss(z, balance=config.balance) for z in network.logits(latents)]
        parts["clustering"] = _weighted(network.heads_k, informed, config)
        smooth = adversarial_loss(network.logits, latents)
        parts["smoothing"] = _weighted(network.heads_k, smooth, config)
        return Losses(parts, {"reconstruction": config.reconstruction})


def _weighted(
    heads: tuple[int, ...], losses: list[torch.Tensor], config: TrainConfig
) -> torch.Tensor:
    """Return the mean over the heads, the k asked for and the extra ones weighing more."""
    weights = [_HEAVY if k == config.k or k in EXTRA_HEADS else 1.0 for k in heads]
    total = torch.stack([w * loss for w, loss in zip(weights, losses, strict=True)]).sum()
    return total / sum(weights)
