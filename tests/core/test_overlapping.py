"""Patches that overlap share a convolution, and come out as if they did not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from napari_pancluster.core.checkpoint import encode_patches
from napari_pancluster.core.model import PatchNetwork, Pooling
from napari_pancluster.core.overlapping import can_share, encode_overlapping

STAINS = 2


def network_of(pooling: Pooling, side: int) -> PatchNetwork:
    """Return a network whose normalisations are no identities, as in a trained one."""
    torch.manual_seed(0)
    network = PatchNetwork(STAINS, (2,), width=8, latent=16, pooling=pooling, patch_px=side)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for values in (module.weight, module.bias, module.running_mean, module.running_var):
                assert values is not None
                values.data.uniform_(0.5, 1.5)
    network.od_mean.fill_(0.3)  # type: ignore[operator]
    return network.eval()


def grid_of(stride: int, cells: int = 6) -> NDArray[np.int64]:
    """Return corners of a grid that begins off the window's and lacks some of its cells."""
    places = np.stack(np.meshgrid(range(cells), range(cells), indexing="ij"), -1).reshape(-1, 2)
    lacking = np.isin(np.arange(len(places)), [0, 7, 8, 21, len(places) - 1])
    return np.asarray(places[~lacking] * stride + (5, 11))


@pytest.mark.parametrize("present", [(True, True), (True, False)])
@pytest.mark.parametrize(
    ("pooling", "side", "stride"),
    [("texture", 64, 32), ("texture", 64, 6), ("both", 128, 64), ("flat", 64, 16)],
)
def test_shared_and_single_patches_have_the_same_latents(
    pooling: Pooling, side: int, stride: int, present: tuple[bool, bool]
) -> None:
    network, corners = network_of(pooling, side), grid_of(stride)
    size = int(corners.max()) + side + 9
    od = np.random.default_rng(0).random((STAINS * 3, size, size), np.float32)
    shown = np.tile(np.array(present), (len(corners), 1))
    assert can_share(corners, side, shown)
    patches = np.stack([od[:, r : r + side, c : c + side] for r, c in corners])
    alone = encode_patches(network, patches, shown)
    together = encode_overlapping(network, od, corners, side, shown[0])
    # Rounding alone; what a convolution sees beyond a patch's border would move them by tenths.
    assert np.abs(alone - together).max() < 1e-5 < alone.std() / 1e3


def test_what_would_come_out_otherwise_is_not_shared() -> None:
    corners = grid_of(32)
    shown = np.ones((len(corners), STAINS), np.bool_)
    assert can_share(corners, 64, shown)
    assert not can_share(corners[::9], 64, shown[::9])  # far apart: more work than one by one
    assert not can_share(grid_of(33), 64, shown)  # every second one lies between its places
    differing = shown.copy()
    differing[3, 1] = False
    assert not can_share(corners, 64, differing)
