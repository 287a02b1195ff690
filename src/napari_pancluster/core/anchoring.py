"""Heads set on the clusters that the latents have grown, before the last part of the training."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning

from napari_pancluster.core.dataset import PatchStore, ViewConfig, view
from napari_pancluster.core.model import PatchNetwork

_BATCH = 256
_STARTS = 3
# Log-odds of the nearest against the second nearest cluster, for the median patch.
_MARGIN = 3.0


def anchor_heads(network: PatchNetwork, store: PatchStore, seed: int) -> None:
    """Set every head on the k-means clusters of the latents.

    A head that started from nothing may part the latents along directions in which they hardly
    differ; from here on it refines compact clusters instead, as in deep embedded clustering (Xie,
    Girshick, Farhadi, ICML 2016).
    """
    latents = _latents(network, store, seed)
    for k, head in zip(network.heads_k, network.heads, strict=True):
        if k > len(latents):
            continue
        with warnings.catch_warnings():
            # Fewer distinct latents than clusters: the indices will say so.
            warnings.simplefilter("ignore", ConvergenceWarning)
            means = KMeans(k, n_init=_STARTS, random_state=seed).fit(latents).cluster_centers_
        # log-odds of equal isotropic Gaussians, tempered.
        logits = latents @ means.T - np.square(means).sum(1) / 2
        first_two = np.sort(logits, axis=1)[:, -2:]
        scale = _MARGIN / max(float(np.median(first_two[:, 1] - first_two[:, 0])), 1e-6)
        with torch.no_grad():
            assert isinstance(head, torch.nn.Linear)
            head.weight.copy_(torch.from_numpy(scale * means))
            head.bias.copy_(torch.from_numpy(-scale * np.square(means).sum(1) / 2))


def _latents(network: PatchNetwork, store: PatchStore, seed: int) -> NDArray[np.float32]:
    """Return the latents of the crops' middles, (M, D)."""
    device, rng = network.device, np.random.default_rng(seed)
    middle = ViewConfig(shift_px=0, stain_jitter=0.0)
    was_training = network.training
    network.eval()
    found = []
    with torch.inference_mode():
        for top in range(0, len(store), _BATCH):
            rows = np.arange(top, min(top + _BATCH, len(store)))
            od, present = (t.to(device) for t in view(store, rows, middle, rng))
            x = network.normalise(od.contiguous(memory_format=torch.channels_last), present)
            found.append(network.latents(network.encode(x)).cpu().numpy())
    network.train(was_training)
    return np.concatenate(found)
