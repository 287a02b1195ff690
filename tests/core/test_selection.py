"""Outlines, combinations and sums of selections."""

from __future__ import annotations

import numpy as np
import pytest

from napari_pancluster.core.selection import Combine, SelectionSummary, combine, connected, inside


def test_an_outline_holds_what_lies_inside_and_nothing_else() -> None:
    y, x = np.mgrid[0:20, 0:30]
    points = np.stack([x.ravel(), y.ravel()], axis=1) + 0.5
    triangle = np.array([[2.0, 2.0], [25.0, 4.0], [8.0, 17.0]])
    # The half-plane test, for a triangle.
    sides = []
    for a, b in zip(triangle, np.roll(triangle, -1, axis=0), strict=True):
        sides.append(np.sign(np.cross(b - a, points - a)))
    expected = np.abs(np.sum(sides, axis=0)) == 3
    assert expected.sum() > 50
    assert np.array_equal(inside(points, triangle), expected)


def test_an_outline_that_crosses_itself_leaves_its_waist_out() -> None:
    bow_tie = np.array([[0.0, 0.0], [10.0, 10.0], [10.0, 0.0], [0.0, 10.0]])
    points = np.array([[1.0, 5.0], [9.0, 5.0], [5.0, 1.0], [5.0, 9.0]])
    assert inside(points, bow_tie).tolist() == [True, True, False, False]


@pytest.mark.parametrize("outline", [np.zeros((0, 2)), np.zeros((2, 2)), np.full((9, 2), 3.0)])
def test_what_is_no_area_holds_nothing(outline: np.ndarray) -> None:
    assert not inside(np.full((4, 2), 3.0), outline).any()


def test_a_point_that_is_nowhere_is_in_no_outline() -> None:
    box = np.array([[0.0, 0.0], [4.0, 0.0], [4.0, 4.0], [0.0, 4.0]])
    assert inside(np.array([[np.nan, 1.0], [1.0, 1.0]]), box).tolist() == [False, True]


def test_combinations() -> None:
    old, new = np.array([1, 1, 0, 0], bool), np.array([0, 1, 1, 0], bool)
    assert combine(old, new, Combine.REPLACE).tolist() == [False, True, True, False]
    assert combine(old, new, Combine.ADD).tolist() == [True, True, True, False]
    assert combine(old, new, Combine.SUBTRACT).tolist() == [True, False, False, False]


def test_an_area_is_what_hangs_together_and_looks_alike() -> None:
    labels = np.array([[1, 1, 2, 1], [0, 2, 1, 1], [1, 2, 2, 1]], np.uint8)
    # Corners touch: a diagonal neighbour belongs to the area.
    assert connected(labels, (0, 0)).sum() == 6
    assert connected(labels, (0, 2)).sum() == 4
    assert connected(labels, (2, 0)).sum() == 1
    assert not connected(labels, (1, 0)).any()


def test_a_summary_counts_patches_area_and_shares() -> None:
    labels = np.array([1, 1, 2, 2, 2], np.uint8)
    summary = SelectionSummary.of(np.array([1, 0, 1, 1, 0], bool), labels, 0.25)
    assert summary.patches == 3 and summary.area_mm2 == pytest.approx(0.75)
    assert summary.share(2) == pytest.approx(2 / 3) and summary.share(9) == 0
    assert SelectionSummary.of(np.zeros(5, bool), labels, None).area_mm2 is None
