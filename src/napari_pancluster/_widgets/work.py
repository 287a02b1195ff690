"""The verbs of the window: each starts a job over the project and shows what came of it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from qtpy.QtCore import QObject, QTimer, Signal

from napari_pancluster._session import Session
from napari_pancluster._widgets.jobs import Job, Jobs
from napari_pancluster._widgets.loader import Loader
from napari_pancluster.core.config import EmbedConfig, MapConfig, RegisterConfig, SelectConfig
from napari_pancluster.core.counterparts import carried_in_words
from napari_pancluster.core.errors import PanclusterError
from napari_pancluster.core.overview import Overview, fill_overviews
from napari_pancluster.core.pipeline.apart import run_all_apart, train_and_map_apart
from napari_pancluster.core.pipeline.describe import step_states
from napari_pancluster.core.pipeline.opening import (
    Growing,
    keep_growing,
    registration_key,
    with_growing,
)
from napari_pancluster.core.progress import Progress, Task, run
from napari_pancluster.core.project import Project
from napari_pancluster.core.results import Results
from napari_pancluster.core.slide import Slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.tissue_mask import TissueMask

if TYPE_CHECKING:
    from napari_pancluster.core.registration import Landmarks

_EDITS_MS, _K_MS = 400, 1500
_OVERVIEW = "Overview of "
_log = logging.getLogger(__name__)


class Work(QObject):
    """What can be done with a project.

    The pipeline is imported where it is called: it brings torch, and the window opens without.

    Parameters
    ----------
    session
        What is looked at.
    jobs
        Where slow work goes.
    """

    warned = Signal(str)
    overview_grew = Signal()

    def __init__(self, session: Session, jobs: Jobs) -> None:
        super().__init__()
        self._session = session
        self._jobs = jobs
        self.loader = Loader(self)
        self.loader.failed.connect(jobs.failed)
        self._shown_inputs: tuple[str, ...] = ()
        self._edits_timer = _timer(self, _EDITS_MS, self.save_edits)
        self._k_timer = _timer(self, _K_MS, self._save_k)
        session.case_changed.connect(self._open_stack)
        session.clusters_changed.connect(self._on_clusters)

    # Projects

    def open_project(self, path: Path) -> bool:
        """Open a project folder; return whether it could be."""
        try:
            project = Project.open(path)
        except PanclusterError as error:
            self._jobs.failed.emit(str(error))
            return False
        self.save_edits()
        self._save_k()
        self._session.show_project(project)
        self._read_results()
        return True

    def create(self, path: Path, entries: Sequence[Any], *, nominal: bool) -> None:
        """Make a project of slides (of `SlideEntry`) and open it."""

        def task() -> Task[Path]:
            from napari_pancluster.core.pipeline.creating import create_project

            return create_project(path, entries, nominal=nominal)

        self._jobs.start(Job("Making the project", task, self.open_project))

    def relocate(self, folder: Path) -> None:
        """Look for the project's missing slides below a folder."""

        def step(project: Project) -> Task[dict[str, str]]:
            from napari_pancluster.core.relocating import relocate

            return relocate(project, folder)

        def done(found: Mapping[str, str]) -> None:
            if found:
                self._reload()
            else:
                self.warned.emit(f"None of the missing slides is in {folder} or below it.")

        self._start("Looking for the slides", step, done)

    def keep_tissue(self, tissue: TissueMask) -> bool:
        """Make a mask the tissue of the case that is shown; return whether it could be."""
        from napari_pancluster.core.pipeline.tissue import keep_tissue

        session = self._session
        if session.project is None:
            return False
        try:
            keep_tissue(session.project, session.case, tissue)
        except PanclusterError as error:
            self._jobs.failed.emit(str(error))
            return False
        session.show_project(Project.open(session.project.root))
        return True

    def fill_overview(self, slide: Slide, overview: Overview, name: str) -> None:
        """Fill the coarse levels of a loose slide, in memory."""

        def task() -> Task[None]:
            return fill_overviews(slide, [overview], name)

        title, done = f"{_OVERVIEW}{name}", lambda _: self.overview_grew.emit()
        self._jobs.start(Job(title, task, done, quiet=True, gives_way=True))

    @property
    def overview_grows(self) -> bool:
        """Whether coarse levels of a slide that is shown are being built."""
        job = self._jobs.current
        return job is not None and job.title.startswith(_OVERVIEW)

    # Steps

    def register(
        self,
        config: RegisterConfig,
        *,
        cases: Sequence[str] = (),
        stains: Sequence[str] = (),
        landmarks: Mapping[str, Landmarks] | None = None,
        starts: Mapping[str, NDArray[np.float64]] | None = None,
    ) -> None:
        """Register every moving stain of every case, or these; steered where a person did so."""

        def step(project: Project) -> Task[Any]:
            from napari_pancluster.core.pipeline.registering import register

            return register(
                project, config, cases=cases, stains=stains, landmarks=landmarks, starts=starts
            )

        def done(result: Mapping[str, Any]) -> None:
            from napari_pancluster.core.pipeline.registering import kept_before

            self._reload()
            for words in kept_before(result):
                self.warned.emit(words)

        self._start("Registration", step, done)

    def train(
        self, given: Mapping[str, Any], map_config: MapConfig, *, resume: bool = False
    ) -> None:
        """Train, judge every k, and map, in a process of its own."""
        paused = threading.Event()

        def step(project: Project) -> Task[Any]:
            return train_and_map_apart(
                project, given, map_config, resume=resume, paused=paused, warn=self.warned.emit
            )

        self._start("Training", step, paused=paused)

    def map(self, config: MapConfig, k: int | None) -> None:
        """Map the tissue anew, with another stride or number of clusters."""

        def step(project: Project) -> Task[Any]:
            from napari_pancluster.core.pipeline.mapping import map_clusters

            return map_clusters(project, config, k=k)

        self._start("Mapping", step)

    def everything(self, given: Mapping[str, Any]) -> None:
        """Do all that is missing or out of date, in a process of its own."""
        paused = threading.Event()
        warnings: list[str] = []

        def step(project: Project) -> Task[Any]:
            return run_all_apart(project, given, paused=paused, warn=warnings.append)

        def done(result: Mapping[str, Any]) -> None:
            self._on_step(result.get("map"))
            if warnings:
                self.warned.emit("\n".join(warnings))

        self._start("All steps", step, done, paused=paused)

    def embed(self) -> None:
        """Lay the patches out as a UMAP."""

        def step(project: Project) -> Task[Any]:
            from napari_pancluster.core.pipeline.mapping import embed_patches

            return embed_patches(project, EmbedConfig())

        self._start("UMAP", step, quiet=True, gives_way=True)

    def judge(self) -> None:
        """Compute the validation indices of every number of clusters."""

        def step(project: Project) -> Task[Any]:
            from napari_pancluster.core.pipeline.mapping import select_clusters

            return select_clusters(project, SelectConfig(), MapConfig())

        self._start("Judging every number of clusters", step, quiet=True, gives_way=True)

    def export(
        self,
        folder: Path,
        formats: Sequence[str],
        done: Callable[[Any], object],
        *,
        areas_everywhere: bool = False,
    ) -> None:
        """Write maps, tables and pictures, as they are looked at now.

        Parameters
        ----------
        areas_everywhere
            Whether areas are written for the slides of all registered stains, too.
        """
        self.save_edits()
        self._save_k()

        def step(project: Project) -> Task[Any]:
            from napari_pancluster.core.pipeline.exporting import carried_stains, export

            stains = carried_stains(project) if areas_everywhere else ()
            return export(project, folder, formats, geojson_for=stains)

        self._start("Export", step, done)

    # Carrying through registrations

    def transfer_file(
        self,
        source: Path,
        target: Path,
        *,
        from_: str,
        to: str,
        done: Callable[[Mapping[str, Any]], object],
    ) -> None:
        """Carry points, annotations or labels from one stain of the shown case to another."""
        between = {"case": self._session.case, "from_": from_, "to": to}

        def step(project: Project) -> Task[dict[str, Any]]:
            from napari_pancluster.core.pipeline.carrying import transfer_file
            from napari_pancluster.core.pipeline.registering import map_points

            if source.suffix.lower() == ".csv":
                yield Progress(f"Mapping {source.name}")
                return map_points(project, **between, source=source, target=target)
            return (yield from transfer_file(project, **between, source=source, target=target))

        self._start("Carrying over", step, done)

    def export_transforms(
        self, folder: Path, done: Callable[[list[str]], object], *, cases: Sequence[str] = ()
    ) -> None:
        """Write the registrations of all cases, or these, for ITK."""

        def step(project: Project) -> Task[list[str]]:
            from napari_pancluster.core.pipeline.carrying import export_transforms

            return export_transforms(project, folder, cases)

        self._start("Writing the transforms", step, done)

    def warp_slides(
        self,
        folder: Path,
        format: Literal["ome-tiff", "ome-zarr"],
        done: Callable[[list[str]], object],
        *,
        cases: Sequence[str] = (),
    ) -> None:
        """Write the registered slides of all cases, or these, in the frame of their reference."""

        def step(project: Project) -> Task[list[str]]:
            from napari_pancluster.core.pipeline.carrying import warp_slides

            return warp_slides(project, folder, cases=cases, format=format)

        self._start("Writing the registered slides", step, done)

    # Keeping what the user made

    def save_edits(self) -> None:
        """Keep names, colours and merges in the project."""
        self._edits_timer.stop()
        session = self._session
        if session.project is None or session.results is None:
            return
        from napari_pancluster.core.pipeline.viewing import save_edits

        try:
            for edits in session.unsaved_edits():
                save_edits(session.project, session.results.run, edits)
                session.mark_saved(edits)
        except PanclusterError as error:
            self._jobs.failed.emit(str(error))

    def finish(self) -> None:
        """Keep what is not kept yet, before the window goes."""
        self.save_edits()
        self._k_timer.stop()
        self.loader.close()
        session = self._session
        session.case_changed.disconnect(self._open_stack)
        session.clusters_changed.disconnect(self._on_clusters)
        k = session.unsaved_k()
        if session.project is None or session.results is None or k is None:
            return
        from napari_pancluster.core.pipeline.mapping import map_clusters

        # The window waits: it takes as long as writing the map once.
        try:
            project = Project.open(session.project.root)
            config = MapConfig(smooth=session.results.smoothed)
            run(map_clusters(project, config, run=session.results.run, k=k))
        except PanclusterError as error:
            # Too late for the panel; the window closes all the same.
            _log.error("The number of clusters was not kept: %s", error)

    def _on_clusters(self) -> None:
        if self._session.results is not None:
            self._edits_timer.start()
            self._k_timer.start()

    def _save_k(self) -> None:
        """Make the number of clusters that is looked at the project's map."""
        self._k_timer.stop()
        session = self._session
        k = session.unsaved_k()
        if session.results is None or k is None:
            return
        if self._jobs.busy:
            self._k_timer.start()
            return
        run_id, config = session.results.run, MapConfig(smooth=session.results.smoothed)

        def step(project: Project) -> Task[Any]:
            from napari_pancluster.core.pipeline.mapping import map_clusters

            return map_clusters(project, config, run=run_id, k=k)

        self._start("Keeping the number of clusters", step, self._on_k_saved, quiet=True)

    def _on_k_saved(self, summary: Mapping[str, Any]) -> None:
        results, project = self._session.results, self._session.project
        if results is None or project is None or results.run != summary["run"]:
            return
        self._session.keep_k(int(summary["k"]))
        self._session.show_project(Project.open(project.root))

    # From the project to the session

    def _start(
        self,
        title: str,
        step: Callable[[Project], Task[Any]],
        done: Callable[[Any], object] | None = None,
        *,
        quiet: bool = False,
        gives_way: bool = False,
        paused: threading.Event | None = None,
    ) -> None:
        if self._session.project is None:
            return
        root = self._session.project.root
        # A project of its own: the window goes on writing edits through the session's.
        self._jobs.start(
            Job(
                title,
                lambda: step(Project.open(root)),
                done or self._on_step,
                quiet=quiet,
                gives_way=gives_way,
                paused=paused,
            )
        )

    def reload(self) -> None:
        """Show the project as it is on disk now."""
        self._reload()

    def _on_step(self, result: Any) -> None:
        self._reload()
        names = result.get("names") if isinstance(result, Mapping) else None
        if names:
            self.warned.emit(carried_in_words(names))

    def _reload(self) -> None:
        if self._session.project is not None:
            self.save_edits()
            self._session.show_project(Project.open(self._session.project.root))
            self._open_stack()
            self._read_results()

    def _open_stack(self) -> None:
        project, case = self._session.project, self._session.case
        if project is None:
            return
        inputs = _stack_inputs(project, case)
        if self._session.stack is not None and inputs == self._shown_inputs:
            # Nothing about the slides changed; layers and view stay as the user has them.
            return
        self._shown_inputs = inputs

        def read() -> tuple[SlideStack, list[Growing]]:
            from napari_pancluster.core.pipeline.opening import open_stack

            return with_growing(open_stack(project, project.case(case)))

        self.loader.ask(read, self._show_stack)

    def _show_stack(self, found: tuple[SlideStack, list[Growing]]) -> None:
        stack, growing = found
        self._session.show_stack(stack)
        if not growing:
            return

        def step(project: Project) -> Task[None]:
            return keep_growing(project, growing)

        def done(_: None) -> None:
            self._shown_inputs = ()
            self._open_stack()

        self._start(f"{_OVERVIEW}{stack.case}", step, done, quiet=True, gives_way=True)

    def _read_results(self) -> None:
        project = self._session.project
        if project is None or step_states(project)["map"] != "done":
            return

        def step(project: Project) -> Task[Results]:
            from napari_pancluster.core.pipeline.viewing import open_results

            return open_results(project)

        self._start("Opening the map", step, self._show_results, quiet=True)

    def _show_results(self, results: Results) -> None:
        before = self._session.results
        if before is not None and before.same_patches(results):
            self._session.show_embedding(results)
        else:
            self._session.show_results(results)
        # Of a map with another stride, whose patches the indices were not computed on. Takes a few
        # seconds, where the scatter takes a minute.
        if results.scores is None:
            self.judge()
        if results.embedding_name != "UMAP":
            self.embed()


def _stack_inputs(project: Project, case: str) -> tuple[str, ...]:
    """Return all that the slides of a case and their registrations are made of."""
    record = project.case(case)
    found = [project.artefact(registration_key(case, s.name)) for s in record.stains]
    tokens = [s.token for s in record.stains]
    return (str(project.root), case, *tokens, *(a.id for a in found if a is not None))


def _timer(parent: QObject, interval_ms: int, call: Callable[[], object]) -> QTimer:
    timer = QTimer(parent)
    timer.setSingleShot(True)
    timer.setInterval(interval_ms)
    timer.timeout.connect(call)
    return timer
