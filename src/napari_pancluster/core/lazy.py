"""Pixels that look like an array and are read where they are asked for."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import dask.array as da

BLOCK_PX = 512
Read = Callable[[int, int, int, int], NDArray[Any]]


class LazyPixels:
    """An array (rows, cols, channels) without pixels of its own.

    Parameters
    ----------
    shape, dtype
        Of the whole.
    read
        Given top, left, rows and cols, returns that block (rows, cols, channels).
    whole_blocks
        Ask for blocks of `BLOCK_PX` only, which `read` may remember; else for what is wanted.
    """

    ndim = 3

    def __init__(
        self,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        read: Read,
        *,
        whole_blocks: bool = False,
    ) -> None:
        self.shape, self.dtype = shape, dtype
        self._read, self._whole_blocks = read, whole_blocks

    def __getitem__(self, index: tuple[Any, ...]) -> NDArray[Any]:
        """Return what a tuple of slices and whole numbers selects."""
        spans, left = [], []
        missing = [slice(None)] * (self.ndim - len(index))
        for size, at in zip(self.shape, (*index, *missing), strict=True):
            span = range(size)[at] if isinstance(at, slice) else range(int(at), int(at) + 1)
            low, high = (min(span), max(span) + 1) if span else (0, 0)
            spans.append((low, high))
            # Within what is read: every step of it, or the one that was named.
            inner = slice(None) if span.step == 1 else slice(None, None, span.step)
            left.append(inner if isinstance(at, slice) else 0)
        (r0, r1), (c0, c1), (k0, k1) = spans
        return self._box(r0, c0, r1 - r0, c1 - c0)[..., k0:k1][tuple(left)]

    def _box(self, top: int, left: int, rows: int, cols: int) -> NDArray[Any]:
        if not self._whole_blocks or rows == 0 or cols == 0:
            return self._read(top, left, rows, cols)
        out = np.empty((rows, cols, self.shape[2]), self.dtype)
        for r in range(top // BLOCK_PX * BLOCK_PX, top + rows, BLOCK_PX):
            for c in range(left // BLOCK_PX * BLOCK_PX, left + cols, BLOCK_PX):
                height, width = min(BLOCK_PX, self.shape[0] - r), min(BLOCK_PX, self.shape[1] - c)
                block = self._read(r, c, height, width)
                r0, r1 = max(r, top), min(r + height, top + rows)
                c0, c1 = max(c, left), min(c + width, left + cols)
                out[r0 - top : r1 - top, c0 - left : c1 - left] = block[
                    r0 - r : r1 - r, c0 - c : c1 - c
                ]
        return out

    def as_dask(self) -> da.Array:
        """Return a dask array over these pixels.

        Its graph is symbolic: made in a millisecond, however many blocks there are. (One with a
        function a block took a second for the 40,000 blocks of a large slide.)
        """
        import dask.array as da

        lazy: da.Array = da.from_array(
            self,
            chunks=(BLOCK_PX, BLOCK_PX, self.shape[2]),
            name=f"pixels-{uuid.uuid4().hex}",
            asarray=False,
            inline_array=True,
            meta=np.empty((0, 0, 0), self.dtype),
        )
        return lazy
