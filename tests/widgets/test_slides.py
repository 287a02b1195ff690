"""The panel Slides: names proposed, sizes asked for, order, and broken files beside good ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from drawing import texture, write_slide
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QInputDialog

from napari_pancluster._widgets.slide_table import CASE, CHANNELS, MPP, REFERENCE, STAIN
from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.project import Project


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three slides of one animal; the second has no pixel size."""
    found = []
    for n, (name, mpp) in enumerate((("PAS", 0.5), ("HE", None), ("CD31", 0.25))):
        path = tmp_path / f"KPC7_{name}_20x.ome.tif"
        found.append(write_slide(path, texture((300, 400), coarse=bool(n % 2), seed=n), mpp))
    return found


@pytest.fixture
def opened(main: Any, files: list[Path], wait: Callable[..., None]) -> Any:
    """The panel with the three slides, looked at."""
    main.slides.open_slides([str(f) for f in files])
    wait(lambda: len(main.slides.lines) == 3 and all(line.look for line in main.slides.lines))
    return main.slides


def test_names_are_proposed_from_the_files(opened: Any) -> None:
    assert [line.stain for line in opened.lines] == ["PAS", "HE", "CD31"]
    assert {line.case for line in opened.lines} == {"KPC7"}
    assert [line.reference for line in opened.lines] == [False, True, False]
    assert [line.mpp for line in opened.lines] == ["0.5", "", "0.25"]
    assert "ome-tiff · 400 × 300 px" in opened.table.item(0, 5).text()
    assert "no pixel size" in opened.table.item(1, 5).toolTip()
    assert not opened.table.item(0, STAIN).icon().isNull()


def test_what_was_typed_stays_and_reaches_the_project(opened: Any) -> None:
    table = opened.table
    table.item(0, STAIN).setText("PAS-D")
    table.item(1, MPP).setText("40x")
    table.item(2, CASE).setText("KPC8")
    table.item(0, REFERENCE).setCheckState(Qt.CheckState.Checked)
    opened.refresh()
    assert [line.stain for line in opened.lines] == ["PAS-D", "HE", "CD31"]
    # One reference a case, and the slide alone in its case is its own.
    assert [line.reference for line in opened.lines] == [True, False, True]
    records = make_cases(opened.entries())
    assert [c.name for c in records] == ["KPC7", "KPC8"]
    assert [s.mpp for c in records for s in c.stains] == [0.5, 0.25, 0.25]
    assert records[0].reference == "PAS-D"


def test_reorder_and_remove(opened: Any) -> None:
    opened.table.selectRow(2)
    opened._move(-1)
    assert [line.stain for line in opened.lines] == ["PAS", "CD31", "HE"] and opened.table.row == 1
    opened._on_remove()
    assert [line.stain for line in opened.lines] == ["PAS", "HE"]
    assert len(opened._viewer.layers) == 2


def test_broken_files_spoil_nothing(
    main: Any, files: list[Path], wait: Any, tmp_path: Path
) -> None:
    (tmp_path / "text.svs").write_bytes(b"hello")
    (tmp_path / "empty.tif").write_bytes(b"")
    order = [files[0], tmp_path / "text.svs", files[1], tmp_path / "empty.tif", files[2]]
    main.slides.open_slides([str(f) for f in order])
    wait(lambda: len(main.slides.lines) == 3)
    assert "text.svs" in main.bar.message and "empty.tif is empty" in main.bar.message


def test_a_pixel_size_from_an_objective_or_a_line(opened: Any) -> None:
    opened.table.selectRow(1)
    opened.calibration._power.setCurrentIndex(2)
    opened.calibration._on_power(2)
    assert opened.lines[1].mpp == "20x" and opened.lines[0].mpp == "0.5"
    opened.table.clearSelection()
    # 200 px of the slide that is on top (0.25 µm/px) are said to be 100 µm long.
    opened.calibration.take(np.array([[0.0, 0.0], [0.0, 50.0]]), 100.0)
    assert {line.mpp for line in opened.lines} == {"0.5"}


