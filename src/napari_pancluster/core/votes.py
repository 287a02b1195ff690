"""What all heads of a network say of a patch, side by side."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# A probability below this is as good as none, and its logarithm says nothing more.
_FLOOR = 0.01
_ROWS = 100_000
# Patches that tell the axes of the votes.
_LOOKED_AT = 20_000
# Variance of the votes that may be lost in the turn to fewer axes.
_LOST = 0.001

Heads = Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]]


def votes(latents: NDArray[np.float32], heads: Heads) -> NDArray[np.float32]:
    """Return the logarithms ``log(p + 0.01)`` of the probabilities of all heads.

    Parameters
    ----------
    latents
        (N, D).
    heads
        Weight (k, D) and bias (k,) of each.

    Returns
    -------
    ndarray
        (N, sum of k) float32.
    """
    parts = []
    for weight, bias in heads:
        logits = latents @ weight.T + bias
        logits -= logits.max(axis=1, keepdims=True)
        probabilities = np.exp(logits)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        parts.append(np.log(probabilities + _FLOOR, dtype=np.float32))
    return np.concatenate(parts, axis=1)


def condensed_votes(latents: NDArray[np.float32], heads: Heads) -> NDArray[np.float32]:
    """Return the votes on their principal axes (N, E): the same distances in far fewer numbers."""
    rows = np.linspace(0, len(latents) - 1, min(_LOOKED_AT, len(latents))).astype(np.int64)
    middle, axes = principal_axes(votes(latents[rows], heads))
    parts = np.split(latents, range(_ROWS, len(latents), _ROWS))
    return np.concatenate([(votes(part, heads) - middle) @ axes for part in parts])


def principal_axes(said: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the mean (C,) of votes (N, C), and the axes (C, E) on which nearly all varies."""
    middle = said.mean(axis=0)
    apart = said - middle
    variance, axes = np.linalg.eigh(apart.T @ apart)
    share = np.cumsum(variance.clip(min=0)) / max(float(variance.clip(min=0).sum()), 1e-12)
    return middle, axes[:, share > _LOST] if (share > _LOST).any() else axes[:, -1:]
