"""What a cluster is, in numbers: how dark its stains are, and which clusters it touches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_pancluster._session import Session
from napari_pancluster._widgets.jobs import Job, Jobs
from napari_pancluster._widgets.pictures import swatch
from napari_pancluster._widgets.rows import push_button
from napari_pancluster.core.progress import Task
from napari_pancluster.core.results import Results
from napari_pancluster.core.statistics.neighbourhood import Neighbourhood, neighbourhood
from napari_pancluster.core.statistics.stain_profile import StainProfile, measure_stains

_ROW_PX = 22
_MOST_TOUCHED = 4
_HINT = "Measure how much there is of every stain in every cluster, and which clusters touch."
_STALE = "The clusters are others now. Measure again."

Measured = tuple[StainProfile, Neighbourhood]


class AboutBox(QWidget):
    """Says what the lit cluster is, or compares all of them.

    Parameters
    ----------
    session, jobs
        What is looked at, and where slow work goes.
    """

    complained = Signal(str)

    def __init__(self, session: Session, jobs: Jobs) -> None:
        super().__init__()
        self._session, self._jobs = session, jobs
        self._measured: Measured | None = None
        # Table, k and merges that were measured.
        self._of: tuple[Any, ...] = ()
        self._label: int | None = None
        self.table = QTableWidget()
        self._said = QLabel()
        self._said.setWordWrap(True)
        self._go = push_button("Measure", _HINT, self.measure)
        self._save = push_button(
            "Save as CSV …", "Write both tables, of all clusters, into a folder.", self._on_save
        )
        self._build()
        session.results_changed.connect(self.refresh)
        session.clusters_changed.connect(self.refresh)
        self.refresh()

    def close_session(self) -> None:
        """Stop listening to the session."""
        self._session.results_changed.disconnect(self.refresh)
        self._session.clusters_changed.disconnect(self.refresh)

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        line = QHBoxLayout()
        line.addWidget(self._go)
        line.addWidget(self._save)
        layout.addLayout(line)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.table.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        self.table.setAccessibleName("Stains of the clusters")
        self.table.verticalHeader().hide()
        self.table.verticalHeader().setDefaultSectionSize(_ROW_PX)
        layout.addWidget(self.table)
        layout.addWidget(self._said)

    @property
    def measured(self) -> Measured | None:
        """What was measured of the clusters that are looked at now."""
        now = self._now()
        # The same table, not one like it: the map may have been made anew.
        same = bool(now) and bool(self._of) and now[0] is self._of[0] and now[1:] == self._of[1:]
        return self._measured if same else None

    def show_label(self, label: int | None) -> None:
        """Speak of one cluster, or of all."""
        self._label = label
        self.refresh()

    # Measuring

    def _now(self) -> tuple[Any, ...]:
        session = self._session
        if session.results is None:
            return ()
        # Names and colours change nothing that is measured; merges do.
        return (session.results.table, session.k, session.edits.lookup.tobytes())

    def measure(self) -> None:
        """Measure all clusters."""
        session, of = self._session, self._now()
        if session.results is None:
            return
        results, labels, wanted = session.results, session.labels, session.edits.labels
        self._jobs.start(
            Job(
                "Measuring the clusters",
                lambda: _measure(results, labels, wanted),
                lambda measured: self._take(measured, of),
            )
        )

    def _take(self, measured: Measured, of: tuple[Any, ...]) -> None:
        self._measured, self._of = measured, of
        self.refresh()

    # Showing

    def refresh(self) -> None:
        """Show what was measured of the lit cluster, or of all."""
        measured = self.measured
        self._go.setEnabled(self._session.results is not None)
        self._save.setEnabled(measured is not None)
        self.table.setVisible(measured is not None)
        if measured is None:
            self._said.setText(_STALE if self._measured is not None and self._now() else _HINT)
        elif self._label in measured[0].labels:
            self._show_one(*measured, self._label)
        else:
            self._show_all(*measured)

    def _show_one(self, profile: StainProfile, near: Neighbourhood, label: int) -> None:
        pooled, edits = profile.pooled, self._session.edits
        i = profile.labels.index(label)
        self._begin(("Stain", "Mean OD ± SD", "Rank (1 = most)"), len(profile.stains))
        for s, stain in enumerate(profile.stains):
            mean = pooled.mean[0, :, s]
            texts = (stain, _od(mean[i], pooled.spread[0, i, s]), _rank(mean, i))
            for column, text in enumerate(texts):
                self._put(s, column, text)
        touched = near.nearest(label, _MOST_TOUCHED)
        named = ", ".join(f"{edits.name(n)} ({share:.0%})" for n, share in touched)
        cells = f"{edits.name(label)} touches most: {named}." if named else "It touches no other."
        self._end(f"{cells} {_patches(profile, slice(i, i + 1))}")

    def _show_all(self, profile: StainProfile, near: Neighbourhood) -> None:
        pooled, edits = profile.pooled, self._session.edits
        header = ("Cluster", *(f"{name} OD" for name in profile.stains), "Touches most")
        self._begin(header, len(profile.labels))
        for i, label in enumerate(profile.labels):
            self._put(i, 0, edits.name(label))
            self.table.item(i, 0).setIcon(swatch(edits.colour(label)))
            for s in range(len(profile.stains)):
                self._put(i, s + 1, _od(pooled.mean[0, i, s], pooled.spread[0, i, s]))
            touched = [edits.name(n) for n, _ in near.nearest(label, 1)]
            self._put(i, len(header) - 1, *touched)
        self._end(f"Click a cluster above for more of it. {_patches(profile)}")

    def _begin(self, header: Sequence[str], rows: int) -> None:
        self.table.clear()
        self.table.setColumnCount(len(header))
        self.table.setRowCount(rows)
        self.table.setHorizontalHeaderLabels(header)

    def _put(self, row: int, column: int, text: str = "–") -> None:
        self.table.setItem(row, column, QTableWidgetItem(text))

    def _end(self, words: str) -> None:
        table, header = self.table, self.table.horizontalHeader()
        header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
        header.setStretchLastSection(True)
        # The bar below is there when the stains do not fit side by side.
        lines = table.rowCount() * _ROW_PX + header.sizeHint().height() + 4
        table.setFixedHeight(lines + table.horizontalScrollBar().sizeHint().height())
        self._said.setText(words)

    # Saving

    def _on_save(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for stain_od.csv, neighbours.csv")
        if folder:
            self.save(Path(folder))

    def save(self, folder: Path) -> None:
        """Write what was measured of all clusters, with the names they have now."""
        from napari_pancluster.core.export.description import (
            neighbour_rows,
            stain_rows,
            write_description,
        )

        if self.measured is None:
            return
        (profile, near), edits = self.measured, self._session.edits
        tables = {"stain_od": stain_rows(profile, edits), "neighbours": neighbour_rows(near, edits)}
        try:
            files = write_description(folder, tables)
        except OSError as error:
            self.complained.emit(
                f"{folder} cannot be written ({error.strerror or error}). Choose another folder."
            )
            return
        self._said.setText("Written: " + ", ".join(str(f) for f in files))


def _measure(results: Results, labels: Any, wanted: tuple[int, ...]) -> Task[Measured]:
    near = neighbourhood(results.table, labels, wanted)
    profile = yield from measure_stains(results.stacks, results.table, labels, wanted)
    return profile, near


def _od(mean: float, spread: float) -> str:
    if not np.isfinite(mean):
        return "–"
    return f"{mean:.2f} ± {spread:.2f}" if np.isfinite(spread) else f"{mean:.2f}"


def _rank(mean: Any, i: int) -> str:
    """Return the place of a cluster among those where the stain was measured."""
    if not np.isfinite(mean[i]):
        return "–"
    return f"{1 + int((mean > mean[i]).sum())} of {int(np.isfinite(mean).sum())}"


def _patches(profile: StainProfile, lines: slice = slice(None)) -> str:
    """Return on how much some clusters were measured, and what could not be."""
    missing = ", ".join(f"{stain} of {case}" for case, stain in profile.missing)
    left = f" Not measured: {missing}." if missing else ""
    return f"Measured on {int(profile.patches[:, lines].max(axis=2).sum()):,} patches.{left}"
