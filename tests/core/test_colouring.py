"""Which colour every patch gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from drawing import make_results

from napari_pancluster.core.colouring import colour_by, columns
from napari_pancluster.core.confidence import Confidence


def test_patches_are_coloured_by_columns_of_the_sample_sheet(islands: Path) -> None:
    results = make_results(islands, cases=3)
    sheet = {"group": ("KPC", "control", "KPC"), "age": ("12", "8", "30"), "sex": ("", "f", "")}
    results = replace(results, sheet=sheet)
    first, second, third = (results.table.rows_of(n) for n in range(3))
    assert columns(results)[:5] == ("Cluster", "Case", "group", "age", "sex")

    def colours(column: str) -> Any:
        labels = results.labels(results.k, results.edits[results.k])
        return colour_by(
            results, column, k=results.k, edits=results.edits[results.k], labels=labels
        )

    group = colours("group")
    assert group.names == {1: "KPC", 2: "control"}
    assert set(group.values[first]) == set(group.values[third]) == {1}
    assert set(group.values[second]) == {2}
    age = colours("age")
    assert age.names == {} and (age.low, age.high) == (8, 30)
    assert age.values[second][0] < age.values[first][0] < age.values[third][0]
    assert colours("sex").names == {1: "not given", 2: "f"}


def test_patches_are_coloured_by_how_surely_the_sections_agree(islands: Path) -> None:
    results = make_results(islands, cases=2)
    assert "Registration confidence" not in columns(results)
    extent = results.stacks["case0"].extent
    sure = np.linspace(0, 1, 32, dtype=np.float32)[None].repeat(32, 0)
    measured = replace(
        results.stacks["case0"],
        confidences={"PAS": Confidence(sure, extent.width / 32)},
        transforms={"PAS": None},
    )
    results = replace(results, stacks={**results.stacks, "case0": measured})
    assert "Registration confidence" in columns(results)
    edits = results.edits[results.k]
    labels = results.labels(results.k, edits)
    found = colour_by(results, "Registration confidence", k=results.k, edits=edits, labels=labels)
    mine, other = (found.values[results.table.rows_of(n)] for n in range(2))
    across = results.table.grids[0].index[:, 1]
    assert (mine > 0).all() and np.corrcoef(mine, across)[0, 1] > 0.99
    # Nothing was measured in the other case: its patches are not shown.
    assert (other == 0).all()
