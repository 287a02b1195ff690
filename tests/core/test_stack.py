"""Stacks: stains read together in the frame of the reference."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from drawing import texture, write_slide

from napari_pancluster.core.confidence import Confidence
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


def test_where_a_stain_lies_unsurely_it_counts_as_missing(stack: SlideStack) -> None:
    values = np.ones((20, 30), np.float32)
    values[:, :10] = 0.1
    values[5, 20] = 0.0
    sure = Confidence(values, 20.0)
    stack = replace(stack, confidences={"PAS": sure}, doubtful=frozenset({"PAS"}))
    region = Region(0, 0, 400, 600)
    assert stack.read(region, 2.0).inside.all()
    block = stack.trusting(0.2).read(region, 2.0)
    assert block.inside[0].all()
    assert not block.inside[1, :, :100].any() and not block.inside[1, 50:60, 200:210].any()
    assert block.inside[1].mean() == pytest.approx(2 / 3 - 1 / 600, abs=1e-6)
    # What is there is still told: a patch that is sure for its larger part is taken whole.
    assert (block.od[3:, :, :100] > 0).any()


def test_a_gap_that_a_section_was_stretched_over_is_blank(stack: SlideStack) -> None:
    # 20 µm to a sample: within 200 to 300 µm, 100 µm show what lies within 10 µm.
    columns = 10.0 + 20.0 * np.arange(30)
    field = np.zeros((2, 20, 30), np.float32)
    field[1] = -0.9 * np.clip(columns - 200, 0, 100)
    torn = Transform("HE", "PAS", np.eye(3), field, -field, 20.0, (10.0, 10.0))
    region = Region(0, 0, 400, 600)
    sound = torn.sound_over(region, 2.0)
    assert not sound[:, 106:144].any() and sound[:, :94].all() and sound[:, 156:].all()
    # Beyond the field its edge holds.
    assert torn.sound_over(Region(380, 580, 60, 60), 2.0).all()
    assert Transform.identity("HE", "PAS").sound_over(region, 2.0).all()
    block = stack.with_transform(torn).read(region, 2.0)
    assert block.inside[0].all()
    assert not block.inside[1, :, 106:144].any() and block.inside[1, :, :94].all()
    assert (block.od[3:, :, 106:144] == 0).all() and (block.od[3:, :, :94] > 0).any()
    assert (stack.with_transform(torn).pictures(("PAS",), region, 2.0)[0][:, 106:144] == 255).all()


def test_sections_agree_as_surely_as_the_least_sure(stack: SlideStack) -> None:
    points = np.array([[10.0, 10.0], [10.0, 210.0]])
    assert np.isnan(stack.agreement(points)).all()
    low, high = np.full((20, 30), 0.9, np.float32), np.full((20, 30), 0.4, np.float32)
    high[:, 10:] = 1.0
    found = {"PAS": Confidence(low, 20.0), "CD31": Confidence(high, 20.0)}
    both = replace(
        stack, confidences=found, transforms=dict.fromkeys(found, stack.transforms["PAS"])
    )
    assert np.allclose(both.agreement(points), [0.4, 0.9])
    # A stain that is not registered any more says nothing.
    assert np.allclose(replace(both, transforms=stack.transforms).agreement(points), 0.9)


def test_confidence_over_a_region_is_that_at_its_pixels() -> None:
    rng = np.random.default_rng(0)
    sure = Confidence(rng.random((7, 9), np.float32), 20.0)
    region = Region.of_pixels(top=-4, left=10, rows=60, cols=50, mpp=3.7)
    rows, cols = np.mgrid[:60, :50] + 0.5
    places = np.column_stack([(rows.ravel() - 4) * 3.7, (cols.ravel() + 10) * 3.7])
    assert np.array_equal(sure.over(region, 3.7).ravel(), sure.at(places))
