"""What the user looks at now: the only mutable state, and the one truth of the selection.

Layers, scatter and table write to it and draw from it. A write equal to the present value emits
nothing, so that no view ever answers itself. For the GUI thread only.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from html import escape

import numpy as np
from numpy.typing import NDArray
from psygnal import Signal

from napari_pancluster._history import History, View
from napari_pancluster.core.casemap import CaseMap
from napari_pancluster.core.colouring import Colouring, colour_by, columns
from napari_pancluster.core.counterparts import NamedMap, counterparts, inherited
from napari_pancluster.core.edits import ClusterEdits, Operation
from napari_pancluster.core.evidence import DOUBTFUL
from napari_pancluster.core.patches import PatchGrid
from napari_pancluster.core.project import Project
from napari_pancluster.core.results import Results
from napari_pancluster.core.selection import (
    Combine,
    Mask,
    SelectionSummary,
    combine,
    inside,
)
from napari_pancluster.core.stack import SlideStack

_MOST_NAMED, _ALMOST_ALL = 2, 0.995
# Categories in the scatter's title.
_NAMED = 6
_NOTHING = np.zeros((1, 1), np.uint8)
# What a click on the tissue picks.
PICKS = ("patch", "area", "cluster")


class Session:
    """What the user looks at now.

    Attributes
    ----------
    project
        The open project, if any.
    results
        Of its newest run, if it has a map.
    case
        Name of the case whose slides are shown.
    stack
        Its slides.
    how
        What a new selection does to the one before.
    pick_what
        What a click on the tissue picks, one of `PICKS`.
    """

    project_changed = Signal()
    results_changed = Signal()
    case_changed = Signal()
    stack_changed = Signal()
    clusters_changed = Signal()
    selection_changed = Signal()
    colouring_changed = Signal()
    hover_changed = Signal()

    def __init__(self) -> None:
        self.project: Project | None = None
        self.results: Results | None = None
        self.case = ""
        self.stack: SlideStack | None = None
        self.how = Combine.REPLACE
        self.pick_what = PICKS[0]
        self._column = "Cluster"
        self._hover: int | None = None
        self._history: History | None = None
        self._map: CaseMap | None = None
        self._selection: Mask = np.zeros(0, np.bool_)
        self._labels: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._counts: NDArray[np.int64] = np.zeros(256, np.int64)
        self._saved: dict[int, ClusterEdits] = {}

    # Project and results

    def show_project(self, project: Project | None) -> None:
        """Look at a project; its results follow when they are read."""
        same = self.project is not None and project is not None
        same = same and self.project.root == project.root  # type: ignore[union-attr]
        self.project = project
        names = [c.name for c in project.state.cases] if project else []
        if not same:
            self.show_results(None)
            self.case = names[0] if names else ""
            self.show_stack(None)
        self.project_changed.emit()
        if not same:
            self.case_changed.emit()

    def show_results(self, results: Results | None) -> None:
        """Look at results; the selection and the history start anew."""
        self.results = results
        self._hover, self._map, self._history = None, None, None
        count = len(results.table) if results else 0
        self._selection = np.zeros(count, np.bool_)
        self._labels = np.zeros(count, np.uint8)
        self._counts = np.zeros(256, np.int64)
        self._column = "Cluster"
        if results is not None:
            self._saved = dict(results.edits)
            self._history = History(View.of(results.k, dict(results.edits), self._selection))
            self._relabel()
        self.results_changed.emit()

    def show_embedding(self, results: Results) -> None:
        """Lay the same patches out anew; selection, edits and history stay."""
        assert self.results is not None
        self.results = self.results.laid_out_as(results)
        self.results_changed.emit()

    def keep_k(self, k: int) -> None:
        """Take note that the project's map has this number of clusters."""
        if self.results is not None:
            self.results = self.results.with_k(k)

    def show_case(self, case: str) -> None:
        """Look at another case."""
        if case != self.case:
            self.case = case
            self.case_changed.emit()

    def show_stack(self, stack: SlideStack | None) -> None:
        """Show these slides."""
        self.stack = stack
        self.stack_changed.emit()

    @property
    def unit(self) -> str:
        """Unit of napari's world: "um", or "pixel" where the project is not calibrated."""
        if self.project is None:
            return "um"
        sources = {s.mpp_source for c in self.project.state.cases for s in c.stains}
        return "pixel" if "uncalibrated" in sources else "um"

    # Clusters

    @property
    def k(self) -> int:
        """Number of clusters looked at; 0 without results."""
        return self._history.view.k if self._history else 0

    @property
    def edits(self) -> ClusterEdits:
        """What the user made of these clusters."""
        return self._history.view.edits if self._history else ClusterEdits(0)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """(N,) label of every patch, after merges."""
        return self._labels

    def choose_k(self, k: int) -> None:
        """Look at another number of clusters."""
        if self.results is not None and k != self.k and k in self.results.ks:
            edits = self._all_edits[k]
            if not edits.operations and self.edits.given:
                edits = edits.extend(self._inherited(k))
            selection = _in_sight(self._selection, edits, self.results.labels(k, edits))
            self._push(k, {**self._all_edits, k: edits}, selection)

    def _inherited(self, k: int) -> tuple[Operation, ...]:
        """Return the names and colours that k clusters take over from those looked at."""
        assert self.results is not None
        new = ClusterEdits(k)
        old = NamedMap(self.results.table, self._labels, self.edits)
        found = NamedMap(self.results.table, self.results.labels(k, new), new)
        return inherited(self.edits, counterparts(old, found))

    def edit(self, operation: Operation) -> None:
        """Rename, recolour, merge or hide.

        Raises
        ------
        InputError
            If the operation does not fit.
        """
        if self.results is None:
            return
        edits = self.edits.then(operation)
        labels = self.results.labels(self.k, edits)
        selection = _in_sight(self._selection, edits, labels)
        self._push(self.k, {**self._all_edits, self.k: edits}, selection)

    def unsaved_edits(self) -> list[ClusterEdits]:
        """Return the edits that the project does not hold yet."""
        return [e for k, e in self._all_edits.items() if self._saved.get(k) != e]

    def unsaved_k(self) -> int | None:
        """Return the number of clusters looked at, if the project's map has another."""
        return self.k if self.results is not None and self.k != self.results.k else None

    def mark_saved(self, edits: ClusterEdits) -> None:
        """Take note that the project holds these edits."""
        self._saved[edits.k] = edits

    # Selection

    @property
    def selection(self) -> Mask:
        """(N,) which patches are selected; not to be written to."""
        return self._selection

    @property
    def counts(self) -> NDArray[np.int64]:
        """(256,) patches of every label."""
        return self._counts

    @property
    def summary(self) -> SelectionSummary:
        """How much is selected."""
        cell = self.results.cell_mm2 if self.results else None
        return SelectionSummary.of(self._selection, self._labels, cell)

    def select(self, mask: Mask, how: Combine = Combine.REPLACE) -> None:
        """Select patches (N,); those of hidden clusters are left out."""
        if self.results is None:
            return
        wanted = combine(self._selection, mask, how)
        wanted = _in_sight(wanted, self.edits, self._labels)
        if not np.array_equal(wanted, self._selection):
            self._push(self.k, self._all_edits, wanted)

    def select_outlined(
        self, outline: NDArray[np.floating], how: Combine = Combine.REPLACE
    ) -> None:
        """Select the patches of the case whose centres lie in an outline (V, 2) in µm."""
        if self.map is not None:
            self.select(self.map.outlined(outline), how)

    def select_in_scatter(
        self, outline: NDArray[np.floating], how: Combine = Combine.REPLACE
    ) -> None:
        """Select the patches whose points lie in an outline (V, 2) of the scatter's plane."""
        self.select(inside(self.coords, outline), how)

    def select_none(self) -> None:
        """Select nothing."""
        self.select(np.zeros(len(self._selection), np.bool_))

    def select_labels(self, labels: Collection[int]) -> None:
        """Select some clusters as a whole, and nothing else."""
        table = np.zeros(256, np.bool_)
        table[list(labels)] = True
        self.select(table[self._labels])

    def pick(self, row: int, how: Combine = Combine.REPLACE) -> None:
        """Select what a click on a patch means: the patch, its area or its cluster."""
        if self.results is None:
            return
        if self.pick_what == "cluster":
            mask = self._labels == self._labels[row]
        elif self.pick_what == "area":
            number, _ = self.results.position(row)
            mask = CaseMap(self.results.table, number).area_around(row, self._labels)
        else:
            mask = np.zeros(len(self._selection), np.bool_)
            mask[row] = True
        self.select(mask, how)

    # The map of the case that is shown

    @property
    def map(self) -> CaseMap | None:
        """Cells of the case that is shown; None without results."""
        if self.results is None:
            return None
        number = self.results.grid_number(self.case)
        if self._map is None or self._map.number != number:
            self._map = CaseMap(self.results.table, number)
        return self._map

    @property
    def grid(self) -> PatchGrid | None:
        """Grid of the case that is shown; None without results."""
        return self.map.grid if self.map is not None else None

    def label_image(self) -> NDArray[np.uint8]:
        """Return the labels of the case's cells; 0 is background."""
        return self.map.image(self._labels) if self.map is not None else _NOTHING

    def selection_image(self) -> NDArray[np.uint8]:
        """Return 1 for the selected cells of the case, and 2 for the others while there are any."""
        if self.map is None:
            return _NOTHING
        if not self._selection.any():
            return np.zeros(self.map.grid.shape, np.uint8)
        return self.map.image(2 - self._selection.view(np.uint8))

    # Colours and the patch under the pointer

    @property
    def coords(self) -> NDArray[np.float32]:
        """(N, 2) points of the scatter."""
        return self.results.coords if self.results else np.zeros((0, 2), np.float32)

    def selection_in_words(self) -> str:
        """Return how much is selected and of which clusters, for people."""
        summary = self.summary
        if summary.patches == 0:
            return "Nothing selected"
        area = f" · {summary.area_mm2:.3g} mm²" if summary.area_mm2 is not None else ""
        most = sorted(self.edits.labels, key=summary.share, reverse=True)[:_MOST_NAMED]
        shares = [f"{self.edits.name(n)} {summary.share(n):.0%}" for n in most if summary.share(n)]
        more = "" if sum(map(summary.share, most)) > _ALMOST_ALL else ", …"
        return f"{summary.patches:,} patches{area} · {', '.join(shares)}{more}"

    def scatter_in_words(self, colouring: Colouring | None) -> str:
        """Return what the scatter shows, and what its colours mean where they are numbers."""
        if self.results is None:
            return ""
        name = self.results.embedding_name
        words = name if name == "UMAP" else f"{name} for now"
        if colouring is not None and colouring.names:
            named = list(colouring.names.items())
            shown = [
                f"{_square(colouring.colours[n])} {escape(name)}" for n, name in named[:_NAMED]
            ]
            more = ", …" if len(named) > _NAMED else ""
            return f"{words} · {', '.join(shown)}{more}"
        if colouring is None or colouring.low is None:
            return words
        return f"{words} · dark {colouring.low:.3g}, bright {colouring.high:.3g}"

    def patch_in_words(self, row: int) -> str:
        """Return what is known of a patch, for people."""
        assert self.results is not None
        number, position = self.results.position(row)
        grid = self.results.table.grids[number]
        y, x = grid.centres[position]
        certainty = self.results.certainty[self.k][row] / 255
        case = f"{grid.case} · " if len(self.results.table.grids) > 1 else ""
        unit = "µm" if self.unit == "um" else "px"
        return (
            f"{case}{self.edits.name(int(self._labels[row]))} (certainty {certainty:.0%}) "
            f"at x {x:,.0f}, y {y:,.0f} {unit}{self._flags_in_words(row)}"
        )

    def _flags_in_words(self, row: int) -> str:
        """Return what to heed of a patch: a stain it lacks, sections that may not agree there."""
        assert self.results is not None
        lacks = self.results.missing(row)
        sure = float(self.results.agreement[row])
        said = f" · without {lacks.replace(';', ', ')}" if lacks else ""
        return said + (f" · registration confidence {sure:.2f}" if sure < DOUBTFUL else "")

    @property
    def columns(self) -> tuple[str, ...]:
        """What the scatter can be coloured by."""
        return columns(self.results) if self.results else ("Cluster",)

    @property
    def column(self) -> str:
        """What the scatter is coloured by."""
        return self._column

    def colour_by(self, column: str) -> None:
        """Colour the scatter by another column."""
        if column != self._column and column in self.columns:
            self._column = column
            self.colouring_changed.emit()

    @property
    def colouring(self) -> Colouring | None:
        """The scatter's colours."""
        if self.results is None:
            return None
        return colour_by(
            self.results, self._column, k=self.k, edits=self.edits, labels=self._labels
        )

    @property
    def hover(self) -> int | None:
        """Row of the patch under the pointer, wherever the pointer is."""
        return self._hover

    def point_at(self, row: int | None) -> None:
        """Take note of the patch under the pointer."""
        if row != self._hover:
            self._hover = row
            self.hover_changed.emit()

    # History

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return self._history is not None and self._history.can_undo

    @property
    def can_redo(self) -> bool:
        """Whether something was undone."""
        return self._history is not None and self._history.can_redo

    def undo(self) -> None:
        """Go back one step."""
        self._go(-1)

    def redo(self) -> None:
        """Go forward one step."""
        self._go(1)

    @property
    def _all_edits(self) -> Mapping[int, ClusterEdits]:
        return self._history.view.all_edits if self._history else {}

    def _push(self, k: int, all_edits: Mapping[int, ClusterEdits], selection: Mask) -> None:
        assert self._history is not None
        before = self._history.view
        self._history.push(View.of(k, all_edits, selection))
        self._show(before, selection)

    def _go(self, steps: int) -> None:
        if self._history is not None:
            before = self._history.view
            self._history.move(steps)
            self._show(before, self._history.view.selection(len(self._selection)))

    def _show(self, before: View, selection: Mask) -> None:
        assert self.results is not None
        other = before.k != self.k or before.edits != self.edits
        if other:
            self._relabel()
        changed = not np.array_equal(selection, self._selection)
        self._selection = selection
        if other:
            self.clusters_changed.emit()
        if changed:
            self.selection_changed.emit()

    def _relabel(self) -> None:
        assert self.results is not None
        self._labels = self.results.labels(self.k, self.edits)
        self._counts = np.bincount(self._labels, minlength=256)


def _square(colour: NDArray[np.uint8]) -> str:
    """Return a coloured square as rich text."""
    return f'<span style="color:#{bytes(colour).hex()}">■</span>'


def _in_sight(selection: Mask, edits: ClusterEdits, labels: NDArray[np.uint8]) -> Mask:
    return selection & edits.shown[labels] if edits.hidden else selection
