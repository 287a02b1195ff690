"""What the deformation is fitted on: how dense the tissue is, and how its texture changes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_pancluster.core.registration.forces import box
from napari_pancluster.core.registration.images import FloatImage, WorkImage, extent_of, shrink
from napari_pancluster.core.transform import Transform

# Over one nucleus and over a few: epithelium, stroma and lumen differ in it in every stain.
_TEXTURE_UM = (16.0, 32.0)
_LEAST_TEXTURE_PX = 3
# Spread below this is the scanner's; above it, ratios count: one stain is stronger than another.
_LEAST_SPREAD = 0.1


@dataclass(frozen=True)
class Planes:
    """A section as pictures of one grid.

    Attributes
    ----------
    values
        (3, rows, cols): the root of the density, which keeps blots from owning the correlation,
        and the logarithm of its standard deviation over one nucleus and over a few.
    mpp
        Pixel size, µm/px.
    """

    values: NDArray[np.float32]
    mpp: float

    @classmethod
    def of(cls, image: WorkImage) -> Planes:
        """Measure a section at the pixel size it was read at, where its nuclei show."""
        root = np.sqrt(np.maximum(image.density, 0))
        textures = [_texture(root, um / image.mpp) for um in _TEXTURE_UM]
        return cls(np.stack([root, *textures]), image.mpp)

    def at(self, mpp: float) -> Planes:
        """Return the planes at a coarser pixel size (area means)."""
        if mpp <= self.mpp * 1.001:
            return self
        small = shrink(np.ascontiguousarray(np.moveaxis(self.values, 0, -1)), mpp / self.mpp)
        return Planes(np.ascontiguousarray(np.moveaxis(small, -1, 0)), mpp)

    def laid(self, fixed: WorkImage, transform: Transform) -> NDArray[np.float32]:
        """Return (3, rows, cols): the planes seen through a transform on the grid of `fixed`."""
        grid = transform.moving_grid(extent_of(fixed), fixed.mpp)
        at = (grid / self.mpp - 0.5).astype(np.float32)
        return np.stack([ndimage.map_coordinates(value, at, order=1) for value in self.values])


def _texture(root: FloatImage, across: float) -> FloatImage:
    window = max(_LEAST_TEXTURE_PX, 2 * round(across / 2) + 1)
    variance = box(root * root, window) - box(root, window) ** 2
    spread = np.sqrt(np.maximum(variance, 0))
    return np.asarray(np.log(spread + _LEAST_SPREAD), np.float32)
