"""The recipe `baseline`: what is measured by hand, and clusters that are linear in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_pancluster.core.checkpoint import Checkpoint
from napari_pancluster.core.clustering import cluster
from napari_pancluster.core.dataset import PatchStore
from napari_pancluster.core.errors import TrainingError
from napari_pancluster.core.latents import Latents
from napari_pancluster.core.plain_features import FeatureNetwork, fit_baseline
from napari_pancluster.core.progress import Progress, run

KINDS = np.repeat([0, 1, 2], 40)


def drawn(seed: int = 0) -> PatchStore:
    """120 crops of two stains: fine grain, coarse grain, and coarse with a dense second stain."""
    rng = np.random.default_rng(seed)
    fine = rng.integers(20, 90, (40, 6, 96, 96))
    coarse = rng.integers(20, 90, (80, 6, 12, 12)).repeat(8, 2).repeat(8, 3)
    coarse[40:, 3:] += 60
    codes = np.concatenate([fine, coarse]).astype(np.uint8)
    return PatchStore(codes, np.ones((120, 2), bool), 64)


@pytest.fixture(scope="module")
def store() -> PatchStore:
    return drawn()


@pytest.fixture(scope="module")
def fitted(store: PatchStore) -> FeatureNetwork:
    return run(fit_baseline(store, ks=(2, 3, 4), seed=0, patch_px=64))


def latents_of(
    network: FeatureNetwork, store: PatchStore, present: tuple[float, float] = (1, 1)
) -> torch.Tensor:
    od = torch.from_numpy(store.codes[:, :, 16:80, 16:80] / np.float32(127.5))
    shown = torch.tensor([present] * len(store), dtype=torch.float32)
    bottleneck, latents = network.encode(network.normalise(od, shown))
    assert bottleneck.shape == (len(store), 0)
    return latents


def test_three_textures_are_three_clusters_in_patches_it_has_not_seen(
    fitted: FeatureNetwork,
) -> None:
    found = fitted.logits(latents_of(fitted, drawn(seed=1)))[1].argmax(1).numpy()
    assert [len(set(found[kind == KINDS])) for kind in range(3)] == [1, 1, 1]
    assert len(set(found)) == 3


def test_the_patches_are_those_that_are_encoded_later(
    fitted: FeatureNetwork, store: PatchStore
) -> None:
    latents = latents_of(fitted, store)
    assert latents.shape == (120, fitted.latent)
    # Standardised over the very same patches.
    assert latents.mean(0).abs().max() < 1e-3
    spread = latents.std(0)
    assert ((spread - 1).abs() < 0.05).logical_or(spread < 0.05).all()


def test_orientation_does_not_matter_and_scale_does(
    fitted: FeatureNetwork, store: PatchStore
) -> None:
    turned = PatchStore(np.rot90(store.codes, axes=(2, 3))[..., ::-1], store.present, 64)
    latents = latents_of(fitted, store)
    assert torch.allclose(latents_of(fitted, turned), latents, atol=1e-3)
    assert (latents[:40].mean(0) - latents[40:80].mean(0)).abs().max() > 1


def test_a_missing_stain_is_its_mean_and_leaves_the_others_alone(
    fitted: FeatureNetwork, store: PatchStore
) -> None:
    whole, half = latents_of(fitted, store), latents_of(fitted, store, (1, 0))
    own = (fitted.latent - 1) // 2
    assert torch.equal(half[:, :own], whole[:, :own])
    assert (half[:, own:] == 0).all() and (whole[:, own:-1] != 0).any()


def test_the_nearest_centre_has_the_largest_probability(
    fitted: FeatureNetwork, store: PatchStore
) -> None:
    latents = latents_of(fitted, store)
    weights = dict(fitted.state_dict())
    checkpoint = Checkpoint(weights, ("HE", "PAS"), (2, 3, 4), (2, 3, 4), 3, 0.5, 64, {})
    found = cluster(Latents(latents.numpy()), checkpoint, 3)
    means = np.stack([latents[found.assignments == c].mean(0).numpy() for c in range(3)])
    # Anywhere between the centres, where it counts.
    rng = np.random.default_rng(0)
    between = (rng.dirichlet([1, 1, 1], size=300) @ means).astype(np.float32)
    nearest = ((between[:, None] - means) ** 2).sum(2).argmin(1)
    assert (cluster(Latents(between), checkpoint, 3).assignments == nearest).mean() > 0.98
    assert not list(fitted.parameters())


def test_probabilities_are_as_unsure_as_overlapping_clusters_are() -> None:
    # Grain that grows evenly from fine to coarse has no border between two kinds.
    rng = np.random.default_rng(0)
    fine = rng.normal(size=(200, 3, 64, 64))
    coarse = rng.normal(size=(200, 3, 8, 8)).repeat(8, 2).repeat(8, 3)
    share = np.linspace(0, 1, 200)[:, None, None, None]
    codes = np.clip(60 + 15 * (share * coarse + (1 - share) * fine), 0, 255).astype(np.uint8)
    network = run(
        fit_baseline(PatchStore(codes, np.ones((200, 1), bool), 64), ks=(2,), seed=0, patch_px=64)
    )
    od = torch.from_numpy(codes / np.float32(127.5))
    latents = network.encode(network.normalise(od, torch.ones(200, 1)))[1]
    sure = network.logits(latents)[0].softmax(1).amax(1).numpy()
    assert sure[:20].mean() > 0.95 and sure[-20:].mean() > 0.95
    assert sure.min() < 0.7 and 0.7 < sure.mean() < 0.99


def test_the_same_seed_finds_the_same_and_the_callers_chance_is_left_alone(
    fitted: FeatureNetwork, store: PatchStore
) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    again = run(fit_baseline(store, ks=(2, 3, 4), seed=0, patch_px=64))
    assert torch.equal(torch.rand(3), expected)
    for name, values in fitted.state_dict().items():
        assert torch.equal(again.state_dict()[name], values)


def test_progress_reaches_its_end(store: PatchStore) -> None:
    seen = list[Progress]()
    run(fit_baseline(store, ks=(2, 3), seed=0, patch_px=64), seen.append)
    assert {p.stage for p in seen} == {"Measuring patches", "Finding clusters"}
    assert seen[0].done == 120 and (seen[-1].done, seen[-1].total) == (2, 2)


def test_too_few_patches_or_too_few_different_ones_are_refused(store: PatchStore) -> None:
    few = PatchStore(store.codes[:5], store.present[:5], 64)
    with pytest.raises(TrainingError, match="5 training patches are fewer than 6 clusters"):
        run(fit_baseline(few, ks=(6,), seed=0, patch_px=64))
    same = PatchStore(np.full((20, 6, 64, 64), 9, np.uint8), np.ones((20, 2), bool), 64)
    with pytest.raises(TrainingError, match="Only 1 of 20 training patches differ"):
        run(fit_baseline(same, ks=(2,), seed=0, patch_px=64))
