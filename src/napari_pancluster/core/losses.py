"""What is optimised: mutual information between patch and cluster, agreement, reconstruction."""

from __future__ import annotations

import torch
from torch.nn import functional


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
