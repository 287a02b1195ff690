"""The middle patch of every crop of a store, as the map will see its neighbours."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from napari_pancluster.core.dataset import PatchStore, ViewConfig, view
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.plain_features import FeatureNetwork
from napari_pancluster.core.progress import Progress, Task

# Enough for clusters of half a percent, and a few seconds on a CPU.
_MOST_PATCHES = 4096
_BATCH = 128
_AS_IT_IS = ViewConfig(0, 0.0, turned=False)


def middle_latents(
    network: PatchNetwork | FeatureNetwork, store: PatchStore
) -> Task[tuple[NDArray[np.int64], NDArray[np.float32]]]:
    """Return the latents of crops drawn evenly from a store.

    Returns
    -------
    rows
        (M,) which crops.
    latents
        (M, D), by a network in evaluation mode; it is left in it.
    """
    network.eval()
    rows = np.linspace(0, len(store) - 1, min(_MOST_PATCHES, len(store))).astype(np.int64)
    values = np.empty((len(rows), network.latent), np.float32)
    rng = np.random.default_rng(0)
    for start in range(0, len(rows), _BATCH):
        part = slice(start, min(start + _BATCH, len(rows)))
        seen = view(store, rows[part], _AS_IT_IS, rng).to(network.device)
        with torch.inference_mode():
            latents = network.encode(network.normalise(seen.od, seen.present))[1]
        values[part] = latents.float().cpu().numpy()
        yield Progress("Looking at the clusters", part.stop, len(rows))
    return rows, values
