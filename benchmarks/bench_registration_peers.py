"""Our registration beside DeeperHistReg and VALIS on the same pairs: errors, time, honesty.

``python benchmarks/bench_registration_peers.py --peer-python PATH --valis-python PATH [DATA]``;
each PATH is the Python of an environment with ``deeperhistreg`` (1.0.1 was measured) or
``valis-wsi`` (1.2.0). Each method runs every pair in a process of its own with one thread; a pair
takes the peers some minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from bench_registration import CASES, DATA, diagonal_um, open_case_stain, read_points
from numpy.typing import NDArray
from tables import show

from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.progress import run
from napari_pancluster.core.registration import register_pair

# Fixed and moving slide; the last two are of two lesions: no registration of them is right.
PAIRS = (
    (("lung1", "HE"), ("lung1", "CD31")),
    (("lung1", "HE"), ("lung1", "CC10")),
    (("lung1", "proSPC"), ("lung1", "HE")),
    (("lung1", "CD31"), ("lung1", "CC10")),
    (("lung1", "HE"), ("lung3", "CC10")),
)
_ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VIPS_CONCURRENCY")
# Reads {fixed, moving, points} from its first argument, writes {points, told} to its second: where
# the points (px, row and col) of the fixed slide lie on the moving one.
_PEER = """
import json, pathlib, sys, tempfile
import numpy as np, SimpleITK, torch, cv2
from scipy import ndimage
import deeperhistreg
torch.set_num_threads(1)
cv2.setNumThreads(1)
task = json.loads(pathlib.Path(sys.argv[1]).read_text())
config = deeperhistreg.configs.default_initial_nonrigid()
config["loading_params"] |= dict(loader="pil", source_resample_ratio=1, target_resample_ratio=1)
config["save_final_images"] = False
config["device"] = config["nonrigid_registration_params"]["device"] = "cpu"
config["initial_registration_params"] |= dict(device="cpu", cuda=False)
with tempfile.TemporaryDirectory() as folder:
    config["case_name"] = "pair"
    pipeline = deeperhistreg.direct_registration.DeeperHistReg_FullResolution(config)
    pipeline.run_registration(task["moving"], task["fixed"], folder)
    file = pathlib.Path(folder) / "pair" / "Results_Final" / "displacement_field.mha"
    field = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))
# x then y, in px of both pictures padded to one size; from the fixed one to the moving one.
before = [[side[0] for side in pipeline.padding_params[key]] for key in ("pad_2", "pad_1")]
at = np.array(task["points"]) - 0.5 + before[0]
moves = [ndimage.map_coordinates(f, at.T, order=1, mode="nearest") for f in field[::-1]]
found = at + np.stack(moves, 1) - before[1] + 0.5
pathlib.Path(sys.argv[2]).write_text(json.dumps({"points": found.tolist(), "told": "nothing"}))
"""


@dataclass(frozen=True)
class Outcome:
    """What a method made of a pair.

    Attributes
    ----------
    points
        (N, 2) where the fixed landmarks lie on the moving slide, px, row then col; None if it
        returned no transform.
    told
        What it says of its own result.
    """

    points: NDArray[np.float64] | None
    told: str
    cpu_seconds: float
    peak_gb: float


# The same for VALIS. The features it takes by default are downloaded when it is imported, which
# not every machine can: its classic ones, and no weights, take their place.
_VALIS = """
import json, pathlib, shutil, sys, tempfile
import numpy as np
import kornia.core.download as download
nothing = lambda *given, **named: {}
download.load_state_dict_from_url = nothing
import kornia.feature
for module in list(sys.modules.values()):
    if getattr(module, "__name__", "").startswith("kornia"):
        if hasattr(module, "load_state_dict_from_url"):
            module.load_state_dict_from_url = nothing
class Absent:
    def __getattr__(self, name):
        return self
    def __call__(self, *given, **named):
        return self
for name in ("DISK", "DeDoDe"):
    getattr(kornia.feature, name).from_pretrained = classmethod(lambda *a, **n: Absent())
from valis import feature_detectors, feature_matcher, registration
task = json.loads(pathlib.Path(sys.argv[1]).read_text())
with tempfile.TemporaryDirectory() as folder:
    slides = pathlib.Path(folder) / "in"
    slides.mkdir()
    for key in ("fixed", "moving"):
        shutil.copy(task[key], slides / f"{key}.jpg")
    matcher = feature_matcher.Matcher()
    found = registration.Valis(
        str(slides), f"{folder}/out", reference_img_f="fixed.jpg", align_to_reference=True,
        feature_detector_cls=feature_detectors.VggFD, matcher=matcher, matcher_for_sorting=matcher,
    )
    found.register()
    fixed, moving = (found.get_slide(key) for key in ("fixed", "moving"))
    xy = fixed.warp_xy_from_to(np.array(task["points"])[:, ::-1], moving)
