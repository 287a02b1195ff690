"""Latents of fresh patches, and of those beside them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from napari_pancluster.core.geometry import Region
from napari_pancluster.core.middles import fresh_latents
from napari_pancluster.core.model import PatchNetwork, Pooling
from napari_pancluster.core.patches import PatchSample, sample_positions
from napari_pancluster.core.pipeline.opening import open_stack
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.tissue_mask import TissueMask


def alone(network: PatchNetwork, stack: SlideStack, row: float, col: float) -> np.ndarray:
    """Latents of the 32 px patch whose middle lies at a place, in px of 0.5 µm."""
    block = stack.read(Region((row - 16) / 2, (col - 16) / 2, 16, 16), 0.5)
    with torch.inference_mode():
        x = network.normalise(torch.from_numpy(block.od[None]), torch.ones(1, 1))
        found: np.ndarray = network.encode(x)[1].numpy()[0]
    return found


@pytest.mark.parametrize(("pooling", "apart"), [("texture", 16), ("both", 8)])
def test_patches_beside_lie_half_of_what_decides_away(
    two_tissues: Path, make_project: Callable[..., Project], pooling: Pooling, apart: int
) -> None:
    project = make_project(HE=two_tissues)
    stack = open_stack(project, project.state.cases[0])
    network = PatchNetwork(1, (2,), width=4, latent=8, pooling=pooling).eval()
    places = np.array([[200, 300], [210, 330], [400, 1500]])
    sample = PatchSample(places * 0.5, np.zeros(3, np.int32), 0)
    found = run(fresh_latents(network, [stack], sample, mpp=0.5, patch_px=32))
    assert found.shape == (5, 3, 8)
    for number, (down, right) in enumerate([(0, 0), (-1, 0), (0, -1), (0, 1), (1, 0)]):
        for place, latents in zip(places, found[number], strict=True):
            expected = alone(network, stack, place[0] + down * apart, place[1] + right * apart)
            assert np.allclose(latents, expected, atol=1e-4)


def test_another_draw_has_other_positions() -> None:
    tissue = TissueMask(np.ones((50, 50), bool), 8.0)
    first, again = (sample_positions([tissue], 100, 3, draw=n) for n in (1, 1))
    assert (first.centres == again.centres).all()
    assert not np.isin(first.centres, sample_positions([tissue], 100, 3).centres).any()
