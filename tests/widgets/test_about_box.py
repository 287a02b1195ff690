"""The box that says what a cluster is: measured once, and true for what is looked at now."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_pancluster.core.edits import Merge, Rename
from napari_pancluster.core.results import patches_of


@pytest.fixture
def box(explored: Any, wait: Callable[..., None]) -> Any:
    """The box, after all five clusters of two cases were measured."""
    found = explored.clusters.about
    assert found.measured is None and not found._save.isEnabled()
    found.measure()
    wait(lambda: found.measured is not None)
    return found


def _texts(box: Any, column: int) -> list[str]:
    return [box.table.item(row, column).text() for row in range(box.table.rowCount())]


def test_one_cluster_or_all_of_them(explored: Any, box: Any) -> None:
    session = explored.session
    assert _texts(box, 0) == [f"Cluster {n}" for n in range(1, 6)]
    session.edit(Rename(label=2, name="Acini"))
    assert _texts(box, 0)[1] == "Acini"
    session.select_labels([2])
    (stain,), (density,) = _texts(box, 0), _texts(box, 1)
    mean, spread = (float(v) for v in density.split(" ± "))
    rows = np.flatnonzero(session.labels == 2)
    seen = [p for (p,) in patches_of(session.results, rows.tolist())]
    each = [-np.log10((np.asarray(p, float) + 1) / 256).mean() for p in seen]
    assert stain == "HE" and mean == pytest.approx(np.mean(each), abs=0.02)
    assert spread == pytest.approx(np.std(each), abs=0.03)
    assert "Acini touches most: Cluster" in box._said.text()


def test_a_merge_asks_to_measure_again_and_undo_brings_it_back(
    explored: Any, box: Any, tmp_path: Path, wait: Callable[..., None]
) -> None:
    session = explored.session
    session.edit(Merge(labels=(1, 2), into=1))
    assert box.measured is None and box.table.isHidden() and "again" in box._said.text()
    session.undo()
    assert box.measured is not None and not box.table.isHidden()
    session.choose_k(3)
    assert box.measured is None
    box.measure()
    wait(lambda: box.measured is not None)
    box.save(tmp_path)
    with (tmp_path / "neighbours.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 9 and (tmp_path / "stain_od.csv").exists()
    box.complained.connect(told := [].append)
    box.save(tmp_path / "stain_od.csv" / "no folder")
    assert told.__self__ and "cannot be written" in told.__self__[0]
