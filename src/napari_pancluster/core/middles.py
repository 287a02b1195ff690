"""Latents of some patches as the map will see them: those learnt from, and fresh ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from napari_pancluster.core.checkpoint import encode_patches
from napari_pancluster.core.dataset import (
    PatchStore,
    ViewConfig,
    sampled_blocks,
    view,
)
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.patches import PatchSample, whole_patches
from napari_pancluster.core.plain_features import FeatureNetwork
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.stack import SlideStack

# Enough for clusters of half a percent, and a few seconds on a CPU.
MOST_PATCHES = 4096
_BATCH = 128
# The patch itself and those beside it; a crop holds all of them.
_SHIFTS = ((0, 0), (-1, 0), (0, -1), (0, 1), (1, 0))
_CROPS = 32
_AS_IT_IS = ViewConfig(0, 0.0, turned=False)


def evenly(rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return rows drawn evenly from these, as many as are enough to tell the clusters."""
    return rows[np.linspace(0, len(rows) - 1, min(MOST_PATCHES, len(rows))).astype(np.int64)]


def middle_latents(
    network: PatchNetwork | FeatureNetwork, store: PatchStore, rows: NDArray[np.int64]
) -> Task[NDArray[np.float32]]:
    """Return the latents (M, D) of the middle patch of crops.

    The network is put into evaluation mode, and left in it.
    """
    network.eval()
    side, room = store.patch_px, (store.codes.shape[-1] - store.patch_px) // 2
    values = np.empty((len(rows), network.latent), np.float32)
    rng = np.random.default_rng(0)
    for start in range(0, len(rows), _BATCH):
        some = rows[start : start + _BATCH]
        codes = store.codes[some, :, room : room + side, room : room + side]
        alone = PatchStore(codes, store.present[some], side)
        seen = view(alone, np.arange(len(some)), _AS_IT_IS, rng).to(network.device)
        with torch.inference_mode():
            latents = network.encode(network.normalise(seen.od, seen.present))[1]
        values[start : start + len(some)] = latents.float().cpu().numpy()
        yield Progress("Looking at the clusters", start + len(some), len(rows))
    return values


def fresh_latents(
    network: PatchNetwork,
    stacks: Sequence[SlideStack],
    sample: PatchSample,
    *,
    mpp: float,
    patch_px: int,
) -> Task[NDArray[np.float32]]:
    """Return the latents (5, M, D) of patches at some positions, and of the four beside each.

    Beside is half a patch away. Positions that lack a stain most of their case have are left out,
    see `whole_patches`.

    Parameters
    ----------
    network
        In evaluation mode.
    stacks
        One a case, with the stains of the network, in its order.
    mpp
        Pixel size to read at, µm/px.
    """
    # What lies in the middle half of a patch decides there, and the rest is its surroundings.
    apart = patch_px // (4 if network.pooling == "both" else 2)
    side = patch_px + 2 * apart
    values = np.empty((len(_SHIFTS), len(sample.centres), network.latent), np.float32)
    present = np.empty((len(sample.centres), network.stains), np.bool_)
    done = 0
    for rows, block, corners in sampled_blocks(stacks, sample, mpp=mpp, side=side):
        least = stacks[int(sample.case_id[rows[0]])].least_inside
        for part in np.array_split(np.arange(len(rows)), -(-len(rows) // _CROPS)):
            present[rows[part]] = block.shows(corners[part], side, least)
            for number, shift in enumerate(_SHIFTS):
                corner = corners[part] + (np.array(shift) + 1) * apart
                patches = block.cut(corner, patch_px)
                values[number, rows[part]] = encode_patches(network, patches, present[rows[part]])
            done += len(part)
            yield Progress("Looking at the clusters", done, len(sample.centres))
    return values[:, whole_patches(present, sample.case_id)]
