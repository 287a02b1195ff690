"""Exact Dunn by blocks beside brute force with scipy: seconds, peak memory and agreement.

``python benchmarks/bench_dunn.py [--patches 10000 30000 100000] [--brute 30000]``; the limit for
100,000 × 64 latents is 90 s and 1 GB on two cores. Every measurement has a process of its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist
from tables import show

from napari_pancluster.core.dunn import dunn, generalised_dunn
from napari_pancluster.core.progress import Progress, run

LATENTS, CLUSTERS = 64, 13
# Distance of two means, in standard deviations of a cluster.
MIXTURES = {"apart": 12.0, "touching": 5.0, "overlapping": 1.0}
METHODS = ("blocks", "brute force")


def draw(patches: int, mixture: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return (N, 64) latents of 13 clusters of unequal size and width, and the clusters (N,)."""
    rng = np.random.default_rng(0)
    means = rng.normal(size=(CLUSTERS, LATENTS)) * MIXTURES[mixture] / np.sqrt(2 * LATENTS)
    shares = rng.dirichlet(np.full(CLUSTERS, 3.0))
    clusters = rng.choice(CLUSTERS, size=patches, p=shares)
    widths = rng.uniform(0.7, 1.3, size=(CLUSTERS, LATENTS)).astype(np.float32)
    values = rng.standard_normal((patches, LATENTS), np.float32)
    values *= widths[clusters]
    values += means.astype(np.float32)[clusters]
    return values, clusters


def brute_force(values: NDArray[np.float32], clusters: NDArray[np.int64]) -> float:
    """Return Dunn's index by scipy's distances of every pair of clusters."""
    parts = [values[clusters == number] for number in np.unique(clusters)]
    widest = max(float(cdist(part, part).max()) for part in parts)
    nearest = min(float(cdist(a, b).min()) for n, a in enumerate(parts) for b in parts[n + 1 :])
    return nearest / widest


def measure(patches: int, mixture: str, method: str) -> dict[str, float]:
    """Return seconds, peak memory, index and longest wait for a progress, in this process."""
    values, clusters = draw(patches, mixture)
    generalised_dunn(values[:100], clusters[:100])  # loads scipy
    before = _peak_mb()
    told = [time.perf_counter()]

    def tell(_: Progress) -> None:
        told.append(time.perf_counter())

    began = time.perf_counter()
    if method == "blocks":
        index = run(dunn(values, clusters), tell)
    else:
        index = brute_force(values, clusters)
    told.append(time.perf_counter())
    return {
        "seconds": told[-1] - began,
        "peak MB": _peak_mb(),
        "of it at start": before,
        "longest wait, s": max(np.diff(told)) if method == "blocks" else float("nan"),
        "index": index,
    }


def apart(patches: int, mixture: str, method: str) -> dict[str, float]:
    """Return what `measure` returns in a new process: peak memory never falls in one."""
    command = [sys.executable, __file__, "--one", str(patches), mixture, method]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _peak_mb() -> float:
    # Kilobytes on Linux, bytes on macOS.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, nargs="+", default=[10_000, 30_000, 100_000])
    parser.add_argument("--brute", type=int, default=30_000, help="most patches of brute force")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        patches, mixture, method = options.one
        print(json.dumps(measure(int(patches), mixture, method)))
        return
    rows: list[dict[str, object]] = []
    for patches in options.patches:
        for mixture in MIXTURES:
            found = {
                method: apart(patches, mixture, method)
                for method in METHODS
                if method == "blocks" or patches <= options.brute
            }
            for method, row in found.items():
                # Brute force is the measure of all: by what share an index is off it.
                truth = found.get("brute force", {}).get("index", float("nan"))
                off = abs(row["index"] / truth - 1)
                head = {"patches": patches, "clusters": mixture, "method": method}
                rows.append({**head, **row, "off by": f"{off:.0e}"})
    show(rows)


if __name__ == "__main__":
    main()
