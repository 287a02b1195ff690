from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from drawing import GLASS, shared, write_slide
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates

from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.progress import run
from napari_pancluster.core.registration import (
    Landmarks,
    Registration,
    register_pair,
)
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stain import Stain

PX, MPP = 320, 6.0
QUICK = RegisterConfig(candidates=2)
PINK, BLUE = np.array([0.15, 0.45, 0.25]), np.array([0.5, 0.35, 0.12])


def section(seed: int) -> NDArray[np.float64]:
    """Return the stain strength (PX, PX) of a lopsided section with glands; 0 on glass.

    ::

          ▄████▄
         ███████▙▄
          ▀██████▀
    """
    rng = np.random.default_rng(seed)
    r, c = np.mgrid[:PX, :PX] / PX - 0.5
    angle = np.arctan2(r, c)
    waves = sum(rng.uniform(0.03, 0.06) * np.cos(k * angle + rng.uniform(0, 6)) for k in (1, 2, 3))
    inside = gaussian_filter((np.hypot(r, c) < 0.3 + waves).astype(float), 1.5)
    grain = sum(
        weight * _unit(gaussian_filter(rng.normal(size=(PX, PX)), sigma))
        for weight, sigma in ((0.5, 10), (0.4, 4), (0.3, 1.5))
    )
    return np.asarray(inside * np.clip(1 + 0.5 * grain, 0.15, 2.5))


def _unit(image: NDArray[np.float64]) -> NDArray[np.float64]:
    return image / image.std()


