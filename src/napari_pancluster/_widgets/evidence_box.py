"""Evidence of a registration over the tissue: its bent grid, its folds and its confidence."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from napari.layers import Layer
from napari.viewer import Viewer
from qtpy.QtCore import Signal
from qtpy.QtWidgets import QComboBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from napari_pancluster import _layers
from napari_pancluster._evidence_layers import confidence_layer, grid_layer, growth_layer
from napari_pancluster._session import Session
from napari_pancluster._widgets.loader import Loader
from napari_pancluster._widgets.own_layers import newest, remove_layers, tagged
from napari_pancluster._widgets.rows import labelled_rows, push_button
from napari_pancluster.core.config import TissueConfig
from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.project import Project
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.tissue_mask import TissueMask

if TYPE_CHECKING:
    from napari_pancluster._layers import LayerData

_GROWTH_LEGEND = "Blue: stretched to fit. Orange: squeezed. Yellow: folded."
_TRUST_LEGEND = "Dark: not to be trusted. Yellow: surely right."
_UNMEASURED = "No confidence was measured with this registration. Register {} again to have it."


@dataclass(frozen=True)
class _Look:
    """What is looked at: a registered stain, the tissue under it, and the unit of lengths."""

    stack: SlideStack
    stain: str
    tissue: TissueMask | None
    unit: str


def _grid(look: _Look) -> tuple[LayerData, str]:
    from napari_pancluster.core import evidence

    transform, extent = look.stack.transforms[look.stain], look.stack.extent
    pieces = evidence.bent_grid(transform, extent)
    length = evidence.bending(transform, extent).within(look.tissue)
    words = evidence.bending_in_words(length, "µm" if look.unit == "um" else "px")
    return grid_layer(pieces, look.stack, look.stain, unit=look.unit), words


def _growth(look: _Look) -> tuple[LayerData, str]:
    from napari_pancluster.core import evidence

    transform, extent = look.stack.transforms[look.stain], look.stack.extent
    found = evidence.growth(transform, extent).within(look.tissue)
    layer = growth_layer(found, look.stack, look.stain, unit=look.unit)
    return layer, f"{evidence.growth_in_words(found)} {_GROWTH_LEGEND}"


def _confidence(look: _Look) -> tuple[LayerData, str]:
    from napari_pancluster.core import evidence

    found = evidence.trust(look.stack.confidences[look.stain]).within(look.tissue)
    layer = confidence_layer(found, look.stack, look.stain, unit=look.unit)
    return layer, f"{evidence.trust_in_words(found)} {_TRUST_LEGEND}"


@dataclass(frozen=True)
class _Kind:
    """A kind of evidence: its button, its layer's tag, and what makes the layer and its words."""

    text: str
    tip: str
    tag: str
    make: Callable[[_Look], tuple[LayerData, str]]


_KINDS = (
    _Kind(
        "Grid",
        "A regular grid drawn on the stain, as it lies on the reference. What the stain was "
        "turned, sheared and scaled by as a whole is taken out: straight lines were not bent.",
        _layers.GRID,
        _grid,
    ),
    _Kind(
        "Folding",
        "How much tissue was squeezed or stretched to fit (determinant of the Jacobian; 1 is as "
        "it was), and where it folds over itself.",
        _layers.GROWTH,
        _growth,
    ),
    _Kind(
        "Confidence",
        "How far the registration can be trusted, place by place: 1 where both sections surely "
        "agree, 0 where they do not.",
        _layers.CONFIDENCE,
        _confidence,
    ),
)