pathlib.Path(sys.argv[2]).write_text(
    json.dumps({"points": xy[:, ::-1].tolist(), "told": "nothing"}))
"""


def ours(task_file: Path, result_file: Path) -> None:
    """Register the pair of a task file as the plugin does, and write where its points lie."""
    task = json.loads(task_file.read_text())
    data = Path(task["data"])
    fixed, moving = (open_case_stain(data, *task[key]) for key in ("fixed_slide", "moving_slide"))
    result = run(register_pair(fixed, moving, RegisterConfig()))
    points = None
    if result.transform is not None:
        there = result.transform.to_moving(np.array(task["points"]) * fixed.slide.um_per_px)
        points = (there / moving.slide.um_per_px).tolist()
    result_file.write_text(json.dumps({"points": points, "told": result.report.status}))


def outcome(command: list[str], task: dict[str, object]) -> Outcome:
    """Run a method on a task in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        task_file, result_file = Path(folder) / "task.json", Path(folder) / "result.json"
        log = Path(folder) / "log.txt"
        task_file.write_text(json.dumps(task))
        with log.open("wb") as output:
            process = subprocess.Popen(
                [*command, str(task_file), str(result_file)],
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | dict.fromkeys(_ONE_THREAD, "1"),
            )
            _, _, used = os.wait4(process.pid, 0)
        cpu, peak = used.ru_utime + used.ru_stime, used.ru_maxrss / 1e6
        if not result_file.exists():
            last = (log.read_text(errors="replace").strip().splitlines() or ["no message"])[-1]
            return Outcome(None, f"stopped: {last[:100]}", cpu, peak)
        result = json.loads(result_file.read_text())
    points = None if result["points"] is None else np.array(result["points"])
    return Outcome(points, str(result["told"]), cpu, peak)


def compared(data: Path, commands: dict[str, list[str]]) -> list[dict[str, object]]:
    """Return a row for every pair and method; errors in % of the fixed slide's diagonal."""
    rows: list[dict[str, object]] = []
    for fixed, moving in PAIRS:
        stain = open_case_stain(data, *fixed)
        same = fixed[0] == moving[0]
        points = read_points(data, fixed[1])
        task: dict[str, object] = {
            "data": str(data),
            "fixed_slide": fixed,
            "moving_slide": moving,
            "fixed": str(_file(data, *fixed)),
            "moving": str(_file(data, *moving)),
            "points": points.tolist(),
        }
        for method, command in commands.items():
            found = outcome(command, task)
            row: dict[str, object] = {"pair": f"{' '.join(fixed)} > {' '.join(moving)}"}
            row |= {"method": method}
            if same and found.points is not None:
                truth = read_points(data, moving[1])
                count = min(len(points), len(truth))
                apart = np.linalg.norm(found.points[:count] - truth[:count], axis=1)
                error = 100 * apart * stain.slide.um_per_px / diagonal_um(stain)
                row |= {"median %": float(np.median(error))}
                row |= {"p90 %": float(np.percentile(error, 90))}
            row |= {"CPU s": found.cpu_seconds, "peak GB": found.peak_gb}
            rows.append(row | {"belong together": "yes" if same else "no", "told": found.told})
            print(rows[-1], file=sys.stderr, flush=True)
    return rows


def _file(data: Path, case: str, name: str) -> Path:
    folder, suffix, _, _ = CASES[case]
    return data / folder / f"{name}{suffix}"


def main() -> int:
    """Run ours and the peer on every pair and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    parser.add_argument("--peer-python", help="Python of an environment with deeperhistreg")
    parser.add_argument("--valis-python", help="Python of an environment with valis-wsi")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--one", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        ours(*options.one)
        return 0
    peers = {"DeeperHistReg": (options.peer_python, _PEER), "VALIS": (options.valis_python, _VALIS)}
    if not any(python for python, _ in peers.values()):
        print("Skipped: neither --peer-python nor --valis-python.", file=sys.stderr)
        return 0
    if not (options.data / "landmarks" / "lung_lesion1").is_dir():
        print(f"Skipped: {options.data} has no landmarks/lung_lesion1.", file=sys.stderr)
        return 0
    commands = {
        "ours": [sys.executable, str(Path(__file__).resolve()), "--one"],
        **{name: [python, "-c", code] for name, (python, code) in peers.items() if python},
    }
    rows = compared(options.data.resolve(), commands)
    if options.json:
        print(json.dumps({"peers": rows}))
    else:
        show(rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
