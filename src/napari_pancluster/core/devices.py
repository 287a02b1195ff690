"""Where the network runs, and what is particular about each place."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from napari_pancluster.core.errors import InputError


def choose_device(wanted: str) -> torch.device:
    """Return the device to run on.

    Parameters
    ----------
    wanted
        "cuda", "mps", "cpu" or "auto".

    Raises
    ------
    InputError
        If the one asked for is not there.
    """
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if wanted == "auto":
        return torch.device(next(name for name, usable in there.items() if usable))
    if not there[wanted]:
        raise InputError(f"--device {wanted} is not available on this machine. Use --device auto.")
    return torch.device(wanted)


def mixed_precision(device: torch.device) -> bool:
    """Return whether bfloat16 pays: on GPUs that have it and on CPUs with its instructions."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported())
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and probe is not None and bool(probe())


def autocast(device: torch.device) -> torch.autocast:
    """Return the context in which the convolutions run in bfloat16 where that pays."""
    return torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision(device))


def named(device: torch.device) -> str:
    """Return what to call a device in a message."""
    if device.type == "cuda":
        return f"CUDA ({torch.cuda.get_device_name(device)})"
    return {"cpu": "CPU", "mps": "MPS (Apple GPU)"}[device.type]


def repeatable(device: torch.device) -> AbstractContextManager[object]:
    """Let the same seed give the same result on the same device."""
    if device.type != "cuda":
        return nullcontext()
    # cuDNN's fastest gradients of a convolution add up in any order.
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)


def free_memory(device: torch.device) -> None:
    """Give back what the allocator keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def is_out_of_memory(error: Exception) -> bool:
    """Return whether an error says that memory does not suffice, here or on a GPU."""
    if isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)):
        return True
    return "out of memory" in str(error).lower() or "can't allocate memory" in str(error)


def is_lost(device: torch.device, error: RuntimeError) -> bool:
    """Return whether an error says that the device no longer answers."""
    lost = getattr(torch, "AcceleratorError", ())
    return isinstance(error, lost) or (device.type != "cpu" and "error: " in str(error))
