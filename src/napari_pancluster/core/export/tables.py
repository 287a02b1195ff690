"""CSV: one row a patch, one row a cluster and case."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from napari_pancluster.core.export.content import Content

_PATCHES = (
    "case",
    "row",
    "col",
    "x_um",
    "y_um",
    "label",
    "name",
    "probability",
    "umap_1",
    "umap_2",
    "confidence",
    "missing",
)
_CLUSTERS = ("case", "label", "name", "color", "patches", "area_mm2", "fraction")


def write_tables(folder: Path, content: Content) -> list[Path]:
    """Write ``patches.csv`` and ``clusters.csv``."""
    return [
        write_rows(folder / "patches.csv", _PATCHES, _patch_rows(content)),
        write_rows(folder / "clusters.csv", _CLUSTERS, _cluster_rows(content)),
    ]


def write_rows(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> Path:
    """Write a header and rows as CSV; return the file."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
    return path


def _patch_rows(content: Content) -> Iterator[tuple[object, ...]]:
    certainty = content.clustering.certainty
    for number, grid in enumerate(content.table.grids):
        rows = content.table.rows_of(number)
        for i, (row, col), (y, x) in zip(
            range(rows.start, rows.stop), grid.index, grid.centres, strict=True
        ):
            label = int(content.row_labels[i])
            numbers = [*content.umap[i], content.agreement[i]]
            yield (
                grid.case,
                row,
                col,
                f"{x:.3f}",
                f"{y:.3f}",
                label,
                content.name(label),
                f"{certainty[i]:.4f}",
                *("" if np.isnan(v) else f"{v:.4f}" for v in numbers),
                content.missing[i],
            )


def _cluster_rows(content: Content) -> Iterator[tuple[object, ...]]:
    for number, grid in enumerate(content.table.grids):
        labels = content.row_labels[content.table.rows_of(number)]
        counts = np.bincount(labels, minlength=content.clustering.k + 1)
        for label in content.labels:
            count = int(counts[label])
            area = f"{count * grid.cell_um**2 * 1e-6:.6f}" if content.calibrated else ""
            share = f"{count / max(len(labels), 1):.6f}"
            yield (grid.case, label, content.name(label), content.colour(label), count, area, share)
