"""The recipe `baseline`: features measured by hand, and k-means; no network is learnt."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations, pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn import functional

from napari_pancluster.core.dataset import PatchStore
from napari_pancluster.core.errors import TrainingError
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.stack import CHANNELS
from napari_pancluster.core.stain import MAX_OD

# Pixels a side of the coarsest map: from a patch of 64 px on there are four scales or more.
_COARSEST_PX = 4
_QUANTILES = (0.1, 0.5, 0.9)
_COLOURS = tuple(combinations(range(CHANNELS), 2))
# Density that is noise: contrasts below it are as good as none, and so are features that vary less.
_NOISE_OD = 0.01
_LEAST_SPREAD = 0.02
# A fold or a speck must not draw a cluster of its own.
_FARTHEST = 5.0
_BATCH = 128
# k-means ends in a local optimum; the best of these is kept.
_STARTS = 3


class _Head(nn.Module):
    """Logits (B, k) that are linear in the latents; its numbers are set, not learnt."""

    weight: torch.Tensor
    bias: torch.Tensor

    def __init__(self, latent: int, k: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.zeros(k, latent))
        self.register_buffer("bias", torch.zeros(k))

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return functional.linear(latents, self.weight, self.bias)


class FeatureNetwork(nn.Module):
    r"""Plain features of a patch and k-means centres, with the face of a `PatchNetwork`.

    Parameters
    ----------
    stains
        Number of stains; the input has three density channels for each.
    heads
        Every number of clusters.
    patch_px
        Side of a patch in working pixels; a larger one is looked at in more scales.

    Notes
    -----
    The latents are, for every density channel, its mean, spread and quantiles, its contrast at
    every scale and the strength of its edges; for every stain how its colours go together; for
    every two stains how their densities go together. None of it depends on where in the patch
    something lies or how it is turned. Each is standardised over the training patches; those of
    a missing stain are their mean, 0.

    The contrast at a scale is what averaging 2 × 2 pixels takes from the mean square: the energy
    of that scale's differences.

    k-means is linear: the nearest of the centres :math:`c_j` has the largest logit

    .. math:: (z \cdot c_j - |c_j|^2 / 2) / T.

    With T = σ², the mean variance of a latent within its cluster, softmax gives the
    probabilities of a mixture of equal spheres. The latents repeat each other, which counts one
    piece of evidence several times; so T = σ² D / E with E the effective number of the D
    latents, :math:`(\sum \lambda)^2 / \sum \lambda^2` of the eigenvalues λ of their covariance
    within clusters.
    """

    od_mean: torch.Tensor
    od_std: torch.Tensor
    feature_mean: torch.Tensor
    feature_spread: torch.Tensor

    def __init__(self, stains: int, heads: Sequence[int], *, patch_px: int) -> None:
        super().__init__()
        self.stains = stains
        self.heads_k = tuple(heads)
        self.scales = max(2, (patch_px // _COARSEST_PX).bit_length() - 1)
        channel = 3 + len(_QUANTILES) + self.scales
        per_stain = CHANNELS * channel + len(_COLOURS)
        self.latent = stains * per_stain + stains * (stains - 1) // 2
        self.register_buffer("od_mean", torch.zeros(stains * CHANNELS))
        self.register_buffer("od_std", torch.ones(stains * CHANNELS))
        self.register_buffer("feature_mean", torch.zeros(self.latent))
        self.register_buffer("feature_spread", torch.ones(self.latent))
        self.heads = nn.ModuleList([_Head(self.latent, k) for k in heads])

    @property
    def device(self) -> torch.device:
        """Return where the numbers are."""
        return self.od_mean.device

    def normalise(self, od: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return densities (B, C, H, W) standardised per channel, 0 where a stain is missing."""
        shown = present.repeat_interleave(CHANNELS, dim=1)
        scale, shift = shown / self.od_std, -self.od_mean / self.od_std * shown
        return torch.addcmul(shift[:, :, None, None], od, scale[:, :, None, None])

    def measure(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Measure normalised patches (B, C, H, W).

        Returns
        -------
        features
            (B, latent), in OD, logarithms of OD, and correlations.
        shown
            (B, latent), 1 where the stains they are measured on are there.
        """
        there = (x != 0).flatten(2).any(2).view(len(x), self.stains, CHANNELS).any(2).float()
        # In OD again, so that noise is as large in every stain.
        maps = [x.float() * self.od_std[:, None, None]]
        for _ in range(self.scales):
            maps.append(functional.avg_pool2d(maps[-1], 2))
        own = torch.cat([_of_channels(maps, self.stains), _of_colours(maps[1], self.stains)], dim=2)
        coarse = maps[-1].reshape(len(x), self.stains, CHANNELS, -1).mean(2)
        pairs = list(combinations(range(self.stains), 2))
        between = [_correlation(coarse[:, a], coarse[:, b]) for a, b in pairs]
        both = [there[:, a] * there[:, b] for a, b in pairs]
        shown = there[:, :, None].expand_as(own).flatten(1)
        if not pairs:
            return own.flatten(1), shown
        features = torch.cat([own.flatten(1), torch.stack(between, dim=1)], dim=1)
        return features, torch.cat([shown, torch.stack(both, dim=1)], dim=1)

    def encode(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Encode normalised patches (B, C, H, W).

        Returns
        -------
        bottleneck
            (B, 0), for nothing is rebuilt from it.
        latents
            (B, latent), standardised.
        """
        features, shown = self.measure(x)
        latents = (features - self.feature_mean) / self.feature_spread * shown
        return x.new_empty(len(x), 0), latents.clamp(-_FARTHEST, _FARTHEST)

    def logits(self, latents: torch.Tensor) -> list[torch.Tensor]:
        """Return cluster logits (B, k) of every head."""
        return [head(latents) for head in self.heads]


def _of_channels(maps: Sequence[torch.Tensor], stains: int) -> torch.Tensor:
    """Return what is measured on each channel, (B, stains, features), fine maps first."""
    mean = maps[-1].mean((2, 3))
    power = [m.square().mean((2, 3)) for m in maps]
    quantiles = torch.quantile(
        maps[2].flatten(2), torch.tensor(_QUANTILES, device=mean.device), dim=2
    )
    down, right = (maps[1].diff(dim=d).abs().mean((2, 3)) for d in (2, 3))
    each = [mean, _log_root(power[0] - mean.square()), *quantiles]
    each += [_log_root(fine - coarse) for fine, coarse in pairwise(power)]
    each.append(((down + right) / 2 + _NOISE_OD).log())
    return torch.stack(each, dim=2).view(len(mean), stains, -1)


def _of_colours(od: torch.Tensor, stains: int) -> torch.Tensor:
    """Return how the colours of each stain go together, (B, stains, pairs of colours)."""
    colours = od.reshape(len(od), stains, CHANNELS, -1)
    return torch.stack([_correlation(colours[:, :, a], colours[:, :, b]) for a, b in _COLOURS], 2)


def _log_root(variance: torch.Tensor) -> torch.Tensor:
    # Next to noise, what a difference of two powers is off by does not matter either.
    return (variance.clamp(min=0) + _NOISE_OD**2).log() / 2


def _correlation(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the correlation of densities (…, pixels) over their pixels; 0 where all is noise."""
    a, b = a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)
    roots = (a.square().mean(-1) * b.square().mean(-1)).sqrt()
    return (a * b).mean(-1) / (roots + _NOISE_OD**2)


def fit_baseline(
    store: PatchStore, *, ks: Sequence[int], seed: int, patch_px: int
) -> Task[FeatureNetwork]:
    """Measure the middle patch of every crop and find the centres of k-means for every k.

    Parameters
    ----------
    store
        The crops; those it names are learnt from.
    ks
        Numbers of clusters, the heads of the result.
    seed
        Draws the first centres.
    patch_px
        Side of a patch, at most that of the crops.

    Raises
    ------
    TrainingError
        If there are fewer patches than clusters, or fewer different ones.
    """
    if len(store.learnt) < max(ks):
        raise TrainingError(
            f"{len(store.learnt)} training patches are fewer than {max(ks)} clusters. "
            "Use more --patches or a smaller k."
        )
    network = FeatureNetwork(store.stains, ks, patch_px=patch_px).eval()
    for name, values in zip(("od_mean", "od_std"), store.channel_statistics(), strict=True):
        getattr(network, name).copy_(torch.from_numpy(values))
    latents = yield from _standardised(network, store, patch_px)
    different = len(np.unique(latents.round(3), axis=0))
    if different < max(ks):
        raise TrainingError(
            f"Only {different} of {len(latents)} training patches differ: too few for {max(ks)} "
            "clusters. Check that the slides show stained tissue, and the tissue mask, or use a "
            "smaller k."
        )
    for number, k in enumerate(ks):
        yield Progress("Finding clusters", number, len(ks))
        _set_head(network.heads[number], latents, k, seed)
    yield Progress("Finding clusters", len(ks), len(ks))
    return network


def _standardised(
    network: FeatureNetwork, store: PatchStore, patch_px: int
) -> Task[NDArray[np.float32]]:
    """Return the latents (L, latent) of the crops learnt from; leave the network their spread."""
    learnt = store.learnt
    features, shown = np.empty((2, len(learnt), network.latent), np.float32)
    first = (store.codes.shape[-1] - patch_px) // 2
    middle = slice(first, first + patch_px)
    for start in range(0, len(learnt), _BATCH):
        rows = slice(start, start + _BATCH)
        od = store.codes[learnt[rows], :, middle, middle].astype(np.float32) * np.float32(
            MAX_OD / 255
        )
        present = torch.from_numpy(store.present[learnt[rows]].astype(np.float32))
        with torch.inference_mode():
            x = network.normalise(torch.from_numpy(od), present)
            features[rows], shown[rows] = (t.numpy() for t in network.measure(x))
        yield Progress("Measuring patches", min(start + _BATCH, len(learnt)), len(learnt))
    count = np.maximum(shown.sum(0), 1)
    mean = (features * shown).sum(0) / count
    spread = np.sqrt(((features - mean) ** 2 * shown).sum(0) / count)
    # Scaled up, what hardly varies would be nothing but noise.
    spread[spread < _LEAST_SPREAD] = 1.0
    network.feature_mean.copy_(torch.from_numpy(mean))
    network.feature_spread.copy_(torch.from_numpy(spread))
    latents = (features - mean) / spread * shown
    return np.asarray(np.clip(latents, -_FARTHEST, _FARTHEST), np.float32)


def _set_head(head: nn.Module, latents: NDArray[np.float32], k: int, seed: int) -> None:
    """Find k centres among latents (M, D) and set the head's logits; see `FeatureNetwork`."""
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    assert isinstance(head, _Head)
    # Threads add up in any order: the last bits, and with them a cluster, would be chance.
    with threadpool_limits(1):
        found = KMeans(k, n_init=_STARTS, random_state=seed).fit(latents)
    centres = np.asarray(found.cluster_centers_, np.float64)
    apart = latents - centres[found.labels_]
    covariance = apart.T @ apart / len(latents)
    total = float(np.trace(covariance))
    # σ² = total / D and E = total² / |covariance|², so that D cancels out.
    temperature = float(np.square(covariance).sum()) / max(total, 1e-12) or 1.0
    head.weight.copy_(torch.from_numpy(centres / temperature))
    head.bias.copy_(torch.from_numpy(-np.square(centres).sum(1) / 2 / temperature))
