"""The main widget: the panels in the order of the work, and the foot that says what runs."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import napari
from napari.settings import get_plugin_settings
from napari.viewer import Viewer
from qtpy.QtCore import QEvent, QObject, Qt
from qtpy.QtGui import QKeySequence, QShortcut
from qtpy.QtWidgets import (
    QDockWidget,
    QFrame,
    QHBoxLayout,
    QLabel,
    QMainWindow,
    QMessageBox,
    QPushButton,
    QScrollArea,
    QSplitter,
    QTabWidget,
    QVBoxLayout,
    QWidget,
)

from napari_pancluster._session import Session
from napari_pancluster._widgets.clusters import ClustersPanel
from napari_pancluster._widgets.jobbar import JobBar
from napari_pancluster._widgets.jobs import Jobs
from napari_pancluster._widgets.register import RegisterPanel
from napari_pancluster._widgets.slides import SlidesPanel
from napari_pancluster._widgets.steps import ExportPanel, TrainPanel
from napari_pancluster._widgets.tissue import TissueView
from napari_pancluster._widgets.work import Work
from napari_pancluster.core.config import MapConfig, RegisterConfig
from napari_pancluster.core.pipeline.describe import step_states, steps_in_words
from napari_pancluster.core.progress import Progress

PLUGIN, TITLE = "napari-pancluster", "PanCluster"
_MARKS = {"done": "✓ ", "stale": "! ", "missing": ""}
_TABS = ("Slides", "Register", "Train", "Clusters", "Export")
_TIPS = (
    "Which slides make a case",
    "Bring the stains into one frame",
    "Learn the tissue and map it",
    "Look at the clusters, name and merge them",
    "Write maps, tables and pictures",
)
_HIDE_KEY = "h"
_WIDTH, _SCATTER_SHARE = 410, 0.36
# How often slides are drawn anew while their overviews grow.
_REFRESH_S = 2.0


class MainWidget(QWidget):
    """PanCluster in napari.

    Parameters
    ----------
    napari_viewer
        The viewer it works in.
    """

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        self.viewer = napari_viewer
        settings = _settings()
        self.session = Session()
        self.jobs = Jobs(self)
        self.work = Work(self.session, self.jobs)
        self.tissue = TissueView(napari_viewer, self.session, cache_mb=settings["cache_mb"])
        self.bar = JobBar(self.jobs)
        self.slides = SlidesPanel(napari_viewer, self.session, self.work)
        self.register = RegisterPanel(napari_viewer, self.session, self.work, self.jobs)
        presets = {name: settings[name] for name in ("device", "seed")}
        self.train = TrainPanel(self.session, self.work, self.jobs, presets)
        self.clusters = ClustersPanel(self.session, self.tissue, self.jobs)
        self.export = ExportPanel(self.session, self.work, self.jobs)
        self.scatter: Any = None
        self.patch: Any = None
        self._both: Any = None
        self._shown_table: Any = None
        self._watched: QObject | None = None
        self._closed = False
        self._refreshed = 0.0
        self._build()
        self._connect()
        self._on_project()

    def open_project(self, path: Path) -> bool:
        """Open a project; return whether it could be."""
        return self.work.open_project(path)

    def show_panel(self, name: str) -> None:
        """Bring a panel to the front."""
        self.tabs.setCurrentIndex(_TABS.index(name))

    # Building

    def _build(self) -> None:
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.setSpacing(2)
        head = QFrame()
        line = QHBoxLayout(head)
        line.setContentsMargins(6, 2, 2, 2)
        self._following: str | None = None
        self._next = QLabel()
        self._next.setWordWrap(True)
        self._do = QPushButton()
        self._all = QPushButton("Do all steps")
        self._all.setToolTip("Register, train, choose k, map and lay out: all that is missing.")
        line.addWidget(self._next, stretch=1)
        line.addWidget(self._do)
        line.addWidget(self._all)
        layout.addWidget(head)
        self.tabs = QTabWidget()
        self.tabs.setUsesScrollButtons(False)
        panels = (self.slides, self.register, self.train, self.clusters, self.export)
        for name, tip, panel in zip(_TABS, _TIPS, panels, strict=True):
            scroll = QScrollArea()
            scroll.setWidgetResizable(True)
            scroll.setFrameShape(QFrame.Shape.NoFrame)
            scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAsNeeded)
            scroll.setWidget(panel)
            index = self.tabs.addTab(scroll, name)
            self.tabs.setTabToolTip(index, tip)
        layout.addWidget(self.tabs, stretch=1)
        note = QLabel("Research use only")
        note.setAlignment(Qt.AlignmentFlag.AlignRight)
        note.setEnabled(False)
        layout.addWidget(self.bar)
        layout.addWidget(note)
        self.setMinimumWidth(330)

    def _connect(self) -> None:
        self._do.clicked.connect(self._on_do)
        self._all.clicked.connect(self._on_all)
        self.session.project_changed.connect(self._on_project)
        self.session.results_changed.connect(self._on_results)
        self.jobs.changed.connect(self._on_project)
        self.work.warned.connect(self.bar.complain)
        self.work.overview_grew.connect(self.tissue.refresh_slides)
        self.jobs.progressed.connect(self._on_progress)
        for panel in (self.slides, self.register, self.train, self.clusters, self.export):
            panel.complained.connect(self.bar.complain)
        self.clusters.scatter_wanted.connect(self.show_scatter)
        self._add_undo_keys(self)
        self.viewer.bind_key(_HIDE_KEY, self._on_hide_key, overwrite=True)

    def _add_undo_keys(self, widget: QWidget) -> None:
        for keys, call in (("Ctrl+Z", self.session.undo), ("Ctrl+Shift+Z", self.session.redo)):
            shortcut = QShortcut(QKeySequence(keys), widget)
            shortcut.setContext(Qt.ShortcutContext.WidgetWithChildrenShortcut)
            shortcut.activated.connect(call)

    def _make_scatter(self) -> None:
        """Make the scatter when there is something to show: vispy takes a moment."""
        from napari_pancluster._widgets.patches import PatchView
        from napari_pancluster._widgets.scatter import ScatterWidget

        self.scatter = ScatterWidget(self.session)
        self.scatter.flown_to.connect(self.tissue.fly_to)
        self.patch = PatchView(self.session)
        self.patch.loader.failed.connect(self.bar.complain)
        self.clusters.gallery.loader.failed.connect(self.bar.complain)
        self._both = QSplitter(Qt.Orientation.Horizontal)
        self._both.addWidget(self.scatter)
        self._both.addWidget(self.patch)
        self._both.setStretchFactor(0, 3)
        self._both.setStretchFactor(1, 2)
        self._add_undo_keys(self._both)

    def show_scatter(self) -> None:
        """Dock the scatter, also after the user closed it."""
        if self.session.results is None:
            return
        if self._both is None:
            self._make_scatter()
        if self._both.parentWidget() is not None:
            _dock_of(self._both).show()
            return
        self.viewer.window.add_dock_widget(self._both, name="PanCluster scatter", area="bottom")
        self._both.show()
        self.tissue.fit_while_docking()
        window = self.window()
        if isinstance(window, QMainWindow):
            # The panels keep their full height; the scatter lies under layers and tissue.
            window.setCorner(Qt.Corner.BottomRightCorner, Qt.DockWidgetArea.RightDockWidgetArea)
            height = round(window.height() * _SCATTER_SHARE)
            window.resizeDocks([_dock_of(self._both)], [height], Qt.Orientation.Vertical)

    # What changed

    def showEvent(self, event: Any) -> None:
        """Watch the window, to ask before it closes over running work."""
        super().showEvent(event)
        window = self.window()
        # Not the window of a floating dock, which may close without any harm.
        if isinstance(window, QMainWindow) and self._watched is not window:
            self._watched = window
            self.tissue.fit_while_docking()
            window.resizeDocks([_dock_of(self)], [_WIDTH], Qt.Orientation.Horizontal)
            window.installEventFilter(self)

    def event(self, event: QEvent) -> bool:
        """Let go of everything when napari takes the widget out of its dock for good."""
        taken = event.type() == QEvent.Type.ParentChange and self.parentWidget() is None
        if taken and self._watched is not None and not self._closed:
            self.close_session()
            if self._both is not None:
                if self._both.parentWidget() is not None:
                    self.viewer.window.remove_dock_widget(self._both)
                self._both.deleteLater()
            # Nobody owns it now, and what outlives the application crashes when Python ends.
            self.deleteLater()
        return bool(super().event(event))

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Ask before the window closes while something runs."""
        if watched is self._watched and event.type() == QEvent.Type.Close and not self._closed:
            if not self.may_close():
                event.ignore()
                return True
            self.close_session()
        return False

    def may_close(self) -> bool:
        """Return whether the window may close; asks where work would be lost."""
        job = self.jobs.current
        if not self.jobs.busy or job is None:
            return True
        answer = QMessageBox.question(
            self,
            "Stop and close?",
            f"{job.title} is still running. Stop it and close the window? "
            "The project stays as it was before this step.",
        )
        return bool(answer == QMessageBox.StandardButton.Yes)

    def close_session(self) -> None:
        """Stop all work, keep what is not kept yet, and let go of the viewer."""
        if self._closed:
            return
        self._closed = True
        self.jobs.stop()
        self.work.finish()
        for part in (self.slides, self.register, self.train, self.clusters, self.export):
            part.close_session()
        for part in (self.scatter, self.patch):
            if part is not None:
                part.close_session()
        self.tissue.close()
        self.viewer.bind_key(_HIDE_KEY, None, overwrite=True)

    def _on_project(self) -> None:
        project = self.session.project
        steps = steps_in_words(project) if project else {}
        for tab, step in ((1, "register"), (2, "train"), (3, "map")):
            state = steps[step][0] if project else "missing"
            self.tabs.setTabText(tab, _MARKS[state] + _TABS[tab])
        self.tabs.setTabText(0, _MARKS["done" if project else "missing"] + _TABS[0])
        self._following = next((s for s in _VERBS if project and steps[s][0] != "done"), None)
        for panel, step in (
            (self.register, "register"),
            (self.train, "train"),
            (self.clusters, "map"),
            (self.export, "map"),
        ):
            state, words = steps.get(step, ("missing", "First: open slides or a project."))
            if state == "done" and self._following is not None:
                words = f"{words} {_what_next(project, self._following)}"
            elif state == "done" and panel is self.clusters:
                words = ""
            panel.say_state(words)
        running = self.jobs.current if self.jobs.busy else None
        self._next.setText(
            f"<b>Now:</b> {running.title} …" if running else _what_next(project, self._following)
        )
        self._do.setText(_VERBS.get(self._following or "", ""))
        for button in (self._do, self._all):
            button.setVisible(self._following is not None and running is None)

    def _on_progress(self, progress: Progress) -> None:
        if self.work.overview_grows and time.monotonic() > self._refreshed + _REFRESH_S:
            self._refreshed = time.monotonic()
            self.tissue.refresh_slides()

    def _on_results(self) -> None:
        results = self.session.results
        before, self._shown_table = self._shown_table, results.table if results else None
        # Not for the same patches laid out anew: the user has moved on since.
        if results is not None and self._shown_table is not before:
            self.show_scatter()
            self.show_panel("Clusters")

    # What the user does

    def _on_do(self) -> None:
        if self._following == "register":
            self.work.register(RegisterConfig())
        elif self._following == "train":
            self.work.train(self.train.given, MapConfig())
        elif self._following == "map":
            self.work.map(MapConfig(), None)
        elif self._following == "embed":
            self.work.embed()

    def _on_all(self) -> None:
        if self.session.project is None:
            return
        # A network that is up to date is kept, whatever the form says by now.
        trained = step_states(self.session.project)["train"] == "done"
        self.work.everything({} if trained else self.train.given)

    def _on_hide_key(self, viewer: Viewer) -> None:
        self.tissue.toggle_map()


