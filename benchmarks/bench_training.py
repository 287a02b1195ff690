"""Training's pace beside the bare network's, its wait for data, and its memory by slide size.

Prints two tables, with the limit beside the figure::

    python benchmarks/bench_training.py                                # both
    python benchmarks/bench_training.py --only pace --patch-px both --device cuda
    python benchmarks/bench_training.py --only memory --sizes 5000 10000 20000

"disk" is training as it is: views cut from the memory-mapped store while the network learns.
"memory" is the same loop with the crops in an array. "bare" is the same steps on one batch of
views that was made before.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bench_map import drawn_project
from tables import show

from napari_pancluster.core.config import TrainConfig
from napari_pancluster.core.dataset import PatchStore, Views, view
from napari_pancluster.core.pipeline.training import train_network
from napari_pancluster.core.progress import run
from napari_pancluster.core.recipes import recipe_of
from napari_pancluster.core.training import _epoch, _start, _step

LEAST_SHARE = 0.9
MOST_MB = 3 * 1024


def crops(folder: Path, config: TrainConfig, stains: int) -> PatchStore:
    """Return as many crops as a training has, of noise, memory-mapped."""
    side = config.window_px + 2 * config.shift_px
    shape = (config.patches, 3 * stains, side, side)
    codes = np.lib.format.open_memmap(folder / "codes.npy", "w+", np.uint8, shape)
    rng = np.random.default_rng(0)
    for crop in codes:
        crop[:] = rng.integers(0, 120, crop.shape, np.uint8)
    codes.flush()
    mapped = np.load(folder / "codes.npy", mmap_mode="r")
    return PatchStore(mapped, np.ones((len(codes), stains), bool), config.window_px)


def loop_pace(store: PatchStore, config: TrainConfig) -> tuple[float, float]:
    """Return patches a second over an epoch after a first one, and the share spent waiting."""
    state, recipe = _start(store, config), recipe_of(config)
    found = (0.0, 0.0)
    for _ in range(2):
        waiting, began = 0.0, time.perf_counter()
        for progress in _epoch(state, store, config, recipe, None):
            waiting = float(progress.values["waiting"])
        shown = config.patches // config.batch * config.batch * recipe.copies
        found = shown / (time.perf_counter() - began), waiting
    return found


def bare_pace(store: PatchStore, config: TrainConfig, side: int) -> float:
    """Return patches a second of the same steps on one batch."""
    state, recipe = _start(store, config), recipe_of(config)
    rng = np.random.default_rng(0)
    rows = np.arange(config.batch)
    parts = [view(store, rows, recipe.views, rng, patch_px=side) for _ in range(recipe.copies)]
    views = Views.together(parts)
    steps = config.patches // config.batch
    for number in range(steps + 2):
        if number == 2:
            began = time.perf_counter()
        _step(state, views, config, recipe, 0.5)
    if state.device.type == "cuda":
        torch.cuda.synchronize()
    return len(views) * steps / (time.perf_counter() - began)


def pace(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Return the paces for every patch size."""
    rows = []
    for name in options.patch_px:
        size = name if name == "both" else int(name)
        config = TrainConfig(
            patch_px=size, patches=options.patches, pretraining=0, device=options.device, epochs=40
        )
        with tempfile.TemporaryDirectory() as folder:
            mapped = crops(Path(folder), config, options.stains)
            held = PatchStore(np.array(mapped.codes), mapped.present, mapped.patch_px)
            before = bare_pace(held, config, 64)
            in_memory, _ = loop_pace(held, config)
            on_disk, waiting = loop_pace(mapped, config)
            bare = (before + bare_pace(held, config, 64)) / 2
        rows.append(
            {
                "patch_px": name,
                "stains": options.stains,
                "threads": torch.get_num_threads(),
                "disk_per_s": on_disk,
                "memory_per_s": in_memory,
                "bare_per_s": bare,
                "of memory": on_disk / in_memory,
                "limit": LEAST_SHARE,
                "of bare": on_disk / bare,
                "waiting": waiting,
            }
        )
    return rows


def memory(size: int, stains: int, patches: int) -> dict[str, Any]:
    """Train for one epoch on a large section in this process; return its peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        project = drawn_project(Path(folder), size, stains)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        given = {"k": 8, "epochs": 1, "patches": patches, "device": "cpu"}
        seconds = run(train_network(project, given))["seconds"]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "section_px": size,
        "stains": stains,
        "patches": patches,
        "seconds": seconds,
        "peak before_mb": before / 2**10,
        "peak_mb": peak / 2**10,
        "limit_mb": MOST_MB,
    }


def in_a_process(size: int, stains: int, patches: int) -> dict[str, Any]:
    """Return what `memory` finds in a fresh process, whose memory is its own."""
    order = [sys.executable, __file__, "--one", str(size), str(stains), str(patches)]
    found: dict[str, Any] = json.loads(subprocess.run(order, check=True, stdout=-1).stdout)
    return found


def main() -> None:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", choices=["pace", "memory"])
    parser.add_argument("--patch-px", nargs="+", default=["64", "128", "both"])
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda", "mps"])
    parser.add_argument("--stains", type=int, default=5)
    parser.add_argument("--patches", type=int, default=4096)
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 10_000])
    parser.add_argument("--one", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(memory(*options.one)))
        return
    if options.only != "memory":
        show(pace(options))
    if options.only != "pace":
        show([in_a_process(size, options.stains, options.patches) for size in options.sizes])


if __name__ == "__main__":
    main()
