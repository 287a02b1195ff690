"""Memory that was freed goes back to the system.

glibc keeps a heap for every few threads and returns little of what is freed there. In half an hour
of training and mapping in one process the memory in use stayed at 600 MB, while what the heaps
kept free grew from 400 to over 800 MB within seven minutes.
"""

from __future__ import annotations

import ctypes
import sys


def trim() -> None:
    """Hand freed memory back, where the C library is glibc; elsewhere nothing is kept like that.

    See ``malloc_trim(3)``. Takes some ten milliseconds and does not hold the GIL.
    """
    if not sys.platform.startswith("linux"):
        return
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)