_VERBS = {
    "register": "Register",
    "train": "Train and map",
    "map": "Map",
    "embed": "Compute UMAP",
}


def _dock_of(widget: QWidget) -> QWidget:
    """Return the dock around a widget; napari hands out proxies that Qt does not take."""
    while widget.parentWidget() is not None and not isinstance(widget, QDockWidget):
        widget = widget.parentWidget()
    return widget


def _what_next(project: Any, following: str | None) -> str:
    if project is None:
        return "<b>Next:</b> open slides or a sample and create a project, or open one."
    if following is None:
        return "<b>All done.</b> Explore the clusters, then export."
    return f"<b>Next:</b> {_VERBS[following].lower().replace('umap', 'UMAP')}."


def _settings() -> dict[str, Any]:
    """Return the values of the settings page."""
    page = get_plugin_settings(PLUGIN).general
    return {"device": page.device, "cache_mb": page.cache_mb, "seed": page.seed}


def dock(viewer: Viewer) -> MainWidget:
    """Dock the main widget, or find it where it is docked already."""
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, TITLE)
    return widget


def show_panel(name: str) -> None:
    """Bring a panel of the present viewer to the front."""
    viewer = napari.current_viewer()
    if viewer is not None:
        dock(viewer).show_panel(name)


def show_slides() -> None:
    """Menu: the panel Slides."""
    show_panel("Slides")


def show_register() -> None:
    """Menu: the panel Register."""
    show_panel("Register")


def show_train() -> None:
    """Menu: the panel Train."""
    show_panel("Train")


def show_clusters() -> None:
    """Menu: the panel Clusters."""
    show_panel("Clusters")


def show_export() -> None:
    """Menu: the panel Export."""
    show_panel("Export")
