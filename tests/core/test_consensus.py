"""Heads that are set to what all of them agree on."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import adjusted_rand_score

from napari_pancluster.core.consensus import refine_heads
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.progress import run


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


def labels(network: PatchNetwork, k: int, latents: np.ndarray) -> np.ndarray:
    with torch.inference_mode():
        logits = network.logits(torch.from_numpy(latents))[network.heads_k.index(k)]
    return logits.argmax(1).numpy()


def test_a_head_that_erred_is_put_right_by_the_others() -> None:
    latents, truth = blobs()
    right, other, rng = np.eye(16)[:4], np.eye(16)[8], np.random.default_rng(1)
    # It takes kinds 0 and 1 for one, and draws a line through kind 2.
    wrong = np.stack([right[0] + right[1], right[2] + other, right[2] - other, right[3]])
    more = {k: np.vstack([right, rng.normal(0, 0.1, (k - 4, 16))]) for k in (5, 6, 7, 8)}
    network = network_with({4: 2 * wrong, **{k: 2 * w for k, w in more.items()}})
    assert adjusted_rand_score(truth, labels(network, 4, latents)) < 0.75
    run(refine_heads(network, latents, (4,), seed=0))
    assert adjusted_rand_score(truth, labels(network, 4, latents)) > 0.97


def test_two_clusters_and_too_few_patches_are_no_trouble() -> None:
    latents, truth = blobs()
    latents, truth = latents[truth < 2], truth[truth < 2]
    network = network_with({2: np.eye(16)[2:4], 4: 2 * np.eye(16)[:4]})
    run(refine_heads(network, latents, (2,), seed=0))
    assert adjusted_rand_score(truth, labels(network, 2, latents)) > 0.97
    before = network.heads[1].weight.clone()
    run(refine_heads(network, np.repeat(latents[:1], 8, 0), (4,), seed=0))
    assert torch.equal(network.heads[1].weight, before)


def test_the_same_seed_gives_the_same_heads() -> None:
    latents, _ = blobs()
    weights = []
    for _ in range(2):
        network = network_with({3: np.eye(16)[:3], 4: np.eye(16)[:4]})
        run(refine_heads(network, latents, (3, 4), seed=5))
        weights.append(torch.cat([h.weight for h in network.heads]))
    assert torch.equal(*weights)
