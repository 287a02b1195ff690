"""Anatomy: the small structures of a synthetic tissue type, drawn on a seamless square."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

Field = NDArray[np.float32]
Floats = NDArray[np.float64]

PERIOD = 256
"""Level-0 px after which a texture repeats."""

FINE = 2
"""Texture pixels along one level-0 px."""

SIDE = PERIOD * FINE


@dataclass(frozen=True)
class Nuclei:
    """Ellipses with soft edges.

    Attributes
    ----------
    places
        (N, 2) row, col of the centres in px.
    angle
        (N,) direction of the long axis, radians from the column axis.
    radius
        (N,) geometric mean of the half axes in px.
    stretch
        Long axis over short axis.
    depth
        How dark they are (1 is a common nucleus).
    pale
        How much lighter the middle is than the rim, 0...1.
    """

    places: Floats
    angle: Floats
    radius: Floats
    stretch: float = 1.2
    depth: float = 1.0
    pale: float = 0.0

    def shaken(self, rng: np.random.Generator, px: float) -> Nuclei:
        """Return the nuclei of a neighbouring section: each a little elsewhere, some lost."""
        shaken = replace(self, places=self.places + rng.normal(0, px, self.places.shape))
        return shaken.some(rng, 0.95 if px else 1.0)

    def some(self, rng: np.random.Generator, fraction: float) -> Nuclei:
        """Return a random part of the nuclei."""
        keep = rng.uniform(size=len(self.places)) < fraction
        return replace(
            self, places=self.places[keep], angle=self.angle[keep], radius=self.radius[keep]
        )


@dataclass(frozen=True)
class Anatomy:
    """Structures of one type; each field is (SIDE, SIDE) float32 in about 0...1.

    Attributes
    ----------
    eosin
        Density of what is pink in H&E.
    gaps
        Lumina and vacuoles, where light passes.
    cells, membranes, fibres, rim
        What the immunostains can mark.
    """

    nuclei: Nuclei
    eosin: Field
    gaps: Field
    cells: Field
    membranes: Field
    fibres: Field
    rim: Field

    def marked(self, name: str, rng: np.random.Generator) -> Field:
        """Return the field that a marker of that name stains."""
        if name == "none":
            return np.zeros_like(self.eosin)
        if name == "vessels":
            return lines(noise(rng, 34.0), 0.12)
        if name == "speckles":
            return np.asarray(np.clip(noise(rng, 8.0) - 1.2, 0, 1), np.float32)
        found: Field = getattr(self, name)
        return found


def noise(
    rng: np.random.Generator, wavelength: float, *, stretch: float = 1.0, angle: float = 0.0
) -> Field:
    """Return seamless noise (SIDE, SIDE) of unit variance.

    Parameters
    ----------
    wavelength
        In px, across the grain.
    stretch
        How much longer the grain is than wide.
    angle
        Direction of the grain, radians from the column axis.
    """
    rows = np.fft.fftfreq(SIDE, 1 / FINE)[:, None].astype(np.float32)
    cols = np.fft.rfftfreq(SIDE, 1 / FINE)[None, :].astype(np.float32)
    along = cols * math.cos(angle) + rows * math.sin(angle)
    across = rows * math.cos(angle) - cols * math.sin(angle)
    pitch = np.hypot(across, along * stretch) * wavelength
    weight = np.exp(-0.5 * ((pitch - 1) / 0.35) ** 2)
    white = rng.standard_normal((SIDE, SIDE), np.float32)
    band = np.fft.irfft2(np.fft.rfft2(white) * weight, s=(SIDE, SIDE))
    return np.asarray(band / band.std(), np.float32)


def lines(field: Field, width: float) -> Field:
    """Return thin lines where `field` crosses zero."""
    return np.asarray(np.exp(-((field / width) ** 2)), np.float32)


def smooth_step(field: Field, edge: float, width: float) -> Field:
    """Return 0 well below `edge`, 1 well above, linear over `width` between."""
    return np.asarray(np.clip((field - edge) / width + 0.5, 0, 1), np.float32)


def waves(pitch: float, angle: float, bend: Field) -> Field:
    """Return sin(phase) of seamless stripes; `bend` is added to the phase in radians."""
    down = round(PERIOD / pitch * math.cos(angle))
    along = round(-PERIOD / pitch * math.sin(angle))
    ticks = (np.arange(SIDE, dtype=np.float32) + 0.5) / SIDE * 2 * math.pi
    return np.asarray(np.sin(down * ticks[:, None] + along * ticks[None, :] + bend), np.float32)


def lattice(rng: np.random.Generator, pitch: float, jitter: float) -> Floats:
    """Return seamless, unevenly hexagonal places (N, 2) in px."""
    rows = max(2, 2 * round(PERIOD / pitch / math.sqrt(3)))
    cols = max(1, round(PERIOD / pitch))
    row, col = np.meshgrid(np.arange(rows), np.arange(cols), indexing="ij")
    places = np.stack([row / rows, (col + 0.5 * (row % 2)) / cols], axis=-1).reshape(-1, 2) * PERIOD
    shaken: Floats = (places + rng.uniform(-jitter, jitter, places.shape) * pitch) % PERIOD
    return shaken


def distances(places: Floats) -> tuple[Field, Field]:
    """Return the distance to the nearest place and how much farther the second is, in px."""
    ticks = np.arange(PERIOD) + 0.5
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    found = cKDTree(places, boxsize=PERIOD).query(grid, k=2)[0].reshape(PERIOD, PERIOD, 2)
    near = ndimage.zoom(found[..., 0], FINE, order=1, mode="grid-wrap", grid_mode=True)
    gap = ndimage.zoom(
        found[..., 1] - found[..., 0], FINE, order=1, mode="grid-wrap", grid_mode=True
    )
    return near.astype(np.float32), gap.astype(np.float32)


def at(field: Field, places: Floats) -> Field:
    """Return the values of a field at places (N, 2) in px."""
    index = np.floor(places * FINE).astype(np.intp) % SIDE
    return np.asarray(field[index[:, 0], index[:, 1]], np.float32)


def stamp(nuclei: Nuclei) -> Field:
    """Draw the nuclei, (SIDE, SIDE); where two lie over each other the darker wins."""
    picture = np.zeros((SIDE, SIDE), np.float32)
    if not len(nuclei.places):
        return picture
    reach = math.ceil(float(nuclei.radius.max()) * math.sqrt(nuclei.stretch) * FINE) + 2
    offsets = np.arange(-reach, reach + 1)
    centre = nuclei.places * FINE
    base = np.floor(centre).astype(np.intp)
    rows = base[:, 0, None] + offsets
    cols = base[:, 1, None] + offsets
    down = ((rows + 0.5 - centre[:, 0, None]) / FINE).astype(np.float32)[:, :, None]
    right = ((cols + 0.5 - centre[:, 1, None]) / FINE).astype(np.float32)[:, None, :]
    cos = np.cos(nuclei.angle).astype(np.float32)[:, None, None]
    sin = np.sin(nuclei.angle).astype(np.float32)[:, None, None]
    radius = nuclei.radius.astype(np.float32)[:, None, None]
    long_axis = radius * np.float32(math.sqrt(nuclei.stretch))
    short_axis = radius / np.float32(math.sqrt(nuclei.stretch))
    distance = np.hypot(
        (right * cos + down * sin) / long_axis, (down * cos - right * sin) / short_axis
    )
    body = np.clip((1 - distance) * radius + 0.5, 0, 1)
    if nuclei.pale:
        body = body * (1 - nuclei.pale * np.clip(1.25 - 1.6 * distance, 0, 1))
    flat = (rows % SIDE)[:, :, None] * SIDE + (cols % SIDE)[:, None, :]
    np.maximum.at(picture.reshape(-1), flat.reshape(-1), body.reshape(-1) * nuclei.depth)
    return picture
