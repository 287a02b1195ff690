"""The box of versions: what it lists, what it lets be done, and that the window follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from qtpy.QtWidgets import QInputDialog

from napari_pancluster._widgets.jobs import Job
from napari_pancluster._widgets.versions_box import VersionsBox
from napari_pancluster.core import artefacts
from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.pipeline.opening import registration_key
from napari_pancluster.core.pipeline.versions import Versions, succeed
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import Project
from napari_pancluster.core.transform import Transform


def registered(
    project: Project, shift: float, *, stain: str = "PAS", status: str = "ok", reason: str = ""
) -> None:
    """Commit a registration as the step does: a shift in µm, or a failed one."""
    case = project.state.cases[0]
    inputs = (case.stain("HE").token, case.stain(stain).token)
    summary = {
        "stain": stain,
        "status": status,
        "reason": reason or "Outlines agree.",
        "mpp_estimated": None,
        "rotation_deg": 0.0,
        "flipped": False,
        "dice_after": 0.9,
        "tre_um": None,
    }
    key = registration_key(case.name, stain)
    with project.writing(key, inputs, summary, place=succeed) as folder:
        if status != "failed":
            affine = np.array([[1, 0, shift], [0, 1, 0.0], [0, 0, 1]])
            artefacts.write_transform(folder, Transform("HE", stain, affine))


@pytest.fixture
def project(islands: Path, tmp_path: Path) -> Project:
    """PAS registered twice, 200 µm apart; CD3 once; IHC not yet."""
    entries = [SlideEntry("block", stain, islands) for stain in ("HE", "PAS", "CD3", "IHC")]
    project = Project.create(tmp_path / "p.pancluster", make_cases(entries))
    registered(project, 200.0)
    registered(project, 0.0)
    registered(project, 0.0, stain="CD3")
    return project


@pytest.fixture
def box(main: Any, project: Project, wait: Callable[..., None], qtbot: Any) -> Iterator[Any]:
    """The box over an open project."""
    found = VersionsBox(main.viewer, main.session, main.work, main.jobs)
    found.complained.connect(main.bar.complain)
    qtbot.addWidget(found)
    found.show()
    main.open_project(project.root)
    wait(lambda: main.session.stack is not None)
    yield found
    found.close_session()


def texts(box: Any, column: int = 0) -> list[str]:
    return [box.table.item(row, column).text() for row in range(box.table.rowCount())]


def top_of_tissue(main: Any) -> float:
    """Return the first row (µm) where the registered PAS is not glass, as its layer shows it."""
    layer = main.viewer.layers["PAS (registered)"]
    rgb = np.asarray(layer.data[-1]).astype(float)
    step = main.session.stack.extent.height / rgb.shape[0]
    return float(np.flatnonzero(rgb.min((1, 2)) < 200)[0] * step)


def test_the_versions_of_the_chosen_stain_are_listed(box: Any) -> None:
    assert [box.stain.itemText(n) for n in range(box.stain.count())] == ["PAS", "CD3"]
    assert texts(box) == ["in use: automatic", "automatic"]
    assert box.table.item(1, 0).toolTip().startswith("automatic, ")
    assert "Choose a version" in box._hint.text()
    assert texts(box, 2) == ["ok", "ok"] and texts(box, 3) == ["0.90", "0.90"]
    assert box.keep_as.isEnabled() and box.locked.isEnabled()
    assert not box.go_back.isEnabled() and not box.name_anew.isEnabled()
    box.choose("CD3")
    assert texts(box) == ["in use: automatic"] and box._hint.isHidden()


def test_going_back_shows_the_layers_of_that_version(
    main: Any, box: Any, wait: Callable[..., None]
) -> None:
    before = top_of_tissue(main)
    box.table.selectRow(1)
    assert box.go_back.isEnabled()
    box.go_back.click()
    wait(lambda: main.session.stack.transforms["PAS"].affine[0, 2] == 200.0)
    wait(lambda: "PAS (registered)" in main.viewer.layers)
    assert before - top_of_tissue(main) == pytest.approx(200, abs=20)
    assert [k["in_use"] for k in box.versions.describe()["kept"]] == [False, True]
    assert box.chosen["in_use"] and len(texts(box)) == 2
    assert not box.go_back.isEnabled()


def test_names_are_asked_for_and_kept(
    main: Any, box: Any, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[tuple[str, bool]] = [("before the bend", True), ("", False), ("bent", True)]
    monkeypatch.setattr(QInputDialog, "getText", lambda *_, **__: said.pop(0))
    box.keep_as.click()
    assert texts(box)[0] == "in use: before the bend" and not box.keep_as.isEnabled()
    box.table.selectRow(1)
    older = texts(box)[1]
    box.name_anew.click()
    assert texts(box)[1] == older
    box.name_anew.click()
    assert texts(box) == ["in use: before the bend", "bent"] and box.chosen["name"] == "bent"
    opened = Versions(Project.open(project.root), "block", "PAS")
    assert {k["name"] for k in opened.describe()["kept"]} == {"before the bend", "bent"}
    box.rename("before the bend")
    assert "has a version 'before the bend' already" in main.bar.message


def test_a_locked_stain_says_so_and_stays(main: Any, box: Any, project: Project) -> None:
    box.locked.click()
    assert Project.open(project.root).state.locked == (registration_key("block", "PAS"),)
    box.table.selectRow(1)
    assert not box.go_back.isEnabled() and "Unlock it to go back" in box._hint.text()
    assert box.name_anew.isEnabled()
    box.choose("CD3")
    assert not box.locked.isChecked()
    box.choose("PAS")
    assert box.locked.isChecked()
    box.locked.click()
    assert Project.open(project.root).state.locked == ()


def test_while_a_job_runs_nothing_can_be_changed_and_the_reason_is_told(
    main: Any, box: Any, wait: Callable[..., None]
) -> None:
    going = [True]

    def task() -> Task[None]:
        while going:
            yield Progress("Waiting")

    box.table.selectRow(1)
    main.jobs.start(Job("Registration", task, lambda _: None))
    buttons = (box.keep_as, box.go_back, box.name_anew, box.locked)
    assert not any(b.isEnabled() for b in buttons)
    assert box._hint.text() == "Wait until this is done: Registration." and box._hint.isVisible()
    going.clear()
    wait(lambda: not main.jobs.busy)
    assert box._hint.isHidden() and all(b.isEnabled() for b in buttons)


def test_a_registration_that_failed_is_told_where_the_one_before_stays(
    main: Any, box: Any, project: Project
) -> None:
    registered(project, 0.0, status="failed", reason="No tissue was found.")
    main.work.reload()
    assert texts(box)[0] == "in use: automatic" and texts(box, 2)[:2] == ["ok", "failed"]
    assert texts(box, 3)[1] == "–"
    assert "stays in use. No tissue was found." in box._hint.text()


def test_what_another_window_took_away_is_told_and_the_list_is_anew(
    main: Any, box: Any, project: Project
) -> None:
    other = Versions(Project.open(project.root), "block", "PAS")
    other.rename(other.describe()["kept"][0]["name"], "theirs")
    box.table.selectRow(1)
    box.go_back.click()
    assert "Choose one of those kept: 'theirs'" in main.bar.message
    assert texts(box)[1] == "theirs"


def test_a_project_without_registrations_says_so(
    main: Any, islands: Path, tmp_path: Path, qtbot: Any
) -> None:
    box = VersionsBox(main.viewer, main.session, main.work, main.jobs)
    qtbot.addWidget(box)
    assert "Nothing of this case is registered" in box._hint.text()
    cases = make_cases([SlideEntry("block", "HE", islands)])
    main.open_project(Project.create(tmp_path / "q.pancluster", cases).root)
    assert box.table.rowCount() == 0 and not box.locked.isEnabled()
    box.close_session()
