"""Long work as a generator that yields `Progress` and returns its result (`Task`)."""

from __future__ import annotations

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
