"""Which colour every patch gets."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from drawing import make_results

from napari_pancluster.core.colouring import colour_by, columns


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
