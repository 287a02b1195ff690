"""A slide: a pyramid of pixels with a pixel size, read by region in µm."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.readers import Level, Reader, open_reader
from napari_pancluster.core.resample import apply_separable, area_weights

if TYPE_CHECKING:
    import dask.array as da

WHITE = 255.0
_CHUNK = 512
# Source pixels turned to float at once; keeps a coarse read of an unpyramided slide bounded.
_STRIP_PIXELS = 16_000_000
_FINGERPRINT_BYTES = 1 << 16


@dataclass(frozen=True)
class Slide:
    """An opened slide; pixels stay on disk until read.

    Attributes
    ----------
    path
        The file.
    mpp
        Pixel size of level 0 in µm/px, or None where the file does not record a plausible one.
    levels
        The pyramid, level 0 first.
    dtype
        Of the stored pixels.
    channels
        Channels of a pixel; RGB has 3.
    format
        Short name of the container ("ome-tiff", "svs", …).
    fingerprint
        Hash of the file's size and of its first and last bytes; finds a moved or replaced file.
    """

    path: Path
    mpp: float | None
    levels: tuple[Level, ...]
    dtype: np.dtype[np.generic]
    channels: int
    format: str
    fingerprint: str
    _reader: Reader = field(repr=False, compare=False)

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
    def extent(self) -> Region:
        """The whole slide in µm."""
        return Region.of_pixels(
            top=0, left=0, rows=self.shape[0], cols=self.shape[1], mpp=self.um_per_px
        )

    @property
    def data(self) -> tuple[da.Array, ...]:
        """The pyramid as lazy arrays of shape (Y, X, C), level 0 first."""
        return tuple(_lazy_level(self, i) for i in range(len(self.levels)))

    def with_mpp(self, mpp: float | None) -> Slide:
        """Return the same slide at another pixel size (µm/px)."""
        return replace(self, mpp=mpp)

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

    def read(self, region: Region, mpp: float) -> NDArray[np.float32]:
        """Return the region resampled to `mpp`, white where it leaves the slide.

        Parameters
        ----------
        region
            In µm of this slide.
        mpp
            Wanted pixel size, µm/px.

        Returns
        -------
        ndarray
            (rows, cols, channels) in the units of the stored pixels; pixel (i, j) is centred at
            ``region.top + (i + 0.5) * mpp``, ``region.left + (j + 0.5) * mpp``.
        """
        rows, cols = region.pixel_shape(mpp)
        number = self._level_for(mpp)
        level = self.levels[number]
        # From the two extents, not the mean downsample: levels are rounded to whole pixels.
        row_um = self.um_per_px * self.shape[0] / level.shape[0]
        col_um = self.um_per_px * self.shape[1] / level.shape[1]
        r0, r1 = _span(region.top / row_um, mpp / row_um, rows, level.shape[0])
        c0, c1 = _span(region.left / col_um, mpp / col_um, cols, level.shape[1])
        out = np.full((rows, cols, self.channels), WHITE, np.float32)
        if r1 <= r0 or c1 <= c0:
            return out
        # Weights over the whole level: a block's values do not depend on what is read with it.
        col_weights, col_cover = area_weights(
            start=region.left / col_um, step=mpp / col_um, count=cols, size=level.shape[1]
        )
        row_weights, row_cover = area_weights(
            start=region.top / row_um, step=mpp / row_um, count=rows, size=level.shape[0]
        )
        block = self._average(number, (r0, r1, c0, c1), row_weights, col_weights)
        cover = row_cover[:, None, None] * col_cover[None, :, None]
        return np.asarray(block * cover + WHITE * (1 - cover), np.float32)

    def _average(
        self,
        number: int,
        box: tuple[int, int, int, int],
        row_weights: sparse.csr_array,
        col_weights: sparse.csr_array,
    ) -> NDArray[np.float32]:
        r0, r1, c0, c1 = box
        strip = max(1, _STRIP_PIXELS // max(1, c1 - c0))
        inner_cols = col_weights[:, c0:c1]
        total = np.zeros((row_weights.shape[0], col_weights.shape[0], self.channels), np.float32)
        for top in range(r0, r1, strip):
            bottom = min(r1, top + strip)
            pixels = self.read_level(number, top, c0, bottom - top, c1 - c0)
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
    reader = open_reader(location)
    return Slide(
        path=location,
        mpp=reader.mpp,
        levels=reader.levels,
        dtype=reader.dtype,
        channels=reader.channels,
        format=reader.format,
        fingerprint=fingerprint(location),
        _reader=reader,
    )


def fingerprint(path: Path) -> str:
    """Return a short hash of a file's size and of its first and last 64 KiB."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_FINGERPRINT_BYTES))
        file.seek(max(0, size - _FINGERPRINT_BYTES))
        digest.update(file.read(_FINGERPRINT_BYTES))
    return digest.hexdigest()[:16]


def _span(start: float, step: float, count: int, size: int) -> tuple[int, int]:
    margin = max(step, 1.0)
    low = int(np.floor(start - margin))
    high = int(np.ceil(start + count * step + margin))
    return max(0, low), min(size, high)


def _lazy_level(slide: Slide, number: int) -> da.Array:
    import dask.array as da

    rows, cols = slide.levels[number].shape
    chunks = da.core.normalize_chunks(
        (_CHUNK, _CHUNK, slide.channels), (rows, cols, slide.channels), dtype=slide.dtype
    )

    def block(
        block_info: dict[int | None, dict[str, list[tuple[int, int]]]],
    ) -> NDArray[np.generic]:
        (top, bottom), (left, right), _ = block_info[None]["array-location"]
        return slide.read_level(number, top, left, bottom - top, right - left)

    lazy: da.Array = da.map_blocks(
        block, chunks=chunks, dtype=slide.dtype, meta=np.empty((0, 0, 0), slide.dtype)
    )
    return lazy
