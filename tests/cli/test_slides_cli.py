"""Commands about slides: info of every format, tissue, and slides that were moved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from napari_pancluster.cli import main


def _json(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


def test_info_says_what_to_beware_of(islands: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = _json(capsys, "info", islands)
    assert (said["mpp"], said["mpp_yx"], said["warnings"]) == (2.0, [2.0, 2.0], [])


def test_tissue_is_found_restricted_and_kept(
    islands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = tmp_path / "p.pancluster"
    _json(capsys, "new", root, "--slide", f"HE={islands}", "--case", "block")
    whole = _json(capsys, "tissue", root)["cases"][0]["area_mm2"]
    # Two islands of 440 × 380 px of 2 µm.
    assert whole == pytest.approx(2 * 440 * 380 * 4e-6, rel=0.06)
    ring = [[500, 0], [1000, 0], [1000, 640], [500, 640], [500, 0]]
    (tmp_path / "a.geojson").write_text(
        json.dumps({"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [ring]}})
    )
    half = _json(capsys, "tissue", root, "--annotations", tmp_path / "a.geojson")
    assert half["cases"][0]["area_mm2"] == pytest.approx(whole / 2, rel=0.02)


def test_moved_slides(islands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slide = tmp_path / "slide.ome.tif"
    slide.write_bytes(islands.read_bytes())
    root = tmp_path / "p.pancluster"
    _json(capsys, "new", root, "--slide", f"HE={slide}")
    (tmp_path / "archive").mkdir()
    slide.rename(tmp_path / "archive" / "other name.tif")
    assert main(["tissue", str(root)]) == 2
    assert "pancluster relocate" in capsys.readouterr().err
    said = _json(capsys, "relocate", root, tmp_path / "archive")
    assert said["missing"] == [] and list(said["found"]) == [str(slide)]
    _json(capsys, "tissue", root)


def test_columns_of_a_sheet_are_kept(
    islands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from napari_pancluster.core.project import Project

    sheet = tmp_path / "slides.csv"
    sheet.write_text(
        "case,stain,path,group,age,note\n"
        f"m1,HE,{islands},KPC,12,first\nm1,PAS,{islands},KPC,12,second\nm2,HE,{islands},wt,,\n"
    )
    _json(capsys, "new", tmp_path / "p.pancluster", "--sheet", sheet)
    cases = Project.open(tmp_path / "p.pancluster").state.cases
    # What differs between the slides of a case is not the case's.
    assert [c.extra for c in cases] == [{"group": "KPC", "age": "12"}, {"group": "wt"}]
