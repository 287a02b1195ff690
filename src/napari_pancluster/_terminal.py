"""What a person at a terminal sees: progress, warnings and results, all but results on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from napari_pancluster.core.progress import Progress, Task, run

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.table import Table

R = TypeVar("R")
_INTERVAL_S = 0.1
_MOST_COLUMNS = 7


class Reporter:
    """Shows a task at work; a moving bar on a terminal, a line a stage in a log file."""

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._bars: Bars | None = None
        self._bar: Any = None
        self._stage = ""
        self._shown = 0.0

    @cached_property
    def _console(self) -> Console:
        # Not on top: a command that says nothing but JSON is over sooner than rich is imported.
        from rich.console import Console

        return Console(stderr=True, soft_wrap=True, highlight=False)

    def drive(self, task: Task[R]) -> R:
        """Run a task to its end and return its result."""
        try:
            return run(task, self._progress)
        finally:
            self.close()

    def warn(self, message: str) -> None:
        """Say what the user should know, on one line."""
        self._console.print("Warning: " + " ".join(message.split()), markup=False)

    def fail(self, message: str) -> None:
        """Say why the command ends, on one line."""
        self.close()
        print("pancluster: " + " ".join(message.split()), file=sys.stderr)

    def close(self) -> None:
        """Take the bar away."""
        if self._bars is not None:
            self._bars.stop()
            self._bars = None

    def show(self, result: Mapping[str, Any]) -> None:
        """Print a result for people, on stdout."""
        from rich.console import Console

        console = Console(highlight=False, soft_wrap=True)
        for name, value in result.items():
            if isinstance(value, list) and value and isinstance(value[0], dict):
                console.print(_table(name, value))
            elif isinstance(value, dict) and value and _is_flat(value):
                console.print(_table(name, [value]))
            elif isinstance(value, dict):
                console.print(f"[bold]{name}[/bold]")
                self.show(value)
            elif isinstance(value, list) and name == "files":
                console.print("\n".join(map(str, value)), markup=False)
            else:
                console.print(f"{name}: {_cell(value)}", markup=False)

    def _progress(self, progress: Progress) -> None:
        if self._quiet:
            return
        new_stage = progress.stage != self._stage
        if not new_stage and time.monotonic() - self._shown < _INTERVAL_S:
            return
        self._stage, self._shown = progress.stage, time.monotonic()
        if not self._console.is_terminal:
            if new_stage:
                self._console.print(progress.stage, markup=False)
            return
        if self._bars is None:
            from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
            from rich.progress import Progress as Bars

            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.fields[values]}"),
                TimeRemainingColumn(),
            )
            self._bars = Bars(*columns, console=self._console, transient=True)
            self._bars.start()
            self._bar = self._bars.add_task("", values="")
        if new_stage:
            self._bars.reset(self._bar)
        self._bars.update(
            self._bar,
            description=progress.stage,
            completed=progress.done,
            total=progress.total or None,
            values="  ".join(f"{n} {v:.3g}" for n, v in progress.values.items()),
        )


def _is_flat(value: Mapping[str, Any]) -> bool:
    return not any(isinstance(v, (dict, list)) for v in value.values())


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    """Return rows as a table: a line each, or a column each where there are many values."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    if len(rows[0]) > _MOST_COLUMNS:
        table.show_header = False
        for _ in range(len(rows) + 1):
            table.add_column(overflow="fold")
        for name in rows[0]:
            table.add_row(name, *(_cell(row[name]) for row in rows))
        return table
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(_cell(v) for v in row.values()))
    return table


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{k}: {_cell(v)}" for k, v in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_cell(v) for v in value)
    return str(value)
