"""The main widget: opening, projects, work in the background, closing."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import TINY
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import QMessageBox, QWidget

from napari_pancluster._widgets.jobs import Job
from napari_pancluster.core.artefacts import write_embedding
from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.config import MapConfig
from napari_pancluster.core.edits import ClusterEdits, Merge, Rename
from napari_pancluster.core.embedding import Embedding
from napari_pancluster.core.pipeline.everything import train_and_map
from napari_pancluster.core.pipeline.exporting import open_content
from napari_pancluster.core.pipeline.viewing import edits_of, save_edits
from napari_pancluster.core.progress import Progress, Task, run
from napari_pancluster.core.project import Project

_IMPORTS = """
import sys
from napari_pancluster._widgets.main import MainWidget
import napari
viewer = napari.components.ViewerModel()
heavy = ("torch", "umap", "SimpleITK", "sklearn", "matplotlib")
print(",".join(n for n in heavy if n in sys.modules))
"""


@pytest.fixture(scope="session")
def mapped(islands: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a map of 2-4 clusters and no UMAP yet."""
    root = tmp_path_factory.mktemp("mapped") / "islands.pancluster"
    project = Project.create(root, make_cases([SlideEntry("block", "HE", islands)]))
    run(train_and_map(project, {**TINY, "k": 3, "epochs": 2}, MapConfig()))
    return root