def test_a_large_flat_slide_is_seen_while_its_overview_grows(
    main: Any, wait: Callable[..., None], tmp_path: Path
) -> None:
    image = np.full((1200, 5000, 3), 200, np.uint8)
    image[:, :2000] = 40
    tifffile.imwrite(
        tmp_path / "flat.tif", image, photometric="rgb", tile=(512, 512), compression="zlib"
    )
    grown: list[None] = []
    main.work.overview_grew.connect(lambda: grown.append(None))
    main.slides.open_slides([str(tmp_path / "flat.tif")])
    (layer,) = main.viewer.layers
    assert [level.shape[:2] for level in layer.data] == [
        (1200, 5000),
        (600, 2500),
        (300, 1250),
        (150, 625),
        (75, 313),
    ]
    wait(lambda: bool(grown))
    coarse = np.asarray(layer.data[3])
    assert (coarse[:, :240] == 40).all() and (coarse[:, 260:] == 200).all()


def test_a_project_keeps_the_overview_of_a_flat_slide(
    main: Any, wait: Callable[..., None], tmp_path: Path
) -> None:
    image = np.full((1200, 5000, 3), 240, np.uint8)
    image[200:900, 300:4000] = texture((700, 3700), coarse=True)
    path = tmp_path / "flat.tif"
    tifffile.imwrite(path, image, photometric="rgb", tile=(512, 512), compression="zlib")
    cases = make_cases([SlideEntry("case", "HE", path, "0.5")])
    root = Project.create(tmp_path / "p.pancluster", cases).root
    main.open_project(root)
    folder = root / "cache" / "overviews" / cases[0].stains[0].fingerprint
    wait(folder.is_dir)
    wait(lambda: main.jobs.current is None and not main.work.loader.busy)
    assert not main.session.stack.stain("HE").slide.lacks_overview
    assert [p.name for p in folder.parent.iterdir()] == [folder.name]


def test_moved_slides_are_found_from_the_panel(
    main: Any, files: list[Path], wait: Callable[..., None], tmp_path: Path
) -> None:
    entries = [SlideEntry("case", f.name.split("_")[1], f, "0.5") for f in files]
    root = Project.create(tmp_path / "p.pancluster", make_cases(entries)).root
    (tmp_path / "new").mkdir()
    files[1].rename(tmp_path / "new" / "renamed.tif")
    main.open_project(root)
    wait(lambda: "is gone" in main.bar.message)
    assert main.slides._find.isVisibleTo(main.slides)
    main.work.relocate(tmp_path / "new")
    wait(lambda: main.session.stack is not None)
    assert not main.slides._find.isVisibleTo(main.slides)
    assert main.session.stack.names == ("PAS", "HE", "CD31")


def test_channels_of_a_fluorescence_slide_are_chosen_in_the_table(
    main: Any, files: list[Path], wait: Callable[..., None], tmp_path: Path
) -> None:
    dyes = np.random.default_rng(0).integers(0, 3000, (4, 300, 400)).astype(np.uint16)
    names = ["DAPI", "CD3", "CD8", "PanCK"]
    meta = {"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5, "Channel": {"Name": names}}
    path = tmp_path / "KPC7_IF.ome.tif"
    tifffile.imwrite(path, dyes, ome=True, metadata=meta, photometric="minisblack")
    main.slides.open_slides([str(files[0]), str(path)])
    wait(lambda: len(main.slides.lines) == 2 and all(line.look for line in main.slides.lines))
    assert [line.stain for line in main.slides.lines] == ["PAS", "IF"]
    assert [x.name for x in main.viewer.layers][1:] == [f"KPC7_IF · {n}" for n in names]
    table = main.slides.table
    assert not table.isColumnHidden(CHANNELS) and "PanCK" in table.item(1, CHANNELS).toolTip()
    table.item(1, CHANNELS).setText("PanCK, DAPI")
    (case,) = make_cases(main.slides.entries())
    assert case.stains[1].picked == (3, 0, 0)


def test_a_line_drawn_on_a_slide_asks_for_its_length_and_leaves_the_layer_for_the_next(
    opened: Any, wait: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths = iter([(100.0, True), (0.0, False), (40.0, True)])
    monkeypatch.setattr(QInputDialog, "getDouble", lambda *_: next(lengths))
    viewer = opened._viewer
    opened.table.selectRow(1)
    for wanted in ("0.5", "0.5", "0.2"):
        opened.calibration.start_line()
        layer = viewer.layers["Line of known length"]
        assert viewer.layers.selection.active == layer
        # 50 units of the slide on top, whose pixels are 0.25.
        layer.add(np.array([[10.0, 10.0], [10.0, 60.0]]), shape_type="line")
        wait(lambda layer=layer: len(layer.data) == 0)
        assert opened.lines[1].mpp == wanted
        # Neither removed nor hidden (napari would crash), and a click is a click again.
        assert layer.visible and viewer.layers.selection.active != layer
