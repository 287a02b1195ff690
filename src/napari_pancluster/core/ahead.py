"""Items made in a thread while the one before is used."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Generic, Self, TypeVar

T = TypeVar("T")
_LOOK_S = 0.1


class Ahead(Generic[T]):
    """Draws items from an iterable in a thread of its own, a few ahead of their use.

    The items are those that a plain loop would get, in the same order.

    Parameters
    ----------
    items
        Where they come from; nobody else may draw from it.
    depth
        How many may wait.

    Attributes
    ----------
    waited_s
        Seconds for which the user of the items had to wait for them.
    """

    def __init__(self, items: Iterable[T], *, depth: int = 2) -> None:
        self.waited_s = 0.0
        self._items = items
        self._queue: queue.Queue[tuple[T] | BaseException | None] = queue.Queue(depth)
        self._given_up = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the thread, whatever it has made by then, and wait for it."""
        self._given_up.set()
        self._thread.join()

    def __iter__(self) -> Iterator[T]:
        """Yield the items; an error in making one is raised here."""
        while True:
            began = time.perf_counter()
            found = self._queue.get()
            self.waited_s += time.perf_counter() - began
            if found is None:
                return
            if isinstance(found, BaseException):
                raise found
            yield found[0]

    def _work(self) -> None:
        try:
            for item in self._items:
                if not self._put((item,)):
                    return
            self._put(None)
        # Raised again where the items are used.
        except BaseException as error:
            self._put(error)

    def _put(self, item: tuple[T] | BaseException | None) -> bool:
        while not self._given_up.is_set():
            try:
                self._queue.put(item, timeout=_LOOK_S)
                return True
            except queue.Full:
                continue
        return False
