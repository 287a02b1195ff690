"""Heads that agree with one another: every k is decided by what all heads say.

A head alone depends on where its training began. What it and its neighbours tell a tissue by is
much the same, and their votes together are steadier than any of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.progress import Progress, Task

# A probability below this is as good as none, and its logarithm says nothing more.
_FLOOR = 0.01
# k-means ends in a local optimum; the best of these is kept.
_STARTS = 4
# Inverse strength of the penalty on the weights of a fitted head.
_FREEDOM = 0.1


def refine_heads(
    network: PatchNetwork, latents: NDArray[np.float32], ks: Sequence[int], *, seed: int
) -> Task[None]:
    r"""Set the head of every k to what all heads agree on.

    The patches are clustered by k-means on their votes, the logarithms ``log(p_h + 0.01)`` of the
    probabilities of all heads side by side, and the head of k is fitted to the result (multinomial
    logistic regression), so that it stays a linear map of the latents. A consensus of clusterings
    as in Strehl & Ghosh, Cluster ensembles, JMLR 2002, with probabilities for votes.

    Parameters
    ----------
    network
        Its heads are changed.
    latents
        (M, D) of the training patches.
    ks
        Which heads to set; all of them vote.
    seed
        Of k-means.
    """
    from sklearn.cluster import KMeans
    from sklearn.linear_model import LogisticRegression

    votes = _votes(network, latents)
    different = len(np.unique(votes, axis=0))
    for number, k in enumerate(ks):
        yield Progress("Refining the clusters", number, len(ks))
        if different < k:
            # Fewer different patches than clusters; the head knows as much.
            continue
        found = KMeans(k, n_init=_STARTS, random_state=seed).fit_predict(votes)
        fitted = LogisticRegression(C=_FREEDOM, max_iter=200).fit(latents, found)
        _set(network, k, fitted.coef_, fitted.intercept_)
    yield Progress("Refining the clusters", len(ks), len(ks))


def _votes(network: PatchNetwork, latents: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (M, sum of k) what every head says of every patch."""
    with torch.inference_mode():
        logits = network.logits(torch.from_numpy(latents).to(network.device))
        votes = [(torch.softmax(z.float(), 1) + _FLOOR).log() for z in logits]
    return np.asarray(torch.cat(votes, dim=1).cpu().numpy(), np.float32)


def _set(
    network: PatchNetwork, k: int, weight: NDArray[np.float64], bias: NDArray[np.float64]
) -> None:
    if len(weight) == 1:
        # Two classes have one line between them.
        weight, bias = (np.concatenate([-v / 2, v / 2]) for v in (weight, bias))
    head = network.heads[network.heads_k.index(k)]
    with torch.no_grad():
        head.weight.copy_(torch.from_numpy(weight))  # type: ignore[operator]
        head.bias.copy_(torch.from_numpy(bias))  # type: ignore[operator]
