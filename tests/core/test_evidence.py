"""Evidence of a registration: its grid, its folds, its confidence, and what is said of them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from napari_pancluster.core.confidence import Confidence
from napari_pancluster.core.evidence import (
    EvidenceMap,
    bending,
    bending_in_words,
    bent_grid,
    folds,
    growth,
    growth_in_words,
    percent,
    trust,
    trust_in_words,
)
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.registration.quality import with_field
from napari_pancluster.core.tissue_mask import TissueMask
from napari_pancluster.core.transform import Transform

EXTENT = Region(0.0, 0.0, 800.0, 1000.0)
SPACING = 10.0
# A turn by 90° and a shift: nothing of it may be seen in the evidence.
TURNED = np.array([[0.0, -1.0, 900.0], [1.0, 0.0, 40.0], [0.0, 0.0, 1.0]])


def _places() -> tuple[np.ndarray, np.ndarray]:
    """Return row and col in µm of the samples of a field over the extent."""
    rows, cols = (SPACING * (np.arange(n) + 0.5) for n in (80, 100))
    return np.meshgrid(rows, cols, indexing="ij")


def _transform(down: np.ndarray, right: np.ndarray) -> Transform:
    field = np.stack(np.broadcast_arrays(down, right)).astype(np.float32)
    return with_field(Transform("HE", "PAS", TURNED), field, SPACING)


@pytest.fixture
def waved() -> Transform:
    """Waves of up to 12 µm to the right and 8 µm down."""
    r, c = _places()
    return _transform(8 * np.sin(c / 90), 12 * np.sin(r / 110))


def test_what_is_not_bent_is_a_straight_grid_over_the_slide() -> None:
    pieces = bent_grid(Transform("HE", "PAS", TURNED), EXTENT, lines=20)
    ends = pieces.sum(axis=1)
    assert pieces[:, 0].min() == 0 and tuple(ends.max(axis=0)) == (800, 1000)
    # Every piece runs along one side of the slide, on a multiple of 50 µm.
    across = np.isclose(pieces[:, 1, 0], 0)
    assert across.any() and not across.all()
    for axis, which in ((0, across), (1, ~across)):
        assert np.allclose(pieces[which, 1, axis], 0)
        assert set(np.unique(pieces[which, 0, axis]) % 50) == {0.0}
    length = np.hypot(*pieces[:, 1].T)
    assert np.isclose(length[across].sum(), 17 * 1000) and np.isclose(length.sum(), 33800)


def test_a_bent_grid_is_a_regular_one_on_the_moving_section(waved: Transform) -> None:
    pieces = bent_grid(waved, EXTENT, lines=20)
    inner = (pieces[:, 0] > 40).all(axis=1) & (pieces[:, 0] < (760, 960)).all(axis=1)
    starts, ends = pieces[inner, 0], pieces[inner].sum(axis=1)
    # Carried to the moving section and turned back, they lie on multiples of 50 µm.
    straight = replace(waved, affine=np.eye(3))
    for points in (starts, ends):
        off = np.abs((straight.to_moving(points) + 25) % 50 - 25).min(axis=1)
        assert off.max() < 0.3
    assert np.abs((starts + 25) % 50 - 25).min(axis=1).max() > 4


def test_growth_is_the_area_of_the_moving_section_on_an_area_of_the_fixed() -> None:
    r, c = _places()
    squeezed = _transform(0.2 * r, 0.1 * c)
    found = growth(squeezed, EXTENT)
    assert np.allclose(found.values, 1.2 * 1.1, atol=1e-3) and not folds(found).any()
    assert (found.spacing, found.origin) == (10.0, (5.0, 5.0))
    square = np.array([[300.0, 300], [300, 320], [320, 320], [320, 300]])
    a = squeezed.to_moving(square)
    area = abs(np.linalg.det(np.stack([a[1] - a[0], a[3] - a[0]])))
    assert np.isclose(area / 400, found.values[30, 30], atol=1e-3)


def test_folds_are_found_where_they_are_and_told() -> None:
    _, c = _places()
    # Between 400 and 500 µm the tissue runs backwards.
    right = -1.5 * np.clip(c - 400, 0, 100)
    found = growth(_transform(0 * c, right), EXTENT)
    columns = np.flatnonzero(folds(found).any(axis=0))
    assert columns.min() in (39, 40) and columns.max() in (49, 50) and folds(found)[:, 45].all()
    assert found.values.min() == pytest.approx(-0.5, abs=1e-3)
    assert "% of the slide folds" in growth_in_words(found)
    tissue = TissueMask(np.zeros((80, 100), np.bool_), 10.0)
    tissue.mask[:, 40:60] = True
    inside = found.within(tissue)
    share = folds(found)[:, 40:60].mean()
    assert f"{100 * share:.1f} % of the tissue folds" in growth_in_words(inside)
    tissue.mask[:] = False
    tissue.mask[:, :30] = True
    assert growth_in_words(found.within(tissue)).endswith("No folds.")


def test_what_lies_beyond_the_tissue_is_not_looked_at(waved: Transform) -> None:
    length = bending(waved, EXTENT)
    assert length.values.max() == pytest.approx(np.hypot(12, 8), abs=0.3)
    # A mask at another pixel size, which ends before the slide does.
    tissue = TissueMask(np.zeros((30, 25), np.bool_), 20.0)
    tissue.mask[10:, 5:] = True
    inside = length.within(tissue)
    seen = ~np.isnan(inside.values)
    r, c = _places()
    assert np.array_equal(seen, (r >= 200) & (r < 600) & (c >= 100) & (c < 500))
    assert np.array_equal(inside.known, length.values[seen]) and inside.area == "tissue"
    assert f"up to {inside.known.max():.0f} µm" in bending_in_words(inside, "µm")


def test_a_map_that_starts_off_the_slide_is_met_in_its_place() -> None:
    found = EvidenceMap(np.ones((6, 4), np.float32), 10.0, (-25.0, 15.0))
    tissue = TissueMask(np.ones((2, 4), np.bool_), 10.0)
    seen = ~np.isnan(found.within(tissue).values)
    # Rows at -25 to 25 µm of a mask of 20, columns at 15 to 45 µm of one of 40.
    wanted = np.zeros((6, 4), np.bool_)
    wanted[3:5, :3] = True
    assert np.array_equal(seen, wanted)


def test_without_tissue_all_of_the_slide_is_looked_at(waved: Transform) -> None:
    length = bending(waved, EXTENT)
    assert length.within(None) is length
    none = TissueMask(np.zeros((80, 100), np.bool_), 10.0)
    assert length.within(none) is length and length.area == "slide"


def test_a_section_that_is_only_turned_is_said_to_be_not_bent() -> None:
    turned = Transform("HE", "PAS", TURNED)
    assert (growth(turned, EXTENT).values == 1).all()
    length = bending(turned, EXTENT)
    rows, cols = length.values.shape
    assert rows * length.spacing == EXTENT.height and cols * length.spacing == EXTENT.width
    assert bending_in_words(length, "µm").startswith("Not bent")
    assert "1.00 to 1.00" in growth_in_words(growth(turned, EXTENT))


def test_confidence_is_told_over_the_tissue() -> None:
    values = np.full((40, 50), 0.9, np.float32)
    values[:, :10] = 0.1
    found = trust(Confidence(values, 20.0))
    assert (found.spacing, found.origin) == (20.0, (10.0, 10.0))
    tissue = TissueMask(np.zeros((80, 100), np.bool_), 10.0)
    tissue.mask[:, :40] = True
    words = trust_in_words(found.within(tissue))
    assert "of the tissue: 0.50" in words and "Below 0.5: 50.0 %" in words
    assert "of the slide: 0.74" in trust_in_words(found)


def test_little_is_not_called_none() -> None:
    assert percent(0) == "0.0 %" and percent(1e-6) == "less than 0.1 %"
    assert percent(0.004) == "0.4 %"
    one = np.ones((1000, 1000), np.float32)
    one[3, 4] = 0
    assert "less than 0.1 % of the slide folds" in growth_in_words(EvidenceMap(one, 1.0, (0, 0)))
