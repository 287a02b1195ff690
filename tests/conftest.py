"""Slides and projects that several tests use."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from drawing import GLASS, TINY, texture, write_slide

from napari_pancluster.core.config import TrainConfig
from napari_pancluster.core.project import Project

_STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Remember how the tests ended."""
    session.config.stash[_STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave without tearing Qt and OpenGL down piece by piece, which may crash once all is said.

    Seen after some orders of the window's tests, in no frame of Python, with every test passed.
    """
    if "napari.qt" in sys.modules and _STATUS in config.stash:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[_STATUS])


@pytest.fixture(scope="session")
def two_tissues(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide at 0.5 µm/px, 768 rows: fine texture left of x = 1000, coarse right of it.

    ::

        ┌──────────┬────────┐
        │  fine    │ coarse │
        └──────────┴────────┘
        0        1000     1900
    """
    rgb = np.concatenate(
        [texture((768, 1000), coarse=False), texture((768, 900), coarse=True, seed=1)], axis=1
    )
    return write_slide(tmp_path_factory.mktemp("slides") / "two.ome.tif", rgb)


@pytest.fixture(scope="session")
def islands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A slide of glass with a fine island left and a coarse one right, 2 µm/px."""
    rgb = np.full((640, 1000, 3), GLASS, np.uint8)
    rgb[100:540, 80:460] = texture((440, 380), coarse=False)
    rgb[100:540, 540:920] = texture((440, 380), coarse=True, seed=1)
    return write_slide(tmp_path_factory.mktemp("slides") / "islands.ome.tif", rgb, 2.0)


@pytest.fixture
def make_project(tmp_path: Path) -> Callable[..., Project]:
    """Return a function that makes a project of one case from ``stain=path``."""
    from napari_pancluster.core.cases import SlideEntry, make_cases

    def make(**slides: Path) -> Project:
        entries = [SlideEntry("block", stain, path) for stain, path in slides.items()]
        return Project.create(tmp_path / "test.pancluster", make_cases(entries))

    return make


@pytest.fixture
def tiny() -> dict[str, object]:
    """Options of a training run that takes seconds."""
    TrainConfig(**TINY)
    return dict(TINY)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Let torch use one thread: small work, and results that do not hang on the machine's load."""
    torch.set_num_threads(1)
