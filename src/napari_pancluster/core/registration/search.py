"""The coarse search: every rotation, both faces and, where asked, every scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.registration.images import FloatImage, Matrix, WorkImage, compose, warp

SEARCH_PX = 160
ROTATION_STEP_DEG = 6
# Where the scale is unknown: half to double in steps of 7 %, at a coarser picture.
SCALES: tuple[float, ...] = tuple(float(s) for s in np.geomspace(0.5, 2.0, 21))
_SAME_SCALE: tuple[float, ...] = (1.0,)
_SCALE_SEARCH_PX = 96
_SCALE_ROTATION_STEP_DEG = 10
# Less common ground than this share of the smaller section proves nothing.
_LEAST_OVERLAP = 0.5


@dataclass(frozen=True)
class Candidate:
    """A way to lay the moving section on the fixed one.

    Attributes
    ----------
    matrix
        (3, 3) similarity, fixed µm to moving µm.
    score
        Correlation of the densities, −1 to 1.
    rotation_deg, flipped, scale
        What it does; see `orientation`.
    """

    matrix: Matrix
    score: float
    rotation_deg: float
    flipped: bool
    scale: float


def orientation(rotation_deg: float, *, flipped: bool) -> Matrix:
    """Return the (2, 2) matrix that mirrors left to right if `flipped`, then turns.

    Positive angles turn counter-clockwise as displayed (rows run down).
    """
    a = np.deg2rad(rotation_deg)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    return turn @ np.diag([1.0, -1.0]) if flipped else turn


def orientation_of(matrix: Matrix) -> tuple[float, bool, float]:
    """Return rotation (degrees, [0, 360)), flip and scale of the best similarity in an affine."""
    linear = matrix[:2, :2]
    flipped = bool(np.linalg.det(linear) < 0)
    straight = linear @ np.diag([1.0, -1.0]) if flipped else linear
    sine, cosine = straight[1, 0] - straight[0, 1], straight[0, 0] + straight[1, 1]
    angle = float(np.rad2deg(np.arctan2(sine, cosine)))
    return angle % 360.0, flipped, float(np.sqrt(abs(np.linalg.det(linear))))


def search(
    fixed: WorkImage, moving: WorkImage, *, scale_known: bool
) -> Task[tuple[Candidate, ...]]:
    """Return the candidates of every local optimum over rotation, face and scale, best first."""
    if scale_known:
        px, step, scales = SEARCH_PX, ROTATION_STEP_DEG, _SAME_SCALE
    else:
        px, step, scales = _SCALE_SEARCH_PX, _SCALE_ROTATION_STEP_DEG, SCALES
    mpp = max(fixed.long_um, moving.long_um) / px
    target = fixed.at(mpp)
    angles = range(0, 360, step)
    found: list[Candidate] = []
    for n, scale in enumerate(scales):
        # A moving pixel of size mpp / scale covers what a fixed pixel of size mpp does.
        source = moving.at(mpp * scale).scaled(1.0 / scale)
        correlate = Correlator(target, source)
        for flipped in (False, True):
            for angle in angles:
                if angle % 60 == 0:
                    done = n * 12 + flipped * 6 + angle // 60
                    yield Progress("Searching the rotation", done, 12 * len(scales))
                matrix, score = correlate.best(orientation(angle, flipped=flipped))
                grown = np.diag([scale, scale, 1.0]) @ matrix
                found.append(Candidate(grown, score, float(angle), flipped, scale))
    return _distinct(found, least_deg=1.6 * step)


def _distinct(found: Sequence[Candidate], *, least_deg: float) -> tuple[Candidate, ...]:
    """Return the candidates that are not neighbours of a better one, best first."""
    kept: list[Candidate] = []
    for one in sorted(found, key=lambda c: -c.score):
        if not any(_near(one, other, least_deg) for other in kept):
            kept.append(one)
    return tuple(kept)


def _near(one: Candidate, other: Candidate, least_deg: float) -> bool:
    turn = abs((one.rotation_deg - other.rotation_deg + 180) % 360 - 180)
    alike = abs(np.log(one.scale / other.scale)) < 0.16
    return one.flipped == other.flipped and turn < least_deg and alike


class Correlator:
    """Masked normalised cross-correlation of one fixed image with turned moving ones.

    Only pixels both slides cover enter each coefficient (D. Padfield, "Masked object registration
    in the Fourier domain", IEEE TIP 2012); `cover`, (rows, cols), restricts the fixed ones.
    """

    def __init__(
        self, fixed: WorkImage, moving: WorkImage, cover: NDArray[np.bool_] | None = None
    ) -> None:
        self._moving = moving
        side = int(np.ceil(np.hypot(*moving.shape) * moving.mpp / fixed.mpp)) + 2
        self._canvas = (side, side)
        self._mpp = fixed.mpp
        self._shape = tuple(int(fft.next_fast_len(n + side - 1, real=True)) for n in fixed.shape)
        ones = np.ones(fixed.shape, np.float32) if cover is None else cover.astype(np.float32)
        self._fixed = [
            self._spectrum(image) for image in (ones, fixed.density, fixed.density**2, fixed.tissue)
        ]
        self._least = _LEAST_OVERLAP * min(
            float(fixed.tissue.sum()), float(moving.tissue.sum()) * (moving.mpp / fixed.mpp) ** 2
        )

    def best(self, linear: Matrix) -> tuple[Matrix, float]:
        """Return the best placed (3, 3) matrix with this linear part, and its correlation."""
        onto, score = self._scores(linear)
        return self._placed(onto, score)

    def near(self, matrix: Matrix, centre: Matrix, reach_um: float) -> tuple[Matrix, float]:
        """Return the same among the moves that leave `centre` (2,) µm within reach of `matrix`."""
        linear = matrix[:2, :2]
        onto, score = self._scores(linear)
        ends = np.linalg.solve(linear, linear @ centre + matrix[:2, 2] - onto[:2, 2])
        usual = (centre - ends) / self._mpp
        distance = np.zeros(score.shape)
        for axis, (n, at) in enumerate(zip(self._fixed_shape(), usual, strict=True)):
            shift = np.arange(score.shape[axis])
            shift = np.where(shift < n, shift, shift - score.shape[axis]) - at
            distance += np.expand_dims(shift**2, 1 - axis)
        return self._placed(onto, np.where(distance <= (reach_um / self._mpp) ** 2, score, -1))

    def _scores(self, linear: Matrix) -> tuple[Matrix, FloatImage]:
        """Return where the turned canvas lies, and the coefficient of each shift of it."""
        centre = np.array(self._moving.shape) * self._moving.mpp / 2
        middle = np.array(self._canvas) * self._mpp / 2
        onto = compose(linear, centre - linear @ middle)
        ones, density, tissue = (self._turn(image, onto) for image in self._layers())
        squares = self._spectrum(density**2, turn=True)
        o, d, t = (self._spectrum(image, turn=True) for image in (ones, density, tissue))
        f_ones, f_density, f_squares, f_tissue = self._fixed
        area = np.maximum(self._back(f_ones * o), 1.0)
        f_sum, m_sum = self._back(f_density * o), self._back(f_ones * d)
        cross = self._back(f_density * d) - f_sum * m_sum / area
        f_var = self._back(f_squares * o) - f_sum**2 / area
        m_var = self._back(f_ones * squares) - m_sum**2 / area
        shared = np.minimum(self._back(f_tissue * o), self._back(f_ones * t))
        product = np.maximum(f_var, 0) * np.maximum(m_var, 0)
        floor = 1e-6 * float(product.max()) + 1e-9
        score = np.where(shared >= self._least, cross / np.sqrt(np.maximum(product, floor)), -1)
        return onto, np.asarray(score, np.float32)

    def _placed(self, onto: Matrix, score: FloatImage) -> tuple[Matrix, float]:
        peak = np.unravel_index(int(np.argmax(score)), score.shape)
        # Shifts beyond the fixed image are the negative ones, wrapped around.
        shift = [
            int(p) if p < n else int(p) - full
            for p, n, full in zip(peak, self._fixed_shape(), self._shape, strict=True)
        ]
        back = compose(np.eye(2), -np.array(shift, np.float64) * self._mpp)
        return onto @ back, float(score[peak])

    def _fixed_shape(self) -> tuple[int, int]:
        side = self._canvas[0]
        return self._shape[0] - side + 1, self._shape[1] - side + 1

    def _layers(self) -> tuple[FloatImage, FloatImage, FloatImage]:
        moving = self._moving
        return np.ones(moving.shape, np.float32), moving.density, moving.tissue

    def _turn(self, image: FloatImage, matrix: Matrix) -> FloatImage:
        return warp(
            image, mpp=self._moving.mpp, matrix=matrix, shape=self._canvas, to_mpp=self._mpp
        )

    def _spectrum(self, image: FloatImage, *, turn: bool = False) -> NDArray[np.complex64]:
        spectrum = fft.rfft2(image, self._shape)
        return np.asarray(np.conj(spectrum) if turn else spectrum)

    def _back(self, spectrum: NDArray[np.complex64]) -> NDArray[np.float32]:
        return np.asarray(fft.irfft2(spectrum, self._shape), np.float32)
