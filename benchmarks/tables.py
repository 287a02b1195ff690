"""Rows of figures as a table, for the benchmarks that print them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def show(rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows as a table."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    cells = [[_cell(row.get(column)) for column in columns] for row in rows]
    widths = [max(len(c), *(len(r[i]) for r in cells)) for i, c in enumerate(columns)]
    for line in (columns, *cells):
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)))
    print()


def _cell(value: object) -> str:
    return f"{value:.3f}" if isinstance(value, float) else str("" if value is None else value)