class EvidenceBox(QWidget):
    """Shows where a registration bends, folds and can be trusted.

    Parameters
    ----------
    viewer, session
        Where it is shown, and what is looked at.
    """

    complained = Signal(str)

    def __init__(self, viewer: Viewer, session: Session) -> None:
        super().__init__()
        self._viewer, self._session = viewer, session
        self.loader = Loader(self)
        self.stain = QComboBox()
        self.buttons: dict[str, QPushButton] = {}
        self.texts: dict[str, QLabel] = {}
        self._hint = QLabel()
        self._build()
        self.stain.activated.connect(lambda _: self.refresh())
        self.loader.failed.connect(self._on_failed)
        viewer.layers.events.removed.connect(self._on_removed)
        session.stack_changed.connect(self._on_stack)
        session.case_changed.connect(self._on_stack)
        self._on_stack()

    def close_session(self) -> None:
        """Stop listening."""
        self.loader.close()
        self._viewer.layers.events.removed.disconnect(self._on_removed)
        self._session.stack_changed.disconnect(self._on_stack)
        self._session.case_changed.disconnect(self._on_stack)

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        tip = "The registered stain whose evidence is shown."
        layout.addLayout(labelled_rows((("Evidence", self.stain, tip),)))
        line = QHBoxLayout()
        layout.addLayout(line)
        for kind in _KINDS:
            button = push_button(kind.text, kind.tip, partial(self._on_clicked, kind))
            button.setCheckable(True)
            line.addWidget(button)
            text = QLabel()
            text.setWordWrap(True)
            text.setAccessibleName(kind.text)
            text.hide()
            layout.addWidget(text)
            self.buttons[kind.tag], self.texts[kind.tag] = button, text
        self._hint.setWordWrap(True)
        layout.addWidget(self._hint)

    # What is shown

    def layer(self, tag: str) -> Any:
        """Return the layer of a kind of evidence, while there is one."""
        return newest(self._viewer, tag)

    @property
    def _wanted(self) -> list[_Kind]:
        return [kind for kind in _KINDS if self.buttons[kind.tag].isChecked()]

    def show_stain(self, stain: str) -> None:
        """Choose a stain, as where its line in a table is clicked."""
        if stain != self.stain.currentText() and self.stain.findText(stain) >= 0:
            self.stain.setCurrentText(stain)
            self.refresh()

    def refresh(self) -> None:
        """Show what is switched on for the stain that is chosen."""
        wanted = [kind.tag for kind in self._wanted]
        self._drop()
        self._enable()
        for tag in wanted:
            self.buttons[tag].setChecked(self.buttons[tag].isEnabled())
        self._ask()

    def _on_stack(self) -> None:
        stack = self._session.stack
        if stack is not None and stack.case != self._session.case:
            # The case that was shown; its own slides are on their way.
            stack = None
        self.stain.clear()
        if stack is not None:
            self.stain.addItems([n for n in stack.registered if n != stack.reference])
        self._drop()
        self._enable()

    def _enable(self) -> None:
        stack, name = self._session.stack, self.stain.currentText()
        self.setEnabled(bool(name))
        measured = stack is not None and name in stack.confidences
        unmeasured = _UNMEASURED.format(name) if name and not measured else ""
        for kind in _KINDS:
            button, trusts = self.buttons[kind.tag], kind.tag == _layers.CONFIDENCE
            button.setEnabled(bool(name) and (measured or not trusts))
            button.setToolTip(unmeasured if trusts and unmeasured else kind.tip)
        self._hint.setText(unmeasured)
        self._hint.setVisible(bool(unmeasured))

    def _drop(self) -> None:
        self.loader.forget()
        for kind in _KINDS:
            self._switch_off(kind.tag)
        remove_layers(self._viewer, tagged(self._viewer, *self.buttons))

    def _switch_off(self, tag: str) -> None:
        self.buttons[tag].setChecked(False)
        self.texts[tag].hide()

    # What the user does

    def _on_clicked(self, kind: _Kind) -> None:
        if self.buttons[kind.tag].isChecked():
            self._ask()
        else:
            self._switch_off(kind.tag)
            remove_layers(self._viewer, tagged(self._viewer, kind.tag))

    def _on_removed(self, event: Any) -> None:
        tag = event.value.metadata.get("pancluster")
        if tag in self.buttons:
            self._switch_off(tag)

    def _ask(self) -> None:
        stack, stain, project = self._session.stack, self.stain.currentText(), self._session.project
        missing = [kind for kind in self._wanted if self.layer(kind.tag) is None]
        if stack is None or not stain or not missing:
            return
        unit = self._session.unit

        def read() -> dict[str, tuple[LayerData, str]]:
            look = _Look(stack, stain, _tissue(project, stack), unit)
            return {kind.tag: kind.make(look) for kind in missing}

        def show(found: dict[str, tuple[LayerData, str]]) -> None:
            if self._session.stack is stack and self.stain.currentText() == stain:
                self._show(found)

        self.loader.ask(read, show)

    def _show(self, found: dict[str, tuple[LayerData, str]]) -> None:
        # Whatever was switched off while it was made is not shown.
        wanted: Collection[str] = {kind.tag for kind in self._wanted}
        for tag, (data, words) in found.items():
            if tag in wanted and self.layer(tag) is None:
                self._viewer.add_layer(Layer.create(*data))
                self.texts[tag].setText(words)
                self.texts[tag].show()

    def _on_failed(self, text: str) -> None:
        for kind in self._wanted:
            if self.layer(kind.tag) is None:
                self._switch_off(kind.tag)
        self.complained.emit(text)


def _tissue(project: Project | None, stack: SlideStack) -> TissueMask | None:
    """Return the tissue of a case as it is kept, or as it is found; None where there is none."""
    from napari_pancluster.core.pipeline.tissue import kept_tissue, propose_tissue

    kept = kept_tissue(project, stack.case) if project is not None else None
    if kept is not None:
        return kept
    try:
        return propose_tissue(stack, TissueConfig())
    except PanclusterError:
        # No tissue stands out: then it is the whole slide that is looked at.
        return None
