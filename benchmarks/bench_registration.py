"""Registration against landmarks of real serial sections, and which pairs it trusts.

``python benchmarks/bench_registration.py [DATA] [--json]``; DATA is the folder that holds
``landmarks/`` and ``atlas/`` (default: ../shared/data beside the repository).
"""

from __future__ import annotations

import argparse
import csv
import itertools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tables import show

from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.progress import run
from napari_pancluster.core.registration import Registration, register_pair
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
# None of them records a pixel size; these are nominal.
CASES = {
    "liver": ("atlas/liver_glycogen", ".ome.tif", 2.0, ("HE", "PAS", "PASD")),
    "pancreas": ("atlas/pancreas_adenosquamous", ".ome.tif", 4.0, ("HE", "CK7-p40")),
    "stomach": ("atlas/stomach_hpylori", ".ome.tif", 4.0, ("HE", "giemsa")),
    "lung1": ("landmarks/lung_lesion1", ".jpg", 2.6, ("HE", "proSPC", "CC10", "CD31")),
    "lung3": ("landmarks/lung_lesion3", ".jpg", 3.5, ("HE", "CD31", "proSPC", "CC10", "Ki67")),
}
# Means of pair medians of relative errors (%): fitted on the landmarks, and the founders' trial.
PEERS = {"affine fitted on the landmarks": 0.45, "demons + local correlation": 0.30}


def open_case_stain(data: Path, case: str, name: str) -> Stain:
    """Open a stain of a benchmark case."""
    folder, suffix, mpp, _ = CASES[case]
    return Stain.of(name, open_slide(data / folder / f"{name}{suffix}").with_mpp(mpp))


def landmark_errors(data: Path, config: RegisterConfig) -> list[dict[str, object]]:
    """Register all ordered pairs of lung1; errors in % of the fixed image's diagonal."""
    points = {name: read_points(data, name) for name in CASES["lung1"][3]}
    rows = []
    for fixed_name, moving_name in itertools.permutations(points, 2):
        fixed = open_case_stain(data, "lung1", fixed_name)
        moving = open_case_stain(data, "lung1", moving_name)
        result = run(register_pair(fixed, moving, config))
        row: dict[str, object] = {"pair": f"{fixed_name} > {moving_name}"}
        row |= {"status": result.report.status, "seconds": round(result.report.seconds, 1)}
        if result.transform is not None:
            count = min(len(points[fixed_name]), len(points[moving_name]))
            ends = [points[n][:count] * CASES["lung1"][2] for n in (fixed_name, moving_name)]
            row |= errors(result.transform, ends[0], ends[1], diagonal_um(fixed))
        rows.append(row)
    return rows


def errors(
    transform: Transform, fixed: NDArray[np.float64], moving: NDArray[np.float64], diagonal: float
) -> dict[str, object]:
    """Return rTRE (%) before, after the affine and after the deformation, and who came closer."""
    bare = Transform(transform.fixed, transform.moving, transform.affine)
    before, affine, full = (
        100 * np.linalg.norm(mapped - moving, axis=1) / diagonal
        for mapped in (fixed, bare.to_moving(fixed), transform.to_moving(fixed))
    )
    return {
        "before": float(np.median(before)),
        "affine": float(np.median(affine)),
        "median": float(np.median(full)),
        "affine_p90": float(np.percentile(affine, 90)),
        "p90": float(np.percentile(full, 90)),
        "closer": float((full < before).mean()),
    }


def mean_of(rows: list[dict[str, object]]) -> dict[str, float]:
    """Return the mean over the pairs that were registered."""
    scored = [row for row in rows if "median" in row]
    keys = ("before", "affine", "median", "affine_p90", "p90", "closer")
    return {key: float(np.mean([float(str(row[key])) for row in scored])) for key in keys}


def read_points(data: Path, name: str) -> NDArray[np.float64]:
    """Return the landmarks of a lung1 stain, (N, 2) row, col in px."""
    with (data / CASES["lung1"][0] / f"{name}.csv").open(newline="") as file:
        return np.array([[float(r[2]), float(r[1])] for r in list(csv.reader(file))[1:]])


def diagonal_um(stain: Stain) -> float:
    """Return the diagonal of a slide in µm."""
    return float(np.hypot(stain.slide.extent.height, stain.slide.extent.width))


def trust(data: Path) -> list[dict[str, object]]:
    """Register true pairs (one case) and wrong ones (two cases), both directions."""
    rows = []
    for case, (_, _, _, names) in CASES.items():
        rows += [
            _trust_row(data, (case, a), (case, b)) for a, b in itertools.permutations(names, 2)
        ]
    for one, other in itertools.permutations(CASES, 2):
        ours, theirs = CASES[one][3], CASES[other][3]
        rows += [_trust_row(data, (one, ours[n]), (other, theirs[n])) for n in (0, -1)]
    return rows


def _trust_row(data: Path, fixed: tuple[str, str], moving: tuple[str, str]) -> dict[str, object]:
    stain, other = open_case_stain(data, *fixed), open_case_stain(data, *moving)
    result: Registration = run(
        register_pair(stain, replace(other, name=f"{moving[0]} {moving[1]}"), RegisterConfig())
    )
    report = result.report
    return {
        "pair": f"{fixed[0]} {fixed[1]} > {moving[0]} {moving[1]}",
        "true": fixed[0] == moving[0],
        "status": report.status,
        "rotation": round(report.rotation_deg, 1),
        "flipped": report.flipped,
        "dice": round(report.dice_after, 2),
        "similarity": round(report.similarity_after, 3),
        "seconds": round(report.seconds, 1),
        "reason": report.reason,
    }


def main() -> int:
    """Run what the data allow and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--landmarks-only", action="store_true")
    options = parser.parse_args()
    if not (options.data / "landmarks" / "lung_lesion1").is_dir():
        print(f"Skipped: {options.data} has no landmarks/lung_lesion1.", file=sys.stderr)
        return 0
    pairs = landmark_errors(options.data, RegisterConfig())
    demons = [
        {"pair": f"{row.pop('pair')} (SimpleITK demons)", **row}
        for row in landmark_errors(options.data, RegisterConfig(deformation="demons"))
    ]
    trusted = [] if options.landmarks_only else trust(options.data)
    mean, demons_mean = mean_of(pairs), mean_of(demons)
    counts = {
        f"{'true' if true else 'wrong'} {status}": sum(
            row["true"] == true and row["status"] == status for row in trusted
        )
        for true in (True, False)
        for status in ("ok", "doubtful", "failed")
    }
    if options.json:
        everything = {"pairs": pairs, "mean": mean, "demons": demons, "demons_mean": demons_mean}
        print(json.dumps({**everything, "trust": trusted, "counts": counts}))
        return 0
    print("Landmarks of lung_lesion1: relative errors in % of the image diagonal\n")
    show([*pairs, {"pair": "mean", **mean}])
    show([*demons, {"pair": "mean", **demons_mean}])
    show([{"peer (mean of medians)": k, "%": v} for k, v in PEERS.items()])
    if trusted:
        show(trusted)
        show([dict(counts)])
    return 0


if __name__ == "__main__":
    sys.exit(main())
