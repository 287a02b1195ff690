"""What was freed goes back to the system, or is kept for what comes next."""

from __future__ import annotations

import platform
import subprocess
import sys

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


_ROUNDS = """
import resource, sys
from napari_pancluster.core import heap
if sys.argv[1] == "keep":
    heap.keep()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for number in range(12):
    if number == 2:
        before = faults()
    pieces = [bytearray(20_000_000) for _ in range(3)]
    pieces.clear()
print(faults() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc only")
def test_large_arrays_that_are_freed_can_be_kept_for_the_next() -> None:
    def pages(how: str) -> int:
        order = [sys.executable, "-c", _ROUNDS, how]
        return int(subprocess.run(order, check=True, capture_output=True).stdout)

    assert pages("keep") < pages("as it comes") / 4
