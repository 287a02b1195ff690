"""Where a registration can be trusted: the confidence, and sections that are not what they seem."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawing import GLASS, write_slide
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.progress import run
from napari_pancluster.core.registration import Registration, register_pair
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stain import Stain

PX, MPP = 420, 5.0
QUICK = RegisterConfig(candidates=2)


@pytest.fixture(scope="module")
def strength() -> NDArray[np.float64]:
    """Stain strength of a lopsided section with a lot of structure."""
    rng = np.random.default_rng(5)
    r, c = np.mgrid[:PX, :PX] / PX - 0.5
    angle = np.arctan2(r, c)
    outline = 0.34 + 0.05 * np.cos(angle + 1) + 0.04 * np.cos(2 * angle + 2)
    inside = gaussian_filter((np.hypot(r, c) < outline).astype(float), 1.5)
    grain = sum(s * gaussian_filter(rng.normal(size=(PX, PX)), s) for s in (2.0, 5.0, 12.0))
    return inside * np.clip(1 + 0.7 * grain, 0.15, 2.5)


def _stain(path: Path, strength: NDArray[np.float64], colour: list[float]) -> Stain:
    noise = np.random.default_rng(2).normal(0, 1.5, (*strength.shape, 3))
    rgb = np.clip(GLASS * 10 ** -(strength[..., None] * np.array(colour)) + noise, 0, 255)
    return Stain.of(path.stem, open_slide(write_slide(path, rgb.astype(np.uint8), MPP)))


def _registered(
    folder: Path, fixed: NDArray[np.float64], moving: NDArray[np.float64]
) -> Registration:
    one = _stain(folder / "HE.tif", fixed, [0.15, 0.45, 0.25])
    other = _stain(folder / "PAS.tif", moving, [0.5, 0.35, 0.12])
    return run(register_pair(one, other, QUICK))


def _grid(rows: tuple[float, float], cols: tuple[float, float]) -> NDArray[np.float64]:
    r, c = np.meshgrid(np.linspace(*rows, 12), np.linspace(*cols, 12), indexing="ij")
    return np.stack([r.ravel(), c.ravel()], 1) * PX * MPP


def test_a_section_stained_otherwise_is_trusted_all_over(
    tmp_path: Path, strength: NDArray[np.float64]
) -> None:
    found = _registered(tmp_path, strength, strength)
    assert found.report.status == "ok" and found.confidence is not None
    assert np.median(found.confidence.at(_grid((0.3, 0.7), (0.3, 0.7)))) > 0.9
    assert found.confidence.at(_grid((0.01, 0.03), (0.01, 0.03))).max() == 0


def test_where_the_structure_is_another_the_confidence_is_low_and_the_status_says_so(
    tmp_path: Path, strength: NDArray[np.float64]
) -> None:
    altered = strength.copy()
    half = PX // 2
    # Its outline stays, what lies within is mirrored.
    altered[:, half:] = np.where(
        strength[:, half:] > 0.1, np.maximum(strength[::-1, half:], 0.3), strength[:, half:]
    )
    found = _registered(tmp_path, strength, altered)
    assert found.confidence is not None
    # Away from the line it was mirrored about, where every picture is like itself.
    true, false = (
        found.confidence.at(_grid((0.24, 0.38), cols)) for cols in ((0.3, 0.42), (0.58, 0.68))
    )
    assert true.mean() > 0.9 and false.mean() < 0.5
    assert found.report.status == "doubtful"
    assert "% of the tissue" in found.report.reason


def test_half_of_a_section_is_not_ok(tmp_path: Path, strength: NDArray[np.float64]) -> None:
    half = strength.copy()
    half[:, PX // 2 :] = 0
    found = _registered(tmp_path, strength, half)
    assert found.report.status != "ok"
    assert "outlines" in found.report.reason


@pytest.mark.parametrize("mpp", [MPP * 1000, MPP / 1000])
def test_pixel_sizes_that_do_not_go_together_are_told(
    tmp_path: Path, strength: NDArray[np.float64], mpp: float
) -> None:
    one = _stain(tmp_path / "HE.tif", strength, [0.15, 0.45, 0.25])
    other = _stain(tmp_path / "PAS.tif", strength, [0.5, 0.35, 0.12]).with_mpp(mpp)
    found = run(register_pair(one, other, QUICK))
    assert (found.report.status, found.transform) == ("failed", None)
    assert "pixel sizes" in found.report.reason and "PAS" in found.report.reason
