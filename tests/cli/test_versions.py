"""`pancluster versions`: what is told, what it does, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_pancluster.cli import main
from napari_pancluster.core import artefacts
from napari_pancluster.core.pipeline.opening import registration_key
from napari_pancluster.core.pipeline.versions import succeed
from napari_pancluster.core.project import Project
from napari_pancluster.core.transform import Transform

Capture = pytest.CaptureFixture[str]


def call(capsys: Capture, *words: object) -> dict[str, Any]:
    """Run a command with --json and return its object, the only thing on stdout."""
    assert main([*map(str, words), "--json", "--quiet"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def refuse(capsys: Capture, *words: object) -> str:
    """Run a command that must exit 2 with one line on stderr, and return the line."""
    code = main([*map(str, words), "--json", "--quiet"])
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1), (code, out, err)
    return err


@pytest.fixture
def root(islands: Path, tmp_path: Path, capsys: Capture) -> Path:
    """A project of one slide three times, PAS registered twice and CD3 once."""
    path = tmp_path / "p.pancluster"
    slides = [f"--slide={name}={islands}" for name in ("HE", "PAS", "CD3")]
    call(capsys, "new", path, *slides, "--case", "m1")
    project = Project.open(path)
    for stain, shift in (("PAS", 100.0), ("PAS", 20.0), ("CD3", 0.0)):
        case = project.state.cases[0]
        inputs = (case.stain("HE").token, case.stain(stain).token)
        summary = {
            "stain": stain,
            "status": "ok",
            "reason": "Outlines agree.",
            "mpp_estimated": None,
            "dice_after": 0.9,
            "tre_um": {"median": 4.0, "p90": 9.0},
        }
        key = registration_key("m1", stain)
        with project.writing(key, inputs, summary, place=succeed) as folder:
            affine = np.array([[1, 0, shift], [0, 1, 0.0], [0, 0, 1]])
            artefacts.write_transform(folder, Transform("HE", stain, affine))
    return path


def maps_to(capsys: Capture, root: Path, tmp_path: Path) -> float:
    """Return where y = 100 px of HE lies in PAS, as other commands see it."""
    (tmp_path / "in.csv").write_text("x,y\n300,100\n")
    between = ("--case", "m1", "--from", "HE", "--to", "PAS")
    call(capsys, "points", root, *between, tmp_path / "in.csv", tmp_path / "out.csv")
    return float((tmp_path / "out.csv").read_text().split("\n")[1].split(",")[1])


def test_versions_are_told_kept_and_gone_back_to(
    root: Path, tmp_path: Path, capsys: Capture
) -> None:
    pas, cd3 = call(capsys, "versions", root)["versions"]
    assert set(pas) == {"case", "stain", "locked", "current", "kept"}
    assert (pas["case"], pas["stain"], pas["locked"], cd3["kept"]) == ("m1", "PAS", False, [])
    (first,) = pas["kept"]
    told = {"name", "status", "reason", "created", "way", "dice_after", "tre_um"}
    assert told <= set(first) and told <= set(pas["current"])
    assert (first["way"], first["dice_after"]) == ("automatic", 0.9)
    assert first["tre_um"] == {"median": 4.0, "p90": 9.0}
    # 2 µm a pixel.
    assert maps_to(capsys, root, tmp_path) == pytest.approx(110)
    words = ("versions", root, "--stain", "PAS")
    call(capsys, *words, "--keep", "bent")
    (pas,) = call(capsys, *words, "--revert", first["name"])["versions"]
    assert maps_to(capsys, root, tmp_path) == pytest.approx(150)
    assert pas["current"]["name"] == first["name"]
    assert {k["name"]: k["in_use"] for k in pas["kept"]} == {first["name"]: True, "bent": False}
    (pas,) = call(capsys, *words, "--rename", first["name"], "by hand")["versions"]
    assert {k["name"] for k in pas["kept"]} == {"by hand", "bent"}
    call(capsys, *words, "--case", "m1", "--revert", "bent")
    assert maps_to(capsys, root, tmp_path) == pytest.approx(110)


def test_a_lock_holds_until_it_is_taken_away(root: Path, capsys: Capture) -> None:
    words = ("versions", root, "--stain", "PAS")
    before = call(capsys, *words, "--lock")["versions"][0]
    assert before["locked"] is True
    line = refuse(capsys, "register", root, "--stain", "PAS")
    assert "PAS of case m1 is locked. Unlock it first" in line
    assert f"pancluster versions {root} --case m1 --stain PAS --unlock" in line
    assert "is locked" in refuse(capsys, *words, "--revert", before["kept"][0]["name"])
    call(capsys, "versions", root, "--stain", "CD3", "--lock")
    rows = call(capsys, "register", root)["results"]
    assert [(r["stain"], r["locked"], r["reason"]) for r in rows] == [
        ("PAS", True, "Outlines agree."),
        ("CD3", True, "Outlines agree."),
    ]
    assert call(capsys, *words)["versions"] == [before]
    assert call(capsys, *words, "--unlock")["versions"][0]["locked"] is False


def test_what_cannot_be_done_is_refused_in_one_line(root: Path, capsys: Capture) -> None:
    before = (root / "project.json").read_bytes()
    words = ("versions", root)
    assert "has no version 'x'" in refuse(capsys, *words, "--revert", "x")
    assert "'IHC' is no moving stain" in refuse(capsys, *words, "--stain", "IHC")
    assert "no case 'm2'" in refuse(capsys, *words, "--case", "m2", "--lock")
    assert "not allowed with" in refuse(capsys, *words, "--lock", "--unlock")
    assert "expected 2 arguments" in refuse(capsys, *words, "--rename", "x")
    assert "no name for a version" in refuse(capsys, *words, "--keep", " ")
    assert (root / "project.json").read_bytes() == before


def test_an_action_for_several_stains_is_done_for_all_or_none(root: Path, capsys: Capture) -> None:
    call(capsys, "versions", root, "--stain", "PAS", "--keep", "good")
    assert "CD3 of case m1 has no version 'good'" in refuse(
        capsys, "versions", root, "--rename", "good", "better"
    )
    pas, cd3 = call(capsys, "versions", root)["versions"]
    assert (pas["current"]["name"], cd3["current"]["name"]) == ("good", None)


def test_people_see_a_line_a_version(root: Path, capsys: Capture) -> None:
    assert main(["versions", str(root), "--stain", "PAS", "--keep", "bent", "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "bent" in out and "automatic" in out and "in use" in out
