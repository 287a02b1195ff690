"""Where the tissue is: a mask at a coarse pixel size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.morphology import disk, remove_small_holes, remove_small_objects

from napari_pancluster.core.config import TissueConfig
from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.stain import Stain


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

    mask: NDArray[np.bool_]
    mpp: float

    @property
    def area_mm2(self) -> float:
        """Tissue area in mm²."""
        return float(self.mask.sum()) * self.mpp**2 * 1e-6


# A density below this is lamp unevenness; one above this is never bare glass.
_LOWEST_THRESHOLD, _HIGHEST_THRESHOLD = 0.035, 0.08
_DUST_SHARE = 0.01


def find_tissue(stain: Stain, config: TissueConfig | None = None) -> TissueMask:
    """Return the tissue of a stained slide.

    Density, averaged over the channels that carry it, is cut at half its Otsu threshold, within
    bounds that hold for pale immunostains and for slides without any glass.

    Raises
    ------
    SlideError
        If nothing on the slide is tissue.
    """
    config = config or TissueConfig()
    od = stain.read_od(stain.slide.extent, config.mpp)
    mask = tissue_of_density(od, config)
    if not mask.any():
        raise SlideError(
            f"No tissue was found on {stain.slide.path.name} (stain {stain.name}). "
            "Check that it is a brightfield slide with bright glass."
        )
    return TissueMask(mask, config.mpp)


def tissue_of_density(od: NDArray[np.float32], config: TissueConfig) -> NDArray[np.bool_]:
    """Return the mask for densities (rows, cols, channels) at ``config.mpp``."""
    # The strongest channel: a blue or a brown stain is nearly clear in one of the three.
    density = ndimage.gaussian_filter(od.max(axis=-1), 1.0)
    if float(density.max()) < _LOWEST_THRESHOLD:
        return np.zeros(density.shape, np.bool_)
    otsu = float(threshold_otsu(np.minimum(density, 1.0))) if np.ptp(density) > 0 else 0.0
    mask = density > np.clip(otsu / 2, _LOWEST_THRESHOLD, _HIGHEST_THRESHOLD)
    mask = _close(mask, round(config.close_um / config.mpp))
    pixel_mm2 = config.mpp**2 * 1e-6
    hole = int(3.14 * (config.close_um * 1e-3) ** 2 / pixel_mm2)
    if hole:
        mask = remove_small_holes(mask, max_size=hole)
    return _drop_dust(mask, int(config.smallest_mm2 / pixel_mm2))


def _close(mask: NDArray[np.bool_], radius: int) -> NDArray[np.bool_]:
    if radius < 1:
        return mask
    # Distances: the cost does not grow with the radius. Padded so that edges do not erode.
    padded = np.pad(mask, radius + 1, mode="edge")
    grown = ndimage.distance_transform_edt(~padded) <= radius if padded.any() else padded
    closed = ndimage.distance_transform_edt(grown) > radius if not grown.all() else grown
    inner = slice(radius + 1, -radius - 1)
    return np.asarray(closed[inner, inner] | mask)


def _drop_dust(mask: NDArray[np.bool_], smallest: int) -> NDArray[np.bool_]:
    opened = ndimage.binary_opening(np.pad(mask, 2, mode="edge"), disk(1))[2:-2, 2:-2]
    labels, count = ndimage.label(opened)
    if count == 0:
        return np.zeros_like(mask)
    largest = int(np.bincount(labels.ravel())[1:].max())
    least = min(max(smallest, int(_DUST_SHARE * largest)), largest)
    return np.asarray(remove_small_objects(opened, max_size=least - 1))
