"""Warp: the exact geometry of a synthetic moving slide, and the slow waves it is made of."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Grid = NDArray[np.float32]

_WAVES = 3
_AMPLITUDE = 0.013
_SHORTEST = 0.3
_STEEPEST = 0.45
_MARGIN = 0.03
_TOLERANCE_PX = 1e-4


@dataclass(frozen=True)
class Waves:
    """A smooth field, the sum of plane waves ``a_k sin(2 pi f_k . p + phase_k)``.

    Attributes
    ----------
    frequency
        (K, 2) row, col, in cycles per pixel.
    phase
        (K,) in radians.
    amplitude
        (K, C): one column for each component of the field.
    """

    frequency: Floats
    phase: Floats
    amplitude: Floats

    @classmethod
    def random(
        cls,
        rng: np.random.Generator,
        *,
        wavelengths: tuple[float, float],
        amplitude: float,
        components: int = 1,
        count: int = _WAVES,
    ) -> Waves:
        """Draw `count` waves a component, each wave moving one component only.

        Parameters
        ----------
        wavelengths
            Shortest and longest wavelength in pixels.
        amplitude
            The most the field can reach in any component.
        """
        total = count * components
        angle = rng.uniform(0, 2 * math.pi, total)
        length = rng.uniform(*wavelengths, total)
        share = rng.uniform(0.5, 1.0, (count, components))
        share *= amplitude / share.sum(axis=0)
        table = np.zeros((total, components))
        table[np.arange(total), np.tile(np.arange(components), count)] = share.ravel()
        direction = np.stack([np.sin(angle), np.cos(angle)], axis=1)
        return cls(direction / length[:, None], rng.uniform(0, 2 * math.pi, total), table)

    def at(self, points: Floats) -> Floats:
        """Return the field (N, C) at `points` (N, 2) row, col in pixels."""
        values: Floats = np.sin(2 * math.pi * points @ self.frequency.T + self.phase)
        return values @ self.amplitude

    def gradient(self) -> float:
        """Return an upper bound of the slope of any component."""
        norms = 2 * math.pi * np.linalg.norm(self.frequency, axis=1)
        return float((norms[:, None] * np.abs(self.amplitude)).sum(axis=0).max())

    def scaled(self, factor: float) -> Waves:
        """Return the same field times `factor`."""
        return Waves(self.frequency, self.phase, self.amplitude * factor)

    def through(self, matrix: Floats, shift: Floats) -> Waves:
        """Return the field as a function of q, where p = matrix @ q + shift."""
        phase = self.phase + 2 * math.pi * self.frequency @ shift
        return Waves(self.frequency @ matrix, phase, self.amplitude)

    def on_grid(self, rows: Floats, cols: Floats) -> list[Grid]:
        """Return each component on the grid of `rows` and `cols`, (R, C) float32.

        The sine of a sum is separable, so only R + C sines are taken for each wave.
        """
        planes = [np.zeros((rows.size, cols.size), np.float32) for _ in self.amplitude.T]
        for frequency, phase, amplitudes in zip(
            self.frequency, self.phase, self.amplitude, strict=True
        ):
            down = 2 * math.pi * frequency[0] * rows + phase
            along = 2 * math.pi * frequency[1] * cols
            left = np.stack([np.sin(down), np.cos(down)], axis=1).astype(np.float32)
            right = np.stack([np.cos(along), np.sin(along)]).astype(np.float32)
            for index in np.flatnonzero(amplitudes):
                planes[index] += (left * np.float32(amplitudes[index])) @ right
        return planes


@dataclass(frozen=True)
class Warp:
    """From a pixel of a moving slide to the reference frame: ``r = s + d(s)``, ``s = M q + t``.

    All positions are row, col in level-0 pixels, corner coordinates. `d` is None on the
    reference; it never folds because its slope stays below one.
    """

    matrix: Floats
    shift: Floats
    displacement: Waves | None
    shape: tuple[int, int]

    @classmethod
    def identity(cls, size: int) -> Warp:
        """Return the geometry of the reference, or of any slide left undeformed."""
        return cls(np.eye(2), np.zeros(2), None, (size, size))

    @classmethod
    def random(cls, rng: np.random.Generator, outline: Floats, *, size: int, flip: bool) -> Warp:
        """Draw a rotation, a bend and a canvas that holds all of the tissue.

        Parameters
        ----------
        outline
            (N, 2) row, col of the edge of the tissue, reference px.
        size
            Side of the reference slide in px.
        flip
            Whether the section lies mirrored on its slide.
        """
        angle = rng.uniform(0, 2 * math.pi)
        matrix = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
        if flip:
            matrix = matrix @ np.diag([1.0, -1.0])
        bend = Waves.random(
            rng, wavelengths=(_SHORTEST * size, size), amplitude=_AMPLITUDE * size, components=2
        )
        bend = bend.scaled(min(1.0, _STEEPEST / bend.gradient()))
        loose = cls(matrix, np.zeros(2), bend, (0, 0)).forward(outline)
        low, high = loose.min(axis=0), loose.max(axis=0)
        margin = _MARGIN * size
        height, width = (math.ceil(side / 16) * 16 for side in high - low + 2 * margin)
        corner = (low + high - np.array([height, width])) / 2
        return cls(matrix, matrix @ corner, bend, (height, width))

    def backward(self, points: Floats) -> Floats:
        """Map moving pixels (N, 2) into the reference frame, exactly."""
        straight = points @ self.matrix.T + self.shift
        if self.displacement is None:
            return straight
        return straight + self.displacement.at(straight)

    def forward(self, points: Floats) -> Floats:
        """Map reference pixels (N, 2) into the moving slide, by fixed-point iteration."""
        straight = points
        if self.displacement is not None:
            for _ in range(100):
                nearer = points - self.displacement.at(straight)
                step = float(np.abs(nearer - straight).max())
                straight = nearer
                if step < _TOLERANCE_PX:
                    break
        # The matrix is a rotation or a mirror, so its inverse is its transpose.
        return (straight - self.shift) @ self.matrix

    def backward_grid(self, rows: Floats, cols: Floats) -> tuple[Grid, Grid]:
        """Return reference row and col, (R, C) float32, of a block of moving pixels."""
        planes = []
        bends: list[Grid | float] = [0.0, 0.0]
        if self.displacement is not None:
            bends = [*self.displacement.through(self.matrix, self.shift).on_grid(rows, cols)]
        for axis in range(2):
            down = (self.matrix[axis, 0] * rows + self.shift[axis]).astype(np.float32)
            along = (self.matrix[axis, 1] * cols).astype(np.float32)
            planes.append(np.asarray(down[:, None] + along[None, :] + bends[axis], np.float32))
        return planes[0], planes[1]
