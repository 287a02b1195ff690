"""Moved slides are found again, and nothing made from them is lost."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from drawing import texture, write_slide

from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.pipeline.opening import open_stack
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.core.relocating import missing_slides, relocate


@pytest.fixture
def project(tmp_path: Path) -> Project:
    entries = []
    (tmp_path / "old").mkdir()
    for number, name in enumerate(("HE", "PAS")):
        path = tmp_path / "old" / f"{name}.ome.tif"
        write_slide(path, texture((300, 300), coarse=True, seed=number))
        entries.append(SlideEntry("case", name, path))
    return Project.create(tmp_path / "p.pancluster", make_cases(entries))


def test_moved_and_renamed_slides_are_found(project: Project, tmp_path: Path) -> None:
    tokens = [s.token for s in project.state.cases[0].stains]
    shutil.move(tmp_path / "old", tmp_path / "archive" / "2026")
    (tmp_path / "archive" / "2026" / "HE.ome.tif").rename(tmp_path / "archive" / "renamed.tif")
    # Another slide of the same name must not be taken for it.
    write_slide(tmp_path / "archive" / "HE.ome.tif", texture((300, 300), coarse=False))
    assert len(missing_slides(project)) == 2
    with pytest.raises(SlideError, match="HE.ome.tif.* is gone"):
        open_stack(project, project.state.cases[0])
    found = run(relocate(project, tmp_path / "archive"))
    assert sorted(Path(p).name for p in found.values()) == ["PAS.ome.tif", "renamed.tif"]
    again = Project.open(project.root)
    assert missing_slides(again) == []
    assert [s.token for s in again.state.cases[0].stains] == tokens
    assert open_stack(again, again.state.cases[0]).names == ("HE", "PAS")


def test_what_is_nowhere_stays_missing(project: Project, tmp_path: Path) -> None:
    (tmp_path / "old" / "PAS.ome.tif").unlink()
    before = (project.root / "project.json").read_text()
    assert run(relocate(project, tmp_path / "old")) == {}
    assert (project.root / "project.json").read_text() == before
