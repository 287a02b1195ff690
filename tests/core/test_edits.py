"""Names, colours, merges and hidden clusters: append-only, and safe to read back."""

from __future__ import annotations

import numpy as np
import pytest

from napari_pancluster.core.edits import ClusterEdits, Hide, Merge, Recolour, Rename
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.palette import cluster_colour


def test_a_merge_moves_labels_and_never_gives_them_away_again() -> None:
    edits = ClusterEdits(5).then(Merge(labels=(2, 4), into=2)).then(Merge(labels=(2, 1), into=1))
    assert edits.labels == (1, 3, 5)
    assert edits.lookup[[0, 1, 2, 3, 4, 5]].tolist() == [0, 1, 1, 3, 1, 5]
    with pytest.raises(InputError, match="no cluster 4"):
        edits.then(Rename(label=4, name="gone"))
    with pytest.raises(InputError, match="at least two"):
        edits.then(Merge(labels=(3,), into=3))


def test_names_and_colours_follow_the_last_word() -> None:
    edits = ClusterEdits(3)
    assert edits.name(2) == "Cluster 2" and edits.colour(2) == cluster_colour(2)
    edits = edits.then(Rename(label=2, name=" Acini ")).then(Recolour(label=2, colour="#00ff7f"))
    assert edits.name(2) == "Acini" and edits.colour(2) == "#00FF7F"
    assert edits.then(Rename(label=2, name="")).name(2) == "Cluster 2"


def test_hidden_clusters_come_back_and_vanish_when_merged() -> None:
    edits = ClusterEdits(3).then(Hide(label=3))
    assert edits.hidden == {3}
    assert edits.then(Hide(label=3, hidden=False)).hidden == frozenset()
    assert edits.then(Merge(labels=(2, 3), into=2)).hidden == frozenset()


def test_edits_survive_their_json_and_refuse_another() -> None:
    edits = ClusterEdits(4).then(Merge(labels=(1, 2), into=1)).then(Rename(label=1, name="Fat"))
    again = ClusterEdits.from_json(4, edits.to_json())
    assert again == edits and np.array_equal(again.lookup, edits.lookup)
    with pytest.raises(InputError):
        ClusterEdits.from_json(1, edits.to_json())
    with pytest.raises(ValueError):
        ClusterEdits.from_json(4, '[{"kind": "recolour", "label": 1, "colour": "red"}]')


def test_a_new_edit_leaves_the_old_edits_alone() -> None:
    edits = ClusterEdits(3)
    edits.then(Hide(label=1))
    assert edits.operations == () and edits.hidden == frozenset()
