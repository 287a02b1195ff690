"""What to heed of single patches: stains they lack, and sections that may not agree there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.patches import PatchTable
from napari_pancluster.core.stack import SlideStack


def agreement(stacks: Mapping[str, SlideStack], table: PatchTable) -> NDArray[np.float32]:
    """Return (N,) how surely all sections agree at each patch; NaN where it was not measured.

    Parameters
    ----------
    stacks
        Per case, the registered slides.
    """
    found = [stacks[grid.case].agreement(grid.centres) for grid in table.grids]
    return np.concatenate(found) if found else np.zeros(0, np.float32)


def missing(present: NDArray[np.bool_], stains: Sequence[str]) -> NDArray[np.object_]:
    """Return (N,) the names of the stains that each patch lacks, joined by semicolons.

    Parameters
    ----------
    present
        (N, stains) which it has; (N, 0) where that was not kept: then none is named.
    """
    words = np.full(len(present), "", object)
    for column, name in zip(present.T, stains, strict=False):
        lacks = ~column
        words[lacks] = [f"{before};{name}" if before else name for before in words[lacks]]
    return words
