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
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from altered import Bend, Picture, blank, halved, mirrored_in_part
from numpy.typing import NDArray
from tables import show

from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.progress import run
from napari_pancluster.core.registration import Registration, register_pair
from napari_pancluster.core.registration.sections import Sections, read_sections
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stack import SlideStack
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
TURNED = (
    ("lung1", "HE", "CD31"),
    ("lung3", "HE", "proSPC"),
    ("stomach", "HE", "giemsa"),
    ("pancreas", "HE", "CK7-p40"),
)
SPOILT = (
    ("liver", "HE", "PAS"),
    ("pancreas", "HE", "CK7-p40"),
    ("stomach", "HE", "giemsa"),
    ("lung1", "HE", "proSPC"),
    ("lung1", "CC10", "CD31"),
    ("lung3", "HE", "CD31"),
    ("lung3", "proSPC", "CD31"),
)
WARPED = (("liver", "HE", "PAS"), ("stomach", "HE", "giemsa"), ("lung1", "HE", "CD31"))
# Largest known displacement, as a share of the longer side.
_REACH = 0.02
_BLOCK_PX = 512
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


def known_bends(data: Path) -> list[dict[str, object]]:
    """Register real sections onto themselves bent, turned and flipped: errors in working px."""
    rows = []
    slides = [(case, name) for case in ("liver", "pancreas", "stomach") for name in CASES[case][3]]
    slides += [("lung3", name) for name in CASES["lung3"][3]]
    with tempfile.TemporaryDirectory() as folder:
        for n, (case, name) in enumerate(slides):
            picture = Picture.of(open_case_stain(data, case, name))
            angle = float(np.random.default_rng(n).uniform(0, 360))
            bend = Bend(angle, flipped=bool(n % 2), reach=_REACH, seed=n)
            glass = picture.glass
            fixed = picture.stain(Path(folder), "fixed", mpp=picture.mpp)
            bent = picture.altered(lambda image, b=bend, g=glass: b.picture(image, g))
            moving = bent.stain(Path(folder), "moving", mpp=picture.mpp)
            result = run(register_pair(fixed, moving, RegisterConfig()))
            pair = run(read_sections(fixed, moving, RegisterConfig()))
            row: dict[str, object] = {"slide": f"{case} {name}", "status": result.report.status}
            row |= {"turned": round(angle), "found": round(result.report.rotation_deg)}
            if result.transform is not None:
                at, truth = _known_points(bend, picture, moving, pair)
                error = np.linalg.norm(result.transform.to_moving(at) - truth, axis=1)
                error /= pair.fixed.mpp
                row |= {"median": float(np.median(error)), "p95": float(np.percentile(error, 95))}
            rows.append(row | {"seconds": round(result.report.seconds, 1)})
    return rows


