"""The main job against known truth: synthetic sections, and labelled colorectal tissue.

Prints, for each, what was reached beside the limit set for it::

    python benchmarks/bench_main_job.py                    # both, k given
    python benchmarks/bench_main_job.py --only synth --tissues 14 --seeds 0 1 2
    python benchmarks/bench_main_job.py --only labelled --patch-px 128 --json

The labelled slide is development data beside the checkout (``--data``); it is skipped where absent.
"""

from __future__ import annotations

import argparse
import csv
import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from napari_pancluster.core.cases import SlideEntry, entries_of_sheet, make_cases
from napari_pancluster.core.config import MapConfig, RegisterConfig, SelectConfig, SynthConfig
from napari_pancluster.core.patches import PatchGrid
from napari_pancluster.core.pipeline.exporting import export, open_content
from napari_pancluster.core.pipeline.mapping import map_clusters, select_clusters
from napari_pancluster.core.pipeline.opening import open_stack
from napari_pancluster.core.pipeline.registering import register
from napari_pancluster.core.pipeline.training import train_network
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.core.synth import synthesise
from napari_pancluster.core.transfer import Transfer

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LIMITS = {"ari": 0.75, "covered": 0.90, "registration_px": 12.0, "nmi": 0.50}


def synthetic(folder: Path, size: int, tissues: int, seed: int) -> dict[str, Any]:
    """Register, train and map a synthetic five-stain section; compare with its truth."""
    began = time.perf_counter()
    made = run(synthesise(folder / "slides", SynthConfig(size=size, tissues=tissues, seed=seed)))
    project = Project.create(folder / "synth", make_cases(entries_of_sheet(made.sheet)))
    drawn = time.perf_counter()
    run(register(project, RegisterConfig()))
    errors = point_errors(project, made.truth_points)
    registered = time.perf_counter()
    trained = run(train_network(project, {"k": tissues, "seed": seed}))
    mapped = run(map_clusters(project, MapConfig()))
    selected = time.perf_counter()
    scores = run(select_clusters(project, SelectConfig(), MapConfig()))
    selected = time.perf_counter() - selected
    file = run(export(project, folder / "out", ["ome-tiff"]))["files"][0]
    truth, labels = same_pixels(made.truth_labels, Path(file))
    both = (truth > 0) & (labels > 0)
    return {
        "what": f"synth {size} px, {tissues} tissues, seed {seed}",
        "registration_px": max(float(np.median(e)) for e in errors.values()),
        "registration_p90_px": max(float(np.percentile(e, 90)) for e in errors.values()),
        "ari": adjusted_rand_score(truth[both], labels[both]),
        "nmi": normalized_mutual_info_score(truth[both], labels[both]),
        "covered": float(both.sum() / (truth > 0).sum()),
        "register_s": registered - drawn,
        "train_s": trained["seconds"],
        "patches_per_s": trained["patches_per_s"],
        "map_patches_per_s": mapped["patches_per_s"],
        "suggested_k": scores["suggested_k"],
        "select_k_s": selected,
        "total_s": time.perf_counter() - began,
    }


def point_errors(project: Project, table: Path) -> dict[str, NDArray[np.float64]]:
    """Return per stain the distances of mapped truth points, in level-0 px."""
    stack = open_stack(project, project.state.cases[0])
    with table.open() as file:
        rows = list(csv.DictReader(file))
    errors = {}
    for stain in stack.moving:
        mine = [r for r in rows if r["stain"] == stain.name]
        fixed, moving = (
            np.array([[float(r[y]), float(r[x])] for r in mine])
            for y, x in (("reference_y", "reference_x"), ("y", "x"))
        )
        mapped = Transfer.between(stack, stack.reference, stain.name).px(fixed)
        errors[stain.name] = np.hypot(*(mapped - moving).T)
    return errors


