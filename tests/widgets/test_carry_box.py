"""The box that carries files between stains, and writes transforms and registered slides."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from napari_pancluster._widgets.carry_box import CarryBox
from napari_pancluster.core import artefacts
from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.pipeline.opening import registration_key
from napari_pancluster.core.project import Project
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.transform import Transform

REPORT: dict[str, Any] = {
    "stain": "PAS",
    "status": "ok",
    "reason": "Outlines agree.",
    "mpp_estimated": None,
    "rotation_deg": 0.0,
    "flipped": False,
    **dict.fromkeys(("dice_before", "dice_after", "similarity_before", "similarity_after"), 0.5),
    "folding_fraction": 0.0,
    "tre_um": None,
    "seconds": 1.0,
}


@pytest.fixture
def project(islands: Path, tmp_path: Path) -> Project:
    """Two cases of one slide twice: the second is said to lie 100 µm lower, 60 µm to the left."""
    entries = [SlideEntry(c, s, islands) for c in ("m1", "m2") for s in ("HE", "PAS")]
    found = Project.create(tmp_path / "p.pancluster", make_cases(entries))
    affine = np.array([[1, 0, 100.0], [0, 1, -60.0], [0, 0, 1]])
    for case in found.state.cases:
        inputs = tuple(s.token for s in case.stains)
        with found.writing(registration_key(case.name, "PAS"), inputs, REPORT) as folder:
            artefacts.write_transform(folder, Transform("HE", "PAS", affine))
    return found


@pytest.fixture
def box(main: Any, project: Project, qtbot: Any, wait: Callable[..., None]) -> Iterator[CarryBox]:
    """The box over the first case."""
    found = CarryBox(main.viewer, main.session, main.work)
    found.complained.connect(main.bar.complain)
    qtbot.addWidget(found)
    assert not found.isEnabled()
    main.open_project(project.root)
    wait(lambda: main.session.stack is not None)
    yield found
    found.close_session()


def _told(box: CarryBox) -> str:
    return "" if box._told.isHidden() else box._told.text()


def test_points_are_carried_and_told(
    box: CarryBox, tmp_path: Path, wait: Callable[..., None]
) -> None:
    assert box.isEnabled() and (box.from_.currentText(), box.to.currentText()) == ("HE", "PAS")
    (tmp_path / "a.csv").write_text("x,y,name\n100,200,a\n10,20,b\n")
    box.file.setText(str(tmp_path / "a.csv"))
    assert box._proposed_name(tmp_path / "a.csv") == "a_on_PAS.csv"
    box.carry(tmp_path / "b.csv")
    wait(lambda: bool(_told(box)))
    with (tmp_path / "b.csv").open() as file:
        rows = list(csv.DictReader(file))
    # 2 µm a pixel: 50 px lower, 30 px to the left, and one of them off the slide.
    assert [(float(r["x"]), float(r["y"]), r["name"]) for r in rows] == [
        (70, 250, "a"),
        (-20, 70, "b"),
    ]
    assert "2 points carried from HE to PAS (1 off its slide)" in _told(box)
    assert "b.csv" in _told(box) and str(tmp_path) in _told(box) and not box._show.isHidden()


def test_annotations_go_the_other_way(
    main: Any, box: CarryBox, tmp_path: Path, wait: Callable[..., None]
) -> None:
    ring = [[100, 100], [300, 100], [300, 200], [100, 200], [100, 100]]
    feature = {
        "type": "Feature",
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {"name": "Duct"},
    }
    (tmp_path / "a.geojson").write_text(json.dumps(feature))
    box.from_.setCurrentText("PAS")
    box.to.setCurrentText("HE")
    # A job that ends shows the project anew; what was chosen stays.
    main.session.show_project(Project.open(main.session.project.root))
    box.file.setText(str(tmp_path / "a.geojson"))
    box.carry(tmp_path / "b.json")
    wait(lambda: bool(_told(box)))
    (found,) = json.loads((tmp_path / "b.json").read_text())["features"]
    corners = np.array(found["geometry"]["coordinates"][0])
    assert np.allclose([corners.min(0), corners.max(0)], [[130, 50], [330, 150]], atol=0.01)
    assert "1 object carried from PAS to HE, in" in _told(box)


def test_labels_are_carried(box: CarryBox, tmp_path: Path, wait: Callable[..., None]) -> None:
    labels = np.zeros((160, 250), np.uint8)
    labels[20:40, 60:90] = 7
    meta = {"axes": "YX", "PhysicalSizeX": 8.0, "PhysicalSizeY": 8.0}
    tifffile.imwrite(tmp_path / "l.ome.tif", labels, metadata=meta)
    box.file.setText(str(tmp_path / "l.ome.tif"))
    assert box._proposed_name(tmp_path / "l.ome.tif") == "l_on_PAS.ome.tif"
    box.carry(tmp_path / "m.ome.tif")
    wait(lambda: bool(_told(box)))
    rows, cols = np.nonzero(tifffile.imread(tmp_path / "m.ome.tif"))
    assert abs(rows.min() * 8 - 260) <= 8 and abs(cols.min() * 8 - 420) <= 8
    assert "Label image carried from HE to PAS, 250 × 160 px" in _told(box)


def test_transforms_are_written_of_this_case_or_of_all(
    box: CarryBox, tmp_path: Path, wait: Callable[..., None]
) -> None:
    assert not box.all_cases.isHidden()
    box.write_transforms(tmp_path / "one")
    wait(lambda: bool(_told(box)))
    assert sorted(p.name for p in (tmp_path / "one").iterdir()) == ["m1_PAS.h5", "m1_PAS.json"]
    assert _told(box).startswith("1 transform written") and "m1_PAS.h5" in _told(box)
    box.all_cases.setChecked(True)
    box.write_transforms(tmp_path / "all")
    wait(lambda: "2 transforms written" in _told(box))
    assert len(list((tmp_path / "all").glob("*.h5"))) == 2


@pytest.mark.parametrize(
    ("format_", "name"), [("OME-TIFF", "m1_PAS.ome.tif"), ("OME-Zarr", "m1_PAS.ome.zarr")]
)
def test_registered_slides_are_written(
    box: CarryBox, tmp_path: Path, wait: Callable[..., None], format_: str, name: str
) -> None:
    box.format.setCurrentText(format_)
    box.write_slides(tmp_path / "out")
    wait(lambda: bool(_told(box)))
    assert [p.name for p in (tmp_path / "out").iterdir()] == [name]
    slide = open_slide(tmp_path / "out" / name)
    assert slide.shape == (640, 1000) and slide.mpp == 2.0
    assert "1 registered slide written" in _told(box) and name in _told(box)


def test_cancelled_slides_leave_nothing(
    main: Any, box: CarryBox, tmp_path: Path, wait: Callable[..., None]
) -> None:
    box.all_cases.setChecked(True)
    box.write_slides(tmp_path / "out")
    wait(lambda: main.jobs.busy)
    main.jobs.cancel()
    wait(lambda: not main.jobs.busy)
    assert "cancelled" in main.bar.message and _told(box) == ""
    folder = tmp_path / "out"
    assert not folder.exists() or not list(folder.iterdir())


def test_what_is_wrong_is_told_before_anything_runs(
    main: Any, box: CarryBox, tmp_path: Path
) -> None:
    told: list[str] = []
    box.complained.connect(told.append)
    good = tmp_path / "a.csv"
    good.write_text("x,y\n1,2\n")

    def wrong(file: str, target: Path, words: str) -> None:
        told.clear()
        box.file.setText(file)
        box.carry(target)
        assert len(told) == 1 and words in told[0], told
        assert not main.jobs.busy and _told(box) == ""

    wrong("", tmp_path / "b.csv", "Choose the file")
    wrong(str(tmp_path / "a.xlsx"), tmp_path / "b.csv", "none of the files")
    wrong(str(tmp_path / "gone.csv"), tmp_path / "b.csv", "There is no file")
    wrong(str(good), tmp_path / "b.geojson", "does not end in .csv")
    wrong(str(good), good, "would be overwritten")
    assert good.read_text() == "x,y\n1,2\n"
    box.to.setCurrentText("HE")
    wrong(str(good), tmp_path / "b.csv", "both HE")


def test_a_broken_file_is_told_in_one_sentence(
    main: Any, box: CarryBox, tmp_path: Path, wait: Callable[..., None]
) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,two\n")
    box.file.setText(str(tmp_path / "a.csv"))
    box.carry(tmp_path / "b.csv")
    wait(lambda: "not a number" in main.bar.message)
    assert "line 2" in main.bar.message and _told(box) == ""
    assert not (tmp_path / "b.csv").exists()


def test_another_case_is_told_nothing_of_the_one_before(
    main: Any, box: CarryBox, tmp_path: Path, wait: Callable[..., None]
) -> None:
    box.write_transforms(tmp_path / "one")
    wait(lambda: bool(_told(box)))
    main.session.show_case("m2")
    assert _told(box) == "" and not box.isEnabled()
    wait(lambda: box.isEnabled())
    box.write_transforms(tmp_path / "two")
    wait(lambda: bool(_told(box)))
    assert "m2_PAS.h5" in _told(box)