@pytest.fixture
def project(mapped: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    import shutil

    return Path(shutil.copytree(mapped, tmp_path / "copy.pancluster"))


@pytest.fixture
def no_umap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the UMAP out: its import alone takes half a minute."""
    from napari_pancluster._widgets.work import Work

    monkeypatch.setattr(Work, "embed", lambda self: None)


def _settled(main: Any) -> bool:
    return main.jobs.current is None and not main.work.loader.busy


def test_the_window_opens_without_the_science(qtbot: Any) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _IMPORTS], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == ""


def test_every_control_has_a_name_and_a_tooltip(explored: Any) -> None:
    from qtpy.QtWidgets import QAbstractSpinBox, QComboBox, QPushButton, QSlider

    kinds = (QPushButton, QComboBox, QAbstractSpinBox, QSlider)
    for part in (explored, explored.scatter):
        for control in (w for kind in kinds for w in part.findChildren(kind)):
            if not isinstance(control, QPushButton):
                assert control.accessibleName(), control
            named = control.toolTip() or control.parentWidget().toolTip()
            text = getattr(control, "text", lambda: "")()
            assert named or text in ("", "More settings", *_HEAD), (control, text)


_HEAD = ("Register", "Train and map", "Map", "Compute UMAP")


def test_a_project_opens_with_slides_map_and_pca(
    main: Any, mapped: Path, wait: Callable[..., None], no_umap: None
) -> None:
    assert main.open_project(mapped)
    wait(lambda: main.session.results is not None and _settled(main))
    session = main.session
    assert session.k == 3 and session.results.embedding_name == "PCA"
    assert [layer.name for layer in main.viewer.layers] == ["HE", "Clusters", "Selection"]
    assert np.array_equal(main.tissue.map.data, session.label_image())
    assert main.scatter._title.text() == "PCA for now"
    content = open_content(Project.open(mapped))
    assert np.array_equal(session.labels, content.row_labels)


def test_a_missing_or_newer_project_is_refused_in_a_sentence(
    main: Any, project: Path, tmp_path: Path
) -> None:
    assert not main.open_project(tmp_path / "nothing.pancluster")
    assert "is not a project" in main.bar.message
    state = project / "project.json"
    state.write_text(state.read_text().replace('"format_version": 2', '"format_version": 99'))
    assert not main.open_project(project)
    assert "newer version" in main.bar.message and main.session.project is None


def test_edits_and_k_are_kept_by_the_project(
    main: Any, project: Path, wait: Callable[..., None], no_umap: None
) -> None:
    main.open_project(project)
    wait(lambda: main.session.results is not None and _settled(main))
    session = main.session
    session.edit(Rename(label=2, name="Ducts"))
    session.choose_k(4)
    session.edit(Merge(labels=(1, 3), into=1))
    wait(lambda: session.results.k == 4 and not session.unsaved_edits() and _settled(main))
    content = open_content(Project.open(project))
    assert content.clustering.k == 4 and content.labels == (1, 2, 4)
    assert np.array_equal(content.row_labels, session.labels)
    assert main.open_project(project)
    wait(lambda: _settled(main))
    session.choose_k(3)
    assert session.edits.name(2) == "Ducts"


def test_a_full_disk_is_told_and_the_edit_stays_in_the_window(
    main: Any, project: Path, wait: Callable[..., None], no_umap: None, monkeypatch: Any
) -> None:
    main.open_project(project)
    wait(lambda: main.session.results is not None and _settled(main))

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("napari_pancluster.core.artefacts.write_edits", full)
    main.session.edit(Rename(label=1, name="Acini"))
    main.work.save_edits()
    assert "No space left" in main.bar.message and main.session.edits.name(1) == "Acini"
    assert main.session.unsaved_edits()
    monkeypatch.undo()
    main.work.save_edits()
    assert not main.session.unsaved_edits()


def test_slides_become_a_project_and_are_mapped(
    main: Any, islands: Path, tmp_path: Path, wait: Callable[..., None], no_umap: None
) -> None:
    main.slides.open_slides([str(islands)])
    (entry,) = main.slides.entries()
    assert (entry.stain, entry.path, entry.mpp, entry.reference) == ("islands", islands, "", True)
    main.slides.table.item(0, 0).setText("HE")
    main.slides.create(tmp_path / "new.pancluster", main.slides.entries(), nominal=False)
    wait(lambda: main.session.stack is not None and _settled(main))
    assert [x.name for x in main.viewer.layers] == ["HE"], "the loose slide gave way"
    for name, value in {**TINY, "epochs": 1}.items():
        form = main.train.form if name in ("epochs", "k") else main.train._more
        form[name].value = value
    main.train._go.click()
    assert main.jobs.busy and not main.train._go.isEnabled()
    wait(lambda: main.session.results is not None and _settled(main), 120)
    assert main.train._go.isEnabled() and main.tabs.tabText(2).startswith("✓")
    assert len(main.train.losses._values["reconstruction"]) >= 1
    main.export.export(tmp_path / "out")
    wait(lambda: main.export._files.text() != "" and _settled(main))
    assert (tmp_path / "out" / "case_clusters.ome.tif").exists()


def test_areas_for_every_stain_are_asked_for_by_a_tick(
    main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(main.work, "export", lambda *_, **more: asked.append(more))
    main.export._everywhere.setChecked(True)
    main.export.export(tmp_path)
    main.export._boxes["geojson"].setChecked(False)
    assert not main.export._everywhere.isEnabled()
    main.export.export(tmp_path)
    assert asked == [{"areas_everywhere": True}, {"areas_everywhere": False}]


def test_a_wrong_pixel_size_is_told_and_no_project_is_made(
    main: Any, islands: Path, tmp_path: Path, wait: Callable[..., None]
) -> None:
    main.slides.open_slides([str(islands)])
    main.slides.table.item(0, 2).setText("1000")
    main.slides.create(tmp_path / "new.pancluster", main.slides.entries(), nominal=False)
    wait(lambda: main.bar.message != "" and _settled(main))
    assert "1000" in main.bar.message and not (tmp_path / "new.pancluster").exists()
    assert main.session.project is None and len(main.slides.entries()) == 1


def test_a_broken_slide_is_told(main: Any, tmp_path: Path) -> None:
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\x00 and then nothing")
    main.slides.open_slides([str(broken)])
    assert "broken.tif" in main.bar.message and not main.slides.entries()


@pytest.mark.slow
def test_cancelling_a_training_leaves_the_project_and_offers_to_resume(
    main: Any, islands: Path, tmp_path: Path, wait: Callable[..., None], no_umap: None
) -> None:
    root = tmp_path / "cancel.pancluster"
    Project.create(root, make_cases([SlideEntry("block", "HE", islands)]))
    main.open_project(root)
    wait(lambda: main.session.stack is not None)
    before = (root / "project.json").read_bytes()
    given = {**TINY, "k": 3, "epochs": 500}
    main.work.train(given, MapConfig())
    wait(lambda: any((root / "runs").glob("*/state.safetensors")), 120)
    began = time.monotonic()
    main.jobs.cancel()
    wait(lambda: main.jobs.current is None)
    assert time.monotonic() - began < 1
    assert (root / "project.json").read_bytes() == before
    assert not main.train._resume.isHidden()


def _endless(log: list[str]) -> Task[None]:
    try:
        while True:
            yield Progress("Working")
            time.sleep(0.02)
    finally:
        log.append("closed")


def test_closing_while_something_runs_asks_and_then_stops_it(
    main: Any, wait: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    log: list[str] = []
    window = QWidget()
    main._watched = window
    main.jobs.start(Job("Training", lambda: _endless(log), print))
    wait(lambda: main.bar._stage.text() == "Working")
    answers = [QMessageBox.StandardButton.No, QMessageBox.StandardButton.Yes]
    asked: list[str] = []

    def answer(_: Any, __: str, text: str) -> Any:
        asked.append(text)
        return answers[len(asked) - 1]

    monkeypatch.setattr(QMessageBox, "question", answer)
    event = QCloseEvent()
    assert main.eventFilter(window, event) and not event.isAccepted()
    assert main.jobs.busy and not log
    assert not main.eventFilter(window, QCloseEvent())
    assert log == ["closed"] and main.jobs.current is None
    assert "Training is still running" in asked[0]


def test_closing_at_rest_asks_nothing_and_keeps_the_edits(
    main: Any, project: Path, wait: Callable[..., None], no_umap: None, monkeypatch: Any
) -> None:
    main.open_project(project)
    wait(lambda: main.session.results is not None and _settled(main))
    main.session.edit(Rename(label=1, name="Acini"))
    monkeypatch.setattr(QMessageBox, "question", lambda *_: pytest.fail("asked"))
    window = QWidget()
    main._watched = window
    assert not main.eventFilter(window, QCloseEvent())
    assert open_content(Project.open(project)).name(1) == "Acini"


def test_two_windows_on_one_project_keep_both_their_edits(
    main: Any, project: Path, wait: Callable[..., None], no_umap: None
) -> None:
    main.open_project(project)
    wait(lambda: main.session.results is not None and _settled(main))
    other = Project.open(project)
    run_id = main.session.results.run
    save_edits(other, run_id, ClusterEdits(4).then(Rename(label=1, name="Other window")))
    main.session.edit(Rename(label=1, name="This window"))
    main.work.save_edits()
    fresh = Project.open(project)
    assert edits_of(fresh, run_id, 4).name(1) == "Other window"
    assert edits_of(fresh, run_id, 3).name(1) == "This window"


def test_the_settings_page_presets_the_forms(make_napari_viewer: Any) -> None:
    from napari.settings import get_plugin_settings

    from napari_pancluster._widgets.main import MainWidget

    page = get_plugin_settings("napari-pancluster").general
    before = page.seed
    page.seed = 7
    try:
        widget = MainWidget(make_napari_viewer())
        assert widget.train.given["seed"] == 7
        widget.close_session()
    finally:
        page.seed = before


def test_closing_the_dock_for_good_lets_go_of_the_viewer(
    make_napari_viewer: Any, islands: Path
) -> None:
    from drawing import make_results

    from napari_pancluster._widgets.main import dock

    viewer = make_napari_viewer()
    main = dock(viewer)
    main.show()
    main._watched = main.window()
    results = make_results(islands)
    main.session.case = "case0"
    main.session.show_stack(results.stacks["case0"])
    main.session.show_results(results)
    assert "PanCluster scatter" in viewer.window.dock_widgets
    log: list[str] = []
    main.jobs.start(Job("Training", lambda: _endless(log), print))
    viewer.window.remove_dock_widget(main)
    assert main._closed and main.jobs.current is None
    assert "PanCluster scatter" not in viewer.window.dock_widgets
    ours = [*viewer.mouse_move_callbacks, *viewer.mouse_drag_callbacks]
    assert not any("pancluster" in callback.__module__ for callback in ours)
    again = dock(viewer)
    assert again is not main
    again.close_session()


def test_a_scatter_that_was_closed_comes_back(explored: Any) -> None:
    window = explored.viewer.window
    window.remove_dock_widget(explored._both)
    assert "PanCluster scatter" not in window.dock_widgets
    explored.session.select_labels([1])
    explored.clusters.scatter_wanted.emit()
    assert "PanCluster scatter" in window.dock_widgets
    assert np.array_equal(explored.scatter.canvas._selection, explored.session.selection)


@pytest.mark.parametrize("what", ["slides", "project", "sample"])
def test_every_way_in_leads_to_the_main_widget(
    make_napari_viewer: Any, mapped: Path, islands: Path, what: str, wait: Any, no_umap: None
) -> None:
    from napari_pancluster._widgets.main import dock

    viewer = make_napari_viewer()
    if what == "sample":
        viewer.open_sample("napari-pancluster", "pancreas")
    else:
        viewer.open(mapped if what == "project" else islands, plugin="napari-pancluster")
    assert "PanCluster (napari-pancluster)" in viewer.window.dock_widgets
    main = dock(viewer)
    if what == "project":
        wait(lambda: main.session.results is not None and _settled(main))
        assert main.session.project.root == mapped
    else:
        assert len(main.slides.entries()) == (2 if what == "sample" else 1)
        assert main.slides._create.isVisibleTo(main.slides)
    if what == "sample":
        assert [e.mpp for e in main.slides.entries()] == ["4", "4"]
        assert [x.visible for x in viewer.layers] == [True, False]
    main.close_session()


@pytest.mark.parametrize("name", ["slides", "register", "train", "clusters", "export"])
def test_every_menu_command_brings_its_panel(make_napari_viewer: Any, name: str) -> None:
    from napari._app_model import get_app_model

    from napari_pancluster._widgets.main import dock

    viewer = make_napari_viewer()
    get_app_model().commands.execute_command(f"napari-pancluster.{name}").result()
    main = dock(viewer)
    assert main.tabs.tabText(main.tabs.currentIndex()).endswith(name.capitalize())
    main.close_session()


def test_a_step_that_leaves_the_slides_alone_leaves_layers_and_view_alone(
    main: Any, project: Path, wait: Callable[..., None], no_umap: None
) -> None:
    main.open_project(project)
    wait(lambda: main.session.results is not None and _settled(main))
    slide, camera = main.viewer.layers["HE"], main.viewer.scene.camera
    camera.zoom = 3.25
    main.work.map(MapConfig(stride_px=24), 3)
    wait(lambda: main.session.grid.stride_px == 24 and _settled(main))
    assert main.viewer.layers["HE"] == slide and camera.zoom == 3.25
    assert main.tissue.map.data.shape == main.session.grid.shape


def test_a_map_at_another_stride_gets_curves_of_its_own(
    main: Any, project: Path, wait: Callable[..., None], no_umap: None
) -> None:
    main.open_project(project)
    wait(lambda: main.session.results is not None and _settled(main))
    panel, shown = main.clusters, []
    first = main.session.results.scores
    assert first is not None and not panel.curves.isHidden()
    main.session.results_changed.connect(
        lambda: shown.append((panel.curves.isHidden(), panel._how_many.text()))
    )
    main.work.map(MapConfig(stride_px=24), 3)
    wait(lambda: main.session.grid.stride_px == 24 and _settled(main))
    scores = main.session.results.scores
    assert not np.array_equal(scores.mean["silhouette"], first.mean["silhouette"])
    assert main.session.k == 3 and not panel.curves.isHidden()
    assert panel.curves._scores is scores and "Suggested" in panel._why.text()
    # Until they are there, it says so instead of offering what there is not.
    hidden, words = shown[0]
    assert hidden and "Click" not in words and "Click" in shown[-1][1]


def test_a_umap_that_arrives_later_leaves_panel_selection_and_history_alone(
    main: Any, project: Path, wait: Callable[..., None], no_umap: None
) -> None:
    main.open_project(project)
    wait(lambda: main.session.results is not None and _settled(main))
    main.session.select_labels([int(main.session.labels[0])])
    selected = main.session.selection.copy()
    main.show_panel("Export")
    coords = np.random.default_rng(0).normal(size=(len(selected), 2)).astype(np.float32)
    opened = Project.open(project)
    latents = opened.artefact(f"latents/{main.session.results.run}")
    with opened.writing(f"embed/{main.session.results.run}", (latents.id,), {}) as folder:
        write_embedding(folder, Embedding(coords, np.arange(len(coords))))
    main.work._reload()
    wait(lambda: main.session.results.embedding_name == "UMAP" and _settled(main))
    assert np.array_equal(main.scatter.canvas._coords, coords)
    assert main.tabs.tabText(main.tabs.currentIndex()) == "Export" and main.session.can_undo
    assert np.array_equal(main.session.selection, selected)
    assert np.array_equal(main.scatter.canvas._selection, selected)
    assert main.scatter._title.text() == "UMAP"


def test_closing_right_after_a_choice_of_k_keeps_it(
    main: Any, project: Path, wait: Callable[..., None], no_umap: None
) -> None:
    main.open_project(project)
    wait(lambda: main.session.results is not None and _settled(main))
    main.session.choose_k(2)
    main.close_session()
    assert open_content(Project.open(project)).clustering.k == 2
