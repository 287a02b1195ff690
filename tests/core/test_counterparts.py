"""Names and colours that a new map inherits from an old one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from napari_pancluster.core import artefacts
from napari_pancluster.core.counterparts import NamedMap, carried_in_words, counterparts, inherited
from napari_pancluster.core.edits import ClusterEdits, Merge, Recolour, Rename
from napari_pancluster.core.latents import Clustering, Latents
from napari_pancluster.core.patches import PatchGrid, PatchTable
from napari_pancluster.core.pipeline.naming_over import carry_names, name_map
from napari_pancluster.core.pipeline.viewing import edits_of, save_edits
from napari_pancluster.core.project import Project

OLD = """
112233
112233
112233
445566
445566
"""


def drawn(text: str, edits: ClusterEdits, stride_px: int = 16) -> NamedMap:
    """Return a map drawn with digits; a dot is no tissue."""
    cells = np.array([[0 if c == "." else int(c) for c in line] for line in text.split()])
    index = np.argwhere(cells > 0).astype(np.int32)
    table = PatchTable((PatchGrid("block", 2.0, 32, stride_px, index, cells.shape),))
    return NamedMap(table, edits.lookup[cells[cells > 0]], edits)


def doubled(text: str) -> str:
    """Return the same map with cells of half the side."""
    lines = ["".join(2 * c for c in line) for line in text.split()]
    return "\n".join(line for line in lines for _ in range(2))


def test_names_find_their_tissue_again_whatever_label_and_stride() -> None:
    edits = ClusterEdits(6).extend(
        [
            Rename(label=1, name="Ducts"),
            Recolour(label=3, colour="#00ff7f"),
            Merge(labels=(4, 5), into=4),
            Rename(label=4, name="Stroma"),
            Rename(label=6, name="Fat"),
            Rename(label=2, name="Islets"),
            Rename(label=2, name=""),
        ]
    )
    new = drawn(doubled(OLD.translate(str.maketrans("123456", "351227"))), ClusterEdits(7), 8)
    pairs = counterparts(drawn(OLD, edits), new)
    assert {p.old: p.new for p in pairs} == {1: 3, 2: 5, 3: 1, 4: 2, 6: 7}
    assert all(p.overlap == 1 for p in pairs)
    named = new.edits.extend(inherited(edits, pairs))
    assert [named.name(n) for n in (3, 2, 7)] == ["Ducts", "Stroma", "Fat"]
    # A colour alone carries over alone, and what the user gave up does not.
    assert named.given == {1, 2, 3, 7} and named.colour(1) == "#00FF7F"
    assert named.given_name(1) == ""


def test_what_has_no_counterpart_is_new() -> None:
    # The old cluster 1 falls into thirds; tissue that only one map has does not count against it.
    old = drawn("111222\n111222\n111222\n......", ClusterEdits(2))
    new = drawn("134222\n134222\n134222\n222222", ClusterEdits(4))
    assert {p.old: p.new for p in counterparts(old, new)} == {1: 1, 2: 2}
    quarters = drawn("134522\n134522", ClusterEdits(5))
    halves = drawn("111122\n111122", ClusterEdits(2))
    assert [(p.old, p.new, p.overlap) for p in counterparts(halves, quarters)] == [(2, 2, 1.0)]
    elsewhere = replace(old, table=PatchTable((replace(old.table.grids[0], case="another"),)))
    assert counterparts(elsewhere, new) == ()


def keep_map(project: Project, run: str, found: NamedMap) -> tuple[PatchTable, Clustering]:
    """Write a map as a run's own, without a network."""
    k = found.edits.k
    clustering = Clustering(k, (found.labels - 1).astype(np.uint8), np.eye(k)[found.labels - 1])
    with project.writing(f"train/{run}", (), {"k": k}, id_=run):
        pass
    with project.writing(f"latents/{run}", (run,), {}) as folder:
        latents = np.zeros((len(found.table), 2), np.float32)
        artefacts.write_latents(folder, found.table, Latents(latents))
    record = project.artefact(f"latents/{run}")
    assert record is not None
    with project.writing(f"map/{run}", (run, record.id), {"k": k}) as folder:
        artefacts.write_clustering(folder, clustering)
    return found.table, clustering


@pytest.fixture
def project(make_project: Callable[..., Project], islands: Path) -> Project:
    return make_project(HE=islands)


def test_a_new_run_takes_over_what_was_named_last(project: Project) -> None:
    keep_map(project, "a", drawn(OLD, ClusterEdits(6)))
    new = keep_map(project, "b", drawn(OLD.translate(str.maketrans("123456", "615432")).replace(
        "44", "7."), ClusterEdits(7)))  # fmt: skip
    assert carry_names(project, "b", *new) is None
    assert project.artefact("edits/b/7") is None
    edits = ClusterEdits(6).extend(
        [
            Rename(label=1, name="Ducts"),
            Rename(label=2, name="Islets"),
            Rename(label=4, name="Vessels"),
        ]
    )
    save_edits(project, "a", edits)
    names = carry_names(project, "b", *new)
    assert names is not None and (names["run"], names["k"]) == ("a", 6)
    assert [(c["from"], c["label"], c["name"]) for c in names["carried"]] == [
        (2, 1, "Islets"),
        (1, 6, "Ducts"),
        (4, 7, "Vessels"),
    ]
    assert (names["new"], names["left"]) == ([4], [])
    words = carried_in_words(names)
    assert words == (
        "Names of 3 clusters carried over from the map before; 1 cluster is new: Cluster 4."
    )
    assert edits_of(project, "b", 7).name(6) == "Ducts"


def test_nothing_is_carried_over_what_the_user_has_edited(project: Project) -> None:
    keep_map(project, "a", drawn(OLD, ClusterEdits(6)))
    keep_map(project, "b", drawn(OLD, ClusterEdits(6)))
    save_edits(project, "b", ClusterEdits(6).then(Rename(label=3, name="Mine")))
    save_edits(project, "a", ClusterEdits(6).then(Rename(label=3, name="Theirs")))
    assert name_map(project, "b") is None
    assert edits_of(project, "b", 6).name(3) == "Mine"
    # Edits that cannot be read keep nobody from mapping.
    keep_map(project, "c", drawn(OLD, ClusterEdits(6)))
    record = project.artefact("edits/a/6")
    assert record is not None
    (project.folder(record) / "edits.json").write_text("[")
    names = name_map(project, "c")
    assert names is not None and names["run"] == "b"
