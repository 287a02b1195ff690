"""A napari viewer with the main widget, and ways to wait for it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from drawing import make_results

_SCREEN = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the window's tests where there is no screen."""
    if sys.platform.startswith("linux") and not _SCREEN:
        here = Path(__file__).parent
        for item in items:
            if here in item.path.parents:
                item.add_marker(pytest.mark.skip(reason="no screen; run under xvfb-run"))


@pytest.fixture
def main(make_napari_viewer: Any) -> Iterator[Any]:
    """Return the main widget, docked in a viewer."""
    from napari_pancluster._widgets.main import dock

    widget = dock(make_napari_viewer())
    yield widget
    widget.close_session()


@pytest.fixture
def explored(main: Any, islands: Path) -> Any:
    """Return the main widget with drawn results of two cases."""
    results = make_results(islands, cases=2)
    main.session.case = "case0"
    main.session.show_stack(results.stacks["case0"])
    main.session.show_results(results)
    return main


@pytest.fixture
def wait(qtbot: Any) -> Callable[..., None]:
    """Return a function that waits until something is true."""

    def until(true: Callable[[], bool], seconds: float = 60) -> None:
        qtbot.waitUntil(true, timeout=int(1000 * seconds))

    return until
