"""The project folder: atomic commits, orphans, staleness, versions, two windows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from napari_pancluster.core.errors import ProjectError
from napari_pancluster.core.project import Project
from napari_pancluster.core.records import FORMAT_VERSION


@pytest.fixture
def project(make_project: Callable[..., Project], islands: Path) -> Project:
    return make_project(HE=islands)


def write(project: Project, key: str, inputs: tuple[str, ...] = ()) -> str:
    with project.writing(key, inputs, {"n": 1}) as folder:
        (folder / "facts.json").write_text("{}")
    return project.state.artefacts[key].id


def folders(project: Project) -> set[str]:
    return {p.name for p in (project.root / "artefacts").glob("*/*")}


def test_a_commit_is_seen_by_who_opens_the_project(project: Project) -> None:
    id_ = write(project, "tissue/block")
    again = Project.open(project.root)
    record = again.artefact("tissue/block")
    assert record is not None and (record.id, record.summary) == (id_, {"n": 1})
    assert (again.folder(record) / "facts.json").exists()


def test_cancel_and_errors_leave_the_project_as_it_was(project: Project) -> None:
    write(project, "tissue/block")
    before = (project.root / "project.json").read_bytes()
    kept = folders(project)
    for error in (KeyboardInterrupt, GeneratorExit, ValueError):
        with pytest.raises(error), project.writing("tissue/block", (), {}) as folder:
            (folder / "half").write_text("half")
            raise error
    with (
        pytest.raises(ProjectError, match="Free some disk space"),
        project.writing("map/r", (), {}),
    ):
        raise OSError(28, "No space left on device")
    assert (project.root / "project.json").read_bytes() == before
    assert folders(project) == kept
    assert not list(project.root.glob(".*"))


def test_what_a_killed_process_left_is_collected(project: Project) -> None:
    id_ = write(project, "tissue/block")
    orphan = project.root / "artefacts" / "map" / "dead"
    orphan.mkdir(parents=True)
    (orphan / ".writer").write_text(
        json.dumps({"pid": 2**22 + 1, "host": __import__("socket").gethostname()})
    )
    replaced = id_
    write(project, "tissue/block")
    Project.open(project.root)
    assert not orphan.exists()
    assert replaced not in folders(project) and len(folders(project)) == 1


def test_a_folder_being_written_by_a_living_process_is_left_alone(project: Project) -> None:
    with project.writing("map/r", (), {}) as folder:
        Project.open(project.root)
        assert folder.exists()


def test_two_windows_keep_each_others_results(project: Project) -> None:
    other = Project.open(project.root)
    write(project, "tissue/block")
    write(other, "map/r")
    assert set(Project.open(project.root).state.artefacts) == {"tissue/block", "map/r"}


def test_staleness_follows_the_inputs_through_any_number_of_steps(project: Project) -> None:
    token = project.state.cases[0].stains[0].token
    tissue = write(project, "tissue/block", (token,))
    run = write(project, "train/r", (tissue,))
    write(project, "map/r", (run,))
    assert not any(project.is_stale(k) for k in project.state.artefacts)
    write(project, "tissue/block", (token,))
    assert project.is_stale("train/r") and project.is_stale("map/r")
    assert not project.is_stale("tissue/block")
    write(project, "tissue/block", ("slide:another@1.0",))
    assert project.is_stale("tissue/block")


def test_a_newer_project_is_not_touched(project: Project) -> None:
    path = project.root / "project.json"
    state = json.loads(path.read_text())
    state |= {"format_version": FORMAT_VERSION + 1, "written_by": "9.9", "new_field": 1}
    path.write_text(json.dumps(state))
    before = path.read_bytes()
    with pytest.raises(ProjectError, match="newer version .9.9"):
        Project.open(project.root)
    with pytest.raises(ProjectError, match="newer version"):
        write(project, "tissue/block")
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format_version": 1, "cases": 3}'])
def test_a_damaged_project_is_said_to_be(project: Project, text: str) -> None:
    (project.root / "project.json").write_text(text)
    with pytest.raises(ProjectError, match="Restore it from a backup"):
        Project.open(project.root)


def test_names_and_places(project: Project, tmp_path: Path) -> None:
    assert project.root.name == "test.pancluster"
    assert Project.open(tmp_path / "test").root == project.root
    with pytest.raises(ProjectError, match="already exists"):
        Project.create(tmp_path / "test", project.state.cases)
    with pytest.raises(ProjectError, match="is not a project"):
        Project.open(tmp_path / "other")
    (tmp_path / "file").write_text("")
    with pytest.raises(ProjectError, match="cannot be written"):
        Project.create(tmp_path / "file" / "p", project.state.cases)
    with pytest.raises(ProjectError, match="no case 'x'. It has: block"):
        project.case("x")


def test_a_batch_is_committed_whole_or_not_at_all(project: Project) -> None:
    before = (project.root / "project.json").read_bytes()
    with pytest.raises(KeyboardInterrupt), project.batch():
        write(project, "tissue/block")
        write(project, "map/r")
        assert set(project.state.artefacts) == {"tissue/block", "map/r"}
        raise KeyboardInterrupt
    assert (project.root / "project.json").read_bytes() == before
    assert not folders(project) and not project.state.artefacts
    with project.batch():
        write(project, "tissue/block")
        assert not Project.open(project.root).state.artefacts
        with project.batch():
            write(project, "map/r")
    again = Project.open(project.root)
    assert set(again.state.artefacts) == {"tissue/block", "map/r"} and len(folders(again)) == 2
