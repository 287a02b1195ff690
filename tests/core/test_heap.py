"""What was freed in small pieces goes back to the system."""

from __future__ import annotations

import platform

import psutil
import pytest

from napari_pancluster.core import heap


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc only")
def test_freed_memory_goes_back() -> None:
    # Pieces below the size that the C library takes from the system one by one.
    pieces = [bytearray(100_000) for _ in range(2000)]
    last = bytearray(100_000)
    full = psutil.Process().memory_info().rss
    pieces.clear()
    heap.trim()
    assert psutil.Process().memory_info().rss < full - 150_000_000
    assert len(last) == 100_000
