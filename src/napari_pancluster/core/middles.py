"""The middle patch of every crop of a store, and those beside it, as the map will see them."""

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


def evenly(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows drawn evenly from these, as many as are enough to tell the clusters."""
    return rows[np.linspace(0, len(rows) - 1, min(_MOST_PATCHES, len(rows))).astype(np.int64)]


def middle_latents(
    network: PatchNetwork | FeatureNetwork, store: PatchStore, rows: NDArray[np.int64]
) -> Task[NDArray[np.float32]]:
    """Return the latents (M, D) of crops, by a network in evaluation mode; it is left in it."""
    return (yield from _latents(network, store, rows, (0, 0)))


def latents_around(
    network: PatchNetwork, store: PatchStore, rows: NDArray[np.int64]
) -> Task[list[NDArray[np.float32]]]:
    """Return the latents (M, D) of the four patches beside the middle one of each crop.

    Half a patch away, where the crops are that wide; none where they are no wider than a patch.
    """
    # What lies in the middle half of a patch decides there, and the rest is its surroundings.
    apart = store.patch_px // (4 if network.pooling == "both" else 2)
    shift = min(apart, (store.codes.shape[-1] - store.patch_px) // 2)
    around: list[NDArray[np.float32]] = []
    for away in ((-shift, 0), (0, -shift), (0, shift), (shift, 0)) if shift else ():
        latents = yield from _latents(network, store, rows, away)
        around.append(latents)
    return around


def _latents(
    network: PatchNetwork | FeatureNetwork,
    store: PatchStore,
    rows: NDArray[np.int64],
    away: tuple[int, int],
) -> Task[NDArray[np.float32]]:
    """Return the latents (M, D) of the patches that lie `away` px from the middle of crops."""
    network.eval()
    side, room = store.patch_px, (store.codes.shape[-1] - store.patch_px) // 2
    top, left = (room + shift for shift in away)
    values = np.empty((len(rows), network.latent), np.float32)
    rng = np.random.default_rng(0)
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        codes = store.codes[some, :, top : top + side, left : left + side]
        alone = PatchStore(codes, store.present[some], side)
        seen = view(alone, np.arange(len(some)), _AS_IT_IS, rng).to(network.device)
        with torch.inference_mode():
            latents = network.encode(network.normalise(seen.od, seen.present))[1]
        values[start : start + len(some)] = latents.float().cpu().numpy()
        yield Progress("Looking at the clusters", start + len(some), len(rows))
    return values
