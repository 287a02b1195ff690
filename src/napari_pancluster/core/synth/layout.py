"""Layout: where the tissue of a synthetic section lies, and which type is where."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_pancluster.core.synth.warp import Floats, Waves

_COVERAGE = 0.71
_EDGE = 0.015
_REGION_PX = 400
_SMALL_REGION_PX = 220
_LARGEST_TO_SMALLEST = 2.2
_FEWEST_PLACES = 2
_LOW_RES = 160


@dataclass(frozen=True)
class Layout:
    """A map of the section in the reference frame, coarser than its slides.

    Attributes
    ----------
    cells
        (H, W) uint8, the region each map pixel belongs to, 0 on glass.
    cell_labels
        (R + 1,) uint8, the tissue type 1...tissues of each region; entry 0 is glass.
    scale
        Level-0 px a map pixel.
    size
        Side of the reference slide in px.
    """

    cells: NDArray[np.uint8]
    cell_labels: NDArray[np.uint8]
    scale: int
    size: int

    @property
    def labels(self) -> NDArray[np.uint8]:
        """The true tissue types, (H, W) uint8, 0 on glass."""
        return self.cell_labels[self.cells]

    def outline(self) -> Floats:
        """Return the outer pixels of the tissue, (N, 2) row, col in level-0 px."""
        mask = self.cells > 0
        edge = mask & ~ndimage.binary_erosion(mask)
        return np.asarray((np.argwhere(edge) + 0.5) * self.scale, np.float64)

    def points(self, rng: np.random.Generator, count: int) -> Floats:
        """Draw `count` positions uniformly in tissue, (N, 2) row, col in level-0 px."""
        inside = np.flatnonzero(self.cells)
        rows, cols = np.divmod(rng.choice(inside, count), self.cells.shape[1])
        places = np.stack([rows, cols], axis=1) + rng.uniform(0, 1, (count, 2))
        return np.asarray(places * self.scale, np.float64)


def draw_layout(rng: np.random.Generator, *, size: int, tissues: int) -> Layout:
    """Draw the outline, the holes and the regions of a section."""
    scale = 4 if size <= 4000 else 8
    side = math.ceil(size / scale)
    mask = _outline(rng, side)
    mask &= ~_holes(rng, mask)
    area = float(mask.sum()) * scale**2
    places = int(np.clip(round(area / tissues / _REGION_PX**2), 2, 6))
    if places == 2 and area / (3 * tissues) > _SMALL_REGION_PX**2:
        places = 3
    cells = _regions(rng, mask, tissues * places)
    return Layout(cells, _types(rng, cells, tissues), scale, size)


def _outline(rng: np.random.Generator, side: int) -> NDArray[np.bool_]:
    """Return a rounded square with a wavy edge, (side, side), `_COVERAGE` of it tissue."""
    ticks = (np.arange(side) + 0.5) / side * 2 - 1
    rows, cols = ticks[:, None], ticks[None, :]
    angle = np.arctan2(rows, cols)
    radius = (np.abs(rows) ** 3.5 + np.abs(cols) ** 3.5) ** (1 / 3.5)
    stretch = np.ones_like(angle)
    for order, most in ((1, 0.03), (2, 0.04), (3, 0.04), (5, 0.025), (8, 0.015), (13, 0.01)):
        stretch += rng.uniform(0.5, 1) * most * np.cos(order * angle + rng.uniform(0, 2 * math.pi))
    level = radius / stretch
    border = np.maximum(np.abs(rows), np.abs(cols)) > 1 - 2 * _EDGE
    level[border] = np.inf
    parts, _ = ndimage.label(level <= np.quantile(level, _COVERAGE))
    largest = np.bincount(parts.ravel())[1:].argmax() + 1
    return np.asarray(parts == largest)


def _holes(rng: np.random.Generator, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a few lumina well inside the tissue."""
    side = mask.shape[0]
    depth = ndimage.distance_transform_edt(mask)
    ticks = np.arange(side, dtype=np.float64)
    wave = Waves.random(
        rng, wavelengths=(0.03 * side, 0.08 * side), amplitude=0.008 * side, components=2
    )
    bend = wave.on_grid(ticks, ticks)
    holes = np.zeros_like(mask)
    for _ in range(int(rng.integers(3, 6))):
        radius = rng.uniform(0.012, 0.028) * side
        row, col = rng.choice(np.argwhere(depth > 2.5 * radius))
        flat = rng.uniform(0.6, 1.0)
        rows = ticks[:, None] - row + bend[0]
        cols = ticks[None, :] - col + bend[1]
        holes |= np.hypot(rows / flat, cols * flat) < radius
    return holes


def _regions(rng: np.random.Generator, mask: NDArray[np.bool_], count: int) -> NDArray[np.uint8]:
    """Cut the tissue into `count` regions by a bent Voronoi diagram of even seeds."""
    side = mask.shape[0]
    step = max(1, side // _LOW_RES)
    sample = np.argwhere(mask[::step, ::step]) * step + step / 2
    seeds = rng.choice(sample, count, replace=False)
    for _ in range(6):
        owner = cKDTree(seeds).query(sample)[1]
        filled = np.maximum(np.bincount(owner, minlength=count), 1)
        for axis in range(2):
            total = np.bincount(owner, weights=sample[:, axis], minlength=count)
            seeds[:, axis] = total / filled
    width = math.sqrt(float(mask.sum()) / count)
    bend = Waves.random(
        rng, wavelengths=(0.5 * width, 1.6 * width), amplitude=0.42 * width, components=2, count=5
    )
    ticks = np.arange(side, dtype=np.float64)
    bent = bend.on_grid(ticks, ticks)
    rows, cols = np.nonzero(mask)
    places = np.stack([rows + bent[0][rows, cols], cols + bent[1][rows, cols]], axis=1)
    cells = np.zeros(mask.shape, np.uint8)
    cells[rows, cols] = cKDTree(seeds).query(places)[1] + 1
    return cells


def _types(rng: np.random.Generator, cells: NDArray[np.uint8], tissues: int) -> NDArray[np.uint8]:
    """Give each region a type: areas moderately unequal, neighbours of different types."""
    areas = np.bincount(cells.ravel())
    touching = _neighbours(cells, areas.size)
    wanted = rng.permutation(np.linspace(1, _LARGEST_TO_SMALLEST, tissues))
    left = wanted / wanted.sum() * areas[1:].sum()
    labels = np.zeros(areas.size, np.uint8)
    places = np.zeros(tissues, int)
    cells_by_area = np.argsort(areas[1:], kind="stable")[::-1] + 1
    for done, cell in enumerate(cells_by_area):
        order = np.argsort(-left, kind="stable")
        missing = np.maximum(_FEWEST_PLACES - places, 0)
        if missing.sum() >= cells_by_area.size - done:
            order = order[missing[order] > 0]
        taken = set(labels[touching[cell]].tolist())
        chosen = next((kind for kind in order if kind + 1 not in taken), order[0])
        labels[cell] = chosen + 1
        places[chosen] += 1
        left[chosen] -= areas[cell]
    return labels


def _neighbours(cells: NDArray[np.uint8], count: int) -> NDArray[np.bool_]:
    """Return which regions touch, (count, count), glass touching nothing."""
    touching = np.zeros((count, count), bool)
    touching[cells[:-1].ravel(), cells[1:].ravel()] = True
    touching[cells[:, :-1].ravel(), cells[:, 1:].ravel()] = True
    touching |= touching.T
    touching[0] = touching[:, 0] = False
    np.fill_diagonal(touching, False)
    return touching
