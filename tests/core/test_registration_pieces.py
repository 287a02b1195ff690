"""A strand that broke when it was mounted: each part is found where it went."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawing import GLASS, write_slide
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.progress import run
from napari_pancluster.core.registration import register_pair
from napari_pancluster.core.registration.images import WorkImage
from napari_pancluster.core.registration.pieces import pieces_of
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stain import Stain

SHAPE, MPP = (240, 560), 6.0
BREAK, TURN_DEG = np.array([120.0, 370.0]), 30.0


def _turned(points: NDArray[np.float64], degrees: float) -> NDArray[np.float64]:
    a = np.deg2rad(degrees)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return (points - BREAK) @ turn.T + BREAK


@pytest.fixture(scope="module")
def strand() -> NDArray[np.float64]:
    """Stain strength of a straight strand with a tapered left end."""
    rng = np.random.default_rng(3)
    r, c = np.mgrid[: SHAPE[0], : SHAPE[1]].astype(float)
    half = 26 + 8 * np.sin(c / 45) * (c / SHAPE[1])
    inside = (np.abs(r - 120) < half) & (c > 60) & (c < 500)
    grain = sum(gaussian_filter(rng.normal(size=SHAPE), s) * s for s in (1.5, 4, 9))
    return gaussian_filter(inside.astype(float), 1) * np.clip(1 + 0.6 * grain, 0.2, 2.5)


def _stain(path: Path, strength: NDArray[np.float64], colour: list[float]) -> Stain:
    rgb = GLASS * 10 ** -(strength[..., None] * np.array(colour))
    return Stain.of(path.stem, open_slide(write_slide(path, rgb.astype(np.uint8), MPP)))


@pytest.fixture(scope="module")
def broken(strand: NDArray[np.float64]) -> NDArray[np.float64]:
    """The strand with the part right of the break turned about it."""
    grid = np.stack(np.mgrid[: SHAPE[0], : SHAPE[1]], -1).reshape(-1, 2).astype(float)
    left = map_coordinates(strand, grid.T, order=1) * (grid[:, 1] < BREAK[1])
    back = _turned(grid, -TURN_DEG)
    right = map_coordinates(strand, back.T, order=1) * (back[:, 1] >= BREAK[1])
    return np.maximum(left, right).reshape(SHAPE)


@pytest.mark.parametrize("whole_is_fixed", [True, False])
def test_both_parts_of_a_broken_strand_are_found(
    tmp_path: Path,
    strand: NDArray[np.float64],
    broken: NDArray[np.float64],
    whole_is_fixed: bool,
) -> None:
    whole = _stain(tmp_path / "HE.tif", strand, [0.15, 0.45, 0.25])
    parts = _stain(tmp_path / "PAS.tif", broken, [0.5, 0.35, 0.12])
    pair = (whole, parts) if whole_is_fixed else (parts, whole)
    found = run(register_pair(*pair, RegisterConfig(candidates=3)))
    assert found.transform is not None and found.report.folding_fraction == 0
    here = np.array([[120.0, x] for x in (100, 180, 260, 420, 450, 480)])
    there = np.where(here[:, 1:] < BREAK[1], here, _turned(here, TURN_DEG))
    fixed, moving = (here, there) if whole_is_fixed else (there, here)
    errors = np.linalg.norm(found.transform.to_moving(fixed * MPP) / MPP - moving, axis=1)
    assert errors.max() < 4, errors
    back = np.linalg.norm(found.transform.to_fixed(moving * MPP) / MPP - fixed, axis=1)
    assert back.max() < 4, back


def test_compact_tissue_is_one_piece_and_a_strand_is_several(
    strand: NDArray[np.float64],
) -> None:
    r, c = np.mgrid[:200, :200]
    disc = (np.hypot(r - 100, c - 100) < 80).astype(np.float32)
    assert len(pieces_of(WorkImage(disc, disc, 8.0))) == 1
    long = (strand > 0.1).astype(np.float32)
    pieces = pieces_of(WorkImage(long, long, 8.0))
    assert len(pieces) > 2
    assert set(np.unique(pieces.labels)) == set(range(len(pieces) + 1))


def test_no_tissue_is_no_piece() -> None:
    empty = np.zeros((50, 60), np.float32)
    assert len(pieces_of(WorkImage(empty, empty, 8.0))) == 0
