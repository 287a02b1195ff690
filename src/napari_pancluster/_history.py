"""The steps that undo walks back: number of clusters, edits and selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.selection import Mask

_LONGEST = 300


@dataclass(frozen=True)
class View:
    """All that undo can bring back.

    Attributes
    ----------
    k
        Number of clusters looked at.
    all_edits
        Per k, what the user made of it.
    chosen
        The selection, eight patches a byte.
    """

    k: int
    all_edits: Mapping[int, ClusterEdits]
    chosen: bytes

    @classmethod
    def of(cls, k: int, all_edits: Mapping[int, ClusterEdits], selection: Mask) -> View:
        """Return the view with this selection (N,)."""
        return cls(k, all_edits, np.packbits(selection).tobytes())

    @property
    def edits(self) -> ClusterEdits:
        """Those of the clusters looked at."""
        return self.all_edits[self.k]

    def selection(self, count: int) -> Mask:
        """Return the selection of `count` patches."""
        bits = np.unpackbits(np.frombuffer(self.chosen, np.uint8), count=count)
        return bits.view(np.bool_)


class History:
    """Views, and which of them is looked at.

    Parameters
    ----------
    first
        The view that undo ends at.
    """

    def __init__(self, first: View) -> None:
        self._views = [first]
        self._at = 0

    @property
    def view(self) -> View:
        """The one looked at."""
        return self._views[self._at]

    @property
    def can_undo(self) -> bool:
        """Whether there is a view before."""
        return self._at > 0

    @property
    def can_redo(self) -> bool:
        """Whether a view was undone."""
        return self._at < len(self._views) - 1

    def push(self, view: View) -> None:
        """Go on to a new view; what was undone is dropped, and in the end the oldest too."""
        self._views = [*self._views[: self._at + 1], view][-_LONGEST:]
        self._at = len(self._views) - 1

    def move(self, steps: int) -> None:
        """Go back (negative) or forward, as far as there are views."""
        self._at = min(max(self._at + steps, 0), len(self._views) - 1)
