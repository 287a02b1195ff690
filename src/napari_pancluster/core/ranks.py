"""Training on several GPUs of one machine: the processes that ``torchrun`` starts.

The first of them (rank 0) does the whole step as always; the others lend it their GPU. All hold
the same network, are shown their share of every batch, and average their gradients before each
step, as DistributedDataParallel does. It is not used itself because the network is called for its
parts (encode, decode, logits) and not as a whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

# The others wait while rank 0 reads slides and cuts patches.
_LONGEST_WAIT = timedelta(hours=24)
R = TypeVar("R")


@dataclass(frozen=True)
class Ranks:
    """Which of how many processes this is.

    Attributes
    ----------
    rank
        Number of this process, 0 for the one that leads.
    count
        Number of processes.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def found(cls) -> Ranks:
        """Return this process's place among those that torchrun started; alone if it did not."""
        if not distributed.is_available() or not distributed.is_initialized():
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size())

    def average_gradients(self, network: torch.nn.Module) -> None:
        """Give all processes the mean of their gradients."""
        if self.count == 1:
            return
        gradients = [p.grad for p in network.parameters() if p.grad is not None]
        # One message for all of them: hundreds of small ones take far longer.
        flat = torch.cat([g.flatten() for g in gradients])
        distributed.all_reduce(flat)
        flat /= self.count
        parts = torch.split(flat, [g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def tell(self, what: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return what rank 0 tells, as JSON; all processes call this at the same place."""
        text = json.dumps(what).encode()
        if self.count == 1:
            return dict(json.loads(text))
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        size = torch.tensor([len(text)], device=device)
        distributed.broadcast(size, src=0)
        sent = torch.zeros(int(size), dtype=torch.uint8, device=device)
        if self.rank == 0:
            sent.copy_(torch.frombuffer(bytearray(text), dtype=torch.uint8))
        distributed.broadcast(sent, src=0)
        return dict(json.loads(sent.cpu().numpy().tobytes()))


def started_by_torchrun() -> bool:
    """Return whether torchrun started this process beside others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def join(lead: Callable[[], R], follow: Callable[[], R], *, device: str) -> R:
    """Join the processes torchrun started; rank 0 leads and the others follow.

    Parameters
    ----------
    lead, follow
        What each does.
    device
        As asked for in training; "auto" takes a GPU each where there are any.
    """
    local = int(os.environ["LOCAL_RANK"])
    cuda = device in ("auto", "cuda") and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local % torch.cuda.device_count())
    distributed.init_process_group("nccl" if cuda else "gloo", timeout=_LONGEST_WAIT)
    try:
        return lead() if distributed.get_rank() == 0 else follow()
    finally:
        distributed.destroy_process_group()
