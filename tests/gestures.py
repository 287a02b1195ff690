"""What a user does with mouse: on a vispy canvas, on the tissue, in the table; no window needed."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import numpy as np
from napari.utils._proxies import ReadOnlyWrapper
from napari.utils.interactions import mouse_press_callbacks, mouse_release_callbacks
from qtpy.QtCore import QItemSelectionModel

from napari_pancluster import _layers

Place = tuple[float, float]


def drag(canvas: Any, path: Iterable[Place], *, button: int = 1, keys: Any = ()) -> None:
    """Press at the first place, move along the others, release at the last."""
    places = [tuple(map(float, p)) for p in path]
    options = {"button": button, "modifiers": keys}
    canvas.events.mouse_press(pos=places[0], **options)
    for place in places[1:]:
        canvas.events.mouse_move(pos=place, **options)
    canvas.events.mouse_release(pos=places[-1], **options)


def click(canvas: Any, place: Place, *, keys: Any = ()) -> None:
    drag(canvas, [place], keys=keys)


def circle(middle: tuple[float, float], radius: float, corners: int = 40) -> list[Place]:
    turns = np.linspace(0, 2 * np.pi, corners)
    return [(middle[0] + radius * np.cos(t), middle[1] + radius * np.sin(t)) for t in turns]


def world_of(main: Any, row: int) -> np.ndarray:
    results = main.session.results
    number, position = results.position(row)
    grid = results.table.grids[number]
    stack = results.stacks[grid.case]
    return _layers.to_world(grid.centres[position], stack.stain(stack.reference).slide)


def event(kind: str, world: Any, *, pos: Any = (50, 50), keys: Any = ()) -> Any:
    plain = SimpleNamespace(
        type=kind,
        position=tuple(world),
        pos=np.array(pos),
        button=1,
        modifiers=keys,
        handled=False,
        is_dragging=kind == "mouse_move" and pos != (50, 50),
    )
    # napari swaps what is wrapped while a drag goes on.
    return ReadOnlyWrapper(plain) if kind == "mouse_press" else plain


def click_tissue(main: Any, world: Any, keys: Any = ()) -> None:
    mouse_press_callbacks(main.viewer, event("mouse_press", world, keys=keys))
    mouse_release_callbacks(main.viewer, event("mouse_release", world, keys=keys))


def click_line(table: Any, row: int, *, adding: bool = False) -> None:
    """Do what a click on a line does, with Ctrl or without."""
    flags = QItemSelectionModel.SelectionFlag
    mode = flags.Toggle if adding else flags.ClearAndSelect
    table.selectionModel().select(table.model().index(row, 0), mode | flags.Rows)
