"""Pictures of patches: the one under the pointer in every stain, and typical ones of a cluster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QPoint, QRect, QSize, Qt, Signal
from qtpy.QtGui import QImage, QMouseEvent, QPainter, QPaintEvent
from qtpy.QtWidgets import QLabel, QVBoxLayout, QWidget

from napari_pancluster._session import Session
from napari_pancluster._widgets.loader import Loader
from napari_pancluster._widgets.pictures import as_image
from napari_pancluster.core.results import patches_of, typical_patches

_TYPICAL = 6
_GAP = 3
_TEXT_PX = 15
_LEAST_PX = 32

Pictures = list[NDArray[np.uint8]]


class PatchStrip(QWidget):
    """Patches side by side: a line a stain, a column a place. A click on one names its column."""

    chosen = Signal(int)

    def __init__(self, *, largest_px: int) -> None:
        super().__init__()
        self._largest = largest_px
        self._names: Sequence[str] = ()
        self._columns: list[list[QImage]] = []
        self._across = False
        self.setMinimumHeight(40)

    def show_pictures(
        self, names: Sequence[str], columns: list[Pictures], *, across: bool = False
    ) -> None:
        """Show other patches.

        Parameters
        ----------
        names
            Of the stains.
        columns
            Per place, the patch in every stain.
        across
            Put the stains of a single place side by side.
        """
        self._names, self._across = names, across
        self._columns = [[as_image(p) for p in column] for column in columns]
        self.setVisible(bool(columns))
        self.updateGeometry()
        self.update()

    def sizeHint(self) -> QSize:
        """Return the size at which patches are as large as they may be."""
        lines, columns = self._counts()
        side = self._side(self._largest * columns + _GAP * (columns - 1))
        height = lines * (side + _GAP + _TEXT_PX)
        return QSize(columns * (side + _GAP), max(40, height))

    def minimumSizeHint(self) -> QSize:
        """Return a width at which patches can still be told apart."""
        lines, columns = self._counts()
        return QSize(columns * (_LEAST_PX + _GAP), lines * (_LEAST_PX + _GAP + _TEXT_PX))

    def hasHeightForWidth(self) -> bool:
        """Return True: narrower is lower."""
        return True

    def heightForWidth(self, width: int) -> int:
        """Return the height that all lines need."""
        lines, _ = self._counts()
        return max(40, lines * (self._side(width) + _GAP + _TEXT_PX))

    def _counts(self) -> tuple[int, int]:
        stains, places = max(1, len(self._names)), max(1, len(self._columns))
        return (1, stains) if self._across else (stains, places)

    def _side(self, width: int) -> int:
        _, columns = self._counts()
        return max(16, min(self._largest, (width - _GAP * (columns - 1)) // columns))

    def _cells(self) -> list[tuple[QRect, int, int]]:
        """Return where every patch is drawn, with its column and stain."""
        side = self._side(self.width())
        if self._across:
            room = max(16, self.height() - _TEXT_PX - _GAP)
            side = min(side, room)
        cells = []
        for column in range(len(self._columns)):
            for stain in range(len(self._names)):
                x, y = (stain, 0) if self._across else (column, stain)
                at = QPoint(x * (side + _GAP), y * (side + _GAP + _TEXT_PX) + _TEXT_PX)
                cells.append((QRect(at, QSize(side, side)), column, stain))
        return cells

    def paintEvent(self, event: QPaintEvent) -> None:
        """Draw the patches and the names of the stains."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        for box, column, stain in self._cells():
            if stain < len(self._columns[column]):
                painter.drawImage(box, self._columns[column][stain])
            if column == 0:
                text = QRect(box.left(), box.top() - _TEXT_PX, max(box.width(), 90), _TEXT_PX)
                painter.setPen(self.palette().windowText().color())
                flags = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
                painter.drawText(text, int(flags), self._names[stain])

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Tell which place was clicked."""
        for box, column, _ in self._cells():
            if box.contains(event.pos()):
                self.chosen.emit(column)
                return


class PatchView(QWidget):
    """The patch under the pointer in every stain, registered.

    Parameters
    ----------
    session
        Knows which patch that is.
    """

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self.loader = Loader(self)
        self._caption = QLabel("Point at a place or at a point of the scatter.")
        self._caption.setWordWrap(True)
        self._strip = PatchStrip(largest_px=160)
        self.setMinimumWidth(200)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(4, 4, 4, 4)
        layout.addWidget(self._caption)
        layout.addWidget(self._strip, stretch=1)
        session.hover_changed.connect(self._on_hover)
        session.results_changed.connect(self._on_results)

    def close_session(self) -> None:
        """Stop listening to the session."""
        self._session.hover_changed.disconnect(self._on_hover)
        self._session.results_changed.disconnect(self._on_results)
        self.loader.close()

    def _on_results(self) -> None:
        self.loader.forget()

    def _on_hover(self) -> None:
        row, results = self._session.hover, self._session.results
        if row is None or results is None:
            return
        self._caption.setText(self._session.patch_in_words(row))
        number, _ = results.position(row)
        names = results.stacks[results.table.grids[number].case].registered
        self.loader.ask(
            lambda: patches_of(results, [row]),
            lambda columns: self._strip.show_pictures(names, columns, across=True),
        )


class Gallery(QWidget):
    """Typical patches of a cluster in every stain.

    Parameters
    ----------
    session
        Knows the clusters.
    """

    flown_to = Signal(object)

    def __init__(self, session: Session) -> None:
        super().__init__()
        self._session = session
        self._rows: list[int] = []
        self.loader = Loader(self)
        self._title = QLabel("Click a cluster in the table to see its typical patches.")
        self._title.setWordWrap(True)
        self._strip = PatchStrip(largest_px=72)
        self._strip.setToolTip("Typical patches, a line a stain. Click one to go there.")
        self._strip.setCursor(Qt.CursorShape.PointingHandCursor)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._title)
        layout.addWidget(self._strip)
        self._strip.chosen.connect(self._on_chosen)

    def close_session(self) -> None:
        """Stop reading."""
        self.loader.close()

    def show_label(self, label: int | None) -> None:
        """Show a cluster's typical patches, or none."""
        results = self._session.results
        if results is None or label is None:
            self._rows = []
            self._title.setText("Click a cluster in the table to see its typical patches.")
            self._strip.show_pictures((), [])
            return
        self._title.setText(f"Typical patches of {self._session.edits.name(label)}:")
        labels = self._session.labels
        self.loader.ask(lambda: typical_patches(results, labels, label, _TYPICAL), self._show)

    def _show(self, found: tuple[list[int], tuple[str, ...], list[Pictures]]) -> None:
        self._rows, names, columns = found
        self._strip.show_pictures(names, columns)

    def _on_chosen(self, column: int) -> None:
        if column < len(self._rows):
            self.flown_to.emit(self._rows[column])
