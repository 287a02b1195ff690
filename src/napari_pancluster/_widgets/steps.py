"""The panels Train and Export: a form, a button, and what came of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qtpy.QtCore import Qt, QUrl, Signal
from qtpy.QtGui import QDesktopServices
from qtpy.QtWidgets import (
    QCheckBox,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QVBoxLayout,
    QWidget,
)
from superqt import QCollapsible

from napari_pancluster._session import Session
from napari_pancluster._widgets.forms import Form, read_config
from napari_pancluster._widgets.jobs import Jobs
from napari_pancluster._widgets.plots import LossPlot
from napari_pancluster._widgets.rows import push_button
from napari_pancluster._widgets.work import Work
from napari_pancluster.core.config import MapConfig, TrainConfig
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.pipeline.describe import step_states
from napari_pancluster.core.pipeline.unfinished import MAY_CHANGE
from napari_pancluster.core.progress import Progress

_TRAIN_BASIC = ("recipe", "patch_px", "k", "epochs", "device")
# What to write, in the user's words; the keys are the command line's.
_FORMATS = {
    "ome-tiff": "Cluster maps (OME-TIFF, opens in QuPath and Fiji)",
    "csv": "Tables of patches and clusters (CSV)",
    "png": "Pictures: map, densities, gallery, UMAP, curves (PNG)",
    "geojson": "Areas of the clusters (GeoJSON, opens in QuPath)",
    "ome-zarr": "Cluster maps with names and colours (OME-Zarr)",
    "h5ad": "Patches with latents and UMAP (AnnData, for scanpy)",
}
_INDENT_PX = 24
_USUAL = ("ome-tiff", "csv", "png", "geojson")


class StepPanel(QWidget):
    """A panel with the state of its step on top."""

    complained = Signal(str)

    def __init__(self, session: Session, work: Work, jobs: Jobs) -> None:
        super().__init__()
        self._session, self._work, self._jobs = session, work, jobs
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(4, 4, 4, 4)
        self._state = QLabel()
        self._state.setWordWrap(True)
        self._column.addWidget(self._state)
        self._build()
        self._column.addStretch()
        session.project_changed.connect(self.refresh)
        jobs.changed.connect(self.refresh)
        self.refresh()

    def close_session(self) -> None:
        """Stop listening."""
        self._session.project_changed.disconnect(self.refresh)

    def say_state(self, text: str) -> None:
        """Show where the step stands."""
        self._state.setText(text)

    def refresh(self) -> None:
        """Show what can be done now."""
        raise NotImplementedError

    def _build(self) -> None:
        raise NotImplementedError

    def _add_form(self, form: Form) -> None:
        self._column.addWidget(form.native)

    def _add_more(self, form: Form) -> None:
        more = QCollapsible("More settings")
        more.addWidget(form.native)
        self._column.addWidget(more)

    def _config(self, model: Any, *forms: Form) -> Any:
        """Return the config of the forms, or None after saying what is wrong with it."""
        try:
            return read_config(model, *forms)
        except InputError as error:
            self.complained.emit(str(error))
            return None

    @property
    def _idle(self) -> bool:
        return self._session.project is not None and not self._jobs.busy


class TrainPanel(StepPanel):
    """Trains the network, and maps the tissue with it."""

    def __init__(
        self, session: Session, work: Work, jobs: Jobs, presets: Mapping[str, Any]
    ) -> None:
        self._presets = presets
        super().__init__(session, work, jobs)
        jobs.progressed.connect(self._on_progress)

    def refresh(self) -> None:
        """Show what can be started or resumed."""
        project = self._session.project
        self._go.setEnabled(self._idle)
        unfinished = project.unfinished_runs() if project and self._idle else []
        self._resume.setVisible(bool(unfinished))
        self._map.setEnabled(self._idle and bool(project and project.runs()))

    @property
    def given(self) -> dict[str, Any]:
        """Training options as the form has them."""
        return {**self.form.given, **self._more.given}

    def _build(self) -> None:
        fields = tuple(TrainConfig.model_fields)
        self.form = Form(TrainConfig, _TRAIN_BASIC, self._presets)
        rest = tuple(f for f in fields if f not in _TRAIN_BASIC)
        self._more = Form(TrainConfig, rest, self._presets)
        self._add_form(self.form)
        self._add_more(self._more)
        tip = "Train the network, judge every number of clusters, map the tissue, lay out the UMAP."
        self._go = push_button("Train and map", tip, self._on_go)
        tip = "Go on with the training that was stopped."
        self._resume = push_button("Resume", tip, self._on_resume)
        line = QHBoxLayout()
        line.addWidget(self._go)
        line.addWidget(self._resume)
        self._column.addLayout(line)
        self.losses = LossPlot()
        self.losses.hide()
        self._column.addWidget(self.losses)
        self._stride = Form(MapConfig, tuple(MapConfig.model_fields))
        self._add_form(self._stride)
        tip = "Map the tissue anew with the trained network, more or less densely."
        self._map = push_button("Map again", tip, self._on_map)
        self._column.addWidget(self._map)

    def _on_go(self) -> None:
        self._train(resume=False)

    def _on_resume(self) -> None:
        self._train(resume=True)

    def _train(self, *, resume: bool) -> None:
        config = self._config(TrainConfig, self.form, self._more)
        stride = self._config(MapConfig, self._stride)
        if config is not None and stride is not None:
            self.losses.clear()
            self._work.train(self._changed if resume else self.given, stride, resume=resume)

    @property
    def _changed(self) -> dict[str, Any]:
        """What the user set of that which a resumed run need not keep from its start."""
        usual = {**TrainConfig().model_dump(), **self._presets}
        return {n: self.given[n] for n in MAY_CHANGE if self.given[n] != usual[n]}

    def _on_map(self) -> None:
        stride = self._config(MapConfig, self._stride)
        if stride is not None:
            self._work.map(stride, self._session.k or None)

    def _on_progress(self, progress: Progress) -> None:
        if "reconstruction" in progress.values:
            self.losses.show()
            self.losses.add(progress.done, progress.values)


class ExportPanel(StepPanel):
    """Writes maps, tables and pictures."""

    def refresh(self) -> None:
        """Show whether there is something to export."""
        project = self._session.project
        mapped = project is not None and step_states(project)["map"] == "done"
        self._go.setEnabled(self._idle and mapped and self._session.results is not None)

    def _build(self) -> None:
        self._boxes: dict[str, QCheckBox] = {}
        for name, text in _FORMATS.items():
            box = QCheckBox(text)
            box.setChecked(name in _USUAL)
            box.toggled.connect(self.refresh)
            self._boxes[name] = box
            self._column.addWidget(box)
            if name == "geojson":
                self._everywhere = QCheckBox("also on the slides of the other stains")
                self._everywhere.setToolTip(
                    "One more file a registered stain, in the pixels of its own slide."
                )
                box.toggled.connect(self._everywhere.setEnabled)
                indented = QHBoxLayout()
                indented.setContentsMargins(_INDENT_PX, 0, 0, 0)
                indented.addWidget(self._everywhere)
                self._column.addLayout(indented)
        tip = "Names, colours and merges are written as they are in the table."
        self._go = push_button("Export …", tip, self._on_go)
        self._column.addWidget(self._go)
        self._files = QLabel()
        self._files.setWordWrap(True)
        self._files.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._column.addWidget(self._files)
        self._show = push_button("Show the folder", "Open the folder of the export.", self._open)
        self._show.hide()
        self._column.addWidget(self._show)
        self._folder = Path()
        self._session.results_changed.connect(self.refresh)

    def close_session(self) -> None:
        """Stop listening."""
        super().close_session()
        self._session.results_changed.disconnect(self.refresh)

    def _on_go(self) -> None:
        folder = QFileDialog.getExistingDirectory(self, "Folder for the export")
        if folder:
            self.export(Path(folder))

    def export(self, folder: Path) -> None:
        """Write what is ticked into a folder."""
        formats = [name for name, box in self._boxes.items() if box.isChecked()]
        if not formats:
            self.complained.emit("Tick at least one kind of file.")
            return
        self._folder = folder
        everywhere = "geojson" in formats and self._everywhere.isChecked()
        self._work.export(folder, formats, self._on_done, areas_everywhere=everywhere)

    def _on_done(self, result: Mapping[str, Any]) -> None:
        names = [Path(f).name for f in result["files"]]
        self._files.setText(f"Written to {self._folder}:\n" + "\n".join(names))
        self._show.show()

    def _open(self) -> None:
        QDesktopServices.openUrl(QUrl.fromLocalFile(str(self._folder)))
