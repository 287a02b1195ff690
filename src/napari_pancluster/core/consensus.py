"""Clusters that all heads agree on.

A head alone depends on where its training began. What it and its neighbours tell a tissue by is
much the same, and their votes together are steadier than any of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from napari_pancluster.core.checkpoint import Checkpoint
from napari_pancluster.core.means import best_means
from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.votes import principal_axes, votes

# k-means ends in a local optimum, and the best of these is kept: with 4 of them the clusters of two
# trainings agreed less well (adjusted Rand 0.76) than with 20 (0.85), on labelled tissue.
_STARTS = 20
# Inverse strength of the penalty on the weights that are fitted.
_FREEDOM = 0.1
# Which cluster a patch is in shows long before the last digits of the weights.
_FIT = {"max_iter": 2000, "tol": 1e-3}


def agreed(checkpoint: Checkpoint, latents: NDArray[np.float32]) -> Task[Checkpoint]:
    """Return a checkpoint that holds, for every k, what its heads agree on, see `decide`.

    Heads that were never trained have nothing to say: with all of the training given to the
    autoencoder, the clusters are k-means on its latents.

    Parameters
    ----------
    latents
        (1 + A, M, D) of patches, and of those beside each. The heads are surer of the patches
        they were trained on than of others: fresh ones show better what they can tell apart.
    """
    network, config = checkpoint.network(), checkpoint.config
    assert isinstance(network, PatchNetwork)
    known = latents[0] if config["pretraining"] == 1 else evidence_of(network, *latents)
    decided = yield from decide(known, latents[0], checkpoint.ks, seed=config["seed"])
    return replace(checkpoint, weights={**checkpoint.weights, **decided})


def evidence_of(
    network: PatchNetwork, latents: NDArray[np.float32], *around: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Return what is known of patches (M, sum of k + D): what all heads say, and the latents.

    Either varies as much as the other in all. Votes alone forget what no head has told apart;
    latents alone count every direction the same, whether it tells tissues apart or not.

    Parameters
    ----------
    latents
        (M, D) of the patches.
    around
        The same of the patches beside them: a neighbour is the same tissue, and the mean of all
        is steadier than one patch.
    """
    heads = [_numbers(head) for head in network.heads]
    every = (latents, *around)
    # Roots of probabilities: their distances are Hellinger's.
    said = np.mean([np.exp(votes(some, heads) / 2) for some in every], axis=0)
    return np.concatenate([_scaled(said), _scaled(np.mean(every, axis=0))], axis=1)


def decide(
    known: NDArray[np.float32], latents: NDArray[np.float32], ks: Sequence[int], *, seed: int
) -> Task[dict[str, torch.Tensor]]:
    r"""Return, for every k, the linear map of the latents that all heads agree on.

    The patches are clustered by k-means on `known`, and a head for k is fitted to the result
    (multinomial logistic regression), so that a cluster stays a linear map of the latents. A
    consensus of clusterings as in Strehl & Ghosh, Cluster ensembles, JMLR 2002, with
    probabilities for votes.

    Parameters
    ----------
    known
        (M, E) of the patches, see `evidence_of`.
    latents
        (M, D) of the same.
    ks
        What to decide on.
    seed
        Of k-means.

    Returns
    -------
    dict
        ``decided.K.weight`` (k, D) and ``decided.K.bias`` (k,); none for a k that is more than
        there are different patches.
    """
    from sklearn.linear_model import LogisticRegression

    different = len(np.unique(known, axis=0))
    middle, axes = principal_axes(known)
    condensed = np.asarray((known - middle) @ axes, np.float32)
    decided: dict[str, torch.Tensor] = {}
    for number, k in enumerate(ks):
        progress = Progress("Deciding the clusters", number, len(ks))
        yield progress
        if different < k:
            continue
        means = yield from best_means(condensed, k, starts=_STARTS, seed=seed, progress=progress)
        found = means.labels_
        fitted = LogisticRegression(C=_FREEDOM, **_FIT).fit(latents, found)
        weight, bias = fitted.coef_, fitted.intercept_
        if k == 2:
            # Two classes have one line between them.
            weight, bias = (np.concatenate([-v / 2, v / 2]) for v in (weight, bias))
        decided[f"decided.{k}.weight"] = torch.from_numpy(weight.astype(np.float32))
        decided[f"decided.{k}.bias"] = torch.from_numpy(bias.astype(np.float32))
    yield Progress("Deciding the clusters", len(ks), len(ks))
    return decided


def _scaled(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return values (M, C) about their mean, of a total variance of 1 where they vary at all."""
    apart = values - values.mean(axis=0)
    return np.asarray(apart / np.sqrt(max(float(apart.var(axis=0).sum()), 1e-12)), np.float32)


def _numbers(head: torch.nn.Module) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    weight, bias = (head.get_parameter(n).detach().cpu().numpy() for n in ("weight", "bias"))
    return weight, bias
