"""Long work as a generator that yields `Progress` and returns its result (`Task`)."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TypeVar

R = TypeVar("R")


@dataclass(frozen=True)
class Progress:
    """Where a task stands.

    Attributes
    ----------
    stage
        What is being done, in plain words ("Registering PAS").
    done, total
        Finished and all units of the stage; ``total`` 0 means "not known".
    values
        Numbers worth showing while the work goes on, such as losses.
    """

    stage: str
    done: int = 0
    total: int = 0
    values: dict[str, float] = field(default_factory=dict)


class Pace:
    """How fast a stage goes, and how long it will still take.

    Attributes
    ----------
    rate
        Units a second since the stage began; None while there is nothing to tell from.
    seconds_left
        Of this stage.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stage = ""
        self._began = (0.0, 0)
        self.rate: float | None = None
        self.seconds_left: float | None = None

    def update(self, progress: Progress) -> None:
        """Take note of where the task stands."""
        now = self._clock()
        if progress.stage != self._stage or progress.done < self._began[1]:
            self._stage, self._began = progress.stage, (now, progress.done)
        seconds, done = now - self._began[0], progress.done - self._began[1]
        self.rate = done / seconds if done > 0 and seconds > 0 else None
        left = progress.total - progress.done
        self.seconds_left = left / self.rate if self.rate and progress.total else None


Task = Generator[Progress, None, R]
"""A slow verb: yields `Progress`, returns ``R``, may be closed at any yield."""


def run(task: Task[R], on_progress: Callable[[Progress], object] | None = None) -> R:
    """Drive a task to its end and return its result.

    Parameters
    ----------
    task
        The generator to exhaust.
    on_progress
        Called with every `Progress`; an exception raised in it closes the task.
    """
    try:
        while True:
            try:
                progress = next(task)
            except StopIteration as stop:
                result: R = stop.value
                return result
            if on_progress is not None:
                on_progress(progress)
    finally:
        task.close()