def _known_points(
    bend: Bend, picture: Picture, moving: Stain, pair: Sections
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points in tissue, µm of the fixed slide, and where they are on the moving one."""
    there = np.random.default_rng(0).uniform(0, moving.slide.shape[0], (40000, 2))
    here = bend.source(there, picture.pixels.shape[:2]) * picture.mpp
    cell = np.floor(here / pair.fixed.mpp).astype(int)
    inside = ((cell >= 0) & (cell < pair.fixed.shape)).all(axis=1)
    here, there, cell = here[inside], there[inside], cell[inside]
    tissue = pair.fixed.tissue[tuple(cell.T)] > 0.5
    return here[tissue], there[tissue] * picture.mpp


def turned_flipped_scaled(data: Path) -> list[dict[str, object]]:
    """Register true pairs whose moving slide was turned, flipped and scaled, its size unknown.

    Recovered: not failed, the pixel size within 5 %, and the middle of the tissue where the pair
    as scanned has it, to 3 % of the longer side.
    """
    rows = []
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        for case, one, other in TURNED:
            fixed = open_case_stain(data, case, one)
            picture = Picture.of(open_case_stain(data, case, other))
            known = run(
                register_pair(
                    fixed, picture.stain(Path(folder), "own", mpp=picture.mpp), RegisterConfig()
                )
            )
            assert known.transform is not None
            sides = np.array(fixed.slide.shape) * fixed.slide.um_per_px
            points = rng.uniform(0.3, 0.7, (50, 2)) * sides
            for n in range(6):
                scale = float(np.exp(rng.uniform(np.log(0.6), np.log(1.6))))
                bend = Bend(float(rng.uniform(0, 360)), flipped=n % 2 == 1, scale=scale)
                turned = picture.altered(lambda i, b=bend, g=picture.glass: b.picture(i, g))
                moving = turned.stain(Path(folder), "turned", mpp=None)
                result = run(register_pair(fixed, moving, RegisterConfig()))
                row: dict[str, object] = {"pair": f"{case} {one} > {other}"}
                row |= {"turned": round(bend.rotation_deg), "flipped": bend.flipped}
                row |= {"scale": scale, "status": result.report.status, "recovered": False}
                estimate = result.report.mpp_estimated
                if result.transform is not None and estimate is not None:
                    px = result.transform.to_moving(points) / estimate
                    back = bend.source(px, picture.pixels.shape[:2]) * picture.mpp
                    off = np.linalg.norm(back - known.transform.to_moving(points), axis=1)
                    ratio = estimate * scale / picture.mpp
                    near = float(np.median(off)) < 0.03 * max(sides)
                    row |= {"size": ratio, "off_um": float(np.median(off))}
                    row["recovered"] = near and abs(ratio - 1) < 0.05
                rows.append(row | {"seconds": round(result.report.seconds, 1)})
    return rows


def trust(data: Path) -> list[dict[str, object]]:
    """Register true pairs, pairs of two cases, and true ones that were spoilt."""
    rows = []
    for case, (_, _, _, names) in CASES.items():
        for one, other in itertools.permutations(names, 2):
            stains = open_case_stain(data, case, one), open_case_stain(data, case, other)
            rows.append(_judged("true", f"{case} {one} > {other}", *stains))
    for one, other in itertools.permutations(CASES, 2):
        for n in (0, -1):
            stains = tuple(open_case_stain(data, c, CASES[c][3][n]) for c in (one, other))
            rows.append(_judged("other", f"{one} > {other}", *stains))
    with tempfile.TemporaryDirectory() as folder:
        for case, one, other in SPOILT:
            fixed = open_case_stain(data, case, one)
            picture = Picture.of(open_case_stain(data, case, other))
            for kind, spoilt in (
                ("blank", blank(picture)),
                *((f"half {axis}", halved(picture, axis=axis)) for axis in (0, 1)),
                *((f"mirrored {axis}", mirrored_in_part(picture, axis=axis)) for axis in (0, 1)),
            ):
                moving = spoilt.stain(Path(folder), "spoilt", mpp=picture.mpp)
                label = f"{case} {one} > {other} {kind}"
                rows.append(_judged(kind.split()[0], label, fixed, moving))
    return rows


def _judged(kind: str, label: str, fixed: Stain, moving: Stain) -> dict[str, object]:
    moving = replace(moving, name=f"{moving.name} (moving)")
    result: Registration = run(register_pair(fixed, moving, RegisterConfig()))
    report = result.report
    print(f"{kind}: {label}: {report.status}", file=sys.stderr, flush=True)
    return {
        "pair": label,
        "kind": kind,
        "status": report.status,
        "rotation": round(report.rotation_deg, 1),
        "flipped": report.flipped,
        "dice": round(report.dice_after, 2),
        "similarity": round(report.similarity_after, 3),
        "seconds": round(report.seconds, 1),
        "reason": report.reason,
    }


def warp_speed(data: Path) -> list[dict[str, object]]:
    """Read full-resolution blocks of real slides as they are, and warped, in Mpx/s."""
    rows = []
    for case, one, other in WARPED:
        fixed, moving = open_case_stain(data, case, one), open_case_stain(data, case, other)
        result = run(register_pair(fixed, moving, RegisterConfig()))
        assert result.transform is not None
        stack = SlideStack(case, one, (fixed, moving)).with_transform(result.transform)
        size, side = max(fixed.slide.um_per_px, moving.slide.um_per_px), _BLOCK_PX
        middle = [n * fixed.slide.um_per_px / 2 for n in fixed.slide.shape]
        corners = [
            (middle[0] + side * size * r, middle[1] + side * size * c)
            for r in (-2, -1, 0, 1)
            for c in (-2, -1, 0, 1)
        ]
        row: dict[str, object] = {"slide": f"{case} {other}"}
        for key, name in (("unwarped", one), ("warped", other)):
            began = time.perf_counter()
            for top, left in corners:
                region = Region.of_pixels(
                    top=top / size, left=left / size, rows=side, cols=side, mpp=size
                )
                stack.pictures((name,), region, size)
            spent = time.perf_counter() - began
            row[f"{key} Mpx/s"] = len(corners) * side**2 / 1e6 / spent
        rows.append(row)
    return rows


def main() -> int:
    """Run what the data allow and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--part", action="append", choices=list(PARTS), help="default: all")
    options = parser.parse_args()
    if not (options.data / "landmarks" / "lung_lesion1").is_dir():
        print(f"Skipped: {options.data} has no landmarks/lung_lesion1.", file=sys.stderr)
        return 0
    found: dict[str, object] = {}
    for part in options.part or PARTS:
        found[part] = PARTS[part](options.data)
    if options.json:
        print(json.dumps(found))
        return 0
    for part, rows in found.items():
        print(f"{part}\n")
        show(rows)  # type: ignore[arg-type]
    return 0


def landmarks(data: Path) -> list[dict[str, object]]:
    """Return errors at landmarks in % of the diagonal, beside demons and the founders' trial."""
    rows = []
    for kind in ("elastic", "demons"):
        pairs = landmark_errors(data, RegisterConfig(deformation=kind))
        rows += [{**row, "pair": f"{row['pair']} ({kind})"} for row in pairs]
        rows.append({"pair": f"mean ({kind})", **mean_of(pairs)})
    return [*rows, *({"pair": name, "median": value} for name, value in PEERS.items())]


def counts(data: Path) -> list[dict[str, object]]:
    """Return every pair of `trust`, and how many of each kind were called what."""
    rows = trust(data)
    told = []
    for kind in dict.fromkeys(str(row["kind"]) for row in rows):
        called = [row["status"] for row in rows if row["kind"] == kind]
        told.append({"kind": kind, **{s: called.count(s) for s in ("ok", "doubtful", "failed")}})
    return [*rows, *told]


PARTS: dict[str, Callable[[Path], list[dict[str, object]]]] = {
    "landmarks": landmarks,
    "bends": known_bends,
    "turned": turned_flipped_scaled,
    "trust": counts,
    "warp": warp_speed,
}


if __name__ == "__main__":
    sys.exit(main())
