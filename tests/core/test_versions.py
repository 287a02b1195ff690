"""Earlier registrations: kept, gone back to, named, locked; a failed one displaces no good one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_pancluster.core import project as project_module
from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.errors import InputError, ProjectError
from napari_pancluster.core.pipeline import registering
from napari_pancluster.core.pipeline.describe import step_states
from napari_pancluster.core.pipeline.opening import frame_inputs, open_stack, registration_key
from napari_pancluster.core.pipeline.registering import register
from napari_pancluster.core.pipeline.versions import (
    MOST_AUTOMATIC,
    Versions,
    choose_versions,
    version_lines,
)
from napari_pancluster.core.progress import Progress, Task, run
from napari_pancluster.core.project import Project
from napari_pancluster.core.registration import Registration
from napari_pancluster.core.registration.pair import RegistrationReport
from napari_pancluster.core.transform import Transform

KEY = registration_key("block", "PAS")


@dataclass
class Outcomes:
    """Stands for the registration itself: its n-th result is a shift by n µm down."""

    status: str = "ok"
    shifts: list[int] = field(default_factory=list)

    def __call__(self, fixed: Any, moving: Any, *_: Any) -> Task[Registration]:
        yield Progress("Aligning")
        self.shifts.append(len(self.shifts) + 1)
        report = RegistrationReport(moving.name, self.status, "Because.", dice_after=0.9)  # type: ignore[arg-type]
        if self.status == "failed":
            return Registration(None, report)
        affine = np.eye(3)
        affine[0, 2] = self.shifts[-1]
        return Registration(Transform(fixed.name, moving.name, affine), report)


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> Outcomes:
    found = Outcomes()
    monkeypatch.setattr(registering, "register_pair", found)
    return found


@pytest.fixture
def project(
    make_project: Callable[..., Project], islands: Path, two_tissues: Path, outcomes: Outcomes
) -> Project:
    """A project with a stain PAS that is registered with a shift of 1 µm."""
    project = make_project(HE=islands, PAS=two_tissues)
    again(project)
    return project


@pytest.fixture
def pas(project: Project) -> Versions:
    return Versions(project, "block", "PAS")


def again(project: Project, **options: Any) -> dict[str, Any]:
    """Register PAS once more and return its row."""
    (row,) = run(register(project, RegisterConfig(), **options))["results"]
    return dict(row)


def shift(project: Project) -> float | None:
    """Return the shift of the registration that other steps read now, from a fresh look at it."""
    opened = Project.open(project.root)
    transform = open_stack(opened, opened.case("block")).transforms.get("PAS")
    return None if transform is None else float(transform.affine[0, 2])


def names(versions: Versions) -> list[str]:
    return [k["name"] for k in versions.describe()["kept"]]


def folders(project: Project) -> set[str]:
    return {p.name for p in (project.root / "artefacts" / "register").glob("*")}


def write(project: Project, key: str, inputs: tuple[str, ...], id_: str) -> None:
    with project.writing(key, inputs, {}, id_=id_) as folder:
        (folder / "facts.json").write_text("{}")


def test_the_registration_before_is_kept_and_comes_back_with_all_that_was_made_from_it(
    project: Project, pas: Versions, outcomes: Outcomes
) -> None:
    write(project, "train/r", frame_inputs(project), "r")
    write(project, "map/r", ("r", *frame_inputs(project)), "m")
    again(project)
    assert shift(project) == 2 and step_states(project)["train"] == "stale"
    (before,) = pas.describe()["kept"]
    assert before["name"].startswith("automatic, ") and not before["in_use"]
    pas.revert(before["name"])
    opened = Project.open(project.root)
    assert shift(project) == 1 and len(outcomes.shifts) == 2
    assert (step_states(opened)["train"], step_states(opened)["map"]) == ("done", "done")
    # And there again: what was in use until then is kept.
    (later,) = [k for k in pas.describe()["kept"] if not k["in_use"]]
    pas.revert(later["name"])
    assert shift(project) == 2 and Project.open(project.root).is_stale("map/r")
    assert names(pas) == [before["name"], later["name"]]


def test_names_are_the_users_to_give(project: Project, pas: Versions) -> None:
    pas.keep("  by the\tbook ")
    assert names(pas) == ["by the book"] and pas.describe()["current"]["name"] == "by the book"
    with pytest.raises(InputError, match="kept as 'by the book' already. Rename it: .*--rename"):
        pas.keep("twice")
    again(project)
    again(project)
    first = names(pas)[0]
    pas.rename(first, "bent")
    assert names(pas) == ["bent", "by the book"]
    with pytest.raises(InputError, match="has a version 'bent' already. Choose another"):
        pas.rename("by the book", "bent")
    with pytest.raises(InputError, match="has a version 'bent' already. Choose another"):
        pas.keep("bent")
    with pytest.raises(InputError, match="no version 'x'. Choose .*: 'bent', 'by the book'"):
        pas.revert("x")
    for name in ("", "  ", "a" * 61, "a\x07b"):
        with pytest.raises(InputError, match="no name for a version. Give one of 1 to 60"):
            pas.keep(name)
    pas.revert("by the book")
    assert shift(project) == 1
    # Its name goes with it; the one in use until now had none.
    used = [k["name"] for k in pas.describe()["kept"] if k["in_use"]]
    assert used == ["by the book"] and len(names(pas)) == 3


def test_automatic_names_say_when_and_how_and_none_is_given_twice(
    project: Project, pas: Versions
) -> None:
    steered = {**project.state.artefacts[KEY].summary, "way": "landmarks"}
    record = project.state.artefacts[KEY].model_copy(
        update={"summary": steered, "created": "2026-11-02T21:03:09+00:00"}
    )
    project.change(lambda state: state.with_current(KEY, record))
    again(project)
    assert names(pas)[0].startswith("landmarks, ") and " Nov " in names(pas)[0]
    for _ in range(3):
        again(project)
    assert len(set(names(pas))) == 4


def test_only_the_last_twenty_automatic_ones_are_kept_and_all_that_are_named(
    project: Project, pas: Versions, outcomes: Outcomes
) -> None:
    pas.keep("mine")
    for number in range(MOST_AUTOMATIC + 4):
        outcomes.status = "failed" if number == 5 else "ok"
        again(project)
    kept = project.state.kept[KEY]
    assert len(kept) == MOST_AUTOMATIC + 1 and kept[0].name == "mine"
    # The failed one went first, then the two oldest, with shifts of 2 and 3 µm.
    assert all(k.record.summary["status"] == "ok" for k in kept)
    opened = Project.open(project.root)
    assert folders(opened) == {k.record.id for k in kept} | {opened.state.artefacts[KEY].id}
    oldest = names(pas)[-2]
    pas.revert(oldest)
    assert shift(project) == 4
    # The one gone back to is the last used now: it is no longer the first to go.
    again(project)
    again(project)
    assert oldest in names(pas) and "mine" in names(pas)


def test_a_failed_registration_leaves_a_good_one_in_its_place(
    project: Project, pas: Versions, outcomes: Outcomes
) -> None:
    outcomes.status = "failed"
    row = again(project)
    assert (row["case"], row["stain"], row["status"], row["reason"], row["kept"]) == (
        "block",
        "PAS",
        "failed",
        "Because.",
        "the registration before stays",
    )
    assert shift(project) == 1
    told = pas.describe()
    assert told["current"]["status"] == "ok"
    assert [k["status"] for k in told["kept"]] == ["failed"]
    outcomes.status = "doubtful"
    assert again(project)["kept"] is None and shift(project) == 3
    outcomes.status = "failed"
    again(project)
    assert shift(project) == 3


def test_a_failed_registration_takes_the_place_of_one_that_is_out_of_date_or_failed(
    project: Project, outcomes: Outcomes
) -> None:
    record = project.state.artefacts[KEY].model_copy(update={"inputs": ("slide:other@1.0",)})
    project.change(lambda state: state.with_current(KEY, record))
    outcomes.status = "failed"
    row = again(project)
    assert (row["status"], row["kept"]) == ("failed", None) and shift(project) is None
    first = project.state.artefacts[KEY].id
    again(project)
    assert project.state.artefacts[KEY].id != first


def test_a_locked_stain_is_left_alone(project: Project, pas: Versions, outcomes: Outcomes) -> None:
    again(project)
    pas.lock()
    row = again(project)
    assert row["locked"] is True and row["status"] == "ok" and shift(project) == 2
    for asked in ({"stains": ["PAS"]}, {"starts": {"PAS": np.eye(3)}}):
        with pytest.raises(InputError, match="PAS of case block is locked. Unlock it first: .*"
                           "--case block --stain PAS --unlock"):  # fmt: skip
            again(project, **asked)
    with pytest.raises(InputError, match="is locked. Unlock it first"):
        pas.revert(names(pas)[-1])
    assert shift(project) == 2 and len(outcomes.shifts) == 2
    # Nor does `run` touch it, even where the slides have changed since.
    record = project.state.artefacts[KEY].model_copy(update={"inputs": ("slide:other@1.0",)})
    project.change(lambda state: state.with_current(KEY, record))
    again(project, only_missing=True)
    assert shift(project) == 2 and len(outcomes.shifts) == 2
    pas.lock(locked=False)
    assert again(project, stains=["PAS"])["locked"] is False and shift(project) == 3


def test_a_name_means_the_unlocked_ones_where_there_are_several_cases(
    islands: Path, two_tissues: Path, tmp_path: Path, outcomes: Outcomes
) -> None:
    entries = [
        SlideEntry(case, stain, path)
        for case in ("one", "two")
        for stain, path in (("HE", islands), ("PAS", two_tissues))
    ]
    project = Project.create(tmp_path / "p", make_cases(entries))
    one, two = choose_versions(project, stain="PAS")
    with pytest.raises(InputError, match="PAS of case one is not registered yet"):
        one.lock()
    run(register(project, RegisterConfig()))
    one.lock()
    rows = run(register(project, RegisterConfig(), stains=["PAS"]))["results"]
    assert [(r["case"], r["locked"]) for r in rows] == [("one", True), ("two", False)]
    assert (names(one), len(names(two))) == ([], 1)
    with pytest.raises(InputError, match="PAS of case one is locked"):
        run(register(project, RegisterConfig(), cases=["one"], stains=["PAS"]))
    # A batch is all or nothing.
    with pytest.raises(InputError, match="PAS of case two has no version"), project.batch():
        one.keep("good")
        two.revert("good")
    assert names(Versions(Project.open(project.root), "one", "PAS")) == []
    assert [v.case for v in choose_versions(project, case="two")] == ["two"]
    with pytest.raises(InputError, match="'HE' is no moving stain .* they have: PAS"):
        choose_versions(project, stain="HE")


def test_cancel_leaves_current_and_kept_as_they_were(project: Project) -> None:
    again(project)
    before = (project.root / "project.json").read_bytes()
    kept = folders(project)
    task = register(project, RegisterConfig())
    for progress in task:
        if progress.stage == "Aligning":
            break
    task.close()
    assert (project.root / "project.json").read_bytes() == before
    Project.open(project.root)
    assert folders(project) == kept and shift(project) == 2


def test_two_windows_lose_none_of_each_others_versions(project: Project, pas: Versions) -> None:
    task = register(Project.open(project.root), RegisterConfig())
    assert next(task)
    # While that one is at work, another window registers, names and locks.
    again(project)
    pas.keep("second")
    other = Versions(Project.open(project.root), "block", "PAS")
    other.rename(names(other)[-1], "first")
    run(task)
    opened = Versions(Project.open(project.root), "block", "PAS")
    assert set(names(opened)) == {"first", "second"}
    # An old look at the project does not stand in the way of a newer name.
    pas.revert("first")
    assert shift(project) == 1 and len(names(pas)) == 3


def test_what_finishes_after_a_stain_was_locked_is_kept_beside_it(
    project: Project, pas: Versions
) -> None:
    task = register(Project.open(project.root), RegisterConfig())
    assert next(task)
    pas.lock()
    run(task)
    opened = Versions(Project.open(project.root), "block", "PAS")
    assert shift(project) == 1 and opened.locked and len(names(opened)) == 1


def test_a_project_of_format_1_opens_and_an_older_program_then_keeps_off(
    project: Project, pas: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = project.root / "project.json"
    state = json.loads(path.read_text())
    old = {k: v for k, v in state.items() if k not in ("kept", "locked")} | {"format_version": 1}
    path.write_text(json.dumps(old))
    before = path.read_bytes()
    opened = Project.open(project.root)
    assert opened.state.artefacts == project.state.artefacts and path.read_bytes() == before
    assert (opened.state.kept, opened.state.locked) == ({}, ())
    again(opened)
    assert json.loads(path.read_text())["format_version"] == 2 and len(names(pas)) == 0
    assert len(names(Versions(Project.open(project.root), "block", "PAS"))) == 1
    # A program that knows format 1 alone would drop the names and delete their folders.
    monkeypatch.setattr(project_module, "FORMAT_VERSION", 1)
    with pytest.raises(ProjectError, match="newer version"):
        Project.open(project.root)
    assert len(folders(project)) == 2


def test_what_others_commit_while_a_project_is_opened_is_no_orphan(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = project_module._read_state
    states: Iterator[Any] = iter([read(project.root)])

    def read_early(root: Path) -> Any:
        state = next(states, None)
        if state is None:
            return read(root)
        again(project)
        return state

    monkeypatch.setattr(project_module, "_read_state", read_early)
    Project.open(project.root)
    assert len(folders(project)) == 2 and shift(project) == 2


def test_a_full_disk_changes_nothing_and_is_said(
    project: Project, pas: Versions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(ProjectError, match="cannot be written .No space left"):
            pas.keep("good")
    assert not list(project.root.glob(".*")) and names(pas) == []


def test_lines_for_people_name_every_version_once(project: Project, pas: Versions) -> None:
    pas.keep("first")
    again(project)
    pas.lock()
    lines = version_lines([pas.describe()])
    assert [(x["version"], x[""]) for x in lines] == [(None, "in use, locked"), ("first", "")]
    assert len({tuple(x) for x in lines}) == 1
