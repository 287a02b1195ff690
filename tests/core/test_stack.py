"""Stacks: stains read together in the frame of the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawing import texture, write_slide

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform


@pytest.fixture
def stack(tmp_path: Path) -> SlideStack:
    """The same picture twice, the second turned a quarter and at another pixel size."""
    rgb = texture((400, 600), coarse=True)
    doubled = np.rot90(rgb).repeat(2, 0).repeat(2, 1)
    fixed = Stain.of("HE", open_slide(write_slide(tmp_path / "he.ome.tif", rgb, 1.0)))
    moving = Stain.of("PAS", open_slide(write_slide(tmp_path / "pas.ome.tif", doubled, 0.5)))
    # rot90: row' = width - col, col' = row, in µm of corner coordinates.
    affine = np.array([[0, -1, 600.0], [1, 0, 0], [0, 0, 1]])
    return SlideStack("block", "HE", (fixed, moving)).with_transform(Transform("HE", "PAS", affine))


def test_registered_stains_coincide(stack: SlideStack) -> None:
    block = stack.read(Region(50, 60, 200, 300), 2.0)
    assert block.od.shape == (6, 100, 150)
    assert block.inside.all()
    assert np.abs(block.od[:3] - block.od[3:]).max() < 0.03


def test_outside_a_slide_is_marked_and_clear(stack: SlideStack) -> None:
    block = stack.read(Region(-40, 0, 80, 40), 2.0)
    assert not block.inside[:, :20].any() and block.inside[:, 21:].all()
    assert (block.od[3:, :20] == 0).all()


def test_unregistered_and_unknown_stains_read_as_not_there(stack: SlideStack) -> None:
    alone = SlideStack("block", "HE", stack.stains).select(("PAS", "HE", "CD31"))
    block = alone.read(Region(50, 60, 40, 40), 2.0)
    assert list(block.inside.all(axis=(1, 2))) == [False, True, False]
    assert alone.registered == ("HE",)
    with pytest.raises(InputError, match="has no stain 'CD31'"):
        alone.stain("CD31")
