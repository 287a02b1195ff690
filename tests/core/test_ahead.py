"""Items made ahead: order, errors, and leaving early."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from napari_pancluster.core.ahead import Ahead


def test_items_come_in_order_and_are_made_while_the_one_before_is_used() -> None:
    made: list[int] = []

    def numbers() -> Iterator[int]:
        for n in range(5):
            made.append(n)
            yield n

    with Ahead(numbers(), depth=2) as ahead:
        seen = []
        for n in ahead:
            deadline = time.monotonic() + 5
            while len(made) < min(5, n + 3) and time.monotonic() < deadline:
                time.sleep(0.001)
            # Never more than the queue holds and the one in hand.
            assert min(5, n + 3) <= len(made) <= n + 4
            seen.append(n)
    assert seen == [0, 1, 2, 3, 4]


def test_waiting_is_counted() -> None:
    def slow() -> Iterator[int]:
        for n in range(3):
            time.sleep(0.05)
            yield n

    with Ahead(slow()) as ahead:
        assert list(ahead) == [0, 1, 2]
    assert ahead.waited_s > 0.1


def test_an_error_is_raised_where_the_items_are_used() -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("no more")

    with Ahead(broken()) as ahead:
        items = iter(ahead)
        assert next(items) == 1
        with pytest.raises(ValueError, match="no more"):
            next(items)


def test_leaving_early_ends_the_thread() -> None:
    before = threading.active_count()
    with Ahead(iter(range(1000))) as ahead:
        assert next(iter(ahead)) == 0
    assert threading.active_count() == before
