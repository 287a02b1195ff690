"""What the user made of a clustering: names, colours, merged and hidden clusters."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.palette import cluster_colour

_LONGEST_NAME = 80
_COLOUR = r"^#[0-9A-Fa-f]{6}$"


class Rename(BaseModel):
    """Give a cluster another name; the empty name restores the default."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["rename"] = "rename"
    label: int
    name: str = Field(max_length=_LONGEST_NAME)


class Recolour(BaseModel):
    """Give a cluster another colour."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["recolour"] = "recolour"
    label: int
    colour: str = Field(pattern=_COLOUR)


class Merge(BaseModel):
    """Make several clusters one, under the label of `into`."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["merge"] = "merge"
    labels: tuple[int, ...]
    into: int


class Hide(BaseModel):
    """Take a cluster out of sight, or bring it back."""

    model_config = ConfigDict(frozen=True)
    kind: Literal["hide"] = "hide"
    label: int
    hidden: bool = True


Operation = Annotated[Rename | Recolour | Merge | Hide, Field(discriminator="kind")]
_OPERATIONS: TypeAdapter[tuple[Operation, ...]] = TypeAdapter(tuple[Operation, ...])


@dataclass(frozen=True)
class ClusterEdits:
    """Append-only operations over a clustering that never changes.

    A merged label is not used again: a name or a colour keeps its meaning.

    Attributes
    ----------
    k
        Number of clusters of the clustering.
    operations
        In the order in which they were made.
    """

    k: int
    operations: tuple[Operation, ...] = ()

    def then(self, operation: Operation) -> ClusterEdits:
        """Return the edits with one more operation.

        Raises
        ------
        InputError
            If it names a label that is not there (any more), or merges a cluster with itself only.
        """
        named = operation.labels if isinstance(operation, Merge) else (operation.label,)
        if isinstance(operation, Merge):
            named = (*named, operation.into)
            if len(set(named)) < 2:
                raise InputError("Choose at least two clusters to merge.")
        for label in named:
            if label not in self.labels:
                raise InputError(
                    f"There is no cluster {label} (any more). There are: "
                    f"{', '.join(map(str, self.labels))}."
                )
        return ClusterEdits(self.k, (*self.operations, operation))

    @cached_property
    def lookup(self) -> NDArray[np.uint8]:
        """(256,) the label shown for every label of the clustering; 0 stays 0."""
        table = np.arange(256, dtype=np.uint8)
        for operation in self.operations:
            if isinstance(operation, Merge):
                table[np.isin(table, operation.labels)] = operation.into
        return table

    @cached_property
    def labels(self) -> tuple[int, ...]:
        """Labels that are left, in rising order."""
        return tuple(int(n) for n in np.unique(self.lookup[1 : self.k + 1]))

    @cached_property
    def hidden(self) -> frozenset[int]:
        """Labels that are out of sight."""
        last = {o.label: o.hidden for o in self.operations if isinstance(o, Hide)}
        return frozenset(n for n, is_hidden in last.items() if is_hidden and n in self.labels)

    @cached_property
    def shown(self) -> NDArray[np.bool_]:
        """(256,) whether patches of this label, after merges, are in sight."""
        table = np.ones(256, np.bool_)
        table[list(self.hidden)] = False
        return table

    @cached_property
    def given(self) -> frozenset[int]:
        """Labels with a name or a colour of the user's."""
        return frozenset(n for n in self.labels if self.given_name(n) or self.given_colour(n))

    def name(self, label: int) -> str:
        """Return the name of a cluster."""
        return self.given_name(label) or f"Cluster {label}"

    def given_name(self, label: int) -> str:
        """Return the name that the user gave a cluster; empty where it has the default."""
        given = [o.name for o in self.operations if isinstance(o, Rename) and o.label == label]
        return given[-1].strip() if given else ""

    def colour(self, label: int) -> str:
        """Return the colour of a cluster as ``#RRGGBB``."""
        return self.given_colour(label) or cluster_colour(label)

    def given_colour(self, label: int) -> str:
        """Return the colour that the user gave a cluster; empty where it has the default."""
        given = [o.colour for o in self.operations if isinstance(o, Recolour) and o.label == label]
        return given[-1].upper() if given else ""

    def to_json(self) -> str:
        """Return the operations as JSON text."""
        return _OPERATIONS.dump_json(self.operations, indent=1).decode()

    @classmethod
    def from_json(cls, k: int, text: str) -> ClusterEdits:
        """Return edits from the text of `to_json`, every operation checked.

        Raises
        ------
        ValueError
            If the text is not such a list.
        InputError
            If an operation does not fit the ones before it.
        """
        return cls(k).extend(_OPERATIONS.validate_json(text))

    def extend(self, operations: Iterable[Operation]) -> ClusterEdits:
        """Return the edits with more operations, each checked."""
        edits = self
        for operation in operations:
            edits = edits.then(operation)
        return edits
