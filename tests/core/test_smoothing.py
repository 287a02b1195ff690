"""Smoothing: a cell heeds its neighbours, and only those."""

from __future__ import annotations

import numpy as np

from napari_pancluster.core.latents import Clustering
from napari_pancluster.core.patches import PatchGrid, PatchTable
from napari_pancluster.core.smoothing import smooth

WEIGHTS = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]])


def grid_of(tissue: np.ndarray) -> PatchGrid:
    return PatchGrid("a", 1.0, 16, 8, np.argwhere(tissue).astype(np.int32), tissue.shape)


def test_probabilities_are_the_weighted_mean_over_the_tissue_around() -> None:
    rng = np.random.default_rng(0)
    first, second = grid_of(rng.random((9, 11)) < 0.6), grid_of(rng.random((7, 5)) < 0.8)
    table = PatchTable((first, second))
    probabilities = rng.dirichlet(np.ones(4), len(table)).astype(np.float32)
    found = smooth(Clustering(4, probabilities.argmax(1).astype(np.uint8), probabilities), table)
    assert np.allclose(found.probabilities.sum(1), 1, atol=1e-6)
    assert (found.assignments == found.probabilities.argmax(1)).all()
    for number, grid in enumerate(table.grids):
        own = probabilities[table.rows_of(number)]
        for row, (r, c) in enumerate(grid.index):
            away = grid.index - (r, c)
            near = (np.abs(away) <= 1).all(1)
            weights = WEIGHTS[away[near, 0] + 1, away[near, 1] + 1]
            expected = (weights[:, None] * own[near]).sum(0) / weights.sum()
            assert np.allclose(found.probabilities[table.rows_of(number)][row], expected, atol=1e-6)


def test_a_lone_cell_stays_and_a_lone_stranger_gives_way() -> None:
    tissue = np.zeros((9, 9), bool)
    tissue[:5, :5] = tissue[8, 8] = True
    grid = grid_of(tissue)
    assignments = np.zeros(len(grid.index), np.uint8)
    stranger = int(np.flatnonzero((grid.index == (2, 2)).all(1))[0])
    assignments[[stranger, -1]] = 1
    sure = np.eye(2, dtype=np.float32)[assignments]
    found = smooth(Clustering(2, assignments, sure), PatchTable((grid,)))
    assert found.assignments[stranger] == 0 and found.assignments[-1] == 1
    assert found.assignments.sum() == 1
