"""`pancluster` as other programs call it: JSON on stdout, one line on stderr, exit codes."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import TINY, shared, texture, write_slide

from napari_pancluster.cli import main

TRAIN = [f"--{name.replace('_', '-')}={value}" for name, value in TINY.items()]


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    """Run a command with --json and return its object, the only thing on stdout."""
    code = main([*map(str, arguments), "--json", "--quiet"])
    out, err = capsys.readouterr()
    assert code == 0, err
    assert out.count("\n") == 1
    result: dict[str, Any] = json.loads(out)
    return result


def refuse(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Run a command that must exit 2 with one line on stderr, and return the line."""
    code = main([*map(str, arguments), "--json", "--quiet"])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), (code, out, err)
    return err


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_whole_path(capsys: pytest.CaptureFixture[str], islands: Path, tmp_path: Path) -> None:
    project = tmp_path / "p.pancluster"
    slide = call(capsys, "info", islands)
    assert (slide["format"], slide["width"], slide["height"]) == ("ome-tiff", 1000, 640)
    assert slide["levels"][1] == {"width": 500, "height": 320, "downsample": 2.0}
    assert (slide["mpp"], slide["dtype"], slide["channels"]) == (2.0, "uint8", 3)
    made = call(capsys, "new", project, "--slide", f"HE={islands}", "--case", "m1")
    assert made == {"project": str(project), "cases": ["m1"]}
    assert call(capsys, "register", project) == {"results": []}
    trained = call(capsys, "train", project, "--k", 3, *TRAIN)
    assert {"run", "k", "device", "patches_per_s", "epochs", "losses", "seconds"} <= set(trained)
    assert (trained["k"], trained["device"], trained["epochs"]) == (3, "cpu", TINY["epochs"])
    chosen = call(capsys, "select-k", project, "--k", "2-4", "--repeats", 2)
    assert chosen["k"] == [2, 3, 4] and chosen["suggested_k"] in chosen["k"]
    for name, better in (
        ("dunn", "higher"),
        ("silhouette", "higher"),
        ("davies_bouldin", "lower"),
        ("calinski_harabasz", "higher"),
    ):
        index = chosen["indices"][name]
        assert index["better"] == better and len(index["mean"]) == len(index["std"]) == 3
    mapped = call(capsys, "map", project, "--run", trained["run"], "--stride-px", 16)
    assert mapped["cases"][0]["case"] == "m1" and set(mapped["cases"][0]["area_mm2"]) == {
        "1",
        "2",
        "3",
    }
    files = call(capsys, "export", project, tmp_path / "out", "--to", "ome-tiff,csv")["files"]
    assert all(Path(f).is_absolute() and Path(f).exists() for f in files)
    facts = call(capsys, "info", project)
    assert facts["cases"] == ["m1"] and facts["stains"] == ["HE"]
    size = {"case": "m1", "stain": "HE", "mpp": 2.0, "source": "file"}
    assert facts["pixel_sizes"] == [size]
    assert facts["steps"] == {
        "register": "done",
        "train": "done",
        "select-k": "stale",
        "map": "done",
        "embed": "missing",
    }


def test_results_are_readable_without_json(
    capsys: pytest.CaptureFixture[str], islands: Path
) -> None:
    assert main(["info", str(islands)]) == 0
    out = capsys.readouterr().out
    assert "mpp: 2" in out and "1000" in out


