"""Slow work: its result, its errors in words, Cancel, and one job after the other."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from napari_pancluster._widgets.jobbar import JobBar
from napari_pancluster._widgets.jobs import Job, Jobs, sentence
from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.progress import Progress, Task


@pytest.fixture
def jobs(qtbot: Any) -> Any:
    found = Jobs()
    yield found
    assert found.stop()


def _counting(steps: int, seconds: float, log: list[str]) -> Task[int]:
    try:
        for n in range(steps):
            yield Progress("Counting", n, steps)
            time.sleep(seconds)
        return steps
    finally:
        log.append("closed")


def test_a_job_reports_and_delivers_in_the_window_s_thread(jobs: Jobs, wait: Any) -> None:
    bar, seen, results, log = JobBar(jobs), [], [], []
    jobs.progressed.connect(seen.append)
    jobs.start(Job("Counting", lambda: _counting(5, 0.12, log), results.append))
    assert jobs.busy and not bar._work.isHidden()
    wait(lambda: results == [5])
    assert log == ["closed"] and len(seen) >= 4 and seen[-1].stage == "Counting"
    assert bar.message == "Counting: done." and bar._work.isHidden() and not jobs.busy


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (SlideError("HE.svs has no pixel size. Enter it."), "HE.svs has no pixel size. Enter it."),
        (RuntimeError("CUDA out of memory. Tried to allocate"), "not enough memory"),
        (RuntimeError("sitk::ERROR: nothing"), "RuntimeError: sitk::ERROR: nothing"),
        (OSError(errno.ENOSPC, "No space left"), "disk is full"),
        (MemoryError(), "not enough memory"),
    ],
)
def test_every_error_becomes_a_sentence(
    jobs: Jobs, wait: Any, error: Exception, words: str
) -> None:
    bar, results = JobBar(jobs), []

    def failing() -> Task[None]:
        yield Progress("Trying")
        raise error

    jobs.start(Job("Trial", failing, results.append))
    wait(lambda: bar.message != "")
    assert words in bar.message and not results and jobs.current is None
    assert words in sentence(error)


def test_an_error_before_the_first_step_reaches_the_user_too(jobs: Jobs, wait: Any) -> None:
    bar = JobBar(jobs)

    def make() -> Task[None]:
        raise SlideError("gone")

    jobs.start(Job("Trial", make, print))
    wait(lambda: bar.message == "gone")


def test_cancel_answers_within_a_second_and_closes_the_task(jobs: Jobs, wait: Any) -> None:
    bar, results, log = JobBar(jobs), [], []
    jobs.start(Job("Counting", lambda: _counting(10_000, 0.05, log), results.append))
    wait(lambda: bar._stage.text() == "Counting")
    began = time.monotonic()
    bar._cancel.click()
    wait(lambda: jobs.current is None)
    assert time.monotonic() - began < 1
    assert log == ["closed"] and not results and "cancelled" in bar.message


def test_jobs_run_one_after_the_other(jobs: Jobs, wait: Callable[..., None]) -> None:
    order: list[str] = []
    for name in "abc":
        jobs.start(Job(name, lambda: _counting(2, 0.02, []), lambda _, n=name: order.append(n)))
    wait(lambda: len(order) == 3)
    assert order == ["a", "b", "c"]


def test_stop_ends_what_runs_and_what_waits(jobs: Jobs) -> None:
    log: list[str] = []
    for _ in range(3):
        jobs.start(Job("Counting", lambda: _counting(10_000, 0.02, log), print))
    time.sleep(0.1)
    assert jobs.stop(5) and jobs.current is None and log == ["closed"]


def test_quiet_jobs_leave_the_message_alone(jobs: Jobs, wait: Any) -> None:
    bar, results = JobBar(jobs), []
    bar.complain("Read me first.")
    jobs.start(Job("Saving", lambda: _counting(1, 0, []), results.append, quiet=True))
    assert not jobs.busy
    wait(lambda: results == [1])
    assert bar.message == "Read me first."


def test_a_job_that_gives_way_is_stopped_for_the_next(jobs: Jobs, wait: Any) -> None:
    log, results = [], []
    first = Job("UMAP", lambda: _counting(10_000, 0.02, log), print, quiet=True, gives_way=True)
    seen: list[Progress] = []
    jobs.progressed.connect(seen.append)
    jobs.start(first)
    wait(lambda: bool(seen))
    jobs.start(Job("Export", lambda: _counting(2, 0.01, log), results.append))
    wait(lambda: results == [2])
    assert log == ["closed", "closed"] and first.cancelled.is_set()
    # It starts anew when nothing else is to be done; Cancel ends it for good.
    wait(lambda: jobs.current is not None and jobs.current.title == "UMAP")
    jobs.cancel()
    wait(lambda: jobs.current is None)


def test_jobs_that_give_way_wait_for_each_other_but_for_their_own_kind(
    jobs: Jobs, wait: Any
) -> None:
    log: list[str] = []
    ended: list[str] = []
    told: list[str] = []
    jobs.cancelled.connect(told.append)

    def start(title: str, note: str, steps: int) -> None:
        task = lambda: _counting(steps, 0.01, log)  # noqa: E731
        jobs.start(Job(title, task, lambda _: ended.append(note), quiet=True, gives_way=True))

    start("Overview of HE", "HE", 20)
    start("Overview of PAS", "PAS", 5)
    start("UMAP", "old map", 5)
    start("UMAP", "new map", 5)
    wait(lambda: jobs.current is None)
    assert ended == ["HE", "PAS", "new map"] and told == []
    start("UMAP", "old map", 10_000)
    wait(lambda: jobs.current is not None)
    start("UMAP", "new map", 5)
    wait(lambda: jobs.current is None)
    assert ended[3:] == ["new map"] and told == []


def test_an_error_while_a_result_is_shown_is_told_and_does_not_block(jobs: Jobs, wait: Any) -> None:
    bar, results = JobBar(jobs), []

    def show(_: Any) -> None:
        raise SlideError("The slide was moved.")

    jobs.start(Job("Registration", lambda: _counting(1, 0, []), show))
    jobs.start(Job("Next", lambda: _counting(1, 0, []), results.append, quiet=True))
    wait(lambda: results == [1])
    assert bar.message == "The slide was moved."


def _holding(paused: threading.Event, done: list[int]) -> Task[int]:
    while len(done) < 10_000:
        if paused.is_set():
            yield Progress("Paused", len(done), 10_000)
        else:
            done.append(1)
            yield Progress("Counting", len(done), 10_000)
        time.sleep(0.01)
    return len(done)


def test_a_job_that_can_pause_has_a_button_for_it(jobs: Jobs, wait: Any) -> None:
    bar, paused, done = JobBar(jobs), threading.Event(), list[int]()
    jobs.start(Job("Training", lambda: _holding(paused, done), print, paused=paused))
    wait(lambda: bar._stage.text() == "Counting")
    assert not bar._pause.isHidden() and bar._pause.text() == "Pause"
    bar._pause.click()
    wait(lambda: bar._stage.text() == "Paused")
    assert bar._pause.text() == "Go on"
    at = len(done)
    time.sleep(0.3)
    assert len(done) == at and jobs.busy
    bar._pause.click()
    wait(lambda: len(done) > at and bar._stage.text() == "Counting")
    assert bar._pause.text() == "Pause"
    bar._pause.click()
    wait(lambda: bar._stage.text() == "Paused")
    began = time.monotonic()
    bar._cancel.click()
    assert not bar._pause.isEnabled()
    wait(lambda: jobs.current is None)
    assert time.monotonic() - began < 1 and "cancelled" in bar.message
    jobs.start(Job("Counting", lambda: _counting(50, 0.02, []), print))
    wait(lambda: bar._stage.text() == "Counting")
    assert bar._pause.isHidden(), "for other jobs there is none"


def test_what_is_said_again_is_shown_once(jobs: Jobs, wait: Any) -> None:
    seen: list[Progress] = []
    results: list[int] = []
    jobs.progressed.connect(seen.append)

    def repeating() -> Task[int]:
        for done in (1, 2):
            for _ in range(5):
                yield Progress("Training", done, 2, {"reconstruction": 1.0})
                time.sleep(0.06)
        return 2

    jobs.start(Job("Training", repeating, results.append))
    wait(lambda: results == [2])
    assert [p.done for p in seen] == [1, 2]
