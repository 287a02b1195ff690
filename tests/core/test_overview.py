"""A slide without a pyramid gets one, once, and can be looked at meanwhile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from napari_pancluster.core.geometry import Region
from napari_pancluster.core.overview import (
    blank_overview,
    build_overview,
    fill_overviews,
    read_overview,
    with_overview,
)
from napari_pancluster.core.progress import run
from napari_pancluster.core.slide import Slide, open_slide

ROWS, COLS = 4301, 6407


@pytest.fixture(scope="module")
def flat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One level, red by row and green by column, larger than an overview may be."""
    r, c = np.ogrid[:ROWS, :COLS]
    image = np.zeros((ROWS, COLS, 3), np.uint8)
    image[..., 0] = r * 250 // ROWS
    image[..., 1] = c * 250 // COLS
    path = tmp_path_factory.mktemp("flat") / "flat.tif"
    tifffile.imwrite(
        path,
        image,
        photometric="rgb",
        tile=(512, 512),
        compression="zlib",
        compressionargs={"level": 1},
    )
    return path


def _check(slide: Slide, mpp: float) -> None:
    slide = slide.with_mpp(0.5)
    read = slide.read(Region(100, 200, 1800, 2600), mpp)
    for axis, low, size, channel in ((0, 100, ROWS, 0), (1, 200, COLS, 1)):
        at = (low + (np.arange(read.shape[axis]) + 0.5) * mpp) / 0.5
        wanted = at * 250 / size - 0.5
        mean = read[..., channel].mean(1 - axis)
        # Half a pixel of the level read from would shift the mean by 0.1 to 0.5.
        assert np.abs(mean - wanted).max() < 1 and abs((mean - wanted).mean()) < 0.1


def test_it_is_built_once_and_every_level_lies_right(flat: Path, tmp_path: Path) -> None:
    slide = open_slide(flat)
    assert slide.lacks_overview
    folder = tmp_path / "cache" / slide.fingerprint
    assert read_overview(slide, folder) is None
    run(build_overview(slide, folder, "HE"))
    kept = read_overview(slide, folder)
    assert kept is not None
    whole = with_overview(slide, kept)
    assert not whole.lacks_overview
    assert [level.shape for level in whole.levels][:3] == [(4301, 6407), (2151, 3204), (1076, 1602)]
    assert max(whole.levels[-1].shape) <= 512
    for mpp in (0.5, 1.0, 2.1, 4.0, 8.0):
        _check(whole, mpp)


def test_its_coarse_levels_fill_while_it_is_built(flat: Path) -> None:
    slide = open_slide(flat)
    overview = blank_overview(slide)
    seen = with_overview(slide, overview)
    last = len(seen.levels) - 1
    rows, cols = seen.levels[last].shape
    assert (seen.read_level(last, 0, 0, rows, cols) == 255).all()
    task = fill_overviews(slide, [overview], "HE")
    next(task)
    next(task)
    picture = seen.read_level(last, 0, 0, rows, cols)
    assert (picture[:100, :100, 2] == 0).all() and (picture[-50:, -50:] == 255).all()
    run(task)
    assert (seen.read_level(last, 0, 0, rows, cols)[..., 2] == 0).all()


def test_given_up_midway_nothing_stays(flat: Path, tmp_path: Path) -> None:
    slide = open_slide(flat)
    task = build_overview(slide, tmp_path / "cache" / "x", "HE")
    next(task)
    next(task)
    task.close()
    assert list((tmp_path / "cache").iterdir()) == []
