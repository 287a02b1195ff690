"""The stains of one case, read as one registered stack of optical densities."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.lazy import BLOCK_PX, LazyPixels
from napari_pancluster.core.resample import interpolate
from napari_pancluster.core.stain import Stain, as_rgb
from napari_pancluster.core.transform import Transform

if TYPE_CHECKING:
    import dask.array as da

    from napari_pancluster.core.confidence import Confidence

# A stain whose slide shows less of a patch than this counts as missing there. Half is enough of the
# reference, which ends where the map does; a patch that is blank in part looks like no tissue.
LEAST_INSIDE = 0.5
_LEAST_INSIDE_MOVING = 0.9
# Rows whose densities are made at once: their arrays stay in a processor's caches.
_STRIP_PX = 64
CHANNELS = 3  # of a stain: red, green and blue density


@dataclass(frozen=True)
class Block:
    """A read of a stack.

    Attributes
    ----------
    od
        (stains * 3, rows, cols) optical density, stain by stain; 0 beyond the stain's slide, and
        where its section would have to be stretched over a gap. Channels lie last in memory, as
        the network takes its patches.
    inside
        (stains, rows, cols) whether the stain's slide shows the pixel and, where that was asked,
        lies there surely enough.
    """

    od: NDArray[np.float32]
    inside: NDArray[np.bool_]

    def cut(self, corners: NDArray[np.int64], side: int) -> NDArray[np.float32]:
        """Return the densities (M, stains * 3, side, side) at corners (M, 2); channels lie last."""
        pixels = self.od.transpose(1, 2, 0)
        patches = np.empty((len(corners), side, side, pixels.shape[2]), np.float32)
        for patch, (top, left) in zip(patches, corners, strict=True):
            patch[:] = pixels[top : top + side, left : left + side]
        return patches.transpose(0, 3, 1, 2)

    def shows(
        self, corners: NDArray[np.int64], side: int, least: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """Return (M, stains) whether a stain's slide shows enough of the pixels at each corner.

        Parameters
        ----------
        least
            (stains,) share that is enough, see `SlideStack.least_inside`.
        """
        shown = np.empty((len(corners), len(self.inside)), np.bool_)
        for number, inside in enumerate(self.inside):
            # Most blocks lie wholly inside a slide, or a stain is not there: nothing to count.
            if inside.all() or not inside.any():
                shown[:, number] = inside[0, 0]
                continue
            covered = [inside[t : t + side, c : c + side].mean() for t, c in corners]
            shown[:, number] = np.array(covered) >= least[number]
        return shown


@dataclass(frozen=True)
class SlideStack:
    """All stains of a case in the frame of one of them.

    Attributes
    ----------
    case
        Name of the case.
    reference
        Name of the fixed stain.
    stains
        In the order of their channels.
    transforms
        Per moving stain, from the reference; a stain without one reads as "not there".
    confidences
        Per moving stain, where it lies surely on the reference; none was measured where missing.
    channels
        Names of the stains that `read` returns, in order; a name the case lacks reads as "not
        there". Default: all stains of the case.
    doubtful
        Names of moving stains that may lie elsewhere. Of the others, a place that shows no sign of
        lying right is one where the two stains have no structure in common.
    least_confidence
        Where the confidence of a doubtful stain is less, `read` tells it as not covered.
    """

    case: str
    reference: str
    stains: tuple[Stain, ...]
    transforms: Mapping[str, Transform] = field(default_factory=dict)
    channels: tuple[str, ...] = ()
    confidences: Mapping[str, Confidence] = field(default_factory=dict)
    doubtful: frozenset[str] = frozenset()
    least_confidence: float = 0.0

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the stains of the case."""
        return tuple(s.name for s in self.stains)

    @property
    def read_names(self) -> tuple[str, ...]:
        """Names of the stains in the order in which `read` returns them."""
        return self.channels or self.names

    @property
    def least_inside(self) -> NDArray[np.float64]:
        """(stains read,) share of a patch that a stain has to show, not to count as missing."""
        least = [
            LEAST_INSIDE if n == self.reference else _LEAST_INSIDE_MOVING for n in self.read_names
        ]
        return np.array(least)

    @property
    def moving(self) -> tuple[Stain, ...]:
        """Every stain but the reference."""
        return tuple(s for s in self.stains if s.name != self.reference)

    @property
    def registered(self) -> tuple[str, ...]:
        """Names of the stains that can be read in the reference frame."""
        return tuple(n for n in self.names if n == self.reference or n in self.transforms)

    @property
    def extent(self) -> Region:
        """The reference slide in µm."""
        return self.stain(self.reference).slide.extent

    def stain(self, name: str) -> Stain:
        """Return a stain by its name.

        Raises
        ------
        InputError
            If the case has no such stain.
        """
        for stain in self.stains:
            if stain.name == name:
                return stain
        raise InputError(
            f"Case {self.case} has no stain {name!r}. It has: {', '.join(self.names)}."
        )

    def transform(self, name: str) -> Transform | None:
        """Return the transform from the reference to a stain; None where there is none."""
        if name == self.reference:
            return Transform.identity(name, name)
        return self.transforms.get(name)

    def with_transform(self, transform: Transform) -> SlideStack:
        """Return the stack with one stain registered."""
        return replace(self, transforms={**self.transforms, transform.moving: transform})

    def as_scanned(self) -> SlideStack:
        """Return the stack with its densities as they were scanned, for people to look at."""
        return replace(self, stains=tuple(replace(s, gain=1.0) for s in self.stains))

    def select(self, names: tuple[str, ...]) -> SlideStack:
        """Return the stack reading only these stains, in this order."""
        return replace(self, channels=names)

    def agreement(self, points: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return how surely all sections agree at points (N, 2), row and col in µm.

        Returns
        -------
        ndarray
            (N,) the confidence of the stain that is least sure there; NaN where none was measured.
        """
        measured = [c.at(points) for n, c in self.confidences.items() if n in self.transforms]
        if not measured:
            return np.full(len(points), np.nan, np.float32)
        return np.asarray(np.min(measured, axis=0), np.float32)

    def trusting(self, least_confidence: float) -> SlideStack:
        """Return the stack that tells a doubtful stain as not covered where it is less sure."""
        return replace(self, least_confidence=least_confidence)

    def read(self, region: Region, mpp: float) -> Block:
        """Return every stain over a region of the reference frame.

        Parameters
        ----------
        region
            In µm of the reference frame.
        mpp
            Pixel size to read at, µm/px.
        """
        rows, cols = region.pixel_shape(mpp)
        names = self.read_names
        od = np.zeros((rows, cols, len(names) * CHANNELS), np.float32)
        inside = np.zeros((len(names), rows, cols), np.bool_)
        for i, name in enumerate(names):
            transform = self.transform(name)
            if transform is None:
                continue
            stain = self.stain(name)
            channels = od[..., i * CHANNELS : (i + 1) * CHANNELS]
            if stain.name == self.reference:
                pixels = stain.read(region, mpp)
                for strip in _strips(rows):
                    _fill(channels[strip], stain, pixels[strip])
                inside[i] = _inside_slide(stain.slide.extent, region, mpp)
            else:
                inside[i] = _read_warped(stain, transform, region, mpp, channels)
                if self.least_confidence and name in self.doubtful & self.confidences.keys():
                    sure = self.confidences[name].over(region, mpp) >= self.least_confidence
                    inside[i] &= sure
        return Block(od.transpose(2, 0, 1), inside)

    def pictures(
        self, names: tuple[str, ...], region: Region, mpp: float
    ) -> list[NDArray[np.uint8]]:
        """Return a region of the reference frame as scanned, per stain (rows, cols, 3), for people.

        Their glass is shown white, or black where the stain shines.
        """
        od = self.as_scanned().select(names).read(region, mpp).od
        seen = {s.name: s.modality for s in self.stains}
        return [
            as_rgb(od[i * CHANNELS : (i + 1) * CHANNELS], seen.get(name, "brightfield"))
            for i, name in enumerate(names)
        ]

    def pyramid(self, name: str, *, cache_mb: int = 64) -> tuple[float, tuple[da.Array, ...]]:
        """Return one registered stain as a lazy pyramid in the frame of the reference.

        Parameters
        ----------
        name
            A registered stain; its glass is shown white, and so is what its slide does not cover.
        cache_mb
            Blocks kept after they were computed.

        Returns
        -------
        mpp
            Pixel size of the first level, µm/px: the coarser of the two slides'.
        levels
            (Y, X, 3) uint8, each half the one before.
        """
        reference = self.stain(self.reference).slide
        mpp = max(reference.um_per_px, self.stain(name).slide.um_per_px)
        rows, cols = self.extent.pixel_shape(mpp)
        kept = max(1, cache_mb * 2**20 // (CHANNELS * BLOCK_PX**2))

        @lru_cache(maxsize=kept)
        def block(step: int, top: int, left: int, height: int, width: int) -> NDArray[np.uint8]:
            size = mpp * step
            region = Region.of_pixels(top=top, left=left, rows=height, cols=width, mpp=size)
            return self.pictures((name,), region, size)[0]

        levels, step = [], 1
        while True:
            shape = (max(1, rows // step), max(1, cols // step))
            pixels = LazyPixels(
                (*shape, CHANNELS), np.dtype(np.uint8), partial(block, step), whole_blocks=True
            )
            levels.append(pixels.as_dask())
            if max(shape) <= BLOCK_PX:
                return mpp, tuple(levels)
            step *= 2


def _inside_slide(extent: Region, region: Region, mpp: float) -> NDArray[np.bool_]:
    rows, cols = region.pixel_shape(mpp)
    r = region.top + (np.arange(rows) + 0.5) * mpp
    c = region.left + (np.arange(cols) + 0.5) * mpp
    in_rows, in_cols = (r >= 0) & (r <= extent.bottom), (c >= 0) & (c <= extent.right)
    return np.asarray(in_rows[:, None] & in_cols[None, :])


def _read_warped(
    stain: Stain, transform: Transform, region: Region, mpp: float, out: NDArray[np.float32]
) -> NDArray[np.bool_]:
    """Fill `out` (rows, cols, 3) with a moving stain's density; return where its slide shows it."""
    first, at = transform.moving_pixels(region, mpp)
    low, high = at.min(axis=(1, 2)), at.max(axis=(1, 2))
    extent = stain.slide.extent
    # In the pixels of `at`: the slide begins half a pixel before the centre of its first.
    begins = -0.5 - np.array(first)
    ends = begins + np.array([extent.bottom, extent.right]) / mpp
    inside = np.ones(at.shape[1:], np.bool_)
    for axis in (0, 1):
        if low[axis] < begins[axis] or high[axis] > ends[axis]:
            inside &= (at[axis] >= begins[axis]) & (at[axis] <= ends[axis])
    if not transform.is_sound:
        inside &= transform.sound_over(region, mpp)
    whole = bool(inside.all())
    if not whole:
        if not inside.any():
            return inside
        low, high = at[:, inside].min(axis=1), at[:, inside].max(axis=1)
    corner, end = np.floor(low) - 1, np.ceil(high) + 2
    (top, left), (rows, cols) = corner + first, end - corner
    box = Region.of_pixels(top=float(top), left=float(left), rows=rows, cols=cols, mpp=mpp)
    at -= corner[:, None, None].astype(np.float32)
    # Channel by channel in memory, or each strip would copy all of it so; most are already.
    pixels = np.ascontiguousarray(stain.read(box, mpp).transpose(2, 0, 1)).transpose(1, 2, 0)
    for strip in _strips(len(out)):
        _fill(out[strip], stain, interpolate(pixels, at[:, strip]).transpose(1, 2, 0))
    if not whole:
        out *= inside[..., None]
    return inside


def _strips(rows: int) -> list[slice]:
    """Return the strips of an array of so many rows."""
    return [slice(top, top + _STRIP_PX) for top in range(0, rows, _STRIP_PX)]


def _fill(out: NDArray[np.float32], stain: Stain, intensity: NDArray[np.float32]) -> None:
    """Write the densities of intensities (rows, cols, 3) into `out`, which may lie anyhow."""
    density = stain.density(intensity)
    # A channel at a time: a third faster where channels lie apart on one side and not on the other.
    for channel in range(CHANNELS):
        np.multiply(density[..., channel], np.float32(stain.gain), out=out[..., channel])
