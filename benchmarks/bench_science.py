"""Whether the clusters are the tissues: labelled colorectal tissue and drawn sections.

Resumable: every training is kept in a cache and not done again as long as the code of learning is
the same. Prints one table of what is there::

    make bench-science                                          # everything: hours on two cores
    python benchmarks/bench_science.py --only labelled --patch-px 64 --recipes default --seeds 0
    python benchmarks/bench_science.py --table                  # what is in the cache, nothing run

The labelled slide is development data beside the checkout (``--data``); it is skipped where absent.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from bench_main_job import DATA, LabelledTiles, point_errors, same_pixels
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

import napari_pancluster
from napari_pancluster.core.cases import entries_of_sheet, make_cases
from napari_pancluster.core.config import MapConfig, RegisterConfig, SelectConfig, SynthConfig
from napari_pancluster.core.patches import PatchGrid
from napari_pancluster.core.pipeline.exporting import export, open_content
from napari_pancluster.core.pipeline.mapping import map_clusters, select_clusters
from napari_pancluster.core.pipeline.registering import register
from napari_pancluster.core.pipeline.training import train_network
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.core.synth import one_stain_pair, synthesise

CACHE = Path(".benchmarks/science")
LIMITS = {"64": 0.64, "128": 0.68, "both": 0.72}
_LEARNING = (
    "config",
    "consensus",
    "dataset",
    "losses",
    "means",
    "middles",
    "model",
    "plain_features",
    "recipes",
    "training",
    "votes",
)
# The autoencoder alone, its latents clustered by k-means: what the objective is compared with.
_PEER = "autoencoder, k-means"


@dataclass(frozen=True)
class Trial:
    """One training and what it is compared with."""

    kind: str
    recipe: str = "default"
    patch_px: str = "64"
    tissues: int = 9
    seed: int = 0
    without: str = ""

    @property
    def config(self) -> dict[str, Any]:
        """What training is asked for."""
        side = self.patch_px if self.patch_px == "both" else int(self.patch_px)
        given: dict[str, Any] = {"k": self.tissues, "patch_px": side, "seed": self.seed}
        if self.recipe == _PEER:
            return {**given, "pretraining": 1.0}
        return {**given, "recipe": self.recipe}

    def file(self, cache: Path) -> Path:
        """Return where its result is kept; another one for other code."""
        core = Path(napari_pancluster.__file__).parent / "core"
        words = json.dumps(asdict(self)).encode()
        code = b"".join((core / f"{name}.py").read_bytes() for name in _LEARNING)
        return cache / f"{self.kind}-{hashlib.sha256(words + code).hexdigest()[:16]}.npz"


def trials(options: argparse.Namespace) -> Iterator[Trial]:
    """Yield what was asked for, the shortest to tell first."""
    if options.only != "synth":
        for recipe in options.recipes:
            for side in options.patch_px:
                for seed in options.seeds:
                    # Both sizes at once is what the default recipe does.
                    if side != "both" or recipe == "default":
                        yield Trial("labelled", recipe, side, 9, seed)
    if options.only != "labelled":
        for tissues in options.tissues:
            for seed in options.seeds:
                yield Trial("synth", "default", "64", tissues, seed)
        stain = one_stain_pair(SynthConfig(tissues=options.tissues[0]))[2]
        for seed in options.seeds:
            yield Trial("synth", "default", "64", options.tissues[0], seed, stain)


def labelled(trial: Trial, folder: Path, tiles: LabelledTiles) -> dict[str, Any]:
    """Train and map labelled tissue; score the patches that lie in one tile."""
    project = Project.create(folder / "crc", make_cases([tiles.entry]))
    trained = run(train_network(project, trial.config))
    run(map_clusters(project, MapConfig(stride_px=32)))
    scores = run(select_clusters(project, SelectConfig(), MapConfig(stride_px=32)))
    content = open_content(project)
    labels = content.clustering.labels
    return {
        **tiles.scores(content.table.grids[0], labels),
        "suggested_k": scores["suggested_k"],
        "seconds": trained["seconds"],
        "patches_per_s": trained["patches_per_s"],
        "waiting": trained["waiting"],
        "labels": labels,
        "index": content.table.grids[0].index,
    }


def synthetic(trial: Trial, folder: Path, size: int) -> dict[str, Any]:
    """Register, train and map a drawn five-stain section; compare with its truth."""
    drawing = SynthConfig(size=size, tissues=trial.tissues, seed=trial.seed)
    made = run(synthesise(folder / "slides", drawing))
    entries = [e for e in entries_of_sheet(made.sheet) if e.stain != trial.without]
    project = Project.create(folder / "synth", make_cases(entries))
    run(register(project, RegisterConfig()))
    errors = point_errors(project, made.truth_points)
    trained = run(train_network(project, trial.config))
    run(map_clusters(project, MapConfig()))
    scores = run(select_clusters(project, SelectConfig(), MapConfig()))
    file = run(export(project, folder / "out", ["ome-tiff"]))["files"][0]
    truth, labels = same_pixels(made.truth_labels, Path(file))
    both = (truth > 0) & (labels > 0)
    one, other, _ = one_stain_pair(drawing)
    content = open_content(project)
    there, cells = at_cells(made.truth_labels, content.table.grids[0])
    inside = there > 0
    return {
        "ari": adjusted_rand_score(there[inside], content.clustering.labels[inside]),
        "ari_pixels": adjusted_rand_score(truth[both], labels[both]),
        # Of a map whose every cell is right at its centre: no map of cells as large is better.
        "ari_pixels_most": adjusted_rand_score(truth[both], there[cells][both]),
        "nmi": normalized_mutual_info_score(truth[both], labels[both]),
        "pair": told_apart(truth[both], labels[both], (one, other)),
        "registration_px": max(float(np.median(e)) for e in errors.values()),
        "suggested_k": scores["suggested_k"],
        "seconds": trained["seconds"],
        "patches_per_s": trained["patches_per_s"],
        "waiting": trained["waiting"],
    }


def at_cells(truth: Path, grid: PatchGrid) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the tissue at the centre of every cell (N,), and the nearest cell of every pixel."""
    with tifffile.TiffFile(truth) as tiff:
        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]["Pixels"]
        image, um = tiff.series[0].asarray(), float(pixels["PhysicalSizeX"])
    row, col = np.minimum((grid.centres / um).astype(int), np.array(image.shape) - 1).T
    at = (np.indices(image.shape).reshape(2, -1).T + 0.5) * um
    nearest = cKDTree(grid.centres).query(at)[1]
    return image[row, col], nearest.reshape(image.shape)


