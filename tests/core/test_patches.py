"""Grids and samples: the geometry that every map and export relies on."""

from __future__ import annotations

import numpy as np
import pytest

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.geometry import Region, cells_along
from napari_pancluster.core.patches import PatchTable, make_grid, sample_positions, whole_patches
from napari_pancluster.core.tissue_mask import TissueMask


def mask(rows: int = 100, cols: int = 150) -> TissueMask:
    """Tissue in the left two thirds, 8 µm/px."""
    out = np.zeros((rows, cols), bool)
    out[:, : 2 * cols // 3] = True
    return TissueMask(out, 8.0)


@pytest.mark.parametrize("stride", [7, 16, 32, 50])
def test_cells_cover_the_extent_and_only_tissue(stride: int) -> None:
    grid = make_grid("a", Region(0, 0, 800, 1200), mask(), mpp=0.5, patch_px=64, stride_px=stride)
    cell = stride * 0.5
    assert grid.shape == (cells_along(800, cell), cells_along(1200, cell))
    assert grid.shape[1] * cell >= 1200 > (grid.shape[1] - 1) * cell
    assert grid.index[:, 1].max() == pytest.approx(800 / cell, abs=1)
    assert np.allclose(grid.centres, (grid.index + 0.5) * cell)
    image = grid.image(np.arange(1, len(grid.index) + 1))
    assert (image > 0).sum() == len(grid.index)


def test_a_whole_number_of_cells_gains_none_from_rounding() -> None:
    assert cells_along(0.1 * 3, 0.1) == 3
    assert cells_along(100.0, 33.0) == 4


def test_rows_of_cases_lie_end_to_end() -> None:
    one = make_grid("a", Region(0, 0, 800, 1200), mask(), mpp=1, patch_px=64, stride_px=64)
    two = make_grid("b", Region(0, 0, 400, 400), mask(50, 50), mpp=1, patch_px=64, stride_px=64)
    table = PatchTable((one, two))
    assert len(table) == len(one.index) + len(two.index)
    assert (table.grid_id[table.rows_of(1)] == 1).all()
    assert table.rows_of(1).start == len(one.index)


def test_samples_are_in_tissue_balanced_and_repeatable() -> None:
    first = sample_positions([mask(), mask(40, 40)], 2001, seed=3)
    again = sample_positions([mask(), mask(40, 40)], 2001, seed=3)
    assert np.array_equal(first.centres, again.centres)
    assert np.bincount(first.case_id).tolist() == [1001, 1000]
    assert first.centres[first.case_id == 0][:, 1].max() <= 800
    assert np.abs(first.centres[first.case_id == 0].mean(0) - [400, 400]).max() < 25
    other = sample_positions([mask()], 2001, seed=4)
    assert not np.array_equal(first.centres[:1000], other.centres[:1000])


def test_impossible_grids_are_refused() -> None:
    extent = Region(0, 0, 800, 1200)
    thin = TissueMask(np.pad(np.ones((100, 20), bool), ((0, 0), (0, 130))), 8.0)
    with pytest.raises(InputError, match="larger than the tissue"):
        make_grid("a", extent, mask(), mpp=50, patch_px=64, stride_px=32)
    with pytest.raises(InputError, match="at least 1 px"):
        make_grid("a", extent, mask(), mpp=1, patch_px=64, stride_px=0)
    with pytest.raises(InputError, match="smaller --stride-px"):
        make_grid("a", extent, thin, mpp=1, patch_px=64, stride_px=4000)


def test_patches_lack_what_most_of_their_case_have() -> None:
    present = np.ones((30, 3), bool)
    case = np.repeat([0, 1, 2], 10)
    present[:2, 1] = False  # a gap
    present[10:20, 2] = False  # the whole case is without the stain
    present[20:26, 0] = False  # two slides that hardly overlap
    present[25:, 1] = False
    whole = whole_patches(present, case)
    assert not whole[:2].any() and whole[2:20].all()
    assert whole[20:].all()
    # A project of an earlier version does not know.
    assert whole_patches(np.zeros((30, 0), bool), case).all()
