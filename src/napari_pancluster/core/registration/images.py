"""The picture of a section that registration works on: its density, its tissue, its pixel size."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_pancluster.core.config import TissueConfig
from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.resample import apply_separable, area_weights
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.tissue import tissue_of_density
from napari_pancluster.core.transform import Transform

FloatImage = NDArray[np.float32]
Matrix = NDArray[np.float64]

MASK_MPP = 8.0
# Densities above this share of the tissue are blots and folds; they would own the correlation.
_CLIP_PERCENTILE = 98.0
# Below this deviation of density a section shows nothing but the scanner's noise.
_LEAST_SPREAD = 0.005


@dataclass(frozen=True)
class WorkImage:
    """A whole section at one pixel size, its corner at (0, 0) µm.

    Attributes
    ----------
    density
        (rows, cols) mean optical density over its own spread in tissue; 0 outside tissue.
    tissue
        (rows, cols) share of tissue in each pixel, 0 to 1.
    mpp
        Pixel size, µm/px.
    """

    density: FloatImage
    tissue: FloatImage
    mpp: float

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.density.shape[0], self.density.shape[1]

    @property
    def long_um(self) -> float:
        """Longer side in µm."""
        return max(self.shape) * self.mpp

    def at(self, mpp: float) -> WorkImage:
        """Return the image at a coarser pixel size (area means)."""
        if mpp <= self.mpp * 1.001:
            return self
        stacked = np.stack([self.density, self.tissue], axis=-1)
        small = shrink(stacked, mpp / self.mpp)
        return WorkImage(
            np.ascontiguousarray(small[..., 0]), np.ascontiguousarray(small[..., 1]), mpp
        )

    def scaled(self, factor: float) -> WorkImage:
        """Return the same pixels under a pixel size `factor` times as large."""
        return WorkImage(self.density, self.tissue, self.mpp * factor)


def shrink(image: FloatImage, step: float) -> FloatImage:
    """Return (rows, cols, channels) averaged over pixels `step` times as large."""
    shape = [max(1, round(n / step)) for n in image.shape[:2]]
    weights = [
        area_weights(start=0, step=step, count=n, size=size)[0]
        for n, size in zip(shape, image.shape[:2], strict=True)
    ]
    return apply_separable(weights[0], weights[1], image)


def read_work_image(stain: Stain, mpp: float) -> WorkImage:
    """Read a section at `mpp` µm/px of its slide.

    Raises
    ------
    SlideError
        If nothing on the slide is tissue, or it is one flat colour.
    """
    od = stain.read_od(stain.slide.extent, mpp)
    # Unlike the map's mask, this one serves at whatever pixel size the sections are compared.
    coarse = shrink(od, MASK_MPP / mpp) if mpp < MASK_MPP else od
    mask = tissue_of_density(coarse, TissueConfig(mpp=max(mpp, MASK_MPP)))
    if not mask.any():
        raise SlideError(f"no tissue was found on {stain.slide.path.name} (stain {stain.name})")
    tissue = _enlarge(mask, od.shape[:2])
    density = od.mean(axis=-1)
    inside = density[tissue > 0.5]
    top = float(np.percentile(inside, _CLIP_PERCENTILE)) if inside.size else 0.0
    spread = float(np.minimum(inside, top).std()) if inside.size else 0.0
    if spread < _LEAST_SPREAD:
        raise SlideError(
            f"{stain.slide.path.name} (stain {stain.name}) is one even colour without structure"
        )
    density = np.minimum(density, top) * tissue / spread
    return WorkImage(density.astype(np.float32), tissue, mpp)


def extent_of(image: WorkImage) -> Region:
    """Return the region an image covers."""
    rows, cols = image.shape
    return Region.of_pixels(top=0, left=0, rows=rows, cols=cols, mpp=image.mpp)


@dataclass(frozen=True)
class Laid:
    """The moving section as it lies on the fixed one.

    Attributes
    ----------
    density, tissue
        (rows, cols) on the grid of the fixed image.
    inside
        (rows, cols) whether the moving slide covers the pixel.
    """

    density: FloatImage
    tissue: FloatImage
    inside: NDArray[np.bool_]

    def weight(self, fixed: WorkImage) -> FloatImage:
        """Return (rows, cols) where the two can be compared: the tissue of either."""
        return np.asarray(np.maximum(fixed.tissue, self.tissue) * self.inside, np.float32)


def lay(fixed: WorkImage, moving: WorkImage, transform: Transform) -> Laid:
    """Return `moving` seen through a transform on the grid of `fixed`."""
    grid = transform.moving_grid(extent_of(fixed), fixed.mpp)
    at = (grid / moving.mpp - 0.5).astype(np.float32)
    density, tissue = (
        ndimage.map_coordinates(image, at, order=1) for image in (moving.density, moving.tissue)
    )
    rows, cols = moving.shape
    inside = (at[0] >= -0.5) & (at[0] <= rows - 0.5) & (at[1] >= -0.5) & (at[1] <= cols - 0.5)
    return Laid(density, tissue, inside)


def warp(
    image: FloatImage, *, mpp: float, matrix: Matrix, shape: tuple[int, int], to_mpp: float
) -> FloatImage:
    """Return `image` seen through an affine, 0 where it ends.

    Parameters
    ----------
    image
        (rows, cols) at `mpp`.
    matrix
        (3, 3), output µm to `image` µm.
    shape, to_mpp
        Pixels of the output and their size.
    """
    linear, offset = pixel_affine(matrix, mpp=mpp, to_mpp=to_mpp)
    return np.asarray(
        ndimage.affine_transform(
            image, linear, offset, output_shape=shape, order=1, output=np.float32
        )
    )


def pixel_affine(matrix: Matrix, *, mpp: float, to_mpp: float) -> tuple[Matrix, Matrix]:
    """Return linear part and offset of `matrix` from output pixel indices to `mpp` indices."""
    linear = matrix[:2, :2] * (to_mpp / mpp)
    offset = (matrix[:2, :2] @ np.full(2, 0.5 * to_mpp) + matrix[:2, 2]) / mpp - 0.5
    return linear, offset


def compose(linear: Matrix, offset: Matrix) -> Matrix:
    """Return the (3, 3) homogeneous matrix of a linear part and an offset."""
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = offset
    return matrix


def _enlarge(mask: NDArray[np.bool_], shape: tuple[int, ...]) -> FloatImage:
    if mask.shape == shape:
        return mask.astype(np.float32)
    rows, cols = (
        np.minimum((np.arange(n) + 0.5) * size / n, size - 1e-6).astype(np.int64)
        for n, size in zip(shape, mask.shape, strict=True)
    )
    return mask[np.ix_(rows, cols)].astype(np.float32)
