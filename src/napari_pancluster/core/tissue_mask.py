"""A mask of tissue over a whole slide, found or painted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError

Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class TissueMask:
    """A mask over a whole slide, starting at its corner.

    Attributes
    ----------
    mask
        (rows, cols) bool.
    mpp
        Pixel size, µm/px.
    """

    mask: Bools
    mpp: float

    @property
    def area_mm2(self) -> float:
        """Tissue area in mm²."""
        return float(self.mask.sum()) * self.mpp**2 * 1e-6

    def painted(self, mask: Bools) -> TissueMask:
        """Return the mask with what the user painted, (rows, cols), in its place."""
        return replace(self, mask=self._fitting(mask).copy())

    def without(self, areas: Bools) -> TissueMask:
        """Return the mask less the areas (rows, cols) that are True."""
        return replace(self, mask=self.mask & ~self._fitting(areas))

    def within(self, areas: Bools) -> TissueMask:
        """Return the part of the mask inside the areas (rows, cols) that are True."""
        return replace(self, mask=self.mask & self._fitting(areas))

    def _fitting(self, areas: Bools) -> Bools:
        if areas.shape != self.mask.shape:
            raise InputError(
                f"The painted areas have the shape {areas.shape}, the tissue mask has "
                f"{self.mask.shape}. Paint on the mask of this slide, at {self.mpp:g} µm/px."
            )
        return np.asarray(areas, np.bool_)
