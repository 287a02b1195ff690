"""Commands that carry things through a registration: warp, transforms, transfer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_pancluster.cli import main
from napari_pancluster.core import artefacts
from napari_pancluster.core.pipeline.opening import registration_key
from napari_pancluster.core.project import Project
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.transform import Transform


def _json(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, Any]:
    assert main([*map(str, words), "--json"]) == 0
    return dict(json.loads(capsys.readouterr().out))


@pytest.fixture
def root(islands: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A project of one slide twice, the second said to lie 100 µm lower and 60 µm to the left."""
    path = tmp_path / "p.pancluster"
    _json(
        capsys, "new", path, "--slide", f"HE={islands}", "--slide", f"PAS={islands}", "--case", "m1"
    )
    project = Project.open(path)
    case = project.state.cases[0]
    affine = np.array([[1, 0, 100.0], [0, 1, -60.0], [0, 0, 1]])
    inputs = tuple(s.token for s in case.stains)
    summary = {"status": "ok", "stain": "PAS", "mpp_estimated": None}
    with project.writing(registration_key("m1", "PAS"), inputs, summary) as folder:
        artefacts.write_transform(folder, Transform("HE", "PAS", affine))
    return path


def test_annotations_go_either_way(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ring = [[100, 100], [300, 100], [300, 200], [100, 200], [100, 100]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"name": "Duct"},
    }
    (tmp_path / "a.geojson").write_text(json.dumps(feature))
    there, back = tmp_path / "b.geojson", tmp_path / "c.geojson"
    words = ("transfer", root, "--case", "m1")
    _json(capsys, *words, "--from", "HE", "--to", "PAS", tmp_path / "a.geojson", there)
    _json(capsys, *words, "--from", "PAS", "--to", "HE", there, back)

    def corners(path: Path) -> tuple[np.ndarray, str]:
        (found,) = json.loads(path.read_text())["features"]
        ends = np.array(found["geometry"]["coordinates"][0])
        return np.array([ends.min(0), ends.max(0)]), found["properties"]["name"]

    # 2 µm a pixel: 50 px lower, 30 px to the left.
    assert np.allclose(corners(there)[0], [[70, 150], [270, 250]], atol=0.01)
    assert np.allclose(corners(back)[0], [[100, 100], [300, 200]], atol=0.01)
    assert corners(back)[1] == "Duct"


def test_labels_are_carried(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labels = np.zeros((160, 250), np.uint8)
    labels[20:40, 60:90] = 7
    meta = {"axes": "YX", "PhysicalSizeX": 8.0, "PhysicalSizeY": 8.0}
    tifffile.imwrite(tmp_path / "l.ome.tif", labels, metadata=meta)
    out = tmp_path / "m.ome.tif"
    words = ("transfer", root, "--case", "m1", "--from", "PAS", "--to", "HE")
    _json(capsys, *words, tmp_path / "l.ome.tif", out)
    rows, cols = np.nonzero(tifffile.imread(out))
    # What lies at 160 µm down in PAS lies 100 µm higher in HE, and 60 µm further right.
    assert abs(rows.min() * 8 - 60) <= 8 and abs(cols.min() * 8 - 540) <= 8
    assert open_slide(out).mpp == 8.0


def test_registered_slides_and_transforms_are_written(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = _json(capsys, "warp", root, tmp_path / "out", "--format", "ome-zarr")
    slide = open_slide(Path(said["files"][0]))
    assert (slide.format, slide.shape, slide.mpp) == ("ome-zarr", (640, 1000), 2.0)
    files = _json(capsys, "transforms", root, tmp_path / "itk")["files"]
    assert [Path(f).name for f in files] == ["m1_PAS.h5", "m1_PAS.json"]
    assert (
        main(["transfer", str(root), "--case", "m1", "--from", "HE", "--to", "PAS", "x.txt", "y"])
        == 2
    )
    assert "neither GeoJSON" in capsys.readouterr().err
