"""The panel Clusters: table, number of clusters, gallery and densities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from qtpy.QtCore import QSignalBlocker, Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QCheckBox,
    QColorDialog,
    QComboBox,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QSlider,
    QSpinBox,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_pancluster._session import PICKS, Session
from napari_pancluster._widgets.about_box import AboutBox
from napari_pancluster._widgets.jobs import Jobs
from napari_pancluster._widgets.patches import Gallery
from napari_pancluster._widgets.pictures import swatch
from napari_pancluster._widgets.plots import IndexPlot
from napari_pancluster._widgets.rows import push_button
from napari_pancluster._widgets.tissue import TissueView
from napari_pancluster.core.edits import Hide, Merge, Recolour, Rename
from napari_pancluster.core.errors import InputError

_HEADER = ("Cluster", "Patches", "mm²", "Share", "Selected")
_NAME, _PATCHES, _AREA, _SHARE, _SELECTED = range(len(_HEADER))
_TIPS = (
    "Untick to hide; double-click to rename; click to select, with Ctrl several.",
    "Patches of the cluster, over all cases.",
    "Area over all cases.",
    "Share of all patches.",
    "Share of the selected patches.",
)
_ROW_PX = 22
_CHOOSE = "How many clusters? Click a curve to choose."
_JUDGING = "How many clusters? The curves for this map come when every number has been judged."


class ClusterTable(QTableWidget):
    """One line a cluster: what it is called, how much there is of it, how much is selected.

    Clicking lines selects their patches; what is selected elsewhere lights up the lines whose
    patches are all selected.
    """

    complained = Signal(str)

    def __init__(self, session: Session) -> None:
        super().__init__(0, len(_HEADER))
        self._session = session
        self._filling = False
        self.setHorizontalHeaderLabels(_HEADER)
        for column, tip in enumerate(_TIPS):
            self.horizontalHeaderItem(column).setToolTip(tip)
        self.setAccessibleName("Clusters")
        self.verticalHeader().hide()
        self.verticalHeader().setDefaultSectionSize(_ROW_PX)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setEditTriggers(
            QAbstractItemView.EditTrigger.DoubleClicked
            | QAbstractItemView.EditTrigger.EditKeyPressed
        )
        header = self.horizontalHeader()
        header.setMinimumSectionSize(20)
        for column in range(len(_HEADER)):
            header.setSectionResizeMode(column, QHeaderView.ResizeMode.ResizeToContents)
        header.setSectionResizeMode(_NAME, QHeaderView.ResizeMode.Stretch)
        self.itemSelectionChanged.connect(self._on_rows)
        self.itemChanged.connect(self._on_item)

    @property
    def chosen(self) -> list[int]:
        """Labels of the lines that are lit."""
        rows = {index.row() for index in self.selectionModel().selectedRows()}
        return [self._label(row) for row in sorted(rows)]

    def fill(self) -> None:
        """Show the session's clusters."""
        session, edits = self._session, self._session.edits
        counts = session.counts
        total = max(1, int(counts.sum()))
        cell = session.results.cell_mm2 if session.results else None
        self._filling = True
        self.setRowCount(len(edits.labels))
        for row, label in enumerate(edits.labels):
            count = int(counts[label])
            area = "–" if cell is None else f"{count * cell:,.2f}"
            texts = (edits.name(label), f"{count:,}", area, f"{count / total:.1%}", "")
            for column, text in enumerate(texts):
                self.setItem(row, column, _item(text, column, label))
            hidden = label in edits.hidden
            name = self.item(row, _NAME)
            name.setCheckState(Qt.CheckState.Unchecked if hidden else Qt.CheckState.Checked)
            name.setIcon(swatch(edits.colour(label)))
        self._filling = False
        self.setFixedHeight(
            self.horizontalHeader().sizeHint().height() + 4 + _ROW_PX * max(4, self.rowCount())
        )
        self.fill_selection()

    def fill_selection(self) -> None:
        """Show how much of every cluster is selected; light up what is selected in full."""
        summary, counts = self._session.summary, self._session.counts
        self._filling = True
        self.clearSelection()
        mode = self.selectionMode()
        self.setSelectionMode(QAbstractItemView.SelectionMode.MultiSelection)
        for row in range(self.rowCount()):
            label = self._label(row)
            found = int(summary.counts[label])
            self.item(row, _SELECTED).setText(f"{summary.share(label):.0%}" if found else "")
            if found and found == counts[label]:
                self.selectRow(row)
        self.setSelectionMode(mode)
        self._filling = False

    def _label(self, row: int) -> int:
        return int(self.item(row, _NAME).data(Qt.ItemDataRole.UserRole))

    def _on_rows(self) -> None:
        if not self._filling:
            self._session.select_labels(self.chosen)
            # What could not be selected (a hidden or an empty cluster) must not stay lit.
            self.fill_selection()

    def _on_item(self, item: QTableWidgetItem) -> None:
        if self._filling:
            return
        label = int(item.data(Qt.ItemDataRole.UserRole))
        edits = self._session.edits
        hidden = item.checkState() == Qt.CheckState.Unchecked
        if item.text() != edits.name(label):
            self.edit_clusters(Rename(label=label, name=item.text()[:80]))
        elif hidden != (label in edits.hidden):
            self.edit_clusters(Hide(label=label, hidden=hidden))

    def rename(self) -> None:
        """Let the user type another name for the lit cluster."""
        if self.chosen:
            row = [self._label(r) for r in range(self.rowCount())].index(self.chosen[0])
            self.editItem(self.item(row, _NAME))

    def recolour(self) -> None:
        """Let the user choose another colour for the lit cluster."""
        if self.chosen:
            label = self.chosen[0]
            before = QColor(self._session.edits.colour(label))
            colour = QColorDialog.getColor(before, self, "Colour of the cluster")
            if colour.isValid():
                self.edit_clusters(Recolour(label=label, colour=colour.name()))

    def merge(self) -> None:
        """Make the lit clusters one."""
        labels = tuple(self.chosen)
        self.edit_clusters(Merge(labels=labels, into=min(labels, default=0)))

    def edit_clusters(self, operation: Any) -> None:
        try:
            self._session.edit(operation)
        except InputError as error:
            self.complained.emit(str(error))
            self.fill()


