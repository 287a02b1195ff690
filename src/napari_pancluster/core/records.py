"""What ``project.json`` says: cases and their slides, finished results, and its formats so far."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from napari_pancluster import __version__

FORMAT_VERSION = 2


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


class KeptRecord(BaseModel):
    """A result that has a name of its own: an earlier one, or the current one."""

    model_config = ConfigDict(frozen=True)

    name: str
    named: bool = Field(default=False, description="by a person: never given up by itself")
    record: ArtefactRecord


class ProjectState(BaseModel):
    """Everything ``project.json`` says."""

    model_config = ConfigDict(frozen=True)

    format_version: int = FORMAT_VERSION
    written_by: str = __version__
    cases: tuple[CaseRecord, ...]
    artefacts: dict[str, ArtefactRecord] = Field(default_factory=dict)
    kept: dict[str, tuple[KeptRecord, ...]] = Field(
        default_factory=dict, description="what can be gone back to, the last used at the end"
    )
    locked: tuple[str, ...] = Field(default=(), description="keys that no step may replace")

    def is_outdated(self, record: ArtefactRecord) -> bool:
        """Return whether something an artefact was made from is no longer current."""
        current = {a.id for a in self.artefacts.values()}
        current |= {s.token for case in self.cases for s in case.stains}
        if not set(record.inputs) <= current:
            return True
        made_from = [a for a in self.artefacts.values() if a.id in record.inputs]
        return any(self.is_outdated(a) for a in made_from)

    def with_current(self, key: str, record: ArtefactRecord) -> ProjectState:
        """Return a state where this artefact is current under a key."""
        return self.model_copy(update={"artefacts": {**self.artefacts, key: record}})

    def with_kept(self, key: str, kept: tuple[KeptRecord, ...]) -> ProjectState:
        """Return a state where these artefacts are kept by name under a key."""
        return self.model_copy(update={"kept": {**self.kept, key: kept}})

    def with_locked(self, key: str, *, locked: bool) -> ProjectState:
        """Return a state where a key is locked, or is not."""
        others = tuple(k for k in self.locked if k != key)
        return self.model_copy(update={"locked": (*others, key) if locked else others})


def _to_format_2(raw: dict[str, Any]) -> dict[str, Any]:
    """Nothing but the number: a program of format 1 would delete what is kept by name."""
    return {**raw, "format_version": 2}


# By the format they bring forward by one.
MIGRATIONS = {1: _to_format_2}
