"""What the clusters are, as rows of numbers: for JSON, and the same as CSV."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.export.tables import write_rows
from napari_pancluster.core.statistics.agreement import Agreement
from napari_pancluster.core.statistics.areas import CaseAreas, GroupAreas
from napari_pancluster.core.statistics.neighbourhood import Neighbourhood
from napari_pancluster.core.statistics.stain_profile import StainProfile

Row = dict[str, Any]


def stain_rows(profile: StainProfile, edits: ClusterEdits) -> list[Row]:
    """Return density by cluster and stain: over all cases (case ""), then case by case."""
    several = len(profile.cases) > 1
    parts = (profile.pooled, profile) if several else (profile,)
    return [row for part in parts for row in _stain_rows(part, edits)]


def _stain_rows(profile: StainProfile, edits: ClusterEdits) -> Iterator[Row]:
    for (c, i, s), patches in np.ndenumerate(profile.patches):
        yield {
            "case": profile.cases[c],
            **_cluster(profile.labels[i], edits),
            "stain": profile.stains[s],
            "patches": int(patches),
            "mean_od": _finite(profile.mean[c, i, s]),
            "sd_od": _finite(profile.spread[c, i, s]),
        }


def neighbour_rows(found: Neighbourhood, edits: ClusterEdits) -> list[Row]:
    """Return the neighbourhood matrix, a row a cell of it."""
    ratio, share = found.log2_ratio, found.outer_share
    return [
        {
            **_cluster(found.labels[i], edits, colour=False),
            "neighbour": found.labels[j],
            "neighbour_name": edits.name(found.labels[j]),
            "borders": int(count),
            "outer_share": None if i == j else _finite(share[i, j]),
            "log2_ratio": _finite(ratio[i, j]),
        }
        for (i, j), count in np.ndenumerate(found.borders)
    ]


def area_rows(areas: CaseAreas, edits: ClusterEdits) -> list[Row]:
    """Return the area of every cluster in every case."""
    return [
        {
            "case": areas.cases[c],
            **_cluster(areas.labels[i], edits),
            "cells": int(cells),
            "area_mm2": _finite(areas.mm2[c, i]),
            "share": _finite(areas.share[c, i]),
        }
        for (c, i), cells in np.ndenumerate(areas.cells)
    ]


def group_rows(
    column: str, groups: Sequence[GroupAreas], labels: Sequence[int], edits: ClusterEdits
) -> list[Row]:
    """Return the area of every cluster by group, with the case as the unit."""
    return [
        {
            "column": column,
            "group": group.name,
            "cases": group.cases,
            **_cluster(label, edits),
            "mean_share": _finite(group.mean_share[i]),
            "sd_share": _finite(group.sd_share[i]),
            "mean_mm2": _finite(group.mean_mm2[i]),
            "sd_mm2": _finite(group.sd_mm2[i]),
        }
        for group in groups
        for i, label in enumerate(labels)
    ]


def agreement_rows(found: Agreement, edits: ClusterEdits, cell_mm2: float) -> list[Row]:
    """Return the table of clusters against classes, a row a cell of it."""
    return [
        {
            **_cluster(found.labels[i], edits),
            "class": found.classes[j],
            "cells": int(cells),
            "area_mm2": _finite(cells * cell_mm2),
        }
        for (i, j), cells in np.ndenumerate(found.cells)
    ]


def write_description(folder: Path, tables: Mapping[str, Sequence[Row]]) -> list[Path]:
    """Write tables into a folder, each as a CSV of its name; one without rows is left out."""
    return [
        write_rows(folder / f"{name}.csv", rows[0], (map(_text, row.values()) for row in rows))
        for name, rows in tables.items()
        if rows
    ]


def _cluster(label: int, edits: ClusterEdits, *, colour: bool = True) -> Row:
    named: Row = {"label": label, "name": edits.name(label)}
    return {**named, "color": edits.colour(label)} if colour else named


def _finite(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _text(value: object) -> object:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else value