def _item(text: str, column: int, label: int) -> QTableWidgetItem:
    item = QTableWidgetItem(text)
    item.setData(Qt.ItemDataRole.UserRole, label)
    flags = Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable
    if column == _NAME:
        flags |= Qt.ItemFlag.ItemIsEditable | Qt.ItemFlag.ItemIsUserCheckable
    item.setFlags(flags)
    if column >= _PATCHES:
        item.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)
    return item


class ClustersPanel(QWidget):
    """Everything about the clusters.

    Parameters
    ----------
    session, tissue
        What it shows and writes to.
    jobs
        Where slow work goes.
    """

    complained = Signal(str)
    scatter_wanted = Signal()

    def __init__(self, session: Session, tissue: TissueView, jobs: Jobs) -> None:
        super().__init__()
        self._session = session
        self._tissue = tissue
        self.table = ClusterTable(session)
        self.gallery = Gallery(session)
        self.about = AboutBox(session, jobs)
        self.curves = IndexPlot()
        self._how_many = QLabel()
        self._how_many.setWordWrap(True)
        self.k = QSpinBox()
        self._state = QLabel()
        self._state.setWordWrap(True)
        self._why = QLabel()
        self._why.setWordWrap(True)
        self._doubts = QLabel()
        self._doubts.setWordWrap(True)
        self._undo = push_button("Undo", "Take back the last change or selection (Ctrl+Z).")
        self._redo = push_button("Redo", "Do again what was taken back (Ctrl+Shift+Z).")
        self._rename = push_button(
            "Rename", "Give the lit cluster another name (or double-click it)."
        )
        self._recolour = push_button("Colour …", "Give the lit cluster another colour.")
        self._merge = push_button(
            "Merge", "Make the lit clusters one; Ctrl-click to light several."
        )
        self._density = push_button("Density", "Add a layer with the density of the lit cluster.")
        self._build()
        self._connect()
        self._on_results()

    def say_state(self, text: str) -> None:
        """Show where mapping stands; nothing where the table says it all."""
        self._state.setText(text)
        self._state.setVisible(bool(text))

    def close_session(self) -> None:
        """Stop listening to the session."""
        session = self._session
        session.results_changed.disconnect(self._on_results)
        session.clusters_changed.disconnect(self._on_clusters)
        session.selection_changed.disconnect(self._on_selection)
        self.gallery.close_session()
        self.about.close_session()

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self._state)
        line = QHBoxLayout()
        label = QLabel("Number of clusters")
        label.setBuddy(self.k)
        self.k.setToolTip("Map, scatter and table follow at once; nothing is trained again.")
        self.k.setAccessibleName("Number of clusters")
        self.k.setMaximumWidth(110)
        self.k.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.k.setKeyboardTracking(False)
        line.addWidget(label)
        line.addWidget(self.k)
        line.addStretch()
        for button in (self._undo, self._redo):
            line.addWidget(button)
        layout.addLayout(line)
        layout.addWidget(self.table)
        buttons = QHBoxLayout()
        for button in (self._rename, self._recolour, self._merge, self._density):
            buttons.addWidget(button)
        layout.addLayout(buttons)
        layout.addWidget(self._doubts)
        layout.addLayout(self._click_line())
        layout.addLayout(self._map_line())
        layout.addWidget(self.gallery)
        more = QCollapsible("What is this cluster?")
        more.toggleButton().setToolTip("How dark its stains are, and which clusters it touches.")
        more.addWidget(self.about)
        layout.addWidget(more)
        self.curves.setToolTip("Internal validation indices. Click a curve to look at that k.")
        layout.addWidget(self._how_many)
        layout.addWidget(self.curves)
        layout.addWidget(self._why)
        layout.addStretch()

    def _click_line(self) -> QHBoxLayout:
        line = QHBoxLayout()
        pick = QComboBox()
        pick.addItems(PICKS)
        pick.setToolTip(
            "The patch itself, the area of the same cluster around it, or the whole cluster. "
            "Shift adds, Ctrl takes away."
        )
        pick.currentTextChanged.connect(self._on_pick)
        label = QLabel("A click selects the")
        label.setBuddy(pick)
        pick.setAccessibleName("A click selects the")
        outline = push_button("Outline tissue", "Draw around tissue in the viewer to select it.")
        outline.clicked.connect(self._tissue.start_outlining)
        line.addWidget(label)
        line.addWidget(pick)
        line.addStretch()
        line.addWidget(outline)
        return line

    def _map_line(self) -> QHBoxLayout:
        line = QHBoxLayout()
        outlines = QCheckBox("Outlines")
        outlines.setToolTip("Draw clusters as outlines instead of filled.")
        outlines.toggled.connect(lambda on: self._tissue.set_outline(outline=on))
        opacity = QSlider(Qt.Orientation.Horizontal)
        opacity.setRange(5, 100)
        opacity.setValue(55)
        opacity.setToolTip("How strongly the clusters cover the tissue.")
        opacity.setAccessibleName("Opacity of the map")
        opacity.valueChanged.connect(lambda value: self._tissue.set_opacity(value / 100))
        hide = push_button(
            "Hide map", "Hide the clusters, or show them again (key H in the viewer)."
        )
        hide.clicked.connect(self._tissue.toggle_map)
        scatter = push_button("Scatter", "Bring the scatter back if it was closed.")
        scatter.clicked.connect(self.scatter_wanted)
        for widget in (outlines, QLabel("Opacity"), opacity, hide, scatter):
            line.addWidget(widget)
        return line

    def _connect(self) -> None:
        session = self._session
        session.results_changed.connect(self._on_results)
        session.clusters_changed.connect(self._on_clusters)
        session.selection_changed.connect(self._on_selection)
        self.table.complained.connect(self.complained)
        self.about.complained.connect(self.complained)
        self.gallery.flown_to.connect(self._tissue.fly_to)
        self.curves.k_chosen.connect(session.choose_k)
        self.k.valueChanged.connect(session.choose_k)
        self._undo.clicked.connect(session.undo)
        self._redo.clicked.connect(session.redo)
        self._rename.clicked.connect(self.table.rename)
        self._recolour.clicked.connect(self.table.recolour)
        self._merge.clicked.connect(self.table.merge)
        self._density.clicked.connect(self._on_density)

    # The user

    def _on_pick(self, what: str) -> None:
        self._session.pick_what = what

    def _on_density(self) -> None:
        for label in self.table.chosen:
            self._tissue.show_density(label)

    # The session

    def _on_results(self) -> None:
        results = self._session.results
        ks = results.ks if results else (0,)
        self.setEnabled(results is not None)
        self._refresh_k(ks)
        scores = results.scores if results else None
        self.curves.show_scores(scores, self._session.k)
        self.curves.setVisible(scores is not None)
        self._how_many.setText(_CHOOSE if scores else _JUDGING if results else "")
        self._why.setText(f"Suggested: {scores.why}" if scores else "")
        self._on_clusters()

    def _refresh_k(self, ks: Iterable[int]) -> None:
        # Qt clamps the old value to a new range and reports it, as if the user had chosen.
        with QSignalBlocker(self.k):
            self.k.setRange(min(ks), max(ks))
            self.k.setValue(self._session.k)

    def _on_clusters(self) -> None:
        if self._session.k:
            self.k.setValue(self._session.k)
        self.curves.mark(self._session.k)
        results = self._session.results
        doubts = results.doubts.get(self._session.k, ()) if results else ()
        self._doubts.setText("\n".join(f"⚠ {said}" for said in doubts))
        self._doubts.setVisible(bool(doubts))
        self.table.fill()
        self._follow_selection()

    def _on_selection(self) -> None:
        self.table.fill_selection()
        self._follow_selection()

    def _follow_selection(self) -> None:
        self._undo.setEnabled(self._session.can_undo)
        self._redo.setEnabled(self._session.can_redo)
        lit = self.table.chosen
        self._merge.setEnabled(len(lit) > 1)
        for button in (self._rename, self._recolour):
            button.setEnabled(len(lit) == 1)
        self._density.setEnabled(bool(lit))
        only = lit[0] if len(lit) == 1 else None
        self.gallery.show_label(only)
        self.about.show_label(only)
