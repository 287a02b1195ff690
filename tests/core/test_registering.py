"""The step `register`: the way to the reference, and landmarks that alone decide."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawing import GLASS, write_slide
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, rotate

from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.pipeline.opening import open_stack
from napari_pancluster.core.pipeline.registering import register
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.core.registration import Landmarks

PX, MPP = 260, 6.0
TURNS = {"HE": 0.0, "PAS": 20.0, "CK7": -35.0}
COLOURS = {"HE": (0.15, 0.45, 0.25), "PAS": (0.3, 0.5, 0.2), "CK7": (0.5, 0.35, 0.12)}
QUICK = RegisterConfig(candidates=2)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One section in three stains, each turned about its middle."""
    rng = np.random.default_rng(4)
    r, c = np.mgrid[:PX, :PX] / PX - 0.5
    inside = np.hypot(r * 1.3, c) + 0.05 * np.sin(3 * np.arctan2(r, c)) < 0.34
    grain = sum(s * gaussian_filter(rng.normal(size=(PX, PX)), s) for s in (1.5, 4.0, 9.0))
    strength = gaussian_filter(inside.astype(float), 1) * np.clip(1 + 0.7 * grain, 0.2, 2.5)
    entries = []
    for name, degrees in TURNS.items():
        turned = rotate(strength, degrees, reshape=False, order=1)
        rgb = GLASS * 10 ** -(turned[..., None] * np.array(COLOURS[name]))
        path = write_slide(tmp_path / f"{name}.tif", rgb.astype(np.uint8), MPP)
        entries.append(SlideEntry("block", name, path))
    return Project.create(tmp_path / "p.pancluster", make_cases(entries))


def _truth(name: str, points: NDArray[np.float64]) -> NDArray[np.float64]:
    a = np.deg2rad(TURNS[name])
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    middle = PX * MPP / 2
    return (points - middle) @ turn.T + middle


def _error(project: Project, name: str) -> float:
    points = np.random.default_rng(0).uniform(0.35, 0.65, (60, 2)) * PX * MPP
    transform = open_stack(project, project.case("block")).transform(name)
    assert transform is not None
    away = np.linalg.norm(transform.to_moving(points) - _truth(name, points), axis=1)
    return float(np.median(away)) / MPP


def test_along_the_order_of_sections(project: Project) -> None:
    told = run(register(project, QUICK.model_copy(update={"strategy": "order"})))["results"]
    assert {row["stain"]: row["way"] for row in told} == {"PAS": "automatic", "CK7": "along PAS"}
    assert [row["status"] for row in told] == ["ok", "ok"]
    assert _error(project, "CK7") < 2


def test_straight_where_that_is_ok(project: Project) -> None:
    told = run(register(project, QUICK))["results"]
    assert {row["way"] for row in told} == {"automatic"}
    assert _error(project, "CK7") < 2
    stack = open_stack(project, project.case("block"))
    middle = np.full((1, 2), PX * MPP / 2)
    assert all(stack.confidences[name].at(middle) > 0.8 for name in ("PAS", "CK7"))


def test_landmarks_alone_decide_where_asked(project: Project) -> None:
    fixed = np.array([[500.0, 500.0], [1000.0, 600.0], [700.0, 1050.0]])
    # Not where the pictures would have it.
    moved = _truth("PAS", fixed) + np.array([90.0, -60.0])
    config = QUICK.model_copy(update={"landmark_use": "rigid"})
    told = run(
        register(project, config, stains=["PAS"], landmarks={"PAS": Landmarks(fixed, moved)})
    )
    (row,) = told["results"]
    assert (row["way"], row["status"]) == ("landmarks", "doubtful")
    assert row["tre_um"]["median"] < 1e-6
    transform = open_stack(project, project.case("block")).transform("PAS")
    assert transform is not None
    assert np.allclose(transform.to_moving(fixed), moved)
