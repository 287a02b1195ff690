"""Chunks of a zarr array, decoded where they are touched.

zarr-python schedules every read on an event loop: 0.7 ms a chunk that zstd decodes in 0.1 ms, so
random patches came seven times slower than decoding allows. Here a chunk is fetched and decoded by
the thread that asks for it, with the codecs of numcodecs. What is not understood here (another
codec, another order of axes) is left to zarr.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Decode = Callable[[bytes], Any]
_ABSENT = (1 << 64) - 1
_INDEX_CACHE = 4096


class Fetch(Protocol):
    """Gets bytes of a file of the store, all or a part of it; None where there is no file."""

    def __call__(self, name: str, start: int = 0, count: int | None = None) -> bytes | None:
        """Return `count` bytes from `start` (from the end where negative), or all of them."""
        ...


class Chunks:
    """Reads boxes of an array; what was never written stands as the fill value.

    Parameters
    ----------
    array
        The zarr array, for its metadata.
    fetch
        Gets the files of its store.
    """

    def __init__(self, array: Any, fetch: Fetch) -> None:
        meta = array.metadata
        self._fetch, self._meta = fetch, meta
        self._prefix = f"{array.path}/" if array.path else ""
        self._fill = np.asarray(array.fill_value or 0).astype(array.dtype)
        self._decode, self._inner, self._end = _understand(array)
        shard = array.shards or self._inner
        self._per_shard = tuple(o // i for o, i in zip(shard, self._inner, strict=True))
        self.dtype: np.dtype[Any] = np.dtype(array.dtype)
        self._index = lru_cache(_INDEX_CACHE)(self._read_index)

    @property
    def understood(self) -> bool:
        """Whether these chunks can be decoded here."""
        return self._decode is not None

    def read(self, box: tuple[slice, ...]) -> tuple[NDArray[Any], bool]:
        """Return the values of a box, and whether all of them were written."""
        shape = self._inner
        spans = [range(s.start // n, -(-s.stop // n)) for s, n in zip(box, shape, strict=True)]
        if all(len(span) == 1 for span in spans):
            return self._in_one(box, tuple(span.start for span in spans))
        out = np.full([s.stop - s.start for s in box], self._fill, self.dtype)
        whole = True
        for place in itertools.product(*spans):
            data = self._bytes(place)
            if data is None:
                whole = False
                continue
            chunk = self._chunk(data)
            inside, target = [], []
            for p, n, s in zip(place, shape, box, strict=True):
                low, high = max(s.start, p * n), min(s.stop, (p + 1) * n)
                inside.append(slice(low - p * n, high - p * n))
                target.append(slice(low - s.start, high - s.start))
            out[tuple(target)] = chunk[tuple(inside)]
        return out, whole

    def _in_one(self, box: tuple[slice, ...], place: tuple[int, ...]) -> tuple[NDArray[Any], bool]:
        """Read a box inside one chunk: most patches, and nothing has to be put together."""
        data = self._bytes(place)
        if data is None:
            return np.full([s.stop - s.start for s in box], self._fill, self.dtype), False
        low = [p * n for p, n in zip(place, self._inner, strict=True)]
        inside = tuple(slice(s.start - o, s.stop - o) for s, o in zip(box, low, strict=True))
        return self._chunk(data)[inside].copy(), True

    def _chunk(self, data: bytes) -> NDArray[Any]:
        assert self._decode is not None
        return np.frombuffer(self._decode(data), self.dtype).reshape(self._inner)

    def _bytes(self, place: tuple[int, ...]) -> bytes | None:
        if self._end is None:
            return self._fetch(self._name(place))
        shard = tuple(p // n for p, n in zip(place, self._per_shard, strict=True))
        index = self._index(shard)
        if index is None:
            return None
        offset, count = index[tuple(p % n for p, n in zip(place, self._per_shard, strict=True))]
        if offset == count == _ABSENT:
            return None
        return self._fetch(self._name(shard), int(offset), int(count))

    def _name(self, place: tuple[int, ...]) -> str:
        return str(self._prefix + self._meta.encode_chunk_key(place))

    def _read_index(self, shard: tuple[int, ...]) -> NDArray[np.uint64] | None:
        """Return (…, 2) offset and length of every chunk of a shard; its checksum is not read."""
        size = 16 * int(np.prod(self._per_shard))
        data = self._fetch(self._name(shard), -(size + 4) if self._end else 0, size)
        if data is None:
            return None
        return np.frombuffer(data, "<u8").reshape(*self._per_shard, 2)


def _understand(array: Any) -> tuple[Decode | None, tuple[int, ...], bool | None]:
    """Return how to decode a chunk, its shape, and of shards whether the index is at the end."""
    meta = array.metadata
    nothing = (None, tuple(array.chunks), None)
    if meta.zarr_format == 2:
        if meta.filters or meta.order != "C":
            return nothing
        return (meta.compressor.decode if meta.compressor else bytes), tuple(meta.chunks), None
    codecs, end = list(meta.codecs), None
    if len(codecs) == 1 and type(codecs[0]).__name__ == "ShardingCodec":
        end = getattr(codecs[0].index_location, "value", "end") == "end"
        kinds = [type(c).__name__ for c in codecs[0].index_codecs]
        if kinds != ["BytesCodec", "Crc32cCodec"]:
            return nothing
        codecs = list(codecs[0].codecs)
    decode = _chain(codecs, np.dtype(array.dtype).itemsize)
    return (decode, tuple(array.chunks), end) if decode else nothing


def _chain(codecs: list[Any], itemsize: int) -> Decode | None:
    """Return the decoder of ``bytes`` and at most one compression after it."""
    import numcodecs

    first, *others = codecs
    if type(first).__name__ != "BytesCodec" or len(others) > 1:
        return None
    big = getattr(getattr(first, "endian", None), "value", None) == "big"
    if big and itemsize > 1:
        return None
    if not others:
        return bytes
    known = {
        "ZstdCodec": numcodecs.Zstd,
        "GzipCodec": numcodecs.GZip,
        "BloscCodec": numcodecs.Blosc,
    }
    found = known.get(type(others[0]).__name__)
    return found().decode if found is not None else None
