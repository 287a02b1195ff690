"""A slide: a pyramid of pixels with a pixel size, read by region in µm."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.lazy import LazyPixels
from napari_pancluster.core.readers import Facts, Level, Reader, open_reader
from napari_pancluster.core.resample import apply_separable, area_weights

if TYPE_CHECKING:
    import dask.array as da
    from scipy import sparse

WHITE = 255.0
# A coarsest level beyond this takes seconds to read.
LARGEST_OVERVIEW_PX = 4096
# Source pixels turned to float at once; keeps a coarse read of an unpyramided slide bounded.
_STRIP_PIXELS = 16_000_000
# Pixels asked for are a level's own when they differ by no more than this, in px.
_ROUNDING = 1e-6
_FINGERPRINT_BYTES = 1 << 16


@dataclass(frozen=True)
class Slide:
    """An opened slide; pixels stay on disk until read.

    Attributes
    ----------
    path
        The file.
    mpp
        Pixel size across of level 0 in µm/px, or None where the file records no plausible one.
    facts
        What the file says of itself.
    fingerprint
        Hash of the file's size and of its first and last bytes; finds a moved or replaced file.
    oblong
        Pixel size down over pixel size across; 1 for square pixels.
    full_scale
        Stored value that counts as 255, the brightest.
    """

    path: Path
    mpp: float | None
    facts: Facts
    fingerprint: str
    oblong: float
    full_scale: float
    _reader: Reader = field(repr=False, compare=False)

    @property
    def levels(self) -> tuple[Level, ...]:
        """The pyramid, level 0 first."""
        return self.facts.levels

    @property
    def lacks_overview(self) -> bool:
        """Whether the coarsest level is too large to be looked at as a whole."""
        return max(self.levels[-1].shape) > LARGEST_OVERVIEW_PX

    @property
    def channels(self) -> int:
        """Values a pixel; RGB has 3."""
        return self.facts.channels

    @property
    def format(self) -> str:
        """Short name of the container ("ome-tiff", "svs", …)."""
        return self.facts.format

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Type of the stored values."""
        return self.facts.dtype

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of level 0."""
        return self.levels[0].shape

    @property
    def um_per_px(self) -> float:
        """Pixel size of level 0 in µm/px.

        Raises
        ------
        SlideError
            If it is not known.
        """
        if self.mpp is None:
            raise SlideError(
                f"{self.path.name} has no pixel size. Pass --mpp STAIN=0.5 (µm/px) or fill the "
                "mpp column of the sample sheet."
            )
        return self.mpp

    @property
    def um_per_px_yx(self) -> NDArray[np.float64]:
        """(2,) pixel size of level 0 down and across, µm/px."""
        return np.array([self.um_per_px * self.oblong, self.um_per_px])

    @property
    def extent(self) -> Region:
        """The whole slide in µm."""
        height, width = self.um_per_px_yx * self.shape
        return Region(0.0, 0.0, float(height), float(width))

    @property
    def data(self) -> tuple[da.Array, ...]:
        """The pyramid as lazy arrays of shape (Y, X, C), level 0 first."""
        return tuple(
            LazyPixels(
                (*level.shape, self.channels), self.dtype, partial(self.read_level, number)
            ).as_dask()
            for number, level in enumerate(self.levels)
        )

    @property
    def shown(self) -> tuple[da.Array, ...]:
        """The pyramid as 8-bit lazy arrays (Y, X, C), for a screen."""
        if self.dtype == np.uint8:
            return self.data
        scale = WHITE / self.full_scale
        return tuple((level * scale).clip(0, WHITE).astype(np.uint8) for level in self.data)

    def with_mpp(self, mpp: float | None) -> Slide:
        """Return the same slide at another pixel size across (µm/px)."""
        return replace(self, mpp=mpp)

    def with_reader(self, wrap: Callable[[Reader], Reader]) -> Slide:
        """Return the same slide read through what `wrap` makes of its reader."""
        reader = wrap(self._reader)
        return replace(self, facts=reader.facts, _reader=reader)

    def with_full_scale(self, value: float) -> Slide:
        """Return the same slide with another stored value as the brightest."""
        return replace(self, full_scale=value)

    def close(self) -> None:
        """Release the file."""
        self._reader.close()

    def read_level(
        self, level: int, top: int, left: int, rows: int, cols: int
    ) -> NDArray[np.generic]:
        """Return stored pixels (rows, cols, channels) of a block inside a level."""
        try:
            return self._reader.read(level, top, left, rows, cols)
        except SlideError:
            raise
        # A decoder may raise anything on a damaged tile.
        except Exception as error:
            raise SlideError(
                f"{self.path} cannot be read at row {top}, column {left} of level {level}: "
                f"{error}. The file may be damaged or was moved; copy it again."
            ) from error

    def read(self, region: Region, mpp: float, *, outside: float = WHITE) -> NDArray[np.float32]:
        """Return the region resampled to `mpp`.

        Parameters
        ----------
        region
            In µm of this slide.
        mpp
            Wanted pixel size, µm/px.
        outside
            What stands where the region leaves the slide; white as glass is.

        Returns
        -------
        ndarray
            (rows, cols, channels), 0 to 255 whatever the file stores; pixel (i, j) is centred at
            ``region.top + (i + 0.5) * mpp``, ``region.left + (j + 0.5) * mpp``.
        """
        rows, cols = region.pixel_shape(mpp)
        number = self._level_for(mpp)
        level = self.levels[number]
        # From the two extents, not the mean downsample: levels are rounded to whole pixels.
        row_um, col_um = self.um_per_px_yx * level.covers / level.shape
        starts, steps = (region.top / row_um, region.left / col_um), (mpp / row_um, mpp / col_um)
        if all(abs(n - round(n)) < _ROUNDING for n in starts) and np.allclose(
            steps, 1, 0, _ROUNDING
        ):
            return self._copied(number, round(starts[0]), round(starts[1]), rows, cols, outside)
        r0, r1 = _span(region.top / row_um, mpp / row_um, rows, level.shape[0])
        c0, c1 = _span(region.left / col_um, mpp / col_um, cols, level.shape[1])
        if r1 <= r0 or c1 <= c0:
            return np.full((rows, cols, self.channels), outside, np.float32)
        # Weights over the whole level: a block's values do not depend on what is read with it.
        col_weights, col_cover = area_weights(
            start=region.left / col_um, step=mpp / col_um, count=cols, size=level.shape[1]
        )
        row_weights, row_cover = area_weights(
            start=region.top / row_um, step=mpp / row_um, count=rows, size=level.shape[0]
        )
        block = self._average(number, (r0, r1, c0, c1), row_weights, col_weights, outside)
        cover = row_cover[:, None, None] * col_cover[None, :, None]
        block *= cover * np.float32(WHITE / self.full_scale)
        return np.asarray(block + outside * (1 - cover), np.float32)

    def _copied(
        self, number: int, top: int, left: int, rows: int, cols: int, outside: float
    ) -> NDArray[np.float32]:
        """Return pixels of a level as they are: what averaging would come to, in half the time.

        They lie channel by channel in memory, as they are sampled and their density is taken.
        """
        out = np.empty((self.channels, rows, cols), np.float32).transpose(1, 2, 0)
        height, width = self.levels[number].shape
        r0, r1 = max(0, top), min(height, top + rows)
        c0, c1 = max(0, left), min(width, left + cols)
        if (r1 - r0, c1 - c0) != (rows, cols):
            out[:] = outside
        if r1 > r0 and c1 > c0:
            pixels = self._finite(number, r0, c0, r1 - r0, c1 - c0, outside)
            inner = out[r0 - top : r1 - top, c0 - left : c1 - left]
            scale = np.float32(WHITE / self.full_scale)
            for channel in range(self.channels):
                np.multiply(pixels[..., channel], scale, out=inner[..., channel])
        return out

    def _finite(
        self, number: int, top: int, left: int, rows: int, cols: int, outside: float
    ) -> NDArray[np.generic]:
        """Return pixels of a level, glass where a file says "not a number": nothing was scanned."""
        pixels = self.read_level(number, top, left, rows, cols)
        if pixels.dtype.kind == "f":
            nothing = outside * self.full_scale / WHITE
            pixels = np.nan_to_num(pixels, nan=nothing, posinf=self.full_scale, neginf=nothing)
        return pixels

    def _average(
        self,
        number: int,
        box: tuple[int, int, int, int],
        row_weights: sparse.csr_array,
        col_weights: sparse.csr_array,
        outside: float,
    ) -> NDArray[np.float32]:
        r0, r1, c0, c1 = box
        strip = max(1, _STRIP_PIXELS // max(1, c1 - c0))
        inner_cols = col_weights[:, c0:c1]
        total = np.zeros((row_weights.shape[0], col_weights.shape[0], self.channels), np.float32)
        for top in range(r0, r1, strip):
            bottom = min(r1, top + strip)
            pixels = self._finite(number, top, c0, bottom - top, c1 - c0, outside)
            total += apply_separable(row_weights[:, top:bottom], inner_cols, pixels)
        return total

    def _level_for(self, mpp: float) -> int:
        wanted = mpp / self.um_per_px
        fitting = [i for i, level in enumerate(self.levels) if level.downsample <= wanted * 1.01]
        return fitting[-1] if fitting else 0


def open_slide(path: str | Path) -> Slide:
    """Open a slide lazily.

    Raises
    ------
    SlideError
        If the file is missing, damaged, or in no known format.
    """
    location = Path(path).expanduser().absolute()
    try:
        reader = open_reader(location)
        found = fingerprint(location)
    except OSError as error:
        raise SlideError(
            f"{location} cannot be read: {error.strerror or error}. Check the path and permissions."
        ) from error
    facts = reader.facts
    mpp_yx = facts.mpp_yx
    return Slide(
        path=location,
        mpp=mpp_yx[1] if mpp_yx else None,
        facts=facts,
        fingerprint=found,
        oblong=mpp_yx[0] / mpp_yx[1] if mpp_yx else 1.0,
        full_scale=float(2**facts.bits - 1) if facts.dtype.kind in "iu" else 1.0,
        _reader=reader,
    )


def fingerprint(path: Path) -> str:
    """Return a short hash that finds a slide again, and tells when it was replaced.

    Of a file: its size, its first and last 64 KiB. Of a folder: the same of the files in it and in
    the folders right below, which in an OME-Zarr are the metadata.
    """
    files = [path] if path.is_file() else _telling_files(path)
    digest = hashlib.sha256()
    for file in files:
        if path.is_dir():
            digest.update(str(file.relative_to(path)).encode())
        _add_ends(digest, file)
    return digest.hexdigest()[:16]


def _telling_files(folder: Path) -> list[Path]:
    """Return the metadata of an OME-Zarr and what lies beside it; not its thousands of chunks."""
    parts = [folder, *sorted(p for p in folder.iterdir() if p.is_dir())]
    return [f for p in parts for f in sorted(p.iterdir()) if f.is_file()]


def _add_ends(digest: hashlib._Hash, file: Path) -> None:
    size = file.stat().st_size
    digest.update(str(size).encode())
    with file.open("rb") as content:
        digest.update(content.read(_FINGERPRINT_BYTES))
        content.seek(max(0, size - _FINGERPRINT_BYTES))
        digest.update(content.read(_FINGERPRINT_BYTES))


def _span(start: float, step: float, count: int, size: int) -> tuple[int, int]:
    margin = max(step, 1.0)
    low = int(np.floor(start - margin))
    high = int(np.ceil(start + count * step + margin))
    return max(0, low), min(size, high)
