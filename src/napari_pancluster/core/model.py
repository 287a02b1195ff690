"""The network: a convolutional autoencoder whose pooled bottleneck is clustered by linear heads."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import nn

from napari_pancluster.core.stack import CHANNELS

Pooling = Literal["texture", "both", "flat"]

_LEAST_VARIANCE = 1e-5
# Places a side that are enough to estimate a mean and a spread; all of them cost twice the time.
_MOST_PLACES = 8


def _mean_and_spread(x: torch.Tensor) -> list[torch.Tensor]:
    """Return mean and standard deviation of a map (B, C, h, w) over its places, each (B, C)."""
    step = max(1, x.shape[-1] // _MOST_PLACES)
    # Channels last before anything is cut out, as the maps lie in memory: the gradient of a cut is
    # made in the layout it sees, and adding it to one of another layout took a quarter of a step.
    places = x.permute(0, 2, 3, 1)[:, ::step, ::step].flatten(1, 2).float()
    mean = places.mean(1)
    variance = places.square().mean(1) - mean.square()
    # The root of a variance of exactly 0 (a patch without any stain) has no gradient.
    return [mean, (variance.clamp(min=0) + _LEAST_VARIANCE).sqrt()]


def _middle(x: torch.Tensor) -> torch.Tensor:
    """Return the middle half of a map (B, C, h, w) in both directions."""
    edge = x.shape[-1] // 4
    last = x.permute(0, 2, 3, 1)  # see `_mean_and_spread`
    last = last[:, edge : x.shape[-2] - edge, edge : x.shape[-1] - edge]
    return last.permute(0, 3, 1, 2)


class PatchNetwork(nn.Module):
    """Encoder, decoder and one clustering head for every number of clusters.

    Parameters
    ----------
    stains
        Number of stains; the input has three density channels for each.
    heads
        Output size of every clustering head.
    width
        Channels of the first convolution, doubled three times.
    latent
        Size of the latents.
    pooling
        How the latents are made of the maps: "texture", from the statistics of every stage;
        "both", from those and from the same of the patch's middle half; "flat", from the
        bottleneck place by place, as published.
    patch_px
        Side of a patch, which "flat" has to know.

    Notes
    -----
    Four convolutions of stride 2 and one of kernel 1 give a bottleneck map of ``latent`` channels,
    from which the decoder rebuilds the patch. The latents are a linear mixture of the mean and the
    spread over places of every stage, fine to coarse, so that they describe texture at all its
    scales and do not depend on where in the patch a nucleus lies. Statistics of the middle half
    tell what lies there from what surrounds it, at no second pass of the convolutions.
    """

    def __init__(
        self,
        stains: int,
        heads: Sequence[int],
        *,
        width: int = 32,
        latent: int = 64,
        pooling: Pooling = "texture",
        patch_px: int = 64,
    ) -> None:
        super().__init__()
        self.stains = stains
        self.pooling = pooling
        self.heads_k = tuple(heads)
        self.latent = latent
        channels = stains * CHANNELS
        self.register_buffer("od_mean", torch.zeros(channels))
        self.register_buffer("od_std", torch.ones(channels))
        sizes = [channels, width, 2 * width, 4 * width, 8 * width]
        self.stages = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(before, after, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            )
            for before, after in pairwise(sizes)
        )
        self.bottleneck = nn.Conv2d(sizes[-1], latent, 1)
        # Kernel 2, stride 2: several times cheaper than upsampling and a 3×3 convolution.
        up: list[nn.Module] = [nn.Conv2d(latent, sizes[-1], 1), nn.ReLU(inplace=True)]
        for before, after in zip(sizes[:1:-1], sizes[-2:0:-1], strict=True):
            up += [nn.ConvTranspose2d(before, after, 2, stride=2), nn.ReLU(inplace=True)]
        self.decoder = nn.Sequential(*up, nn.ConvTranspose2d(width, channels, 2, stride=2))
        statistics = {
            "texture": 2 * sum(sizes[1:]),
            "both": 4 * sum(sizes[1:]),
            "flat": latent * (patch_px // 2 ** len(self.stages)) ** 2,
        }[pooling]
        self.evenly = nn.BatchNorm1d(statistics, affine=False)
        self.pool = nn.Linear(statistics, latent)
        self.norm = nn.BatchNorm1d(latent, affine=False)
        self.heads = nn.ModuleList([nn.Linear(latent, k) for k in heads])

    @property
    def device(self) -> torch.device:
        """Return where the weights are."""
        return self.heads[0].weight.device  # type: ignore[return-value]

    def normalise(self, od: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return densities (B, C, H, W) standardised per channel, 0 where a stain is missing."""
        mean, std = self.od_mean, self.od_std
        assert isinstance(mean, torch.Tensor) and isinstance(std, torch.Tensor)
        shown = present.repeat_interleave(CHANNELS, dim=1)
        # One pass over the pixels: they are the largest array of a step.
        scale, shift = shown / std, -mean / std * shown
        return torch.addcmul(shift[:, :, None, None], od, scale[:, :, None, None])

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode normalised patches (B, C, H, W).

        Returns
        -------
        bottleneck
            (B, latent, H / 16, W / 16), what the decoder rebuilds the patch from.
        latents
            (B, latent), standardised.
        """
        return self.encode_from(self.stages[0](x))

    def encode_from(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode patches of which the first stage's maps (B, width, H / 2, W / 2) are there."""
        statistics = []
        for number, stage in enumerate(self.stages):
            x = stage(x) if number else x
            if self.pooling != "flat":
                statistics += _mean_and_spread(x)
            if self.pooling == "both":
                statistics += _mean_and_spread(_middle(x))
        z = self.bottleneck(x)
        if self.pooling == "flat":
            statistics = [z.float().flatten(1)]
        with torch.autocast(x.device.type, enabled=False):
            latents = self.norm(self.pool(self.evenly(torch.cat(statistics, dim=1))))
        return z, latents

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Return normalised patches (B, C, H, W) rebuilt from bottleneck maps."""
        out: torch.Tensor = self.decoder(z)
        return out

    def logits(self, latents: torch.Tensor) -> list[torch.Tensor]:
        """Return cluster logits (B, k) of every head."""
        return [head(latents) for head in self.heads]
