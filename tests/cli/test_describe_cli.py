"""`pancluster describe`: what the clusters of a project are, as JSON, CSV and a picture."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from napari_pancluster.cli import main
from napari_pancluster.core import artefacts
from napari_pancluster.core.edits import ClusterEdits, Merge, Rename
from napari_pancluster.core.latents import Clustering, Latents
from napari_pancluster.core.patches import PatchGrid, PatchTable
from napari_pancluster.core.pipeline.viewing import save_edits
from napari_pancluster.core.project import Project

CASES = ("m1", "m2", "m3")


def call(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> Any:
    """Run a command with --json; return its object, or its line on stderr where it must fail."""
    assert main([*map(str, arguments), "--json", "--quiet"]) == code
    out, err = capsys.readouterr()
    if code:
        assert out == "" and err.count("\n") == 1
        return err
    return json.loads(out)


@pytest.fixture
def project(capsys: pytest.CaptureFixture[str], islands: Path, tmp_path: Path) -> Path:
    """Three mapped cases of two islands; the clusters 1 and 3 of the left one are merged."""
    sheet = tmp_path / "slides.csv"
    lines = [f"{case},HE,{islands},{group}" for case, group in zip(CASES, "aab", strict=True)]
    sheet.write_text("\n".join(["case,stain,path,group", *lines]))
    root = tmp_path / "p.pancluster"
    call(capsys, "new", root, "--sheet", sheet)
    found = Project.open(root)
    # Cells of 40 px: the islands' columns 2 to 10 and 14 to 22 of 25, rows 3 to 12 of 16.
    cells = np.zeros((16, 25), np.uint8)
    cells[3:8, 2:11], cells[8:13, 2:11], cells[3:13, 14:23] = 1, 3, 2
    index = np.argwhere(cells > 0).astype(np.int32)
    table = PatchTable(tuple(PatchGrid(case, 2.0, 40, 40, index, (16, 25)) for case in CASES))
    labels = np.tile(cells[cells > 0], len(CASES))
    with found.writing("train/r", (), {"k": 3}, id_="r"):
        pass
    with found.writing("latents/r", ("r",), {}) as folder:
        artefacts.write_latents(folder, table, Latents(np.zeros((len(labels), 2), np.float32)))
    with found.writing("map/r", ("r",), {"k": 3}) as folder:
        probabilities = np.eye(3, dtype=np.float32)[labels - 1]
        artefacts.write_clustering(folder, Clustering(3, labels - 1, probabilities))
    edits = ClusterEdits(3).extend([Merge(labels=(1, 3), into=1), Rename(label=1, name="Fine")])
    save_edits(found, "r", edits)
    return root


def write_areas(path: Path, *squares: tuple[int, int, str]) -> Path:
    """Write QuPath annotations: columns from and to, over all rows, with a class."""
    features = []
    for x0, x1, name in squares:
        ring = [[x0, 0], [x1, 0], [x1, 640], [x0, 640], [x0, 0]]
        geometry = {"type": "Polygon", "coordinates": [ring]}
        properties = {"classification": {"name": name}} if name else {}
        features.append({"type": "Feature", "geometry": geometry, "properties": properties})
    path.write_text(json.dumps(features))
    return path


def test_describe_says_what_the_clusters_are(
    capsys: pytest.CaptureFixture[str], project: Path, tmp_path: Path
) -> None:
    areas = write_areas(tmp_path / "a.geojson", (0, 460, "Left"), (460, 800, "Right"))
    options = ("--group", "group", "--annotations", areas, "--case", "m2", "--out", tmp_path / "d")
    found = call(capsys, "describe", project, *options)
    assert (found["run"], found["k"], found["missing"]) == ("r", 3, [])
    names = ["stain_od.csv", "neighbours.csv", "areas.csv", "groups.csv", "annotations.csv"]
    assert [Path(f).name for f in found["files"]] == [*names, "stain_od.png"]
    # Over all cases first, then case by case; the merged clusters are one.
    rows = {(r["case"], r["name"]): r for r in found["stain_od"]}
    assert list(rows) == [(c, n) for c in ("", *CASES) for n in ("Fine", "Cluster 2")]
    assert rows["m1", "Fine"]["patches"] == 90 and rows["", "Fine"]["patches"] == 270
    # Both tissues were drawn with a mean density of 0.15, 0.45 and 0.25.
    assert all(abs(r["mean_od"] - 0.85 / 3) < 0.03 for r in rows.values())
    # Coarse blobs of 40 px differ from patch to patch, fine grain does not.
    assert rows["", "Cluster 2"]["sd_od"] > 3 * rows["", "Fine"]["sd_od"] > 0
    touching = [(r["name"], r["neighbour_name"], r["borders"]) for r in found["neighbours"]]
    assert touching == [
        ("Fine", "Fine", 3 * 161), ("Fine", "Cluster 2", 0), ("Cluster 2", "Fine", 0),
        ("Cluster 2", "Cluster 2", 3 * 161),
    ]  # fmt: skip
    assert found["neighbours"][1]["log2_ratio"] is None
    assert [r["cells"] for r in found["areas"]] == [90] * 6
    assert found["areas"][0]["area_mm2"] == pytest.approx(90 * 0.0064)
    assert [(r["group"], r["cases"], r["name"], r["mean_share"], r["sd_share"])
            for r in found["groups"]] == [
        ("a", 2, "Fine", 0.5, 0.0), ("a", 2, "Cluster 2", 0.5, 0.0),
        ("b", 1, "Fine", 0.5, None), ("b", 1, "Cluster 2", 0.5, None),
    ]  # fmt: skip
    crossed = {(r["name"], r["class"]): r["cells"] for r in found["annotations"]}
    assert crossed == {
        ("Fine", "Left"): 90, ("Fine", "Right"): 0,
        ("Cluster 2", "Left"): 0, ("Cluster 2", "Right"): 60,
    }  # fmt: skip
    agreement = found["agreement"]
    assert (agreement["case"], agreement["stain"]) == ("m2", "HE")
    assert agreement["ari"] == pytest.approx(1) and agreement["nmi"] == pytest.approx(1)
    assert agreement["annotated_share"] == pytest.approx(150 / 180)
    with (tmp_path / "d" / "stain_od.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    assert [r["name"] for r in written] == [r["name"] for r in found["stain_od"]]
    with Image.open(tmp_path / "d" / "stain_od.png") as picture:
        assert min(picture.size) > 200


def test_what_cannot_be_described_is_one_line(
    capsys: pytest.CaptureFixture[str], project: Path, tmp_path: Path
) -> None:
    def refused(*options: object) -> str:
        return str(call(capsys, "describe", project, "--out", tmp_path / "d", *options, code=2))

    assert "no column 'sex'" in refused("--group", "sex") and "group" in refused("--group", "sex")
    bare = write_areas(tmp_path / "a.geojson", (0, 460, ""))
    assert "--case" in refused("--annotations", bare)
    assert "none with a class" in refused("--annotations", bare, "--case", "m1")
    outside = write_areas(tmp_path / "b.geojson", (1200, 1400, "Left"))
    assert "outside the slide" in refused("--annotations", outside, "--case", "m1")
    assert "no stain 'PAS'" in refused("--annotations", bare, "--case", "m1", "--stain", "PAS")
    assert "no case 'm9'" in refused("--annotations", bare, "--case", "m9")
    assert "--annotations" in refused("--case", "m1")
    assert "no run 'x'" in refused("--run", "x")
    assert not (tmp_path / "d").exists()
    found = call(capsys, "describe", project)
    assert found["files"] == [] and found["groups"] == [] and found["agreement"] is None
