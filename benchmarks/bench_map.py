"""Mapping: its pace beside the bare network's, its memory by slide size, and other sections.

Prints a table for each, with the limit beside the figure::

    python benchmarks/bench_map.py                          # all three
    python benchmarks/bench_map.py --only pace --sizes 5000 10000 20000
    python benchmarks/bench_map.py --only others --epochs 20 --patches 4096

Large sections are a synthetic one of five stains repeated side by side. The network of the first
table is not trained: what it computes costs the same.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from sklearn.metrics import adjusted_rand_score
from tables import show

from napari_pancluster.core import artefacts, heap
from napari_pancluster.core.cases import SlideEntry, entries_of_sheet, make_cases
from napari_pancluster.core.checkpoint import Checkpoint, write_checkpoint
from napari_pancluster.core.config import MapConfig, RegisterConfig, SynthConfig, TrainConfig
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.model import PatchNetwork, _mean_and_spread
from napari_pancluster.core.overlapping import encode_overlapping
from napari_pancluster.core.pipeline.encoding import checkpoint_of, latents_of
from napari_pancluster.core.pipeline.mapping import map_clusters
from napari_pancluster.core.pipeline.opening import open_stack, registration_key
from napari_pancluster.core.pipeline.registering import register
from napari_pancluster.core.pipeline.training import train_network
from napari_pancluster.core.pipeline.viewing import open_results
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.synth import synthesise
from napari_pancluster.core.synth.tiff import TILE, StreamedPyramid
from napari_pancluster.core.transform import Transform

# As mapping takes them, and as training does: the smaller fits the processor's caches.
BATCHES, PATCH = (64, 256), 64
LEAST_SHARE = 0.8
LARGEST_DRAWN = 2000
GAINS = (0.4, 0.5, 0.67, 0.8, 1.25, 1.5, 2.0, 2.5)


def large_section(folder: Path, size: int, stains: int) -> dict[str, Path]:
    """Write a section of `size` px a side as copies of a smaller one; return its slides."""
    drawn = min(size, LARGEST_DRAWN)
    config = SynthConfig(size=drawn, stains=stains, tissues=8, deform=False)
    made = run(synthesise(folder / "drawn", config))
    slides = {}
    for stain, path in made.slides.items():
        piece = np.asarray(open_slide(path).data[0])
        target = folder / f"{stain}.ome.tif"
        pyramid = StreamedPyramid(target, (size, size), mpp=config.mpp)
        for top in range(0, size, TILE):
            rows = np.arange(top, min(top + TILE, size)) % drawn
            line = np.tile(piece[rows], (1, -(-size // drawn), 1))
            pyramid.add(line[:, :size])
        pyramid.finish()
        pyramid.close()
        slides[stain] = target
    return slides


def large_project(folder: Path, size: int, stains: int) -> Project:
    """Return a project of a large section, registered a little off, with a network."""
    slides = large_section(folder, size, stains)
    entries = [SlideEntry("section", stain, path) for stain, path in slides.items()]
    project = Project.create(folder / "large", make_cases(entries))
    reference, *moving = slides
    for stain in moving:
        shift = np.array([[1, 0.002, 3.3], [-0.002, 1, 1.7], [0, 0, 1]])
        summary = {"status": "ok", "mpp_estimated": None}
        key = registration_key("section", stain)
        with project.writing(key, (), summary) as target:
            artefacts.write_transform(target, Transform(reference, stain, shift))
    network = PatchNetwork(stains, (2,))
    config = TrainConfig(device="cpu").model_dump()
    checkpoint = Checkpoint(network.state_dict(), tuple(slides), (2,), (2,), 2, 0.5, PATCH, config)
    with project.writing("train/run", (), {"run": "run", "k": 2}, id_="run") as target:
        write_checkpoint(target, checkpoint)
    return project


def drawn_project(folder: Path, size: int, stains: int) -> Project:
    """Return `large_project`, drawn by another process: its memory is not the one measured."""
    drawing = multiprocessing.get_context("spawn").Process(
        target=large_project, args=(folder, size, stains)
    )
    drawing.start()
    drawing.join()
    return Project.open(folder / "large")


def bare_pace(project: Project, batch: int, seconds: float = 4.0) -> float:
    """Return how many patches a second the network encodes that are in memory already."""
    # As mapping does: without it a bare pass takes memory from the system in every batch, and is
    # the slower by up to a half, as it happens to come.
    heap.keep()
    network = checkpoint_of(project, "run").network()
    (case,) = project.state.cases
    block = open_stack(project, case).read(Region(0, 0, 512, 512), 0.5)
    rng = np.random.default_rng(0)
    corners = rng.integers(0, block.od.shape[1] - PATCH, (batch, 2))
    patches = np.stack([block.od[:, r : r + PATCH, c : c + PATCH] for r, c in corners])
    x = torch.from_numpy(patches).contiguous(memory_format=torch.channels_last)
    present = torch.ones(batch, network.stains)
    done, began = -1, 0.0
    with torch.inference_mode():
        while done < 3 or time.perf_counter() - began < seconds:
            network.encode(network.normalise(x, present))
            done += 1
            began = began or time.perf_counter()  # the first one warms up
    return batch * done / (time.perf_counter() - began)


def pace(folder: Path, size: int, stains: int, stride: int) -> dict[str, Any]:
    """Map a large section in this process; return pace and peak memory."""
    project = drawn_project(folder, size, stains)
    before = [bare_pace(project, batch) for batch in BATCHES]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    idle = psutil.Process().memory_info().rss
    with project.batch():
        encoded = run(latents_of(project, "run", stride))
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    bare = [max(was, bare_pace(project, batch)) for was, batch in zip(before, BATCHES, strict=True)]
    assert encoded.patches_per_s is not None
    return {
        "section_px": size,
        "stains": stains,
        "stride_px": stride,
        "patches": len(encoded.table),
        "patches_per_s": encoded.patches_per_s,
        **{f"bare_{batch}": pace for batch, pace in zip(BATCHES, bare, strict=True)},
        "share": encoded.patches_per_s / max(bare),
        "least_share": LEAST_SHARE,
        "latents_mb": encoded.latents.values.nbytes / 2**20,
        "before_mb": idle / 2**20,
        "peak_mb": max(most, peak) / 2**10,
    }


def in_a_process(size: int, stains: int, stride: int) -> dict[str, Any]:
    """Return what `pace` finds in a fresh process, whose memory is its own."""
    order = [sys.executable, __file__, "--one", str(size), str(stains), str(stride)]
    found: dict[str, Any] = json.loads(subprocess.run(order, check=True, stdout=-1).stdout)
    return found


def trained_section(folder: Path, seed: int, options: argparse.Namespace) -> Project:
    """Draw and register a section, and train a network on it."""
    config = SynthConfig(
        size=options.size, stains=options.stains, tissues=options.tissues, seed=seed
    )
    made = run(synthesise(folder / f"slides{seed}", config))
    project = Project.create(folder / f"section{seed}", make_cases(entries_of_sheet(made.sheet)))
    run(register(project, RegisterConfig()))
    given = {"k": options.tissues, "epochs": options.epochs, "patches": options.patches}
    run(train_network(project, given))
    run(map_clusters(project, MapConfig()))
    return project


def stained(project: Project, folder: Path, gain: float) -> Project:
    """Return a copy of a project whose slides are stained more or less densely."""
    cases = tuple(
        case.model_copy(
            update={
                "stains": tuple(s.model_copy(update={"gain": s.gain * gain}) for s in case.stains)
            }
        )
        for case in project.state.cases
    )
    other = Project.create(folder / f"gain{gain}", cases)
    for key, record in project.state.artefacts.items():
        if key.startswith(("register/", "tissue/")):
            with other.writing(key, (), record.summary) as target:
                shutil.copytree(project.folder(record), target, dirs_exist_ok=True)
    return other


def assignments(project: Project, model: Project | None = None) -> np.ndarray[Any, Any]:
    """Return the clusters of a project's own map, or of one by another project's network."""
    run_id = project.runs()[0] if model is None else None
    if model is not None:
        # Its own network: one that was applied to it lies beside it.
        own = f"{model.root}:{model.runs()[0]}"
        run_id = run(map_clusters(project, MapConfig(), model=own))["run"]
    results = run(open_results(project, run_id))
    return results.assignments[results.k]


def others(folder: Path, options: argparse.Namespace) -> None:
    """Print how an applied network agrees with one trained there, and with paler slides."""
    first, second = (trained_section(folder, seed, options) for seed in (0, 1))
    rows = []
    for model, target in ((first, second), (second, first)):
        own = assignments(target)
        agreement = adjusted_rand_score(own, assignments(target, model))
        rows.append({"model of": model.root.stem, "applied to": target.root.stem, "ari": agreement})
    show(rows)
    usual = assignments(first)
    rows = []
    for gain in GAINS:
        other = stained(first, folder, gain)
        found = assignments(other, first)
        told = other.state.artefacts[f"map/{other.runs()[0]}"].summary["warnings"]
        agreement = adjusted_rand_score(usual, found)
        rows.append({"density": gain, "ari to the usual": agreement, "warnings": len(told)})
    show(rows)


def shared_convolution(folder: Path, options: argparse.Namespace) -> None:
    """Print what convolutions over a block, in place of one a patch, change."""
    project = trained_section(folder, 2, options)
    checkpoint = checkpoint_of(project, project.runs()[0])
    network = checkpoint.network()
    (case,) = project.state.cases
    stack = open_stack(project, case).select(checkpoint.stains)
    middle, side = options.size * 0.25, 384
    block = stack.read(Region(middle - 96, middle - 96, side * 0.5, side * 0.5), 0.5)
    od = torch.from_numpy(block.od[None])
    present = torch.ones(1, network.stains)
    corners = [(r, c) for r in range(64, 256, 16) for c in range(64, 256, 16)]
    rows = []
    with torch.inference_mode():
        alone = torch.cat([od[:, :, r : r + PATCH, c : c + PATCH] for r, c in corners])
        exact = network.encode(network.normalise(alone, present.expand(len(corners), -1)))[1]
        maps, x = [], network.normalise(od, present)
        for stage in network.stages:
            x = stage(x)
            maps.append(x)
        parts = []
        for r, c in corners:
            statistics = []
            for n, whole in enumerate(maps):
                step = 2 ** (n + 1)
                part = whole[:, :, r // step : (r + PATCH) // step, c // step : (c + PATCH) // step]
                statistics += _mean_and_spread(part)
            parts.append(torch.cat(statistics, dim=1))
        everything = network.norm(network.pool(network.evenly(torch.cat(parts))))
        all_shown = np.ones(network.stains, np.bool_)
        first = encode_overlapping(network, block.od, np.array(corners), PATCH, all_shown)
        k = network.heads_k.index(options.tissues)
        usual = network.logits(exact)[k].argmax(1)
        ways = {
            "the first, borders apart (done)": torch.from_numpy(first),
            "all four, borders as they come": everything,
        }
        for way, latents in ways.items():
            changed = (usual != network.logits(latents)[k].argmax(1)).float().mean()
            most = float((exact - latents).abs().max())
            mean = float((exact - latents).abs().mean())
            rows.append(
                {
                    "stages shared": way,
                    "latents differ by (sd), mean": f"{mean:.1e}",
                    "at most": f"{most:.1e}",
                    "clusters that change": float(changed),
                }
            )
    show(rows)


def main() -> None:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", choices=["pace", "others", "sharing"])
    parser.add_argument("--sizes", type=int, nargs="+", default=[5000, 10_000])
    parser.add_argument("--stride-px", type=int, default=32)
    parser.add_argument("--stains", type=int, default=5)
    parser.add_argument("--size", type=int, default=2000, help="of the sections trained on")
    parser.add_argument("--tissues", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--patches", type=int, default=4096)
    parser.add_argument("--one", type=int, nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.one:
            print(json.dumps(pace(folder, *options.one)))
            return
        if options.only in (None, "pace"):
            show([in_a_process(n, options.stains, options.stride_px) for n in options.sizes])
        if options.only in (None, "others"):
            others(folder, options)
        if options.only in (None, "sharing"):
            shared_convolution(folder, options)


if __name__ == "__main__":
    main()
