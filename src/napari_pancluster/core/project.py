"""The project folder: one atomic ``project.json`` over immutable artefact folders.

Only this file knows the paths inside a project. A commit is one `os.replace` of a synced
``project.json``; artefacts it does not name are orphans, collected when the project is opened.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from napari_pancluster import __version__
from napari_pancluster.core.errors import ProjectError
from napari_pancluster.core.records import (
    FORMAT_VERSION,
    MIGRATIONS,
    ArtefactRecord,
    CaseRecord,
    ProjectState,
)

SUFFIX = ".pancluster"
_STATE, _LOCK, _WRITER = "project.json", "project.lock", ".writer"
_LOCK_WAIT_S, _LOCK_STALE_S = 10.0, 60.0
_ORPHAN_AGE_S = 7 * 24 * 3600.0

Change = Callable[[ProjectState], ProjectState]
# How a new artefact takes its place under its key.
Place = Callable[[ProjectState, str, ArtefactRecord], ProjectState]


@dataclass
class _Batch:
    """What is to be committed at once."""

    changes: list[Change] = field(default_factory=list)
    records: list[ArtefactRecord] = field(default_factory=list)


class Project:
    """An open project folder.

    Attributes
    ----------
    root
        The folder.
    state
        What ``project.json`` said when last read.
    """

    def __init__(self, root: Path, state: ProjectState) -> None:
        self.root = root
        self.state = state
        self._batch: _Batch | None = None

    @classmethod
    def create(cls, path: Path, cases: tuple[CaseRecord, ...]) -> Project:
        """Make a new project folder.

        Raises
        ------
        ProjectError
            If there is something at `path` already, or it cannot be written.
        """
        root = project_path(path)
        if root.exists():
            raise ProjectError(f"{root} already exists. Choose another name or delete it.")
        project = cls(root, ProjectState(cases=cases))
        # Built aside and renamed: an interrupted `new` leaves nothing that looks like a project.
        partial = root.with_name(f".{root.name}.{secrets.token_hex(4)}")
        try:
            partial.mkdir(parents=True)
            _write_synced(partial / _STATE, project.state.model_dump_json(indent=1))
            os.rename(partial, root)
        except OSError as error:
            raise ProjectError(
                f"{root} cannot be written ({error.strerror or error}). "
                "Choose a folder you may write to."
            ) from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return project

    @classmethod
    def open(cls, path: Path) -> Project:
        """Open a project and collect what an interrupted step left behind.

        Raises
        ------
        ProjectError
            If it is no project, damaged, or from a newer version.
        """
        root = project_path(path)
        # Listed before the state is read, which names all that others commit in between.
        idle = [f for f in (root / "artefacts").glob("*/*") if not _being_written(f)]
        project = cls(root, _read_state(root))
        project._collect_orphans(idle)
        return project

    def case(self, name: str) -> CaseRecord:
        """Return the record of a case.

        Raises
        ------
        ProjectError
            If there is no such case.
        """
        for case in self.state.cases:
            if case.name == name:
                return case
        names = ", ".join(c.name for c in self.state.cases)
        raise ProjectError(f"The project has no case {name!r}. It has: {names}.")

    def artefact(self, key: str) -> ArtefactRecord | None:
        """Return the current artefact under a key, or None."""
        return self.state.artefacts.get(key)

    def folder(self, record: ArtefactRecord) -> Path:
        """Return the folder of an artefact."""
        return self.root / "artefacts" / record.step / record.id

    def is_stale(self, key: str) -> bool:
        """Return whether something an artefact was made from is no longer current."""
        return self.state.is_outdated(self.state.artefacts[key])

    @contextmanager
    def writing(
        self,
        key: str,
        inputs: tuple[str, ...],
        summary: dict[str, Any],
        *,
        id_: str | None = None,
        place: Place = ProjectState.with_current,
    ) -> Iterator[Path]:
        """Give a fresh folder to write an artefact into; commit it when the block ends well.

        On any exception, Cancel and Ctrl-C included, the folder is removed and the project stays
        as it was. Entries put into `summary` inside the block are committed with it.

        Parameters
        ----------
        place
            How it takes its place; it becomes current, unless told otherwise.
        """
        record = ArtefactRecord(
            step=key.split("/")[0],
            id=id_ or secrets.token_hex(6),
            inputs=inputs,
            summary=summary,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
        )
        folder = self.folder(record)
        try:
            folder.mkdir(parents=True)
            (folder / _WRITER).write_text(
                json.dumps({"pid": os.getpid(), "host": socket.gethostname()})
            )
            yield folder
            record = record.model_copy(update={"summary": summary})
            with self.batch() as batch:
                batch.records.append(record)
                self.change(lambda state: place(state, key, record))
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise self._unwritable(error) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @contextmanager
    def batch(self) -> Iterator[_Batch]:
        """Commit all that is written and changed inside the block at once, or nothing of it.

        A batch inside another is a part of it.
        """
        if self._batch is not None:
            yield self._batch
            return
        before, batch = self.state, _Batch()
        self._batch = batch
        try:
            yield batch
            if batch.changes:
                self._commit(batch.changes)
        except BaseException:
            for record in batch.records:
                shutil.rmtree(self.folder(record), ignore_errors=True)
            self.state = before
            raise
        finally:
            self._batch = None
        for record in batch.records:
            (self.folder(record) / _WRITER).unlink(missing_ok=True)

    def change(self, change: Change) -> None:
        """Change what ``project.json`` says: now, or when the batch ends.

        Parameters
        ----------
        change
            Given the state as it is on disk then, with what other windows committed. What it
            raises leaves the project as it was.
        """
        if self._batch is None:
            self._commit([change])
            return
        self.state = change(self.state)
        self._batch.changes.append(change)

    def run_folder(self, run: str) -> Path:
        """Return the folder of a training run in progress; it is no project state."""
        return self.root / "runs" / run

    def overview_folder(self, fingerprint: str) -> Path:
        """Return the folder of the coarse levels that a slide's own file lacks."""
        return self.root / "cache" / "overviews" / fingerprint

    def latents_folder(self) -> Path:
        """Return the folder of cases that are encoded while others are not; no project state."""
        return self.root / "cache" / "latents"

    def unfinished_runs(self) -> list[str]:
        """Return the ids of interrupted training runs, newest first."""
        folder = self.root / "runs"
        if not folder.is_dir():
            return []
        runs = [p for p in folder.iterdir() if (p / "run.json").exists()]
        return [
            p.name
            for p in sorted(runs, key=lambda p: (p / "run.json").stat().st_mtime, reverse=True)
        ]

    def runs(self) -> list[str]:
        """Return the ids of finished training runs, oldest first."""
        return [a.id for key, a in self.state.artefacts.items() if key.startswith("train/")]

    def move_slides(self, paths: Mapping[str, str]) -> None:
        """Take note of where slides are now; nothing that was made from them becomes stale.

        Parameters
        ----------
        paths
            New path by fingerprint.
        """

        def moved(state: ProjectState) -> ProjectState:
            cases = []
            for case in state.cases:
                stains = tuple(
                    s.model_copy(update={"path": paths.get(s.fingerprint, s.path)})
                    for s in case.stains
                )
                cases.append(case.model_copy(update={"stains": stains}))
            return state.model_copy(update={"cases": tuple(cases)})

        self.change(moved)

    def _commit(self, changes: Sequence[Change]) -> None:
        try:
            with _locked(self.root / _LOCK):
                # Read again: another window may have committed; each commit changes only its keys.
                state = _read_state(self.root)
                for change in changes:
                    state = change(state)
                new = state.model_copy(update={"written_by": __version__})
                _write_synced(self.root / _STATE, new.model_dump_json(indent=1))
                self.state = new
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> ProjectError:
        return ProjectError(
            f"{self.root} cannot be written ({error.strerror or error}). "
            "Free some disk space or check the folder's permissions; nothing was changed."
        )

    def _collect_orphans(self, idle: Sequence[Path]) -> None:
        named = {self.folder(a) for a in self.state.artefacts.values()}
        named |= {self.folder(k.record) for kept in self.state.kept.values() for k in kept}
        for folder in idle:
            if folder not in named:
                shutil.rmtree(folder, ignore_errors=True)


