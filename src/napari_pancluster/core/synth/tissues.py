"""Tissue types: one short function for each anatomy, from packed nuclei to fat."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from napari_pancluster.core.synth.anatomy import (
    PERIOD,
    SIDE,
    Anatomy,
    Field,
    Floats,
    Nuclei,
    at,
    distances,
    lattice,
    lines,
    noise,
    smooth_step,
    waves,
)

_Rng = np.random.Generator


def draw_anatomy(name: str, rng: _Rng) -> Anatomy:
    """Draw the structures of the anatomy called `name`."""
    return _ANATOMIES[name](rng)


def _nuclei(
    rng: _Rng,
    places: Floats,
    radius: float,
    *,
    angle: Floats | float | None = None,
    stretch: float = 1.2,
    depth: float = 1.0,
    pale: float = 0.0,
) -> Nuclei:
    """Return nuclei of uneven size at `places`, at any angle or along `angle`."""
    count = len(places)
    spread = math.pi / 2 if angle is None else 0.15
    turned = (0.0 if angle is None else angle) + rng.normal(0, spread, count)
    sizes = radius * np.clip(rng.normal(1, 0.12, count), 0.7, 1.4)
    return Nuclei(places, turned, sizes, stretch, depth, pale)


def _rings(rng: _Rng, centres: Floats, radius: float, spacing: float) -> tuple[Floats, Floats]:
    """Return places on circles around `centres`, and the angle that points outwards."""
    count = max(4, round(2 * math.pi * radius / spacing))
    steps = np.arange(count) / count * 2 * math.pi
    turn = steps[None, :] + rng.uniform(0, 2 * math.pi, (len(centres), 1))
    turn = turn + rng.normal(0, 0.06, turn.shape)
    arm = np.stack([np.sin(turn), np.cos(turn)], axis=-1) * radius
    return ((centres[:, None] + arm) % PERIOD).reshape(-1, 2), turn.reshape(-1)


def _anatomy(
    nuclei: Nuclei,
    eosin: Field,
    *,
    gaps: Field | None = None,
    cells: Field | None = None,
    membranes: Field | None = None,
    fibres: Field | None = None,
    rim: Field | None = None,
) -> Anatomy:
    """Fill in what a tissue lacks with nothing, and open its gaps in the eosin."""
    empty = np.zeros((SIDE, SIDE), np.float32)
    hollow = empty if gaps is None else gaps
    return Anatomy(
        nuclei,
        np.asarray(np.maximum(eosin, 0) * (1 - hollow), np.float32),
        hollow,
        empty if cells is None else cells,
        empty if membranes is None else membranes,
        empty if fibres is None else fibres,
        empty if rim is None else rim,
    )


def _thinned(places: Floats, field: Field, edge: float) -> Floats:
    """Keep the places where `field` is above `edge`."""
    return places[at(field, places) > edge]


def _solid(rng: _Rng, pitch: float = 12.0, radius: float = 3.6) -> Anatomy:
    """Draw sheets of even cells (islet, hepatoid)."""
    places = lattice(rng, pitch, 0.18)
    near, gap = distances(places)
    membranes = smooth_step(-gap, -1.6, 1.5)
    cells = 1 - smooth_step(near, 6.0, 2.0)
    eosin = 0.75 + 0.25 * membranes + 0.1 * noise(rng, 12.0)
    return _anatomy(_nuclei(rng, places, radius), eosin, cells=cells, membranes=membranes)


def _sparse(rng: _Rng) -> Anatomy:
    """Draw large even cells."""
    return _solid(rng, 19.0, 4.2)


def _glands(
    rng: _Rng, pitch: float = 30.0, radius: float = 11.5, lumen: float = 4.5, gap: float = 0.09
) -> Anatomy:
    """Draw round glands with a lumen, in a little stroma."""
    centres = lattice(rng, pitch, gap)
    near, _ = distances(centres)
    wall = 1 - smooth_step(near, radius, 1.5)
    hollow = 1 - smooth_step(near, lumen, 1.2)
    body = wall * (1 - hollow)
    rim = lines(near - (radius + 1.5), 1.2)
    ring, turn = _rings(rng, centres, radius - 3.0, 6.2)
    stroma = noise(rng, 6.0, stretch=3, angle=0.5)
    eosin = 0.9 * body + (1 - wall) * (0.45 + 0.2 * stroma)
    nuclei = _nuclei(rng, ring, 2.5, angle=turn, stretch=1.4)
    return _anatomy(nuclei, eosin, gaps=hollow, cells=body, rim=rim)


def _cystic(rng: _Rng) -> Anatomy:
    """Draw wide cysts with a flat lining."""
    return _glands(rng, 42.0, 17.5, 9.5, 0.06)


def _collagen(rng: _Rng) -> Anatomy:
    """Draw parallel streaks of collagen with spindle nuclei."""
    angle = 0.35
    grain = noise(rng, 6.0, stretch=6, angle=angle)
    fibres = smooth_step(grain, 0.2, 1.0)
    places = lattice(rng, 17.0, 0.35)
    nuclei = _nuclei(rng, places, 2.3, angle=angle, stretch=4.0, depth=1.1)
    return _anatomy(nuclei, 0.25 + 0.9 * fibres, fibres=fibres)


def _bundles(rng: _Rng) -> Anatomy:
    """Draw thick wavy bundles, cleft from each other, across the collagen."""
    bend = 1.3 * noise(rng, 60.0)
    stripes = waves(21.0, 2.2, bend)
    clefts = smooth_step(-stripes, 0.75, 0.25)
    bundle = 1 - clefts
    places = _thinned(lattice(rng, 11.0, 0.3), -stripes, 0.3)
    nuclei = _nuclei(rng, places, 2.3, angle=2.2, stretch=3.0)
    return _anatomy(nuclei, 0.9 * bundle, gaps=clefts, fibres=bundle)


def _muscle(rng: _Rng) -> Anatomy:
    """Draw fine straight stripes with slender nuclei between them."""
    angle = -0.9
    bend = 0.8 * noise(rng, 70.0)
    stripes = waves(9.0, angle, bend)
    fibres = smooth_step(stripes, 0.0, 1.2)
    places = _thinned(lattice(rng, 13.0, 0.3), -stripes, 0.2)
    nuclei = _nuclei(rng, places, 2.0, angle=angle, stretch=4.5)
    return _anatomy(nuclei, 0.3 + 0.8 * fibres, fibres=fibres)


def _fat(rng: _Rng) -> Anatomy:
    """Draw empty round vacuoles with thin walls."""
    _, gap = distances(lattice(rng, 22.0, 0.2))
    membranes = 1 - smooth_step(gap, 3.4, 1.5)
    nuclei = _nuclei(rng, _thinned(lattice(rng, 7.7, 0.4), membranes, 0.8), 2.2, stretch=2.0)
    return _anatomy(nuclei, membranes, gaps=1 - membranes, membranes=membranes)


def _foamy(rng: _Rng) -> Anatomy:
    """Draw small vacuoles around a nucleus: foam cells."""
    places = lattice(rng, 7.5, 0.2)
    _, gap = distances(places)
    walls = 1 - smooth_step(gap, 2.0, 1.5)
    nuclei = _nuclei(rng, lattice(rng, 23.0, 0.15), 3.4, stretch=1.1, depth=1.1)
    return _anatomy(nuclei, 0.15 + 0.8 * walls, membranes=walls)


def _lymphoid(rng: _Rng) -> Anatomy:
    """Draw small dark nuclei side by side."""
    places = lattice(rng, 7.2, 0.2)
    nuclei = _nuclei(rng, places, 2.6, stretch=1.05, depth=1.1)
    eosin = 0.4 + 0.15 * noise(rng, 14.0)
    return _anatomy(nuclei, eosin)


def _reticular(rng: _Rng, wavelength: float = 19.0, pitch: float = 22.0) -> Anatomy:
    """Draw a loose net of fibres with few nuclei on it."""
    grain = noise(rng, wavelength)
    fibres = lines(grain, 0.28)
    places = _thinned(lattice(rng, pitch / 1.7, 0.4), fibres, 0.35)
    nuclei = _nuclei(rng, places, 2.4, stretch=1.9)
    return _anatomy(nuclei, 0.12 + fibres, fibres=fibres)


def _felt(rng: _Rng) -> Anatomy:
    """Draw a dense net of short fibres."""
    return _reticular(rng, 9.0, 30.0)


def _cords(rng: _Rng) -> Anatomy:
    """Draw cords of cells with open sinusoids between."""
    bend = 2.4 * noise(rng, 52.0)
    stripes = waves(19.0, 1.2, bend)
    cords = smooth_step(stripes, -0.45, 0.3)
    rim = lines(stripes + 0.52, 0.14)
    places = _thinned(lattice(rng, 9.5, 0.15), stripes, 0.15)
    nuclei = _nuclei(rng, places, 3.0)
    return _anatomy(
        nuclei, 0.9 * cords + 0.35 * (1 - cords), gaps=(1 - cords) * 0.6, cells=cords, rim=rim
    )


def _squamous(rng: _Rng) -> Anatomy:
    """Draw a pavement of large cells with dark borders and pale nuclei."""
    places = lattice(rng, 19.0, 0.16)
    near, gap = distances(places)
    membranes = 1 - smooth_step(gap, 1.6, 1.4)
    nuclei = _nuclei(rng, places, 3.9, pale=0.55)
    return _anatomy(
        nuclei, 0.4 + membranes, cells=1 - smooth_step(near, 7.0, 2.0), membranes=membranes
    )


def _granular(rng: _Rng) -> Anatomy:
    """Draw grains and crumbs of nuclei (necrosis)."""
    grain = smooth_step(noise(rng, 6.5), 0.5, 0.8)
    places = lattice(rng, 8.0, 0.5)
    places = places[rng.uniform(size=len(places)) < 0.5]
    nuclei = _nuclei(rng, places, 1.4, depth=1.4)
    return _anatomy(nuclei, 0.2 + grain)


def _nests(rng: _Rng) -> Anatomy:
    """Draw nests of crowded nuclei in fibrous stroma."""
    centres = lattice(rng, 34.0, 0.12)
    near, _ = distances(centres)
    nest = 1 - smooth_step(near + 1.5 * noise(rng, 14.0), 11.5, 2.0)
    fibres = (1 - nest) * smooth_step(noise(rng, 5.0, stretch=4, angle=1.9), 0.0, 1.0)
    places = _thinned(lattice(rng, 6.6, 0.2), nest, 0.6)
    return _anatomy(
        _nuclei(rng, places, 2.5), 0.35 * nest + 0.8 * fibres, cells=nest, fibres=fibres
    )


def _pleomorphic(rng: _Rng) -> Anatomy:
    """Draw large uneven nuclei in ragged cells."""
    places = lattice(rng, 17.5, 0.22)
    _, gap = distances(places)
    membranes = 1 - smooth_step(gap, 1.5, 1.5)
    nuclei = _nuclei(rng, places, 5.6, stretch=1.7, depth=0.9, pale=0.25)
    nuclei = replace(nuclei, radius=nuclei.radius * rng.uniform(0.65, 1.25, len(places)))
    return _anatomy(nuclei, 0.5 + 0.25 * noise(rng, 9.0), membranes=membranes)


def _whorls(rng: _Rng) -> Anatomy:
    """Onion-like circles of fibres."""
    centres = lattice(rng, 42.0, 0.12)
    near, _ = distances(centres)
    turns = np.sin(near * np.float32(2 * math.pi / 8.5) + 0.5 * noise(rng, 20.0))
    fibres = smooth_step(turns, 0.1, 1.0)
    rings = [_rings(rng, centres, radius, 13.0) for radius in (6.4, 14.9)]
    places = np.concatenate([ring[0] for ring in rings])
    across = np.concatenate([ring[1] for ring in rings]) + math.pi / 2
    nuclei = _nuclei(rng, places, 2.1, angle=across, stretch=3.0)
    return _anatomy(nuclei, 0.2 + 0.9 * fibres, fibres=fibres)


def _cribriform(rng: _Rng) -> Anatomy:
    """Draw a sheet of cells with small round holes."""
    centres = lattice(rng, 17.0, 0.06)
    near, gap = distances(centres)
    hollow = 1 - smooth_step(near, 4.3, 1.2)
    places = _thinned(lattice(rng, 6.5, 0.25), near, 6.3)
    sheet = 1 - hollow
    return _anatomy(_nuclei(rng, places, 2.4), 0.8 * sheet, gaps=hollow, cells=sheet * (gap > 0.5))


def _vascular(rng: _Rng) -> Anatomy:
    """Draw many small vessels, full of red cells, in pale ground."""
    centres = lattice(rng, 24.0, 0.16)
    near, _ = distances(centres)
    inside = 1 - smooth_step(near, 6.5, 1.2)
    rim = lines(near - 7.5, 1.2)
    red = inside * smooth_step(noise(rng, 5.0), 0.0, 0.6)
    ring, turn = _rings(rng, centres, 8.3, 15.0)
    nuclei = _nuclei(rng, ring, 2.0, angle=turn + math.pi / 2, stretch=2.6)
    eosin = 1.3 * red + 0.5 * rim + 0.22 * (1 - inside)
    plasma = np.asarray(0.6 * (inside - red * inside), np.float32)
    return _anatomy(nuclei, eosin, gaps=plasma, rim=rim)


_ANATOMIES: dict[str, Callable[[_Rng], Anatomy]] = {
    "solid": _solid,
    "sparse": _sparse,
    "glands": _glands,
    "collagen": _collagen,
    "fat": _fat,
    "lymphoid": _lymphoid,
    "reticular": _reticular,
    "cords": _cords,
    "squamous": _squamous,
    "muscle": _muscle,
    "granular": _granular,
    "cystic": _cystic,
    "foamy": _foamy,
    "bundles": _bundles,
    "nests": _nests,
    "pleomorphic": _pleomorphic,
    "whorls": _whorls,
    "cribriform": _cribriform,
    "vascular": _vascular,
    "felt": _felt,
}
