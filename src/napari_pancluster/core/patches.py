"""Places to look at: random training positions, and the regular grid that is mapped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.geometry import Region, cells_along
from napari_pancluster.core.resample import apply_separable, area_weights
from napari_pancluster.core.tissue_mask import TissueMask

# A cell belongs to the map when at least this share of it is tissue; half keeps areas unbiased.
LEAST_TISSUE = 0.5


@dataclass(frozen=True)
class PatchGrid:
    """The tissue cells of one case.

    Cell (i, j) covers rows ``[i * stride_px, (i + 1) * stride_px)`` of the reference slide at
    `mpp`; its patch is centred on it whatever its size.

    Attributes
    ----------
    case
        Name of the case.
    mpp
        Working pixel size, µm/px.
    patch_px, stride_px
        Side of a patch and of a cell in working pixels.
    index
        (N, 2) grid row and column of the tissue cells, in row order.
    shape
        (rows, cols) of the whole grid.
    """

    case: str
    mpp: float
    patch_px: int
    stride_px: int
    index: NDArray[np.int32]
    shape: tuple[int, int]

    @property
    def cell_um(self) -> float:
        """Side of a cell in µm."""
        return self.stride_px * self.mpp

    @property
    def centres(self) -> NDArray[np.float64]:
        """(N, 2) row and col in µm of the patches' centres."""
        return np.asarray((self.index + 0.5) * self.cell_um, np.float64)

    def image(self, values: NDArray[np.generic], *, background: float = 0) -> NDArray[np.generic]:
        """Return per-patch `values` (N,) as an image of one pixel a cell."""
        out = np.full(self.shape, background, values.dtype)
        out[self.index[:, 0], self.index[:, 1]] = values
        return out


@dataclass(frozen=True)
class PatchTable:
    """The grids of all cases end to end; row *i* of every per-patch array is row *i* here."""

    grids: tuple[PatchGrid, ...]

    @property
    def case_offsets(self) -> NDArray[np.int64]:
        """(cases + 1,) first row of every case, and the number of rows."""
        return np.concatenate([[0], np.cumsum([len(g.index) for g in self.grids])]).astype(np.int64)

    @property
    def grid_id(self) -> NDArray[np.int32]:
        """(N,) which grid a row belongs to."""
        return np.repeat(
            np.arange(len(self.grids), dtype=np.int32), [len(g.index) for g in self.grids]
        )

    def __len__(self) -> int:
        return int(self.case_offsets[-1])

    def rows_of(self, number: int) -> slice:
        """Return the rows of the grid with this number."""
        return slice(int(self.case_offsets[number]), int(self.case_offsets[number + 1]))


@dataclass(frozen=True)
class PatchSample:
    """Training positions, uniform in tissue.

    Attributes
    ----------
    centres
        (M, 2) row and col in µm of the reference frame of their case.
    case_id
        (M,) number of the case.
    seed
        That drew them.
    """

    centres: NDArray[np.float64]
    case_id: NDArray[np.int32]
    seed: int


def make_grid(
    case: str, extent: Region, tissue: TissueMask, *, mpp: float, patch_px: int, stride_px: int
) -> PatchGrid:
    """Return the grid of a case, with the cells that are at least half tissue.

    Raises
    ------
    InputError
        If the stride is below 1 px, or no cell or no patch fits the tissue.
    """
    if stride_px < 1:
        raise InputError(f"--stride-px is {stride_px}; give at least 1 px.")
    check_patch_fits(tissue, patch_um=patch_px * mpp, patch_px=patch_px)
    cell = stride_px * mpp
    shape = (cells_along(extent.height, cell), cells_along(extent.width, cell))
    weights = [
        area_weights(start=0.0, step=cell / tissue.mpp, count=n, size=size)[0]
        for n, size in zip(shape, tissue.mask.shape, strict=True)
    ]
    share = apply_separable(weights[0], weights[1], tissue.mask[..., None].astype(np.float32))[
        ..., 0
    ]
    index = np.argwhere(share >= LEAST_TISSUE).astype(np.int32)
    if len(index) == 0:
        raise InputError(
            f"No cell of {stride_px} px ({cell:.0f} µm) of case {case} is half tissue. "
            "Use a smaller --stride-px."
        )
    return PatchGrid(case, mpp, patch_px, stride_px, index, shape)


def check_patch_fits(tissue: TissueMask, *, patch_um: float, patch_px: int) -> None:
    """Raise InputError when a patch covers more than all the tissue there is."""
    if patch_um**2 * 1e-6 > tissue.area_mm2:
        raise InputError(
            f"A patch of {patch_px} px ({patch_um:.0f} µm) is larger than the tissue "
            f"({tissue.area_mm2:.3g} mm²). Use a smaller --patch-px or --mpp."
        )


def whole_patches(present: NDArray[np.bool_], case_id: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return which patches lack no stain that most patches of their case have.

    Elsewhere a section is torn, too small or lies unsurely. What only lacks a stain is no tissue
    of its own: clusters are neither learnt nor judged by it. Where most patches of a case lack one
    or another, that is how the case is, and all of them count.

    Parameters
    ----------
    present
        (N, stains) whether the patch has the stain.
    case_id
        (N,) number of its case.
    """
    whole = np.ones(len(present), np.bool_)
    for case in np.unique(case_id):
        rows = np.flatnonzero(case_id == case)
        usual = present[rows].mean(axis=0) > 0.5
        lacks_none = present[rows][:, usual].all(axis=1)
        whole[rows] = lacks_none if lacks_none.mean() > 0.5 else True
    return whole


def sample_positions(
    tissues: Sequence[TissueMask], count: int, seed: int, *, draw: int = 0
) -> PatchSample:
    """Draw `count` positions uniformly in tissue, the same number from every case.

    Parameters
    ----------
    draw
        Another number draws other positions from the same seed.
    """
    rng = np.random.default_rng((seed, draw) if draw else seed)
    per_case = [len(part) for part in np.array_split(np.arange(count), len(tissues))]
    centres = []
    for tissue, wanted in zip(tissues, per_case, strict=True):
        pixels = np.argwhere(tissue.mask)
        chosen = pixels[rng.integers(len(pixels), size=wanted)]
        centres.append((chosen + rng.random((wanted, 2))) * tissue.mpp)
    return PatchSample(
        np.concatenate(centres), np.repeat(np.arange(len(tissues), dtype=np.int32), per_case), seed
    )
