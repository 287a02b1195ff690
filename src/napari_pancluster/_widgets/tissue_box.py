"""Tissue: found with settings whose effect is seen at once, painted, and kept."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from napari.layers import Labels, Layer
from napari.utils.colormaps import DirectLabelColormap
from napari.viewer import Viewer
from numpy.typing import NDArray
from qtpy.QtCore import QTimer, Signal
from qtpy.QtWidgets import QFileDialog, QLabel, QVBoxLayout, QWidget

from napari_pancluster import _layers
from napari_pancluster._layers import TISSUE_IN, TISSUE_OUT
from napari_pancluster._session import Session
from napari_pancluster._widgets.forms import Form, read_config
from napari_pancluster._widgets.loader import Loader
from napari_pancluster._widgets.own_layers import newest, remove_layers
from napari_pancluster._widgets.rows import button_row
from napari_pancluster._widgets.work import Work
from napari_pancluster.core.config import TissueConfig
from napari_pancluster.core.errors import InputError, PanclusterError
from napari_pancluster.core.tissue_mask import TissueMask

_FIELDS = ("sensitivity", "close_um", "smallest_mm2", "leave_out_marks")
_WAIT_MS = 300
# Blue and orange are told apart with every kind of colour vision.
_COLOURS = {None: "#00000000", 0: "#00000000", TISSUE_IN: "#0072B2", TISSUE_OUT: "#E69F00"}
_BRUSH_PX = 12


class TissueBox(QWidget):
    """The tissue of the case that is shown.

    Parameters
    ----------
    viewer, session, work
        Where it is painted, what is looked at, and who keeps it.
    """

    complained = Signal(str)

    def __init__(self, viewer: Viewer, session: Session, work: Work) -> None:
        super().__init__()
        self._viewer, self._session, self._work = viewer, session, work
        self.form = Form(TissueConfig, _FIELDS)
        self.loader = Loader(self)
        self._found: TissueMask | None = None
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.setInterval(_WAIT_MS)
        self._state = QLabel()
        self._state.setWordWrap(True)
        self._build()
        self._timer.timeout.connect(self.find)
        self.form.container.changed.connect(lambda _: self._on_form())
        self.loader.failed.connect(self.complained)
        session.stack_changed.connect(self._on_stack)
        self._on_stack()

    def close_session(self) -> None:
        """Stop listening."""
        self.loader.close()
        self._session.stack_changed.disconnect(self._on_stack)

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self._state)
        layout.addWidget(self.form.native)
        paint, exclude = (partial(self._paint, label) for label in (TISSUE_IN, TISSUE_OUT))
        layout.addLayout(
            button_row(
                ("Show", "Show the tissue as a layer, found with these settings.", self.find),
                ("Paint", "Paint tissue that was missed; 0 erases.", paint),
                ("Exclude", "Paint areas to leave out.", exclude),
            )
        )
        layout.addLayout(
            button_row(
                ("Annotations …", "Keep to the areas of a QuPath GeoJSON file.", self._on_import),
                ("Keep", "Make this the tissue of the case.", self.keep),
            )
        )

    @property
    def layer(self) -> Labels | None:
        """The layer of the tissue, while it is shown."""
        return newest(self._viewer, _layers.TISSUE)

    @property
    def painted(self) -> TissueMask | None:
        """The tissue as it is shown now, less what is excluded."""
        if self._found is None or self.layer is None:
            return None
        return self._found.painted(np.asarray(self.layer.data) == TISSUE_IN)

    # Finding

    def _on_form(self) -> None:
        if self.layer is not None:
            self._timer.start()

    def find(self) -> None:
        """Find the tissue with these settings and show it; what was painted stays."""
        stack = self._session.stack
        if stack is None:
            return
        try:
            config = read_config(TissueConfig, self.form)
        except InputError as error:
            self.complained.emit(str(error))
            return

        def read() -> TissueMask:
            from napari_pancluster.core.pipeline.tissue import propose_tissue

            return propose_tissue(stack, config)

        self.loader.ask(read, self._show)

    def _show(self, tissue: TissueMask) -> None:
        stack = self._session.stack
        if stack is None:
            return
        values = tissue.mask.astype(np.uint8)
        layer, before = self.layer, self._found
        if layer is not None and before is not None and before.mask.shape == tissue.mask.shape:
            values = _repainted(np.asarray(layer.data), before.mask, values)
            layer.data = values
        else:
            self._drop()
            reference = stack.stain(stack.reference).slide
            data = _layers.tissue_layer(values, tissue.mpp, reference, unit=self._session.unit)
            layer = self._viewer.add_layer(Layer.create(*data))
            layer.colormap = DirectLabelColormap(color_dict=_COLOURS)
            layer.brush_size = _BRUSH_PX
        self._found = tissue
        self._say()

    def _drop(self) -> None:
        if self.layer is not None:
            remove_layers(self._viewer, [self.layer])
        self._found = None

    def _on_stack(self) -> None:
        self._drop()
        self.loader.forget()
        self.setEnabled(self._session.stack is not None)
        self._say()

    def _say(self) -> None:
        tissue = self.painted
        if tissue is not None:
            self._state.setText(f"Shown: {tissue.area_mm2:,.2f} mm². Paint, then Keep.")
            return
        kept = self._kept()
        self._state.setText(
            f"Kept: {kept.area_mm2:,.2f} mm². Show it to change it."
            if kept is not None
            else "Found by itself when a network is trained. Show it to check and change it."
        )

    def _kept(self) -> TissueMask | None:
        project, case = self._session.project, self._session.case
        if project is None or not case:
            return None
        from napari_pancluster.core.pipeline.tissue import kept_tissue

        return kept_tissue(project, case)

    # Changing

    def _paint(self, label: int) -> None:
        layer = self.layer
        if layer is None:
            self.complained.emit("Show the tissue first, then paint on it.")
            return
        self._viewer.layers.selection.active = layer
        layer.selected_label = label
        layer.mode = "paint"

    def _on_import(self) -> None:
        path, _ = QFileDialog.getOpenFileName(
            self, "Annotations of the reference slide", "", "GeoJSON (*.geojson *.json)"
        )
        if path:
            self.restrict(Path(path))

    def restrict(self, path: Path) -> None:
        """Keep to the areas of a GeoJSON file."""
        from napari_pancluster.core.pipeline.tissue import annotated

        stack, tissue, layer = self._session.stack, self.painted, self.layer
        if stack is None or tissue is None or layer is None:
            self.complained.emit("Show the tissue first, then import annotations.")
            return
        try:
            left = annotated(path, stack.stain(stack.reference).slide, tissue)
        except PanclusterError as error:
            self.complained.emit(str(error))
            return
        values = np.asarray(layer.data).copy()
        values[tissue.mask & ~left.mask] = TISSUE_OUT
        layer.data = values
        self._say()

    def keep(self) -> None:
        """Make what is shown the tissue of the case."""
        tissue = self.painted
        if tissue is None:
            self.complained.emit("Show the tissue first, then keep it.")
        elif self._work.keep_tissue(tissue):
            self._drop()
            self._say()


def _repainted(
    shown: NDArray[Any], before: NDArray[np.bool_], after: NDArray[np.uint8]
) -> NDArray[np.uint8]:
    """Return new tissue with what the user had painted, erased and excluded over the old."""
    changed = shown != before
    return np.where(changed, shown, after).astype(np.uint8)
