"""A blocking call as a task: its result, its error, and leaving it early."""

from __future__ import annotations

import threading
import time

import pytest

from napari_pancluster.core.beside import Beside
from napari_pancluster.core.progress import Pace, Progress, run


def test_the_result_and_the_progress_arrive() -> None:
    def work(beat):  # type: ignore[no-untyped-def]
        for n in range(4):
            beat(n, 4)
            time.sleep(0.05)
        return "done"

    def task():  # type: ignore[no-untyped-def]
        with Beside(work) as beside:
            return (yield from beside.watch("Working"))

    seen: list[Progress] = []
    assert run(task(), seen.append) == "done"
    assert {p.stage for p in seen} == {"Working"} and max(p.done for p in seen) > 0


def test_an_error_is_raised_where_the_task_is_driven() -> None:
    def work(beat):  # type: ignore[no-untyped-def]
        raise RuntimeError("broken inside")

    def task():  # type: ignore[no-untyped-def]
        with Beside(work) as beside:
            yield from beside.watch("Working")

    with pytest.raises(RuntimeError, match="broken inside"):
        run(task())


def test_leaving_early_does_not_wait_and_stops_the_thread_at_its_next_beat() -> None:
    release, beats = threading.Event(), []

    def work(beat):  # type: ignore[no-untyped-def]
        release.wait(10)
        beats.append("before")
        beat(1, 2)
        beats.append("after")

    def task():  # type: ignore[no-untyped-def]
        with Beside(work) as beside:
            yield from beside.watch("Working")

    driven = task()
    next(driven)
    began = time.monotonic()
    driven.close()
    assert time.monotonic() - began < 1
    release.set()
    deadline = time.monotonic() + 5
    while not beats and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.05)
    assert beats == ["before"]


def test_pace_tells_rate_and_time_left_of_the_stage_alone() -> None:
    now = [100.0]
    pace = Pace(lambda: now[0])
    pace.update(Progress("Reading", 0, 10))
    assert pace.rate is None and pace.seconds_left is None
    now[0] += 2
    pace.update(Progress("Reading", 4, 10))
    assert pace.rate == pytest.approx(2) and pace.seconds_left == pytest.approx(3)
    pace.update(Progress("Training", 0, 50))
    assert pace.rate is None
    now[0] += 1
    pace.update(Progress("Training", 5, 0))
    assert pace.rate == pytest.approx(5) and pace.seconds_left is None
