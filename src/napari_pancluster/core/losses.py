"""What is optimised: mutual information between patch and cluster, agreement, reconstruction."""

from __future__ import annotations

import torch
from torch.nn import functional

# λ, the weight of a pair of different latents against one latent with itself.
_APART = 0.1


def mutual_information_loss(
    first: torch.Tensor, second: torch.Tensor, *, balance: float
) -> torch.Tensor:
    r"""Return the loss whose minimum is informative, confident and invariant clusters.

    .. math:: H(p | x) - \beta H(\bar p) + \mathrm{KL}_{sym}(p_1, p_2)

    divided by log k, so that heads of any k weigh alike.

    Parameters
    ----------
    first, second
        Logits (B, k) of two views of the same patches.
    balance
        β, the weight of the entropy of the marginal.

    References
    ----------
    Hu et al., Learning discrete representations via information maximizing self-augmented
    training, ICML 2017.
    """
    log_a = functional.log_softmax(first.float(), dim=1)
    log_b = functional.log_softmax(second.float(), dim=1)
    a, b = log_a.exp(), log_b.exp()
    conditional = -((a * log_a).sum(1).mean() + (b * log_b).sum(1).mean()) / 2
    mean = torch.cat([a, b]).mean(0)
    marginal = -(mean * (mean + 1e-8).log()).sum()
    agreement = ((a - b) * (log_a - log_b)).sum(1).mean() / 2
    scale = torch.log(torch.tensor(float(first.shape[1]), device=first.device))
    return (conditional - balance * marginal + agreement) / scale


def redundancy_loss(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    r"""Return the loss that keeps the latents from saying one thing many times.

    .. math:: \frac{1}{D} \sum_i (1 - C_{ii})^2 + \frac{\lambda}{D} \sum_{i \neq j} C_{ij}^2

    with C the correlation of the latents of two views over the batch. Without it the heads are
    content with latents of two or three dimensions, in which many tissues cannot be told apart.

    Parameters
    ----------
    first, second
        Latents (B, D) of two views of the same patches.

    References
    ----------
    Zbontar et al., Barlow twins: self-supervised learning via redundancy reduction, ICML 2021.
    """
    a, b = (((z - z.mean(0)) / (z.std(0) + 1e-4)).float() for z in (first, second))
    squared = (a.T @ b / len(a)).square()
    diagonal = torch.diagonal(a.T @ b / len(a))
    apart = squared.sum() - torch.diagonal(squared).sum()
    return ((1 - diagonal).square().sum() + _APART * apart) / a.shape[1]


def reconstruction_loss(
    rebuilt: torch.Tensor, target: torch.Tensor, present: torch.Tensor
) -> torch.Tensor:
    """Return the mean squared error over the stains that are there.

    Parameters
    ----------
    rebuilt, target
        (B, C, H, W) normalised densities.
    present
        (B, stains), 1 where a stain covers the patch.
    """
    error = (rebuilt.float() - target.float()).square().mean(dim=(2, 3))
    shown = present.repeat_interleave(error.shape[1] // present.shape[1], dim=1)
    return (error * shown).sum() / shown.sum().clamp(min=1)