def project_path(path: Path) -> Path:
    """Return the absolute path of a project, whose folder name always ends in ``.pancluster``."""
    absolute = Path(path).expanduser().absolute()
    return absolute if absolute.suffix == SUFFIX else absolute.with_name(absolute.name + SUFFIX)


def _read_state(root: Path) -> ProjectState:
    try:
        raw = json.loads((root / _STATE).read_text())
    except FileNotFoundError:
        raise ProjectError(
            f"{root} is not a project. Make one with: pancluster new {root}"
        ) from None
    except (OSError, ValueError) as error:
        raise ProjectError(
            f"{root / _STATE} cannot be read ({error}). Restore it from a backup."
        ) from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise ProjectError(
            f"{root} was written by a newer version ({raw.get('written_by')}, format {version}). "
            "Update napari-pancluster to open it."
        )
    while isinstance(version, int) and version in MIGRATIONS:
        raw = MIGRATIONS[version](raw)
        version = raw["format_version"]
    try:
        return ProjectState.model_validate(raw)
    except ValidationError as error:
        raise ProjectError(
            f"{root / _STATE} is damaged ({error.error_count()} fields). Restore it from a backup."
        ) from error


def _write_synced(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _locked(lock: Path) -> Iterator[None]:
    """Hold a lock file for the few milliseconds of a commit."""
    deadline = time.monotonic() + _LOCK_WAIT_S
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
            break
        except FileExistsError:
            _break_stale(lock)
            if time.monotonic() > deadline:
                raise ProjectError(
                    f"{lock.parent} is being written by another window. Try again in a minute."
                ) from None
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)


def _break_stale(lock: Path) -> None:
    try:
        if time.time() - lock.stat().st_mtime > _LOCK_STALE_S:
            lock.unlink()
    except FileNotFoundError:
        pass


def _being_written(folder: Path) -> bool:
    """Return whether a living process may still be writing an artefact nobody names yet."""
    try:
        writer = json.loads((folder / _WRITER).read_text())
        age = time.time() - folder.stat().st_mtime
    except (OSError, ValueError):
        return False
    if writer["host"] != socket.gethostname():
        return age < _ORPHAN_AGE_S
    return writer["pid"] == os.getpid() or _alive(writer["pid"])


def _alive(pid: int) -> bool:
    import psutil

    return bool(psutil.pid_exists(pid))
