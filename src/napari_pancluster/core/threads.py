"""How many threads torch may use: all of them on a quiet machine, one on a busy one.

The threads of an operation wait for each other. Where another program holds a core, each of
thousands of waits costs a time slice: two threads on two busy cores took 15 s for a training step
that one thread did in 0.45 s, and 0.29 s for it on the same cores when they were free.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

# A step this much slower than the best so far is another program's doing.
_SLOWER = 3.0
_SETTLE_S = 20.0


class ThreadPacer:
    """Chooses torch's thread count by trying, and again when steps become slow.

    Parameters
    ----------
    trial
        Does the work of a step, and changes nothing.
    threads
        A fixed number of threads; nothing is tried then.
    """

    def __init__(self, trial: Callable[[], object], *, threads: int | None = None) -> None:
        self._trial = trial
        self._found = torch.get_num_threads()
        self._all = threads or self._found
        self._free = threads is None and self._all > 1
        torch.set_num_threads(self._all)
        self._best = float("inf")
        self._tried = 0.0
        if self._free:
            self._choose()

    def watch(self, seconds: float) -> None:
        """Take note of how long a step took; choose again if it was slow."""
        self._best = min(self._best, seconds)
        rested = time.monotonic() - self._tried > _SETTLE_S
        if self._free and seconds > _SLOWER * self._best and rested:
            self._choose()

    def restore(self) -> None:
        """Give back the thread count that was found."""
        torch.set_num_threads(self._found)

    def _choose(self) -> None:
        torch.set_num_threads(1)
        self._trial()  # the first one also pays for allocations
        alone = self._seconds()
        torch.set_num_threads(self._all)
        together = self._seconds()
        if together > alone:
            torch.set_num_threads(1)
        self._best = min(alone, together)
        self._tried = time.monotonic()

    def _seconds(self) -> float:
        began = time.perf_counter()
        self._trial()
        return time.perf_counter() - began
