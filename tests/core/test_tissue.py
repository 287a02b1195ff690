"""Tissue masks on drawn and on real slides."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawing import GLASS, shared, texture, write_slide

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.tissue import find_tissue


def test_islands_are_found_and_glass_is_not(islands: Path) -> None:
    tissue = find_tissue(Stain.of("HE", open_slide(islands)))
    truth = np.zeros((640, 1000), bool)
    truth[100:540, 80:460] = truth[100:540, 540:920] = True
    truth = truth.reshape(160, 4, 250, 4).mean((1, 3)) > 0.5
    dice = 2 * (tissue.mask & truth).sum() / (tissue.mask.sum() + truth.sum())
    assert dice > 0.97
    assert tissue.area_mm2 == pytest.approx(2 * 440 * 380 * 4e-6, rel=0.05)


def test_tissue_from_edge_to_edge_is_all_tissue(two_tissues: Path) -> None:
    assert find_tissue(Stain.of("HE", open_slide(two_tissues))).mask.mean() > 0.99


def test_dust_and_a_shading_of_the_lamp_are_no_tissue(tmp_path: Path) -> None:
    rgb = np.full((600, 800, 3), GLASS, np.uint8)
    rgb -= np.linspace(0, 12, 800).astype(np.uint8)[None, :, None]
    rgb[50:450, 50:450] = texture((400, 400), coarse=False)
    rgb[550:556, 700:706] = 40
    mask = find_tissue(
        Stain.of("HE", open_slide(write_slide(tmp_path / "a.ome.tif", rgb, 2.0)))
    ).mask
    assert mask.sum() == pytest.approx(100 * 100, rel=0.05)
    assert not mask[:, 120:].any()


def test_blank_glass_is_an_error(tmp_path: Path) -> None:
    slide = open_slide(
        write_slide(tmp_path / "blank.ome.tif", np.full((500, 500, 3), GLASS, np.uint8))
    )
    with pytest.raises(SlideError, match="No tissue was found on blank"):
        find_tissue(Stain.of("HE", slide))


def test_smear_beside_a_real_section_is_left_out() -> None:
    slide = open_slide(shared("atlas", "liver_glycogen", "PAS.ome.tif")).with_mpp(2.0)
    mask = find_tissue(Stain.of("PAS", slide)).mask
    assert mask.mean() == pytest.approx(0.25, abs=0.05)
    # Between the arms of the V there is a smear with rings, and no tissue.
    assert not mask[250:500, 100:500].any()