def same_pixels(truth: Path, labels: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return both label images on the pixels of the first, by their physical sizes."""
    images = []
    for path in (truth, labels):
        with tifffile.TiffFile(path) as tiff:
            pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
            images.append((tiff.series[0].asarray(), float(pixels["PhysicalSizeX"])))
    (a, a_um), (b, b_um) = images
    rows, cols = (
        np.minimum(((np.arange(n) + 0.5) * a_um / b_um).astype(int), m - 1)
        for n, m in zip(a.shape, b.shape, strict=True)
    )
    return a, b[rows][:, cols]


class LabelledTiles:
    """The labelled slide: tiles of one tissue each, and what they are.

    Parameters
    ----------
    data
        Folder of the development data.
    """

    def __init__(self, data: Path) -> None:
        source = data / "labelled" / "colorectal_tiles"
        self.entry = SlideEntry("crc", "HE", source / "HE.ome.tif")
        self._truth = np.asarray(Image.open(source / "truth_tiles.png"))
        facts = json.loads((source / "truth.json").read_text())
        self._tile_px = facts["tile_px"]
        self._back = next(int(n) for n, name in facts["classes"].items() if name == "BACK")

    def tiles_of(self, grid: PatchGrid) -> NDArray[np.int64]:
        """Return (N,) the tissue of every patch; 0 for one that lies in several tiles or none."""
        corner = np.round(grid.centres / grid.mpp - grid.patch_px / 2).astype(int)
        first, last = corner // self._tile_px, (corner + grid.patch_px - 1) // self._tile_px
        inside = (first == last).all(1) & (first >= 0).all(1) & (last < self._truth.shape).all(1)
        tile = np.zeros(len(corner), np.int64)
        tile[inside] = self._truth[first[inside, 0], first[inside, 1]]
        return tile

    def scores(self, grid: PatchGrid, labels: NDArray[np.integer]) -> dict[str, float]:
        """Return how well labels (N,) 1 … 9 tell the tissues."""
        tile = self.tiles_of(grid)
        found, tile = labels[tile > 0], tile[tile > 0]
        table = np.zeros((10, 10))
        np.add.at(table, (tile, found), 1)
        hits = table[linear_sum_assignment(-table)].sum()
        plain = tile != self._back
        return {
            "patches": len(tile),
            "nmi": normalized_mutual_info_score(tile, found),
            "nmi_without_back": normalized_mutual_info_score(tile[plain], found[plain]),
            "accuracy": float(hits / len(tile)),
        }


def labelled(folder: Path, data: Path, patch_px: int, seed: int) -> dict[str, Any]:
    """Train and map labelled colorectal tissue, k = 9; score patches that lie in one tile."""
    tiles = LabelledTiles(data)
    project = Project.create(folder / "crc", make_cases([tiles.entry]))
    trained = run(train_network(project, {"k": 9, "patch_px": patch_px, "seed": seed}))
    run(map_clusters(project, MapConfig(stride_px=32)))
    content = open_content(project)
    grid = content.table.grids[0]
    means = KMeans(9, n_init=3, random_state=0).fit_predict(content.latents.values) + 1
    return {
        "what": f"labelled colorectal, {patch_px} px, seed {seed}",
        **tiles.scores(grid, content.clustering.labels),
        "nmi_kmeans_on_latents": tiles.scores(grid, means)["nmi"],
        "train_s": trained["seconds"],
        "patches_per_s": trained["patches_per_s"],
    }


def show(row: dict[str, Any]) -> None:
    """Print a result, every figure beside its limit where it has one."""
    print(f"\n{row['what']}")
    for name, value in row.items():
        if name == "what":
            continue
        sign = "≤" if name == "registration_px" else "≥"
        synthetic_nmi = name == "nmi" and "ari" in row
        limit = f"   limit {sign} {LIMITS[name]}" if name in LIMITS and not synthetic_nmi else ""
        print(f"  {name:24}{value:10.3f}{limit}")


def main() -> None:
    """Run what was asked for and print it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", choices=["synth", "labelled"])
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--size", type=int, default=4000)
    parser.add_argument("--tissues", type=int, default=8)
    parser.add_argument("--patch-px", type=int, default=64)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in options.seeds:
        with tempfile.TemporaryDirectory() as folder:
            if options.only != "labelled":
                rows.append(synthetic(Path(folder), options.size, options.tissues, seed))
            if options.only != "synth" and options.data.is_dir():
                rows.append(labelled(Path(folder), options.data, options.patch_px, seed))
            elif options.only != "synth":
                print(f"skipped: no development data at {options.data}", file=sys.stderr)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    if options.json:
        print(json.dumps({"rows": rows, "peak_gib": peak}))
        return
    for row in rows:
        show(row)
    print(f"\npeak memory of the process: {peak:.2f} GiB (limit 3)")


if __name__ == "__main__":
    main()