@dataclass(frozen=True)
class Truth:
    """A known way from the fixed section to a moving one (px, row and col)."""

    angle: float
    flipped: bool = False
    bend_px: float = 0.0
    scale: float = 1.0

    def linear(self) -> NDArray[np.float64]:
        a = np.deg2rad(self.angle)
        turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
        return turn @ np.diag([1.0, -1.0 if self.flipped else 1.0]) / self.scale

    def to_fixed(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        straight = (points - PX / 2) @ np.linalg.inv(self.linear()).T + PX / 2
        phase = 2 * np.pi * straight[:, ::-1] / (PX / 2)
        return straight + self.bend_px * np.sin(phase + np.array([0.3, 1.1]))

    def draw(self, strength: NDArray[np.float64]) -> NDArray[np.float64]:
        size = round(PX / min(self.scale, 1.0))
        grid = np.stack(np.mgrid[:size, :size], -1).reshape(-1, 2) + 0.5 - (size - PX) / 2
        at = self.to_fixed(grid).T - 0.5
        return np.asarray(map_coordinates(strength, at, order=1).reshape(size, size))


def _stain(path: Path, strength: NDArray[np.float64], colour: object, mpp: float | None) -> Stain:
    rng = np.random.default_rng(1)
    rgb = (GLASS + 1) * 10 ** -(strength[..., None] * colour) - 1
    rgb = np.clip(rgb + rng.normal(0, 1.5, rgb.shape), 0, 255).astype(np.uint8)
    return Stain.of(path.name.split(".")[0], open_slide(write_slide(path, rgb, mpp, levels=1)))


@pytest.fixture(scope="module")
def draw(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Stain]:
    folder = tmp_path_factory.mktemp("sections")

    def make(name: str, seed: int, truth: Truth | None = None, **options: object) -> Stain:
        strength = section(seed)
        strength = truth.draw(strength) if truth else strength
        if options.get("inverted"):
            strength = np.where(strength > 0.1, np.clip(1.9 - strength, 0.15, 2), strength)
        return _stain(
            folder / f"{name}.ome.tif",
            strength,
            options.get("colour", BLUE if truth else PINK),
            options.get("mpp", MPP),  # type: ignore[arg-type]
        )

    return make


@pytest.fixture(scope="module")
def fixed(draw: Callable[..., Stain]) -> Stain:
    return draw("fixed", 0)


BENT = Truth(angle=147, flipped=True, bend_px=4.0)


@pytest.fixture(scope="module")
def bent(draw: Callable[..., Stain]) -> Stain:
    return draw("bent", 0, BENT)


@pytest.fixture(scope="module")
def registered(fixed: Stain, bent: Stain) -> Registration:
    return run(register_pair(fixed, bent, QUICK))


def points(truth: Truth) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return fixed and moving points in tissue, µm."""
    moving = np.random.default_rng(3).uniform(0.15 * PX, 0.85 * PX, (600, 2))
    fixed = truth.to_fixed(moving)
    row, col = np.clip(fixed.astype(int), 0, PX - 1).T
    tissue = section(0)[row, col] > 0.1
    return fixed[tissue] * MPP, moving[tissue] * MPP


def test_finds_rotation_flip_and_bend(registered: Registration) -> None:
    report = registered.report
    assert (report.status, report.flipped) == ("ok", True)
    assert abs(report.rotation_deg - BENT.angle) < 3
    assert report.dice_after > 0.97 > report.dice_before
    assert report.similarity_after > 0.5 > report.similarity_before
    assert report.folding_fraction == 0
    assert report.mpp_estimated is None and report.tre_um is None
    assert registered.transform is not None
    at, truth = points(BENT)
    errors = np.linalg.norm(registered.transform.to_moving(at) - truth, axis=1)
    assert np.median(errors) < 1.0 * MPP
    assert np.percentile(errors, 95) < 3 * MPP


def test_inverse_undoes_forward(registered: Registration) -> None:
    assert registered.transform is not None
    at, _ = points(BENT)
    back = registered.transform.to_fixed(registered.transform.to_moving(at))
    assert np.abs(back - at).max() < 0.5 * MPP


def test_same_input_same_result(fixed: Stain, bent: Stain, registered: Registration) -> None:
    again = run(register_pair(fixed, bent, QUICK))
    assert again.transform is not None and registered.transform is not None
    np.testing.assert_array_equal(again.transform.affine, registered.transform.affine)
    np.testing.assert_array_equal(again.transform.displacement, registered.transform.displacement)
    assert replace(again.report, seconds=0) == replace(registered.report, seconds=0)


def test_rigid_pairs_need_no_bending(fixed: Stain, draw: Callable[..., Stain]) -> None:
    angle = 200.0
    truth = Truth(angle=angle)
    moving = draw(f"turned{angle:.0f}", 0, truth)
    result = run(register_pair(fixed, moving, RegisterConfig(deformable=False, candidates=2)))
    assert result.transform is not None and result.report.status == "ok"
    turn = (result.report.rotation_deg - angle + 180) % 360 - 180
    assert abs(turn) < 0.3 and not result.report.flipped
    at, wanted = points(truth)
    assert np.linalg.norm(result.transform.to_moving(at) - wanted, axis=1).max() < MPP


def test_pale_where_the_other_is_dark(fixed: Stain, draw: Callable[..., Stain]) -> None:
    truth = Truth(angle=40, bend_px=4.0)
    result = run(register_pair(fixed, draw("inverted", 0, truth, inverted=True), RegisterConfig()))
    assert result.report.status == "ok" and result.transform is not None
    at, wanted = points(truth)
    assert np.median(np.linalg.norm(result.transform.to_moving(at) - wanted, axis=1)) < 2 * MPP


def test_unknown_pixel_size_is_estimated(fixed: Stain, draw: Callable[..., Stain]) -> None:
    scale = 0.7
    truth = Truth(angle=110, scale=scale)
    moving = draw(f"scaled{scale}", 0, truth, mpp=None)
    result = run(register_pair(fixed, moving, QUICK))
    assert result.report.status == "ok" and result.transform is not None
    assert result.report.mpp_estimated == pytest.approx(MPP * scale, rel=0.02)
    assert abs(np.linalg.det(result.transform.affine)) == pytest.approx(1, abs=1e-6)


def test_another_section_is_not_ok(fixed: Stain, draw: Callable[..., Stain]) -> None:
    wrong = draw("wrong", 6, Truth(angle=20))
    result = run(register_pair(fixed, wrong, RegisterConfig()))
    assert result.report.status != "ok"
    assert result.report.reason


def test_blank_slide_fails_with_a_reason(fixed: Stain, tmp_path: Path) -> None:
    blank = _stain(tmp_path / "blank.ome.tif", np.zeros((300, 400)), PINK, MPP)
    flat = _stain(tmp_path / "flat.ome.tif", np.ones((300, 400)), PINK, MPP)
    for stain in (blank, flat):
        result = run(register_pair(fixed, stain, QUICK))
        assert (result.transform, result.report.status) == (None, "failed")
        assert stain.name in result.report.reason


def test_closing_the_task_cancels_it(fixed: Stain, bent: Stain) -> None:
    task = register_pair(fixed, bent, QUICK)
    stages = []
    while "Aligning" not in stages:
        stages.append(next(task).stage)
    task.close()
    with pytest.raises(StopIteration):
        next(task)


def test_landmarks_take_the_place_of_the_search(fixed: Stain, draw: Callable[..., Stain]) -> None:
    moving = draw("other", 7, Truth(angle=20))
    corners = np.array([[400.0, 400.0], [1700.0, 600.0], [900.0, 1800.0], [1500.0, 1500.0]])
    turned = (corners - PX * MPP / 2) @ Truth(angle=90).linear().T + PX * MPP / 2
    marks = Landmarks(corners, turned)
    result = run(
        register_pair(fixed, moving, RegisterConfig(deformable=False, candidates=2), marks)
    )
    assert abs(result.report.rotation_deg - 90) < 12
    assert result.report.tre_um is not None
    assert result.report.tre_um["median"] < 3 * MPP


def test_many_landmarks_bend_the_field(fixed: Stain, bent: Stain) -> None:
    at, wanted = points(BENT)
    marks = Landmarks(at[::12], wanted[::12])
    stiff = RegisterConfig(deformable=False, candidates=2)
    result = run(register_pair(fixed, bent, stiff, marks))
    assert result.transform is not None and result.report.tre_um is not None
    assert result.report.folding_fraction == 0
    assert result.report.tre_um["median"] < 2 * MPP
    affine = replace(result.transform, displacement=np.zeros((2, 1, 1), np.float32))
    errors = [
        float(np.median(np.linalg.norm(t.to_moving(at) - wanted, axis=1)))
        for t in (result.transform, affine)
    ]
    assert errors[0] < 0.7 * errors[1]


def test_landmarks_in_px_where_the_scale_is_unknown(
    fixed: Stain, draw: Callable[..., Stain]
) -> None:
    truth = Truth(angle=75)
    moving = draw("uncalibrated", 0, truth, mpp=None)
    at, wanted = points(truth)
    marks = Landmarks(at[:5], wanted[:5] / MPP)
    result = run(register_pair(fixed, moving, RegisterConfig(), marks))
    assert result.report.mpp_estimated == pytest.approx(MPP, rel=0.01)
    assert result.report.tre_um is not None and result.report.tre_um["median"] < MPP


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "names", "mpp", "angle"),
    [
        ("liver_glycogen", ("HE", "PAS"), 2.0, 1),
        ("liver_glycogen", ("HE", "PASD"), 2.0, 172),
        ("stomach_hpylori", ("HE", "giemsa"), 4.0, 177),
        ("pancreas_adenosquamous", ("HE", "CK7-p40"), 4.0, 268),
    ],
)
def test_real_serial_sections(case: str, names: tuple[str, str], mpp: float, angle: float) -> None:
    stains = [
        Stain.of(n, open_slide(shared("atlas", case, f"{n}.ome.tif")).with_mpp(mpp)) for n in names
    ]
    result = run(register_pair(*stains, RegisterConfig()))
    assert result.report.status == "ok"
    assert abs((result.report.rotation_deg - angle + 180) % 360 - 180) < 8
    assert result.report.dice_after > 0.7
    assert result.report.seconds < 60


def test_demons_of_simpleitk_follow_the_bend_too(fixed: Stain, bent: Stain) -> None:
    truth_fixed, truth_moving = points(BENT)

    def error(config: RegisterConfig) -> float:
        transform = run(register_pair(fixed, bent, config)).transform
        assert transform is not None
        return float(
            np.median(np.linalg.norm(transform.to_moving(truth_fixed) - truth_moving, axis=1))
        )

    straight = error(QUICK.model_copy(update={"deformable": False}))
    demons = error(QUICK.model_copy(update={"deformation": "demons"}))
    assert demons < 0.7 * straight


def test_demons_keep_row_and_column_apart() -> None:
    from napari_pancluster.core._sitk import demons

    rng = np.random.default_rng(0)
    moving = gaussian_filter(rng.normal(size=(96, 128)), 5).astype(np.float32)
    moving /= moving.std()
    at = np.indices(moving.shape, np.float32) + np.array([3.0, 0.0], np.float32)[:, None, None]
    fixed = map_coordinates(moving, at, order=1, mode="nearest").astype(np.float32)
    start = np.zeros((2, 96, 128), np.float32)
    field = demons(fixed, moving, start, iterations=200, smooth_px=1.5)
    inner = field[:, 20:-20, 20:-20]
    assert np.median(inner[0]) == pytest.approx(3.0, abs=0.5)
    assert np.median(inner[1]) == pytest.approx(0.0, abs=0.5)