def told_apart(truth: NDArray[np.uint8], labels: NDArray[np.uint8], pair: tuple[int, int]) -> float:
    """Return how well the clusters tell two tissues: 1 always, 0.5 not at all."""
    table = np.zeros((2, int(labels.max()) + 1))
    for row, tissue in enumerate(pair):
        np.add.at(table[row], labels[truth == tissue], 1)
    table /= np.maximum(table.sum(axis=1, keepdims=True), 1)
    return float(table.max(axis=0).sum() / 2)


def result(trial: Trial, options: argparse.Namespace, *, wanted: bool) -> dict[str, Any] | None:
    """Return the kept result of a trial, or make it where that is wanted."""
    file = trial.file(options.cache)
    if not file.exists():
        if not wanted:
            return None
        began = time.perf_counter()
        print(f"{trial} …", file=sys.stderr, flush=True)
        with tempfile.TemporaryDirectory() as temporary:
            folder = options.keep / file.stem if options.keep else Path(temporary)
            folder.mkdir(parents=True, exist_ok=True)
            if trial.kind == "labelled":
                found = labelled(trial, folder, LabelledTiles(options.data))
            else:
                found = synthetic(trial, folder, options.size)
        options.cache.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, **{k: np.asarray(np.nan if v is None else v) for k, v in found.items()})
        shutil.move(partial, file)
        print(f"  {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    with np.load(file) as kept:
        return {k: kept[k] if kept[k].ndim else kept[k].item() for k in kept.files}


def table(found: dict[Trial, dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a row for everything that differs in more than the seed."""
    groups: dict[Trial, list[tuple[Trial, dict[str, Any]]]] = {}
    for trial, values in found.items():
        same = Trial(trial.kind, trial.recipe, trial.patch_px, trial.tissues, 0, trial.without)
        groups.setdefault(same, []).append((trial, values))
    rows = []
    for head, members in groups.items():
        runs = [values for _, values in members]
        row: dict[str, Any] = {
            "what": f"{head.kind}, {head.recipe}, {head.patch_px} px"
            if head.kind == "labelled"
            else f"{head.tissues} tissues" + (f" without {head.without}" if head.without else ""),
            "seeds": [t.seed for t, _ in members],
        }
        for name in (
            "nmi",
            "nmi_without_back",
            "ari",
            "ari_pixels",
            "ari_pixels_most",
            "pair",
            "suggested_k",
            "seconds",
        ):
            if name in runs[0]:
                row[name] = [round(float(r[name]), 3) for r in runs]
        if head.kind == "labelled":
            pairs = combinations([r["labels"] for r in runs], 2)
            row["seeds_ari"] = [round(adjusted_rand_score(a, b), 3) for a, b in pairs]
            row["limit"] = LIMITS[head.patch_px]
        rows.append(row)
    return rows


def show(rows: list[dict[str, Any]]) -> None:
    """Print the rows: means, and each seed's value."""
    for row in rows:
        print(f"\n{row['what']} (seeds {', '.join(map(str, row['seeds']))})")
        for name, values in row.items():
            if name in ("what", "seeds", "limit") or not values:
                continue
            limit = f"   limit ≥ {row['limit']}" if name == "nmi" and "limit" in row else ""
            limit = "   limit ≥ 0.85" if name == "ari" else limit
            limit = "   limit ≥ 0.75" if name == "seeds_ari" else limit
            each = ", ".join(f"{v:g}" for v in values)
            print(f"  {name:18}{np.mean(values):9.3f}   ({each}){limit}")


def main() -> None:
    """Run what was asked for and is not kept yet; print all of it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", choices=["synth", "labelled"])
    parser.add_argument("--recipes", nargs="+", default=["default", "published", "baseline", _PEER])
    parser.add_argument("--patch-px", nargs="+", default=["64", "128", "both"])
    parser.add_argument("--tissues", nargs="+", type=int, default=[8, 13, 14])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--size", type=int, default=2000)
    parser.add_argument("--data", type=Path, default=DATA)
    parser.add_argument("--cache", type=Path, default=CACHE)
    parser.add_argument("--keep", type=Path, help="keep the slides and projects of runs in here")
    parser.add_argument("--table", action="store_true", help="print what is kept, run nothing")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.only != "synth" and not options.data.is_dir():
        print(f"labelled tissue is skipped: nothing at {options.data}", file=sys.stderr)
        options.only = "synth"
    found = {}
    for trial in trials(options):
        values = result(trial, options, wanted=not options.table)
        if values is not None:
            found[trial] = values
    rows = table(found)
    if options.json:
        print(json.dumps({"rows": rows}))
    else:
        show(rows)


if __name__ == "__main__":
    main()
