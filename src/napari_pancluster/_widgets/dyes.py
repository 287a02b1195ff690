"""Dyes: the stain vectors of a slide as swatches, and each dye as a layer."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from napari.layers import Layer
from napari.viewer import Viewer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QVBoxLayout, QWidget

from napari_pancluster import _layers
from napari_pancluster._session import Session
from napari_pancluster._widgets.loader import Loader
from napari_pancluster._widgets.own_layers import remove_layers, tagged
from napari_pancluster._widgets.pictures import swatch
from napari_pancluster._widgets.rows import labelled_rows, push_button
from napari_pancluster.core.errors import PanclusterError

if TYPE_CHECKING:
    from napari_pancluster.core.separation import StainVectors
    from napari_pancluster.core.stack import SlideStack

_PUBLISHED, _MEASURED = "published", "measured on this slide"
_CACHE_MB = 64


class DyesBox(QWidget):
    """Takes a stain apart.

    Parameters
    ----------
    viewer, session
        Where layers go, and what is looked at.
    """

    complained = Signal(str)

    def __init__(self, viewer: Viewer, session: Session) -> None:
        super().__init__()
        self._viewer, self._session = viewer, session
        self.vectors: StainVectors | None = None
        self._shown: SlideStack | None = None
        self.loader = Loader(self)
        self.stain, self.kind, self.source = QComboBox(), QComboBox(), QComboBox()
        self.source.addItems([_PUBLISHED, _MEASURED])
        self._swatches = QHBoxLayout()
        self._build()
        for box in (self.stain, self.kind, self.source):
            box.activated.connect(self.refresh)
        self.loader.failed.connect(self._on_failed)
        session.stack_changed.connect(self._on_stack)
        self._on_stack()

    def close_session(self) -> None:
        """Stop listening."""
        self.loader.close()
        self._session.stack_changed.disconnect(self._on_stack)

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        vectors = "Published stain vectors, or measured on the slide's own tissue (Macenko 2009)."
        layout.addLayout(
            labelled_rows(
                (
                    ("Stain", self.stain, "The slide to take apart."),
                    ("Dyes", self.kind, "What it was stained with."),
                    ("Colours", self.source, vectors),
                )
            )
        )
        layout.addLayout(self._swatches)

    def _on_stack(self) -> None:
        stack = self._session.stack
        if stack is not None and not self.kind.count():
            from napari_pancluster.core.separation import STANDARD

            self.kind.addItems(list(STANDARD))
        names = stack.registered if stack is not None else ()
        rgb = [n for n in names if stack is not None and stack.stain(n).slide.facts.rgb]
        if stack is not self._shown:
            # A dye of another case, or of the stains as they lay before, would lie on no tissue.
            remove_layers(self._viewer, tagged(self._viewer, _layers.DYE))
            self._shown = stack
        self.stain.clear()
        self.stain.addItems(rgb)
        self.setEnabled(bool(rgb))
        self.refresh()

    def refresh(self) -> None:
        """Show the vectors that are chosen, measured beside the window where they must be."""
        stack, name, kind = self._session.stack, self.stain.currentText(), self.kind.currentText()
        if stack is None or not name:
            self._show(None)
            return
        from napari_pancluster.core.separation import estimate, standard

        if self.source.currentText() == _PUBLISHED:
            self._show(standard(kind))
        else:
            stain = stack.stain(name)
            self.loader.ask(lambda: estimate(stain, kind=kind), self._show)

    def _on_failed(self, text: str) -> None:
        self.complained.emit(text)
        self.source.setCurrentText(_PUBLISHED)
        self.refresh()

    def _show(self, vectors: StainVectors | None) -> None:
        self.vectors = vectors
        while self._swatches.count():
            self._swatches.takeAt(0).widget().deleteLater()
        for index, dye in enumerate(vectors.names if vectors else ()):
            assert vectors is not None
            tip = f"Add {dye} alone as a layer ({vectors.colour(index)})."
            button = push_button(dye, tip, partial(self.add_layer, index))
            button.setIcon(swatch(vectors.colour(index), size=18))
            self._swatches.addWidget(button)

    def add_layer(self, index: int) -> None:
        """Show one dye as a layer, in the place of the same dye shown before."""
        stack, name = self._session.stack, self.stain.currentText()
        if stack is None or self.vectors is None:
            return
        try:
            data = _layers.dye_layer(
                stack, name, self.vectors, index, unit=self._session.unit, cache_mb=_CACHE_MB
            )
        except PanclusterError as error:
            self.complained.emit(str(error))
            return
        facts = data[1]["metadata"]
        before = [x for x in tagged(self._viewer, _layers.DYE) if x.metadata == facts]
        remove_layers(self._viewer, before)
        self._viewer.add_layer(Layer.create(*data))
