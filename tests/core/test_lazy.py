"""Lazy pixels select as numpy does, and read no more than is asked for."""

from __future__ import annotations

import numpy as np
import pytest

from napari_pancluster.core.lazy import BLOCK_PX, LazyPixels

VALUES = np.random.default_rng(0).integers(0, 255, (1100, 1300, 3)).astype(np.uint8)


def _pixels(*, whole_blocks: bool) -> tuple[LazyPixels, list[tuple[int, int, int, int]]]:
    asked: list[tuple[int, int, int, int]] = []

    def read(top: int, left: int, rows: int, cols: int) -> np.ndarray:
        asked.append((top, left, rows, cols))
        return VALUES[top : top + rows, left : left + cols]

    return LazyPixels(VALUES.shape, VALUES.dtype, read, whole_blocks=whole_blocks), asked


@pytest.mark.parametrize("whole_blocks", [True, False])
@pytest.mark.parametrize(
    "index",
    [
        np.s_[10:900, 500:530, :],
        np.s_[::7, 100:1300:3, 1:],
        np.s_[5, :, 2],
        np.s_[600:600, :, :],
        np.s_[1090:, 1290:],
    ],
)
def test_selections_are_numpy_s(index: tuple[object, ...], whole_blocks: bool) -> None:
    pixels, _ = _pixels(whole_blocks=whole_blocks)
    assert np.array_equal(pixels[index], VALUES[index])
    assert np.array_equal(pixels.as_dask()[index].compute(scheduler="sync"), VALUES[index])


def test_only_what_is_asked_for_is_read() -> None:
    pixels, asked = _pixels(whole_blocks=False)
    pixels.as_dask()[100:120, 200:230].compute(scheduler="sync")
    assert asked == [(100, 200, 20, 30)]


def test_blocks_are_read_whole_where_they_are_remembered() -> None:
    pixels, asked = _pixels(whole_blocks=True)
    pixels.as_dask()[500:520, 200:230].compute(scheduler="sync")
    assert sorted(asked) == [(0, 0, BLOCK_PX, BLOCK_PX), (BLOCK_PX, 0, BLOCK_PX, BLOCK_PX)]
