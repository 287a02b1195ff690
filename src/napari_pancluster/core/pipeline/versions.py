"""The versions of a stain's registration: kept by name, gone back to, and locked."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.pipeline.opening import registration_key
from napari_pancluster.core.project import Project
from napari_pancluster.core.records import ArtefactRecord, CaseRecord, KeptRecord, ProjectState

MOST_AUTOMATIC = 20
_LONGEST_NAME = 60
# Of a registration's report; what an older one lacks is null.
_FACTS = ("status", "reason", "dice_after", "tre_um")


@dataclass(frozen=True)
class Versions:
    """The versions of the registration of one stain.

    Each verb is one commit, made on what the project says at that moment.

    Attributes
    ----------
    project
        Where they are kept.
    case, stain
        Whose they are.
    """

    project: Project
    case: str
    stain: str

    @property
    def key(self) -> str:
        """Key of the registration."""
        return registration_key(self.case, self.stain)

    @property
    def locked(self) -> bool:
        """Whether the registration in use must stay."""
        return self.key in self.project.state.locked

    def keep(self, name: str) -> None:
        """Give the registration in use a name; under it, it is kept for good.

        Raises
        ------
        InputError
            If there is none, it has a name, or the name is no good.
        """
        name = _proper(name)

        def kept_as(state: ProjectState) -> ProjectState:
            record = self._current(state)
            others = tuple(k for k in self._kept(state) if k.record.id != record.id)
            before = next((k for k in self._kept(state) if k.record.id == record.id), None)
            if before is not None and before.named:
                raise InputError(
                    f"{self} is kept as {before.name!r} already. Rename it: Register panel, "
                    f"Rename, or {self._command('--rename', before.name, name)}"
                )
            self._refuse_taken(others, name)
            named = KeptRecord(name=name, named=True, record=record)
            return state.with_kept(self.key, (*others, named))

        self.project.change(kept_as)

    def rename(self, old: str, new: str) -> None:
        """Give a version another name; under it, it is kept for good.

        Raises
        ------
        InputError
            If there is no such version, or the name is no good.
        """
        new = _proper(new)

        def renamed(state: ProjectState) -> ProjectState:
            version = self._version(state, old)
            kept = self._kept(state)
            self._refuse_taken([k for k in kept if k is not version], new)
            named = version.model_copy(update={"name": new, "named": True})
            return state.with_kept(self.key, tuple(named if k is version else k for k in kept))

        self.project.change(renamed)

    def revert(self, name: str) -> None:
        """Go back to a version; the one in use until now is kept, nothing is computed anew.

        What was made from the version is up to date again.

        Raises
        ------
        InputError
            If there is no such version, or the stain is locked.
        """

        def reverted(state: ProjectState) -> ProjectState:
            version = self._version(state, name)
            if self.key in state.locked:
                raise InputError(self.refusal())
            before = self._current(state)
            if before.id == version.record.id:
                return state
            return _keeping(state.with_current(self.key, version.record), self.key, before)

        self.project.change(reverted)

    def lock(self, *, locked: bool = True) -> None:
        """Let no step and no revert replace the registration in use, or let them again.

        Raises
        ------
        InputError
            If there is none to lock.
        """

        def changed(state: ProjectState) -> ProjectState:
            self._current(state)
            return state.with_locked(self.key, locked=locked)

        self.project.change(changed)

    def refusal(self) -> str:
        """Return why the registration in use is not replaced while it is locked."""
        return (
            f"{self} is locked. Unlock it first: Register panel, Locked, "
            f"or {self._command('--unlock')}"
        )

    def describe(self) -> dict[str, Any]:
        """Return the registration in use and all that are kept, the last used first."""
        state = self.project.state
        current = state.artefacts.get(self.key)
        kept = self._kept(state)
        in_use = current.id if current is not None else ""
        name = next((k.name for k in kept if k.record.id == in_use), None)
        return {
            "case": self.case,
            "stain": self.stain,
            "locked": self.locked,
            "current": None if current is None else _facts(state, name, current),
            "kept": [
                _facts(state, k.name, k.record)
                | {"named": k.named, "in_use": k.record.id == in_use}
                for k in reversed(kept)
            ],
        }

    def __str__(self) -> str:
        return f"{self.stain} of case {self.case}"

    def _current(self, state: ProjectState) -> ArtefactRecord:
        record = state.artefacts.get(self.key)
        if record is None:
            raise InputError(
                f"{self} is not registered yet. First: pancluster register {self.project.root}"
            )
        return record

    def _kept(self, state: ProjectState) -> tuple[KeptRecord, ...]:
        return state.kept.get(self.key, ())

    def _version(self, state: ProjectState, name: str) -> KeptRecord:
        kept = self._kept(state)
        for version in kept:
            if version.name == name:
                return version
        names = ", ".join(repr(k.name) for k in reversed(kept)) or "none"
        raise InputError(f"{self} has no version {name!r}. Choose one of those kept: {names}.")

    def _refuse_taken(self, others: Sequence[KeptRecord], name: str) -> None:
        if any(k.name == name for k in others):
            raise InputError(f"{self} has a version {name!r} already. Choose another name.")

    def _command(self, *action: str) -> str:
        words = ("--case", self.case, "--stain", self.stain, *action)
        return shlex.join(["pancluster", "versions", str(self.project.root), *words])


def choose_versions(
    project: Project, *, case: str | None = None, stain: str | None = None
) -> list[Versions]:
    """Return the versions of every moving stain, or of these.

    Raises
    ------
    InputError
        If no case has such a moving stain.
    """
    cases = [project.case(case)] if case is not None else list(project.state.cases)
    moving = [(c.name, name) for c in cases for name in _moving(c)]
    chosen = [Versions(project, c, name) for c, name in moving if stain in (None, name)]
    if stain is not None and not chosen:
        names = ", ".join(dict.fromkeys(name for _, name in moving)) or "none"
        raise InputError(
            f"{stain!r} is no moving stain of these cases. Name one they have: {names}."
        )
    return chosen


def version_lines(told: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a line for every version of what `Versions.describe` told, for people."""
    lines = []
    for found in told:
        current = found["current"]
        shown = [k for k in found["kept"] if not k["in_use"]]
        if current is not None:
            shown.insert(0, {**current, "in_use": True})
        for version in shown:
            used = "in use, locked" if found["locked"] else "in use"
            lines.append(
                {
                    "case": found["case"],
                    "stain": found["stain"],
                    "version": version["name"],
                    "": used if version["in_use"] else "",
                    "status": version["status"],
                    "made": made_in_words(version["created"]),
                    "overlap": version["dice_after"],
                }
            )
    return lines


