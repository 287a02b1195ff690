"""The steps together, on a small project: what is done, stale and missing, and what leaves it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
import tifffile
from drawing import texture, write_slide
from numpy.typing import NDArray
from PIL import Image

import napari_pancluster.core.training as core_training
from napari_pancluster.core.colouring import columns
from napari_pancluster.core.confidence import Confidence
from napari_pancluster.core.config import MapConfig, RegisterConfig, SelectConfig
from napari_pancluster.core.dataset import PatchStore, Views, view
from napari_pancluster.core.errors import InputError, ProjectError, SlideError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.patches import PatchSample
from napari_pancluster.core.pipeline import mapping, training
from napari_pancluster.core.pipeline.describe import step_states
from napari_pancluster.core.pipeline.everything import _fitting_run, run_all
from napari_pancluster.core.pipeline.exporting import export
from napari_pancluster.core.pipeline.mapping import map_clusters, select_clusters
from napari_pancluster.core.pipeline.registering import register
from napari_pancluster.core.pipeline.training import train_network
from napari_pancluster.core.pipeline.viewing import open_results
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.transform import Transform
from napari_pancluster.core.validation import select_k


@pytest.fixture
def project(make_project: Callable[..., Project], islands: Path) -> Project:
    return make_project(HE=islands)


def test_run_does_what_is_missing_once_and_only_that(
    project: Project, tiny: dict[str, Any]
) -> None:
    assert set(step_states(project).values()) == {
        "missing",
        "done",
    }  # one stain: nothing to register
    results = run(run_all(project, train={**tiny, "k": 3}))
    assert set(step_states(project).values()) == {"done"}
    assert set(results) == {"project", "register", "train", "select-k", "map", "embed"}
    assert results["map"]["k"] == results["train"]["k"] == 3
    before = project.state.artefacts
    again = run(run_all(project, train={**tiny, "k": 3}))
    assert project.state.artefacts == before
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(results))
    # Another k of the same run needs a map, and no training.
    other = run(run_all(project, train={**tiny, "k": 2}))
    assert other["map"]["k"] == 2 and len(project.runs()) == 1
    assert _fitting_run(project, {**tiny, "k": 2, "seed": 5}) is None
    assert _fitting_run(project, {**tiny, "k": 7}) is None


def test_auto_takes_the_k_that_the_indices_suggest(project: Project, tiny: dict[str, Any]) -> None:
    trained = run(train_network(project, {**tiny, "epochs": 2}))
    scores = run(select_clusters(project, SelectConfig(), MapConfig()))
    assert scores["k"] == [2, 3, 4]
    assert trained["k"] == scores["suggested_k"]
    mapped = run(map_clusters(project, MapConfig()))
    assert mapped["k"] == scores["suggested_k"]
    few = run(select_clusters(project, SelectConfig(), MapConfig(), ks=[2, 4]))
    assert few["k"] == [2, 4]


def test_exports_agree_with_each_other(
    project: Project, tiny: dict[str, Any], tmp_path: Path
) -> None:
    results = run(run_all(project, train={**tiny, "k": 3}))
    files = [
        Path(f) for f in run(export(project, tmp_path / "out", ["ome-tiff", "csv", "png"]))["files"]
    ]
    assert {f.name for f in files} == {
        "block_clusters.ome.tif",
        "patches.csv",
        "clusters.csv",
        "block_map.png",
        "block_stains.png",
        "block_density.png",
        "gallery.png",
        "umap.png",
        "k_curves.png",
    }
    labels = tifffile.imread(tmp_path / "out" / "block_clusters.ome.tif")
    with (tmp_path / "out" / "patches.csv").open() as file:
        patches = list(csv.DictReader(file))
    header = ["case", "row", "col", "x_um", "y_um", "label", "name", "probability"]
    assert list(patches[0]) == [*header, "umap_1", "umap_2", "confidence", "missing"]
    assert len(patches) == (labels > 0).sum() == results["map"]["cases"][0]["patches"]
    for row in patches[:: len(patches) // 20]:
        assert labels[int(row["row"]), int(row["col"])] == int(row["label"])
        assert float(row["x_um"]) == (int(row["col"]) + 0.5) * 32 * 2.0
        assert float(row["probability"]) > 1 / 3 - 1e-6 and row["umap_1"]
    with (tmp_path / "out" / "clusters.csv").open() as file:
        clusters = list(csv.DictReader(file))
    header = ["case", "label", "name", "color", "patches", "area_mm2", "fraction"]
    assert list(clusters[0]) == header
    areas = results["map"]["cases"][0]["area_mm2"]
    for row in clusters:
        assert int(row["patches"]) == (labels == int(row["label"])).sum()
        assert float(row["area_mm2"]) == pytest.approx(areas[row["label"]], abs=1e-6)
        assert areas[row["label"]] == pytest.approx(int(row["patches"]) * (32 * 2e-3) ** 2)
    assert sum(float(row["fraction"]) for row in clusters) == pytest.approx(1, abs=1e-4)
    for file in files:
        if file.suffix == ".png":
            pixels = np.asarray(Image.open(file).convert("RGB"))
            assert min(pixels.shape[:2]) > 150 and pixels.std() > 5, file.name


def test_a_slide_that_changed_makes_no_silent_result(
    make_project: Callable[..., Project], tmp_path: Path, tiny: dict[str, Any]
) -> None:
    path = write_slide(tmp_path / "a.ome.tif", texture((400, 400), coarse=False), 2.0)
    project = make_project(HE=path)
    run(run_all(project, train={**tiny, "epochs": 1, "k": 2}))
    write_slide(path, texture((400, 400), coarse=True), 2.0)
    with pytest.raises(SlideError, match="has changed since"):
        run(map_clusters(project, MapConfig(stride_px=16)))
    path.unlink()
    with pytest.raises(SlideError, match="is gone"):
        run(train_network(project, tiny))


def test_wrong_orders_of_steps_say_what_comes_first(
    project: Project, tiny: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ProjectError, match="no trained network yet"):
        run(map_clusters(project, MapConfig()))
    with pytest.raises(ProjectError, match="no interrupted training"):
        run(train_network(project, tiny, resume=True))
    run(train_network(project, {**tiny, "epochs": 1, "k": 2}))
    with pytest.raises(ProjectError, match="map result .* is missing"):
        run(export(project, tmp_path / "out", ["csv"]))
    with pytest.raises(InputError, match="not 9"):
        run(map_clusters(project, MapConfig(), k=9))
    with pytest.raises(InputError, match="at least 1 px"):
        run(map_clusters(project, MapConfig(stride_px=0)))
    with pytest.raises(InputError, match="'PAS' is no moving stain"):
        run(register(project, RegisterConfig(), stains=["PAS"]))
    with pytest.raises(InputError, match="larger than the tissue"):
        run(train_network(project, {**tiny, "mpp": 40.0}))
    with pytest.raises(InputError, match="--mpp 0.5 is finer than HE"):
        run(train_network(project, {**tiny, "mpp": 0.5}))
    run(map_clusters(project, MapConfig()))
    with pytest.raises(InputError, match="vtk"):
        run(export(project, tmp_path / "out", ["vtk"]))


@pytest.mark.parametrize(
    "stage", ["Finding tissue", "Cutting patches", "Training autoencoder", "Training clusters"]
)
def test_cancel_at_any_stage_leaves_the_project_as_it_was_and_resume_goes_on(
    project: Project, tiny: dict[str, Any], stage: str
) -> None:
    options = {**tiny, "epochs": 3, "k": 2}
    before = project.state
    task = train_network(project, options)
    for progress in task:
        if progress.stage.startswith(stage):
            break
    task.close()
    trained = {k for k in Project.open(project.root).state.artefacts if k.startswith("train/")}
    assert not trained and project.state.cases == before.cases
    if stage == "Finding tissue":
        return
    with pytest.raises(InputError, match="interrupted run has seed = 0, not 3"):
        run(train_network(project, {"seed": 3}, resume=True))
    resumed = run(train_network(project, {}, resume=True))
    assert resumed["epochs"] == 3 and project.runs() == [resumed["run"]]
    assert not list((project.root / "runs").iterdir())


def test_a_failed_stain_is_left_out_and_said(
    make_project: Callable[..., Project], islands: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    blank = write_slide(tmp_path / "blank.ome.tif", np.full((400, 500, 3), 243, np.uint8), 2.0)
    project = make_project(HE=islands, PAS=blank)
    said: list[str] = []
    results = run(run_all(project, train={**tiny, "epochs": 1, "k": 2}, warn=said.append))
    assert results["register"]["results"][0]["status"] == "failed"
    assert results["train"]["stains"] == ["HE"]
    assert any("PAS" in text and "left out" in text for text in said)


def test_patches_that_lie_unsurely_are_counted() -> None:
    values = np.ones((10, 10), np.float32)
    values[:, :3] = 0.1
    sure = {"PAS": Confidence(values, 10.0)}
    stack = SlideStack("block", "HE", (), confidences=sure, channels=("HE", "PAS"))
    centres = np.stack([np.full(10, 5.0), 5.0 + 10.0 * np.arange(10)], axis=1)
    other = SlideStack("other", "HE", (), channels=("HE", "PAS"))
    sample = PatchSample(np.concatenate([centres, centres]), np.repeat([0, 1], 10), 0)
    assert training._unsure([stack, other], sample, 0.2) == {"HE": 0.0, "PAS": 0.15}


def test_what_lacks_a_stain_is_mapped_and_told_but_not_learnt_from(
    make_project: Callable[..., Project],
    islands: Path,
    tmp_path: Path,
    tiny: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    gap_um = 1600.0

    def sound(self: Transform, region: Region, mpp: float) -> NDArray[np.bool_]:
        rows, cols = region.pixel_shape(mpp)
        return np.tile(region.left + (np.arange(cols) + 0.5) * mpp < gap_um, (rows, 1))

    monkeypatch.setattr(Transform, "is_sound", False)
    monkeypatch.setattr(Transform, "sound_over", sound)
    judged: list[int] = []

    def noted(latents: NDArray[np.float32], *rest: Any, **more: Any) -> Any:
        judged.append(len(latents))
        return (yield from select_k(latents, *rest, **more))

    monkeypatch.setattr(mapping, "select_k", noted)
    learnt: list[int] = []

    def seen(store: PatchStore, rows: NDArray[np.int64], *rest: Any, **more: Any) -> Views:
        assert store.present[rows].all()
        learnt.append(len(rows))
        return view(store, rows, *rest, **more)

    monkeypatch.setattr(core_training, "view", seen)
    project = make_project(HE=islands, PAS=islands)
    trained = run(run_all(project, train={**tiny, "epochs": 1}))["train"]
    assert learnt and 0 < trained["left_out"] < trained["patches"] / 2
    share = trained["left_out"] / trained["patches"]
    assert trained["lacking"] == {"HE": 0.0, "PAS": pytest.approx(share)}
    run(export(project, tmp_path / "out", ["csv", "h5ad"]))
    with (tmp_path / "out" / "patches.csv").open() as file:
        patches = list(csv.DictReader(file))
    # A patch is 128 µm wide; a tenth of it may be blank.
    edge = gap_um - 0.4 * 128
    assert {row["missing"] for row in patches if float(row["x_um"]) > edge} == {"PAS"}
    assert {row["missing"] for row in patches if float(row["x_um"]) < edge} == {""}
    assert all(0 <= float(row["confidence"]) <= 1 for row in patches)
    assert set(judged) == {sum(row["missing"] == "" for row in patches)}
    obs = anndata.read_h5ad(tmp_path / "out" / "patches.h5ad").obs
    assert list(obs["missing"]) == [row["missing"] for row in patches]
    results = run(open_results(project))
    last = len(patches) - 1
    assert patches[last]["missing"] == results.missing(last) == "PAS" and results.missing(0) == ""
    assert "Registration confidence" in columns(results)


def test_an_uncalibrated_project_has_no_areas_and_no_physical_size(
    islands: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    from napari_pancluster.core.cases import SlideEntry, make_cases

    cases = make_cases([SlideEntry("block", "HE", islands)], uncalibrated=True)
    project = Project.create(tmp_path / "px", cases)
    results = run(run_all(project, train={**tiny, "epochs": 1, "k": 2}))
    assert set(results["map"]["cases"][0]["area_mm2"].values()) == {None}
    file = run(export(project, tmp_path / "out", ["ome-tiff", "csv"]))["files"][0]
    with tifffile.TiffFile(file) as tiff:
        assert "PhysicalSize" not in tiff.ome_metadata


def test_one_model_serves_all_cases_and_a_stain_may_be_missing_in_one(
    islands: Path, two_tissues: Path, tmp_path: Path, tiny: dict[str, Any]
) -> None:
    from napari_pancluster.core.cases import SlideEntry, make_cases

    entries = [
        SlideEntry("one", "HE", islands),
        SlideEntry("one", "PAS", islands),
        SlideEntry("two", "HE", two_tissues),
    ]
    project = Project.create(tmp_path / "cohort", make_cases(entries))
    results = run(run_all(project, train={**tiny, "epochs": 2, "k": 3, "mpp": 2.0}))
    assert results["train"]["stains"] == ["HE", "PAS"]
    cases = {case["case"]: case for case in results["map"]["cases"]}
    assert set(cases) == {"one", "two"} and cases["two"]["patches"] > 0
    assert results["embed"]["points"] == sum(case["patches"] for case in cases.values())
    run(export(project, tmp_path / "out", ["ome-tiff", "csv", "png"]))
    for name, size in (("one", (20, 32)), ("two", (6, 15))):
        labels = tifffile.imread(tmp_path / "out" / f"{name}_clusters.ome.tif")
        assert labels.shape == size and (labels > 0).sum() == cases[name]["patches"]
    with (tmp_path / "out" / "patches.csv").open(newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == (
            ["one"] * cases["one"]["patches"] + ["two"] * cases["two"]["patches"]
        )