def test_points_go_there_and_back_in_order(
    capsys: pytest.CaptureFixture[str], islands: Path, tmp_path: Path
) -> None:
    half = tmp_path / "half.ome.tif"
    from napari_pancluster.core.slide import open_slide

    rgb = np.asarray(open_slide(islands).data[0])
    write_slide(
        half, np.fliplr(rgb.reshape(320, 2, 500, 2, 3).mean((1, 3)).round().astype(np.uint8)), 4.0
    )
    project = tmp_path / "p.pancluster"
    call(capsys, "new", project, "--slide", f"HE={islands}", "--slide", f"PAS={half}")
    (result,) = call(capsys, "register", project)["results"]
    assert result["status"] == "ok" and result["flipped"] is True
    keys = "case stain reason mpp_estimated rotation_deg dice_before dice_after seconds tre_um"
    keys += " similarity_before similarity_after folding_fraction"
    assert set(keys.split()) <= set(result)
    rng = np.random.default_rng(0)
    points = rng.uniform((80, 100), (920, 540), (50, 2))
    points[7] = (-500, 5000)
    with (tmp_path / "in.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([["name", "x", "y"], *([f"p{i}", *p] for i, p in enumerate(points))])
    there = call(capsys, "points", project, "--case", "case", "--from", "HE", "--to", "PAS",
                 tmp_path / "in.csv", tmp_path / "there.csv")  # fmt: skip
    assert there == {"n": 50, "outside": 1}
    call(capsys, "points", project, "--case", "case", "--from", "PAS", "--to", "HE",
         tmp_path / "there.csv", tmp_path / "back.csv")  # fmt: skip
    there_rows = read_rows(tmp_path / "there.csv")
    assert [r["name"] for r in there_rows] == [f"p{i}" for i in range(50)]
    found = np.array([[float(r["x"]), float(r["y"])] for r in there_rows])
    inner = np.arange(50) != 7
    expected = np.stack([(1000 - points[:, 0]) / 2, points[:, 1] / 2], 1)
    assert np.median(np.abs(found - expected)[inner]) < 1.0
    back = np.array([[float(r["x"]), float(r["y"])] for r in read_rows(tmp_path / "back.csv")])
    assert np.abs(back - points)[inner].max() < 1.0
    (tmp_path / "bad.csv").write_text("x,y\n1,2\n3,oops\n")
    line = refuse(capsys, "points", project, "--case", "case", "--from", "HE", "--to", "PAS",
                  tmp_path / "bad.csv", tmp_path / "out.csv")  # fmt: skip
    assert "line 3: y is 'oops'" in line and not (tmp_path / "out.csv").exists()


def test_bad_input_is_one_line_and_exit_code_2_with_nothing_written(
    capsys: pytest.CaptureFixture[str], islands: Path, tmp_path: Path
) -> None:
    project = tmp_path / "p.pancluster"
    bare = write_slide(tmp_path / "bare.ome.tif", texture((300, 300), coarse=True), None)
    (tmp_path / "broken.svs").write_bytes(b"IJrE" + bytes(500))
    for slide, words in (
        ("HE=none.svs", "none.svs does not exist"),
        (f"HE={tmp_path}/broken.svs", "broken.svs"),
        (f"HE={bare}", "no pixel size"),
    ):
        assert words in refuse(capsys, "new", project, "--slide", slide)
    assert "twice" in refuse(
        capsys, "new", project, "--slide", f"HE={islands}", "--slide", f"HE={bare}"
    )
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refuse(
        capsys, "new", tmp_path / "file" / "p", "--slide", f"HE={islands}"
    )
    assert not project.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bare.ome.tif", "broken.svs", "file"]
    call(capsys, "new", project, "--slide", f"HE={islands}")
    state = (project / "project.json").read_bytes()
    assert "--k" in refuse(capsys, "train", project, "--k", 1)
    assert "k_min 9 is larger than k_max 4" in refuse(
        capsys, "train", project, "--k-min", 9, "--k-max", 4
    )
    assert "larger than the tissue" in refuse(capsys, "train", project, "--mpp", 40, *TRAIN)
    assert "--epochs" in refuse(capsys, "train", project, "--epochs", 0)
    assert "--patch-px" in refuse(capsys, "train", project, "--patch-px", 65)
    assert "not a range" in refuse(capsys, "select-k", project, "--k", "few")
    assert "is not a project" in refuse(capsys, "map", tmp_path / "other")
    assert "is not a project" in refuse(capsys, "open", tmp_path / "other")
    assert "--oops" in refuse(capsys, "synth", tmp_path / "s", "--oops")
    assert (project / "project.json").read_bytes() == state


def test_a_blank_slide_has_no_tissue(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    blank = write_slide(tmp_path / "blank.ome.tif", np.full((400, 400, 3), 243, np.uint8))
    call(capsys, "new", tmp_path / "p", "--slide", f"HE={blank}")
    assert "No tissue was found" in refuse(capsys, "train", tmp_path / "p")


def test_the_shared_broken_slide_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    broken = shared("slides", "broken.svs")
    assert "broken.svs" in refuse(capsys, "info", broken)
    assert "broken.svs" in refuse(capsys, "new", tmp_path / "p", "--slide", f"HE={broken}")


def test_synth_is_a_sample_sheet_for_new(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    made = call(capsys, "synth", tmp_path / "s", "--size", 512, "--stains", 2, "--tissues", 3)
    assert set(made) == {"slides", "sheet", "truth_labels", "truth_points", "tissues"}
    project = call(capsys, "new", tmp_path / "p", "--sheet", made["sheet"])
    assert project["cases"] == ["synthetic"]
    assert "tissues" in refuse(capsys, "synth", tmp_path / "t", "--tissues", 99)


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_exits_130_and_leaves_the_project_as_it_was(
    islands: Path, tmp_path: Path, number: int
) -> None:
    command = [
        sys.executable,
        "-c",
        "import sys; from napari_pancluster.cli import main; sys.exit(main())",
    ]
    project = tmp_path / "p.pancluster"
    subprocess.run(
        [*command, "new", project, "--slide", f"HE={islands}"], check=True, capture_output=True
    )
    before = (project / "project.json").read_bytes()
    process = subprocess.Popen(
        [*command, "train", project, "--k", "2", "--epochs", "500"],
        stderr=subprocess.PIPE,
        text=True,
    )
    runs = project / "runs"
    deadline = time.monotonic() + 120
    while not list(runs.glob("*/store/store.json")) and time.monotonic() < deadline:
        time.sleep(0.2)
    time.sleep(1)
    os.kill(process.pid, number)
    began = time.monotonic()
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert time.monotonic() - began < 10
    assert "The project is as it was" in err.splitlines()[-1]
    assert (project / "project.json").read_bytes() == before
    assert not list(runs.glob("*/store"))
