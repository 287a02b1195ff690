"""What the window reads from a project, what it keeps there, and that exports follow it."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawing import TINY

from napari_pancluster.core.config import MapConfig
from napari_pancluster.core.edits import ClusterEdits, Hide, Merge, Recolour, Rename
from napari_pancluster.core.errors import ProjectError
from napari_pancluster.core.pipeline.everything import train_and_map
from napari_pancluster.core.pipeline.exporting import export, open_content
from napari_pancluster.core.pipeline.mapping import map_clusters
from napari_pancluster.core.pipeline.viewing import edits_of, open_results, save_edits
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.core.results import patches_of, typical_patches


@pytest.fixture
def project(make_project: Callable[..., Project], islands: Path) -> Project:
    found = make_project(HE=islands)
    run(train_and_map(found, {**TINY, "k": 4}, MapConfig()))
    return found


def test_every_k_at_hand_is_what_map_writes(project: Project) -> None:
    results = run(open_results(project))
    assert results.ks == (2, 3, 4) and results.k == 4 and results.embedding_name == "PCA"
    for k in results.ks:
        run(map_clusters(project, MapConfig(), k=k))
        content = open_content(project)
        assert np.array_equal(results.labels(k, ClusterEdits(k)), content.row_labels)
        certainty = np.round(255 * content.clustering.certainty)
        assert np.array_equal(results.certainty[k], certainty.astype(np.uint8))
    assert np.isfinite(results.coords).all() and results.coords.std(0).min() > 0


def test_patches_are_what_the_stack_reads_where_the_map_says(project: Project) -> None:
    results = run(open_results(project))
    row = 37
    grid, stack = results.table.grids[0], results.stacks["block"]
    ((patch,),) = patches_of(results, [row])
    top, left = (grid.index[row] + 0.5) * grid.stride_px - grid.patch_px / 2
    level = stack.stain("HE").slide.read_level(0, int(top), int(left), 64, 64)
    assert patch.shape == (64, 64, 3)
    # Glass is shown white: the slide's own glass is 243.
    assert np.abs(patch.astype(float) - level.astype(float) * 255 / 243).max() < 4
    labels = results.labels(2, ClusterEdits(2))
    largest = int(np.bincount(labels).argmax())
    rows, names, columns = typical_patches(results, labels, largest, 3)
    assert names == ("HE",) and len(rows) == len(columns) == 3
    assert (labels[rows] == largest).all()
    assert typical_patches(results, labels, 9, 3)[0] == []


def test_exports_follow_the_user_s_edits(project: Project, tmp_path: Path) -> None:
    before = open_content(project).row_labels
    # A run this short may leave a cluster empty.
    first, second, *_ = (int(n) for n in np.unique(before))
    other = next(n for n in range(1, 5) if n not in (first, second))
    edits = ClusterEdits(4).extend(
        [
            Merge(labels=(first, second), into=first),
            Rename(label=first, name="Stroma"),
            Recolour(label=other, colour="#010203"),
            Hide(label=other),
        ]
    )
    save_edits(project, project.runs()[-1], edits)
    run(export(Project.open(project.root), tmp_path / "out", ["ome-tiff", "csv", "png"]))
    image = tifffile.imread(tmp_path / "out" / "block_clusters.ome.tif")
    assert set(np.unique(image)) - {0} == set(np.unique(edits.lookup[before]))
    with (tmp_path / "out" / "patches.csv").open() as file:
        names = {int(r["label"]): r["name"] for r in csv.DictReader(file)}
    assert names[first] == "Stroma" and second not in names
    with (tmp_path / "out" / "clusters.csv").open() as file:
        rows = {int(r["label"]): r for r in csv.DictReader(file)}
    assert tuple(rows) == edits.labels and rows[other]["color"] == "#010203"
    assert int(rows[first]["patches"]) == np.isin(before, (first, second)).sum()


def test_edits_belong_to_their_run_and_k(project: Project) -> None:
    run_id = project.runs()[-1]
    save_edits(project, run_id, ClusterEdits(3).then(Rename(label=1, name="Ducts")))
    again = Project.open(project.root)
    assert edits_of(again, run_id, 3).name(1) == "Ducts"
    assert edits_of(again, run_id, 4) == ClusterEdits(4)
    record = again.artefact(f"edits/{run_id}/3")
    assert record is not None
    (again.folder(record) / "edits.json").write_text('{"k": 3, "operations": [{"kind": "x"}]}')
    with pytest.raises(ProjectError, match="cannot be read"):
        edits_of(again, run_id, 3)


def test_a_registered_stain_s_pyramid_is_what_the_stack_reads(project: Project) -> None:
    stack = run(open_results(project)).stacks["block"]
    mpp, levels = stack.pyramid("HE")
    assert mpp == 2.0 and [x.shape for x in levels] == [(640, 1000, 3), (320, 500, 3)]
    (whole,) = stack.pictures(("HE",), stack.extent, mpp)
    part = np.asarray(levels[0][100:300, 500:700])
    assert np.array_equal(part, whole[100:300, 500:700])
