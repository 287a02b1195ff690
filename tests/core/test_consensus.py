"""Clusters that all heads agree on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn.metrics import adjusted_rand_score

from napari_pancluster.core.consensus import decide, evidence_of
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.progress import run
from napari_pancluster.core.votes import condensed_votes, votes


def blobs() -> tuple[np.ndarray, np.ndarray]:
    """Four kinds of latents (400, 16), and which is which."""
    rng = np.random.default_rng(0)
    truth = np.arange(400) % 4
    centres = 3 * np.eye(16)[:4]
    return (centres[truth] + rng.normal(0, 0.6, (400, 16))).astype(np.float32), truth


def network_with(heads: dict[int, np.ndarray]) -> PatchNetwork:
    network = PatchNetwork(1, tuple(heads), width=8, latent=16).eval()
    with torch.no_grad():
        for head, weight in zip(network.heads, heads.values(), strict=True):
            head.weight.copy_(torch.from_numpy(weight.astype(np.float32)))
            head.bias.zero_()
    return network


def labels(weights: Mapping[str, torch.Tensor], name: str, latents: np.ndarray) -> np.ndarray:
    weight, bias = (weights[f"{name}.{n}"].numpy() for n in ("weight", "bias"))
    return (latents @ weight.T + bias).argmax(1)


def test_a_head_that_erred_is_put_right_by_the_others() -> None:
    latents, truth = blobs()
    right, other, rng = np.eye(16)[:4], np.eye(16)[8], np.random.default_rng(1)
    # It takes kinds 0 and 1 for one, and draws a line through kind 2.
    wrong = np.stack([right[0] + right[1], right[2] + other, right[2] - other, right[3]])
    more = {k: np.vstack([right, rng.normal(0, 0.1, (k - 4, 16))]) for k in (5, 6, 7, 8)}
    network = network_with({4: 2 * wrong, **{k: 2 * w for k, w in more.items()}})
    assert adjusted_rand_score(truth, labels(network.state_dict(), "heads.0", latents)) < 0.75
    decided = run(decide(evidence_of(network, latents), latents, (4,), seed=0))
    assert adjusted_rand_score(truth, labels(decided, "decided.4", latents)) > 0.97


def test_two_clusters_and_too_few_patches_are_no_trouble() -> None:
    latents, truth = blobs()
    latents, truth = latents[truth < 2], truth[truth < 2]
    network = network_with({2: np.eye(16)[2:4], 4: 2 * np.eye(16)[:4]})
    decided = run(decide(evidence_of(network, latents), latents, (2,), seed=0))
    assert adjusted_rand_score(truth, labels(decided, "decided.2", latents)) > 0.97
    alike = np.repeat(latents[:1], 8, 0)
    assert run(decide(evidence_of(network, alike), alike, (4,), seed=0)) == {}


def test_the_same_seed_gives_the_same_heads() -> None:
    latents, _ = blobs()
    weights = []
    for _ in range(2):
        network = network_with({3: np.eye(16)[:3], 4: np.eye(16)[:4]})
        weights.append(run(decide(evidence_of(network, latents), latents, (3, 4), seed=5)))
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][n], weights[1][n]) for n in weights[0])


def test_votes_on_their_axes_are_as_far_apart() -> None:
    latents, _ = blobs()
    rng = np.random.default_rng(0)
    heads = [
        (rng.normal(size=(k, 16)).astype(np.float32), rng.normal(size=k).astype(np.float32))
        for k in (2, 5)
    ] * 3
    all_of_them, fewer = votes(latents, heads), condensed_votes(latents, heads)
    assert all_of_them.shape == (400, 21) and fewer.shape[1] <= 7
    assert np.exp(all_of_them[:, 2:7]).sum(1) == pytest.approx(1.05, abs=1e-4)
    apart, short = (np.linalg.norm(v[:100] - v[100:200], axis=1) for v in (all_of_them, fewer))
    assert np.allclose(apart, short, rtol=0.02)


def test_the_patches_beside_have_their_say() -> None:
    latents, _ = blobs()
    network = network_with({4: np.eye(16)[:4]})
    beside = np.roll(latents, 1, axis=0)
    mean = (latents + 2 * beside) / 3
    mean -= mean.mean(axis=0)
    known = evidence_of(network, latents, beside, beside)[:, 4:]
    assert np.allclose(known, mean / np.sqrt(mean.var(axis=0).sum()), atol=1e-5)


def test_votes_and_latents_weigh_alike() -> None:
    latents, _ = blobs()
    known = evidence_of(network_with({4: 5 * np.eye(16)[:4]}), 3 * latents)
    assert known.shape == (400, 4 + 16)
    assert known[:, :4].var(axis=0).sum() == pytest.approx(1, abs=1e-3)
    assert known[:, 4:].var(axis=0).sum() == pytest.approx(1, abs=1e-3)


def test_kinds_that_no_head_tells_apart_are_found_in_the_latents() -> None:
    latents, truth = blobs()
    # All heads take kinds 0 and 1 for one.
    blind = np.stack([*np.eye(16)[2:4], np.eye(16)[0] + np.eye(16)[1]])
    network = network_with({3: 2 * blind, 4: 2 * np.vstack([blind, np.zeros(16)])})
    decided = run(decide(evidence_of(network, latents), latents, (4,), seed=0))
    assert adjusted_rand_score(truth, labels(decided, "decided.4", latents)) > 0.9
