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
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from napari_pancluster import __version__
from napari_pancluster.core.errors import ProjectError

FORMAT_VERSION = 1
SUFFIX = ".pancluster"
_STATE, _LOCK, _WRITER = "project.json", "project.lock", ".writer"
_LOCK_WAIT_S, _LOCK_STALE_S = 10.0, 60.0
_ORPHAN_AGE_S = 7 * 24 * 3600.0


class StainRecord(BaseModel):
    """A slide of a case, as the project remembers it."""

    model_config = ConfigDict(frozen=True)

    name: str
    path: str
    mpp: float | None = Field(description="µm/px of level 0; None leaves the scale to registration")
    mpp_source: Literal["file", "user", "nominal", "unknown", "uncalibrated"]
    fingerprint: str
    background: tuple[float, ...]
    oblong: float = Field(default=1.0, description="pixel size down over pixel size across")
    modality: Literal["brightfield", "fluorescence"] = "brightfield"
    picked: tuple[int, int, int] = Field(default=(0, 1, 2), description="channels that are read")
    bright: tuple[float, ...] = Field(default=(), description="fluorescence: full intensity")
    full_scale: float | None = Field(default=None, description="stored value that counts as 255")
    gain: float = Field(default=1.0, description="factor on the density where patches are compared")
    profiled: bool = Field(default=False, description="whether its ICC profile is applied")
    extra: dict[str, str] = Field(default_factory=dict, description="from the sample sheet")

    @property
    def token(self) -> str:
        """What an artefact made from this slide depends on."""
        token = f"slide:{self.fingerprint}@{self.mpp}"
        seen = (
            self.oblong,
            self.modality,
            self.picked,
            self.full_scale,
            self.gain,
            self.profiled,
        )
        usual = (1.0, "brightfield", (0, 1, 2), None, 1.0, False)
        return token if seen == usual else f"{token}#{seen}"


class CaseRecord(BaseModel):
    """A case: one slide a stain, one of them the reference."""

    model_config = ConfigDict(frozen=True)

    name: str
    reference: str
    stains: tuple[StainRecord, ...]

    @property
    def extra(self) -> dict[str, str]:
        """What the sample sheet says of all slides of the case alike, such as group and age."""
        first, *others = (s.extra for s in self.stains)
        return {k: v for k, v in first.items() if all(o.get(k) == v for o in others)}

    def stain(self, name: str) -> StainRecord:
        """Return the record of a stain that is known to be there."""
        return next(s for s in self.stains if s.name == name)


class ArtefactRecord(BaseModel):
    """One finished result."""

    model_config = ConfigDict(frozen=True)

    step: str
    id: str
    inputs: tuple[str, ...]
    summary: dict[str, Any]
    created: str


class ProjectState(BaseModel):
    """Everything ``project.json`` says."""

    model_config = ConfigDict(frozen=True)

    format_version: int = FORMAT_VERSION
    written_by: str = __version__
    cases: tuple[CaseRecord, ...]
    artefacts: dict[str, ArtefactRecord] = Field(default_factory=dict)


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
        self._batch: dict[str, ArtefactRecord] | None = None

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
        project = cls(root, _read_state(root))
        project._collect_orphans()
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
        record = self.state.artefacts[key]
        current = {a.id for a in self.state.artefacts.values()}
        current |= {s.token for case in self.state.cases for s in case.stains}
        if not set(record.inputs) <= current:
            return True
        made_from = [k for k, a in self.state.artefacts.items() if a.id in record.inputs]
        return any(self.is_stale(k) for k in made_from)

    @contextmanager
    def writing(
        self, key: str, inputs: tuple[str, ...], summary: dict[str, Any], *, id_: str | None = None
    ) -> Iterator[Path]:
        """Give a fresh folder to write an artefact into; commit it when the block ends well.

        On any exception, Cancel and Ctrl-C included, the folder is removed and the project stays
        as it was. Entries put into `summary` inside the block are committed with it.
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
            with self.batch():
                self._add(key, record)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise ProjectError(
                f"{self.root} cannot be written ({error.strerror or error}). "
                "Free some disk space or check the folder's permissions; nothing was changed."
            ) from error
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Commit all that is written inside the block at once, or nothing of it.

        A batch inside another is a part of it.
        """
        if self._batch is not None:
            yield
            return
        before, self._batch = self.state, {}
        try:
            yield
            written = dict(self._batch)
            if written:
                self._commit(lambda artefacts: {**artefacts, **written})
        except BaseException:
            for record in self._batch.values():
                shutil.rmtree(self.folder(record), ignore_errors=True)
            self.state = before
            raise
        finally:
            self._batch = None
        for record in written.values():
            (self.folder(record) / _WRITER).unlink(missing_ok=True)

    def _add(self, key: str, record: ArtefactRecord) -> None:
        """Make an artefact current here; others see it when the batch ends."""
        assert self._batch is not None
        self._batch[key] = record
        artefacts = {**self.state.artefacts, key: record}
        self.state = self.state.model_copy(update={"artefacts": artefacts})

    def run_folder(self, run: str) -> Path:
        """Return the folder of a training run in progress; it is no project state."""
        return self.root / "runs" / run

    def overview_folder(self, fingerprint: str) -> Path:
        """Return the folder of the coarse levels that a slide's own file lacks."""
        return self.root / "cache" / "overviews" / fingerprint

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

        def moved(state: ProjectState) -> dict[str, Any]:
            cases = []
            for case in state.cases:
                stains = tuple(
                    s.model_copy(update={"path": paths.get(s.fingerprint, s.path)})
                    for s in case.stains
                )
                cases.append(case.model_copy(update={"stains": stains}))
            return {"cases": tuple(cases)}

        self._change(moved)

    def _commit(
        self, change: Callable[[Mapping[str, ArtefactRecord]], dict[str, ArtefactRecord]]
    ) -> None:
        self._change(lambda state: {"artefacts": change(state.artefacts)})

    def _change(self, change: Callable[[ProjectState], dict[str, Any]]) -> None:
        with _locked(self.root / _LOCK):
            # Read again: another window may have committed; each commit changes only its keys.
            state = _read_state(self.root)
            new = state.model_copy(update={**change(state), "written_by": __version__})
            _write_synced(self.root / _STATE, new.model_dump_json(indent=1))
            self.state = new

    def _collect_orphans(self) -> None:
        named = {self.folder(a) for a in self.state.artefacts.values()}
        for folder in (self.root / "artefacts").glob("*/*"):
            if folder not in named and not _being_written(folder):
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
