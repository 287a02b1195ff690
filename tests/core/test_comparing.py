"""What two sections look like in one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawing import GLASS, write_slide

from napari_pancluster.core.comparing import FIXED_COLOUR, MOVING_COLOUR, Comparison, Mode, overlay
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform


@pytest.fixture
def stack(tmp_path: Path) -> SlideStack:
    """Two slides of 1 µm: the reference all purple, the other all brown, inside a rim of glass."""
    stains = []
    for name, colour in (("HE", (120, 60, 140)), ("DAB", (140, 90, 40))):
        rgb = np.full((700, 1300, 3), GLASS, np.uint8)
        rgb[20:-20, 20:-20] = colour
        stains.append(
            Stain.of(name, open_slide(write_slide(tmp_path / f"{name}.ome.tif", rgb, 1.0)))
        )
    found = SlideStack("case", "HE", tuple(stains))
    return found.with_transform(Transform.identity("HE", "DAB"))


def _at(picture: np.ndarray, row: int, col: int) -> str:
    """Which of the two slides a pixel shows."""
    _, green, blue = (int(v) for v in picture[row, col])
    return "HE" if blue > green else "DAB"


def test_a_curtain_shows_the_reference_left_of_it(stack: SlideStack) -> None:
    comparison = Comparison(stack, "DAB", Mode.CURTAIN)
    comparison.split = 0.25
    levels = comparison.levels
    assert [level.shape for level in levels] == [(700, 1300, 3), (350, 650, 3), (175, 325, 3)]
    for level, step in zip(levels, (1, 2, 4), strict=True):
        picture = np.asarray(level)
        assert _at(picture, 300 // step, 310 // step) == "HE"
        assert _at(picture, 300 // step, 345 // step) == "DAB"
    comparison.split = 0.75
    assert _at(np.asarray(levels[0]), 300, 900) == "HE"


def test_a_checkerboard_lies_alike_on_every_level(stack: SlideStack) -> None:
    levels = Comparison(stack, "DAB", Mode.CHECKER).levels
    side = 1300 / 12
    for step, level in zip((1, 2, 4), levels, strict=True):
        picture = np.asarray(level)
        for r, c in ((0.5, 0.5), (0.5, 1.5), (1.5, 1.5), (3.5, 6.5), (4.5, 9.5)):
            wanted = "HE" if (int(r) + int(c)) % 2 == 0 else "DAB"
            assert _at(picture, int(r * side / step), int(c * side / step)) == wanted


def test_two_colours_are_dark_where_both_are() -> None:
    dark, glass = np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)
    assert tuple(overlay(dark, glass)[0, 0]) == FIXED_COLOUR
    assert tuple(overlay(glass, dark)[0, 0]) == MOVING_COLOUR
    assert (overlay(glass, glass) == 255).all()
    both = overlay(dark, dark)[0, 0].astype(int)
    assert both.max() < 80
