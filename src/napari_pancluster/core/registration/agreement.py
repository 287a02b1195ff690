"""Where two sections agree: as a whole, and place by place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from napari_pancluster.core.registration.forces import LocalStats, local_correlation
from napari_pancluster.core.registration.images import FloatImage, Laid, WorkImage

WINDOW_PX = 13
_BESIDE_PX = (14, 20)
_COMPASS = np.array([(np.sin(a), np.cos(a)) for a in np.arange(8) * np.pi / 4])
_LEAST_DEVIATION = 1e-3
_FEWEST_PIXELS = 200
# Widths, in px, over which places are judged: the smallest at which the evidence speaks.
_WIDTHS_PX = (9, 13, 19, 27)
_SPEAKS = 2.0
# How sure one is of a place before looking at it, and how much true places differ among
# themselves, as a share of what they stand out by.
_PRIOR, _SPREAD = 0.8, 0.5


@dataclass(frozen=True)
class Agreement:
    """How two sections that lie on one another agree.

    Attributes
    ----------
    correlation
        Mean local correlation inside both tissues, absolute.
    structure
        How far it stands out: in deviations above the same pictures laid beside each other, in
        eight directions. Outlines of wrong sections may agree, but their structure does not care
        where it lies.
    confidence
        (rows, cols), 0 to 1: how likely a place lies right; 0 where one of the two has no tissue.
    unsure
        Share of the common tissue that matches no better than it would at a wrong place.
    """

    correlation: float
    structure: float
    confidence: FloatImage
    unsure: float


@dataclass(frozen=True)
class _Laid:
    """Local correlation (rows, cols) of two pictures, 0 outside the inner tissue of both."""

    correlation: FloatImage
    inner: NDArray[np.bool_]

    @property
    def mean(self) -> float:
        count = int(self.inner.sum())
        return float(self.correlation.sum()) / count if count >= _FEWEST_PIXELS else 0.0

    @property
    def sign(self) -> float:
        return float(np.sign(self.mean)) or 1.0


def agreement(fixed: WorkImage, laid: Laid, wrong: Sequence[Laid]) -> Agreement:
    """Measure how a moving section agrees with the fixed one where it was laid.

    Parameters
    ----------
    wrong
        The moving section at places where it does not belong, bent there as well as it went: any
        two sections can be bent into some likeness, and a place must match better than that.
    """
    tissue = _inner(fixed.tissue > 0.5)
    here = _lay(fixed, laid, tissue, (0, 0))
    shifts = [(round(float(r)), round(float(c))) for px in _BESIDE_PX for r, c in _COMPASS * px]
    means = [_lay(fixed, laid, tissue, shift).mean for shift in shifts]
    # One stain may be pale where the other is dark: then all are negative.
    above = here.sign * (here.mean - float(np.mean(means)))
    confidence, unsure = np.zeros(fixed.shape, np.float32), 1.0
    if here.mean:
        others = [_lay(fixed, other, tissue, (0, 0)) for other in wrong]
        both = (fixed.tissue > 0.5) & (laid.tissue > 0.5) & laid.inside
        likely, unsure = _likelihood(here, [other for other in others if other.mean])
        confidence = likely * both
    deviation = float(np.std(means)) + _LEAST_DEVIATION
    return Agreement(abs(here.mean), above / deviation, confidence, unsure)


def _lay(fixed: WorkImage, laid: Laid, tissue: NDArray[np.bool_], shift: tuple[int, int]) -> _Laid:
    inner = tissue & np.roll(_inner((laid.tissue > 0.5) & laid.inside), shift, (0, 1))
    weight = inner.astype(np.float32)
    moved = np.roll(laid.density, shift, (0, 1))
    one = LocalStats.of(fixed.density, weight, WINDOW_PX)
    correlation = local_correlation(one, LocalStats.of(moved, weight, WINDOW_PX))[0]
    return _Laid(np.asarray(correlation * weight, np.float32), inner)


def _likelihood(here: _Laid, wrong: Sequence[_Laid]) -> tuple[FloatImage, float]:
    """Return how likely each place lies right, and the share that shows no sign of it.

    The evidence of a place is how far its mean correlation stands out from those at wrong places,
    in their deviations. That of right places is taken from the whole: most of a section that was
    found lies right.
    """
    found: list[FloatImage] = []
    for width in _WIDTHS_PX:
        evidence = _standing_out(here, wrong, width)
        usual = float(np.median(evidence[here.inner]))
        if usual < _SPEAKS and width != _WIDTHS_PX[-1]:
            continue
        spread = np.sqrt(1 + (_SPREAD * usual) ** 2)
        seen = np.minimum(evidence, usual)
        right = _PRIOR * np.exp(-0.5 * ((seen - usual) / spread) ** 2) / spread
        false = (1 - _PRIOR) * np.exp(-0.5 * np.maximum(seen, 0) ** 2)
        found.append(np.asarray(right / (right + false), np.float32))
    # How much is in doubt is asked of wide places, whose evidence is the least noisy.
    doubted = (evidence < 0) | (found[-1] < 0.5)
    return found[0], float(doubted[here.inner].mean())


def _standing_out(here: _Laid, wrong: Sequence[_Laid], width: int) -> FloatImage:
    """Return (rows, cols) how many deviations the correlation about a place stands out."""
    values = [other.sign * _about(other, width)[other.inner] for other in wrong]
    pooled = np.concatenate(values) if values else np.zeros(1, np.float32)
    deviation = float(pooled.std()) + _LEAST_DEVIATION
    return np.asarray((here.sign * _about(here, width) - pooled.mean()) / deviation, np.float32)


def _about(laid: _Laid, width: int) -> FloatImage:
    """Return the mean correlation about every place, of the tissue there."""
    weight = _smooth(laid.inner.astype(np.float32), width)
    mean = _smooth(laid.correlation, width) / np.maximum(weight, np.float32(1e-3))
    return np.asarray(mean, np.float32)


def _smooth(image: FloatImage, width: int) -> FloatImage:
    return np.asarray(ndimage.gaussian_filter(image, width, mode="constant", truncate=3.0))


def _inner(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.asarray(ndimage.binary_erosion(mask, iterations=WINDOW_PX // 2))