def refuse_locked(project: Project, cases: Sequence[CaseRecord], named: set[str]) -> None:
    """Refuse stains that were asked for by name and are locked in every one of these cases.

    Raises
    ------
    InputError
        If there is one.
    """
    for name in sorted(named):
        found = [Versions(project, c.name, name) for c in cases if name in _moving(c)]
        if found and all(v.locked for v in found):
            raise InputError(found[0].refusal())


def succeed(state: ProjectState, key: str, record: ArtefactRecord) -> ProjectState:
    """Return a state with a new registration, where the one before is kept.

    One that failed leaves a good one in its place, and so does any where the stain was locked
    meanwhile; then the new one is kept, with its report.
    """
    before = state.artefacts.get(key)
    if before is None:
        return state.with_current(key, record)
    good = before.summary["status"] != "failed" and not state.is_outdated(before)
    if key in state.locked or (good and record.summary["status"] == "failed"):
        return _keeping(state, key, record)
    return _keeping(state.with_current(key, record), key, before)


def way_of(record: ArtefactRecord) -> str:
    """Return how a registration was made, in a word."""
    return str(record.summary.get("way") or "automatic")


def made_in_words(created: str) -> str:
    """Return when a result was made, in this machine's time."""
    when = datetime.fromisoformat(created).astimezone()
    return f"{when.day} {when:%b %H:%M}"


def _moving(case: CaseRecord) -> list[str]:
    return [s.name for s in case.stains if s.name != case.reference]


def _facts(state: ProjectState, name: str | None, record: ArtefactRecord) -> dict[str, Any]:
    return {
        "id": record.id,
        "name": name,
        **{fact: record.summary.get(fact) for fact in _FACTS},
        "created": record.created,
        "way": way_of(record),
        "stale": state.is_outdated(record),
    }


def _keeping(state: ProjectState, key: str, record: ArtefactRecord) -> ProjectState:
    """Return a state where an artefact is the last that is kept, under the name it has or gets."""
    kept = state.kept.get(key, ())
    others = tuple(k for k in kept if k.record.id != record.id)
    known = next((k for k in kept if k.record.id == record.id), None)
    version = known or KeptRecord(name=_automatic_name(record, others), record=record)
    return state.with_kept(key, _few((*others, version), state.artefacts[key].id))


def _automatic_name(record: ArtefactRecord, others: Sequence[KeptRecord]) -> str:
    name = first = f"{way_of(record)}, {made_in_words(record.created)}"
    taken, number = {k.name for k in others}, 1
    while name in taken:
        number += 1
        name = f"{first} ({number})"
    return name


def _few(kept: tuple[KeptRecord, ...], in_use: str) -> tuple[KeptRecord, ...]:
    """Return what is kept without the automatic ones too many: failed ones, then the oldest."""
    automatic = [k for k in kept if not k.named and k.record.id != in_use]
    automatic.sort(key=lambda k: k.record.summary["status"] != "failed")
    gone = automatic[: max(0, len(automatic) - MOST_AUTOMATIC)]
    return tuple(k for k in kept if k not in gone)


def _proper(name: str) -> str:
    proper = " ".join(name.split())
    if not proper or len(proper) > _LONGEST_NAME or not proper.isprintable():
        raise InputError(
            f"{name!r} is no name for a version. Give one of 1 to {_LONGEST_NAME} characters."
        )
    return proper
