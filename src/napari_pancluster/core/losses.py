"""What is optimised: mutual information between patch and cluster, agreement, reconstruction."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch.nn import functional

# λ, the weight of a pair of different latents against one latent with itself.
_APART = 0.1
# Of the adversarial step: as a share of the distance to which neighbour.
_RADIUS, _NEIGHBOUR = 0.25, 10


def information_loss(logits: torch.Tensor, *, balance: float) -> torch.Tensor:
    r"""Return the loss whose minimum is informative and confident clusters.

    .. math:: H(p | x) - \beta H(\bar p)

    divided by log k, so that heads of any k weigh alike.

    Parameters
    ----------
    logits
        (B, k).
    balance
        β, the weight of the entropy of the marginal.

    References
    ----------
    Hu et al., Learning discrete representations via information maximizing self-augmented
    training, ICML 2017.
    """
    log_p = functional.log_softmax(logits.float(), dim=1)
    p = log_p.exp()
    conditional = -(p * log_p).sum(1).mean()
    mean = p.mean(0)
    marginal = -(mean * (mean + 1e-8).log()).sum()
    return (conditional - balance * marginal) / math.log(logits.shape[1])


def one_way(
    first: torch.Tensor, second: torch.Tensor, shown: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what two views say, such that the one that shows more teaches and does not learn.

    A view without a stain is to say what the whole patch says. Were both to meet half-way, two
    tissues that only this stain tells apart would become one.

    Parameters
    ----------
    first, second
        (B, D) of two views of the same patches.
    shown
        (2, B) how many stains each shows.
    """
    before, after = (shown[0] > shown[1])[:, None], (shown[1] > shown[0])[:, None]
    return (
        torch.where(before, first.detach(), first),
        torch.where(after, second.detach(), second),
    )


def mutual_information_loss(
    first: torch.Tensor, second: torch.Tensor, shown: torch.Tensor, *, balance: float
) -> torch.Tensor:
    r"""Return the loss whose minimum is informative, confident and invariant clusters.

    `information_loss` of both views, and their disagreement KL_sym(p_1, p_2), divided by log k.

    Parameters
    ----------
    first, second
        Logits (B, k) of two views of the same patches.
    shown
        (2, B) how many stains each shows, see `one_way`.
    balance
        β, the weight of the entropy of the marginal.
    """
    one, other = one_way(first, second, shown)
    log_a = functional.log_softmax(one.float(), dim=1)
    log_b = functional.log_softmax(other.float(), dim=1)
    disagreement = ((log_a.exp() - log_b.exp()) * (log_a - log_b)).sum(1).mean() / 2
    informed = information_loss(torch.cat([first, second]), balance=balance)
    return informed + disagreement / math.log(first.shape[1])


def adversarial_loss(
    logits_of: Callable[[torch.Tensor], list[torch.Tensor]], latents: torch.Tensor
) -> list[torch.Tensor]:
    r"""Return, per head, how much its clusters change at worst within a small step of the latents.

    .. math:: \mathrm{KL}(p(z) \,\|\, p(z + r)) / \log k, \quad |r| = \alpha d_{10}(z)

    with r in the direction that changes the clusters most, found by one step of the power method
    (Miyato et al., Virtual adversarial training, TPAMI 2019), and as long as a quarter of the
    distance to the tenth nearest latents of the batch (Hu et al., ICML 2017). The first guess is
    the direction to the next latents of the batch and not a random one: the same seed gives the
    same result without a state of random numbers to keep.

    Parameters
    ----------
    logits_of
        Returns the logits of every head.
    latents
        (B, D).
    """
    with torch.no_grad():
        targets = [functional.softmax(z.float(), dim=1) for z in logits_of(latents)]
        apart = torch.cdist(latents.float(), latents.float())
        nearest = min(_NEIGHBOUR, len(latents) - 1)
        length = _RADIUS * apart.kthvalue(nearest + 1, dim=1).values[:, None]
        guess = functional.normalize(latents.roll(1, 0) - latents, dim=1)

    def change(step: torch.Tensor, start: torch.Tensor) -> list[torch.Tensor]:
        return [
            functional.kl_div(functional.log_softmax(z.float(), dim=1), p, reduction="batchmean")
            / math.log(p.shape[1])
            for z, p in zip(logits_of(start + step), targets, strict=True)
        ]

    probe = (length * guess).requires_grad_()
    total = torch.stack(change(probe, latents.detach())).sum()
    slope = torch.autograd.grad(total, probe)[0]
    return change(length * functional.normalize(slope, dim=1), latents)


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
