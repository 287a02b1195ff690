"""Mapping beside LazySlide's feature extraction: the same network on the same slide of one stain.

``python benchmarks/bench_map_peer.py --peer-python PATH [--size PX]``; PATH is the Python of an
environment with ``lazyslide`` (0.13.0 was measured). The network goes there as TorchScript, from
the pixels as they are stored to the latents. Each runs in a process of its own with two threads.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from bench_map import BATCHES, PATCH, bare_pace, drawn_project
from tables import show
from torch import nn

from napari_pancluster.core.model import PatchNetwork
from napari_pancluster.core.pipeline.encoding import checkpoint_of, latents_of
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.core.stain import MAX_OD

STRIDE = 32
# Reads {slide, network, patch, stride} from its argument; prints what it measured.
_PEER = """
import json, resource, sys, time
import lazyslide as zs, torch
from wsidata import open_wsi
torch.set_num_threads(2)
task = json.loads(sys.argv[1])
network = torch.jit.load(task["network"])
best = {}
for workers, batch in ((0, 64), (0, 256), (1, 64), (1, 256), (2, 64), (2, 256)):
    wsi = open_wsi(task["slide"], store=None)
    zs.pp.tile_tissues(wsi, task["patch"], stride_px=task["stride"], background_filter=False,
                       tissue_key=None)
    tiles = len(wsi.shapes["tiles"])
    began = time.perf_counter()
    zs.tl.feature_extraction(wsi, network, model_name="ours", batch_size=batch, num_workers=workers,
                             device="cpu", pbar=False)
    pace = tiles / (time.perf_counter() - began)
    if pace > best.get("patches_per_s", 0):
        best = dict(patches=tiles, patches_per_s=pace, workers=workers, batch=batch)
best["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps(best))
"""


class FromPixels(nn.Module):
    """The encoder from stored pixels (B, P, P, 3) uint8 to latents (B, D).

    Parameters
    ----------
    network
        Of one stain.
    """

    def __init__(self, network: PatchNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode."""
        density = -torch.log10((pixels.permute(0, 3, 1, 2).float() + 1) / 256)
        present = torch.ones_like(density[:, :1, 0, 0])
        network = self.network
        latents: torch.Tensor = network.encode(
            network.normalise(density.clamp(0, MAX_OD), present)
        )[1]
        return latents


def ours(folder: Path) -> dict[str, Any]:
    """Encode the section in this process."""
    torch.set_num_threads(2)
    project = Project.open(folder / "large")
    before = bare_pace(project, BATCHES[0])
    with project.batch():
        encoded = run(latents_of(project, "run", STRIDE))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return {
        "patches": len(encoded.table),
        "patches_per_s": encoded.patches_per_s,
        "bare_per_s": (before + bare_pace(project, BATCHES[0])) / 2,
        "peak_mb": peak,
    }


def theirs(python: str, folder: Path, project: Project) -> dict[str, Any]:
    """Let LazySlide encode it in its own environment."""
    network = checkpoint_of(project, "run").network()
    assert isinstance(network, PatchNetwork)
    traced = folder / "network.pt"
    pixels = torch.zeros((2, PATCH, PATCH, 3), dtype=torch.uint8)
    torch.jit.trace(FromPixels(network).eval(), pixels).save(str(traced))
    (case,) = project.state.cases
    slide = str(case.stains[0].path)
    task = {"slide": slide, "network": str(traced), "patch": PATCH, "stride": STRIDE}
    order = [python, "-c", _PEER, json.dumps(task)]
    printed = subprocess.run(order, check=True, stdout=subprocess.PIPE, text=True).stdout
    found: dict[str, Any] = json.loads(printed.splitlines()[-1])
    return found


def main() -> None:
    """Run both and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--size", type=int, default=5000)
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(ours(options.one)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        project = drawn_project(folder, options.size, stains=1)
        same = ["--peer-python", options.peer_python, "--one", name]
        order = [sys.executable, __file__, *same]
        printed = subprocess.run(order, check=True, stdout=subprocess.PIPE, text=True).stdout
        mine = json.loads(printed.splitlines()[-1])
        peer = theirs(options.peer_python, folder, project)
        peer["bare_per_s"] = mine["bare_per_s"]
        rows = [{"what": "napari-pancluster", **mine}, {"what": "LazySlide", **peer}]
        show([{**row, "share": row["patches_per_s"] / row["bare_per_s"]} for row in rows])


if __name__ == "__main__":
    main()
