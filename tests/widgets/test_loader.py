"""Small reads: only the newest request is delivered, and errors are told."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from napari_pancluster._widgets.loader import Loader
from napari_pancluster.core.errors import SlideError


@pytest.fixture
def loader(qtbot: Any) -> Any:
    found = Loader()
    yield found
    found.close()


def test_of_requests_that_wait_only_the_newest_is_read_and_delivered(
    loader: Loader, wait: Any
) -> None:
    gate, read, delivered = threading.Event(), [], []

    def slow(n: int) -> int:
        gate.wait(10)
        read.append(n)
        return n

    for n in range(5):
        loader.ask(lambda n=n: slow(n), delivered.append)
    gate.set()
    wait(lambda: not loader.busy)
    assert read == [0, 4] and delivered == [4]


def test_a_failed_read_is_told_and_the_next_works(loader: Loader, wait: Any) -> None:
    told: list[str] = []
    loader.failed.connect(told.append)

    def broken() -> None:
        raise SlideError("HE.svs is gone.")

    delivered: list[int] = []
    loader.ask(broken, delivered.append)
    wait(lambda: bool(told))
    loader.ask(lambda: 1, delivered.append)
    wait(lambda: delivered == [1])
    assert told == ["HE.svs is gone."]


def test_what_is_forgotten_is_not_read(loader: Loader, wait: Any) -> None:
    gate, read = threading.Event(), []
    loader.ask(lambda: gate.wait(10), lambda _: None)
    loader.ask(lambda: read.append(1), lambda _: None)
    loader.forget()
    gate.set()
    wait(lambda: not loader.busy)
    assert read == []


def test_after_closing_nothing_is_delivered_or_asked(loader: Loader, wait: Any, qtbot: Any) -> None:
    gate, delivered = threading.Event(), []

    def deliver(result: object) -> None:
        # What a panel does when its own answer makes it ask again.
        delivered.append(result)
        loader.ask(lambda: 2, delivered.append)

    loader.ask(lambda: gate.wait(10), deliver)
    gate.set()
    loader.close()  # waits for the thread; its answer is still on its way to this one
    qtbot.wait(50)
    loader.ask(lambda: 3, delivered.append)
    qtbot.wait(50)
    assert delivered == []
