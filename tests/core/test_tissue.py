"""Tissue masks on drawn and on real slides: what is kept, what is left out, what is painted."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawing import GLASS, shared, texture, write_slide
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from napari_pancluster.core.config import SynthConfig, TissueConfig
from napari_pancluster.core.errors import InputError, SlideError
from napari_pancluster.core.progress import run
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.synth import synthesise
from napari_pancluster.core.tissue import find_tissue, tissue_of_density
from napari_pancluster.core.tissue_mask import TissueMask

MPP, CELL = 4.0, 8.0
SHAPE = (700, 1000)
SECTION = (slice(150, 550), slice(250, 650))
INKS = {
    "blue": (0.95, 0.75, 0.12),
    "green": (0.9, 0.25, 0.7),
    "black": (1.2, 1.2, 1.2),
    "red": (0.05, 0.85, 0.8),
}
HAEMATOXYLIN = (1.0, 0.85, 0.35)

Density = NDArray[np.float64]
Bools = NDArray[np.bool_]


def noise(shape: tuple[int, int], sigma: float, seed: int = 0) -> Density:
    """Return smooth noise of mean 0 and deviation 1."""
    grain = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)
    return grain / grain.std()


def section() -> Density:
    """Return the density (rows, cols, 3) of glass with one section on it."""
    od = np.zeros((*SHAPE, 3))
    size = (SECTION[0].stop - SECTION[0].start, SECTION[1].stop - SECTION[1].start)
    od[SECTION] = -np.log10(texture(size, coarse=False) / GLASS)
    return od


def stroke(start: tuple[float, float], end: tuple[float, float], width_um: float) -> Density:
    """Return how much of a stroke with soft edges lies on each pixel, 0 to 1."""
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    (r0, c0), (r1, c1) = start, end
    length = np.hypot(r1 - r0, c1 - c0)
    along = ((rows - r0) * (r1 - r0) + (cols - c0) * (c1 - c0)) / length
    across = np.abs((rows - r0) * (c1 - c0) - (cols - c0) * (r1 - r0)) / length
    outside = np.maximum(across, np.maximum(-along, along - length) + width_um / 2 / MPP)
    return np.clip((width_um / 2 / MPP - outside) / 4 + 0.5, 0, 1)


def cells(pale: float) -> Density:
    """Return faint ground with nuclei, (rows, cols, 3), in haematoxylin."""
    rng = np.random.default_rng(3)
    dots = np.zeros(SHAPE)
    dots[rng.integers(0, SHAPE[0], 90_000), rng.integers(0, SHAPE[1], 90_000)] = 1
    nuclei = ndimage.gaussian_filter(dots, 0.7)
    return pale * (0.5 + 0.5 * nuclei / nuclei.mean())[..., None] * np.array(HAEMATOXYLIN)


def mask_of(tmp_path: Path, od: Density, lamp: Density | float = 1.0, **options: object) -> Bools:
    """Return the mask of a drawn density, seen by a camera with noise under a lamp."""
    light = GLASS * 10**-od * np.asarray(lamp)[..., None]
    light += np.random.default_rng(9).normal(0, 1.6, od.shape)
    path = write_slide(tmp_path / "drawn.ome.tif", np.clip(light, 0, 255).astype(np.uint8), MPP)
    return find_tissue(Stain.of("HE", open_slide(path)), TissueConfig(**options)).mask


def coarse(truth: Bools) -> Bools:
    """Return a drawn truth at the pixel size of the mask."""
    step = round(CELL / MPP)
    blocks = truth.reshape(truth.shape[0] // step, step, truth.shape[1] // step, step)
    return np.asarray(blocks.mean((1, 3)) > 0.5)


def drawn_section() -> Bools:
    truth = np.zeros(SHAPE, bool)
    truth[SECTION] = True
    return coarse(truth)


def dice(mask: Bools, truth: Bools) -> float:
    return float(2 * (mask & truth).sum() / (mask.sum() + truth.sum()))


def test_islands_are_found_and_glass_is_not(islands: Path) -> None:
    tissue = find_tissue(Stain.of("HE", open_slide(islands)))
    truth = np.zeros((640, 1000), bool)
    truth[100:540, 80:460] = truth[100:540, 540:920] = True
    assert dice(tissue.mask, truth.reshape(160, 4, 250, 4).mean((1, 3)) > 0.5) > 0.97
    assert tissue.area_mm2 == pytest.approx(2 * 440 * 380 * 4e-6, rel=0.05)


def test_tissue_from_edge_to_edge_is_all_tissue(two_tissues: Path) -> None:
    assert find_tissue(Stain.of("HE", open_slide(two_tissues))).mask.mean() > 0.99


@pytest.mark.parametrize("seed", [0, 11])
def test_synthetic_sections_are_found_however_pale(tmp_path: Path, seed: int) -> None:
    config = SynthConfig(size=2400, stains=2, seed=seed, deform=False)
    result = run(synthesise(tmp_path / "section", config))
    truth = tifffile.imread(result.truth_labels) > 0
    for name, path in result.slides.items():
        stain = Stain.of(name, open_slide(path))
        for mpp in (8.0, 16.0):
            od = stain.read_od(stain.slide.extent, mpp)
            centres = ((np.arange(len(od)) + 0.5) * len(truth) / len(od)).astype(int)
            wanted = truth[np.ix_(centres, centres)]
            for gain in (1.0, 0.35):
                mask = tissue_of_density(od * np.float32(gain), TissueConfig(mpp=mpp))
                assert dice(mask, wanted) > 0.97, (name, mpp, gain)


@pytest.mark.parametrize("ink", INKS)
@pytest.mark.parametrize("where", ["beside", "touching"])
def test_pen_marks_are_left_out(tmp_path: Path, ink: str, where: str) -> None:
    col = 850.0 if where == "beside" else 690.0
    amount = stroke((60.0, col), (640.0, col - 30), 500.0)
    flow = 1 + 0.15 * noise(SHAPE, 25.0)
    od = section() + (amount * flow)[..., None] * np.array(INKS[ink])
    inked = coarse(amount > 0.5)
    kept = mask_of(tmp_path, od, leave_out_marks=False)
    assert kept[inked].mean() > 0.95, "the pen is not seen at all: the test shows nothing"
    mask = mask_of(tmp_path, od)
    # Tissue under ink is still tissue: nothing is asked of it.
    assert mask[inked & ~drawn_section()].mean() < 0.02
    clear = ~ndimage.binary_dilation(inked, iterations=8)
    assert dice(mask & clear, drawn_section() & clear) > 0.97


def test_a_pen_mark_amid_the_section_is_left_out(tmp_path: Path) -> None:
    dot = np.hypot(*(np.mgrid[: SHAPE[0], : SHAPE[1]] - np.array([350, 450])[:, None, None])) < 70
    od = section()
    # So dense an ink lets no tissue through.
    od[dot] = np.array(INKS["green"])
    mask = mask_of(tmp_path, od)
    assert mask[coarse(dot)].mean() < 0.02
    assert dice(mask, drawn_section() & ~coarse(dot)) > 0.97


def test_even_tissue_is_no_pen_mark(tmp_path: Path) -> None:
    # A clot or colloid, as even as ink: pink in a blue section, blue in a blue one.
    blue = section()[..., [1, 1, 0]]
    for even in ((0.1, 0.5, 0.25), (0.45, 0.45, 0.15)):
        od = blue.copy()
        od[200:400, 450:650] = even
        assert dice(mask_of(tmp_path, od), drawn_section()) > 0.97, even


def test_a_stained_lake_is_tissue_and_a_wide_lumen_is_not(tmp_path: Path) -> None:
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    lake, lumen = (np.hypot(rows - 350, cols - col) < 60 for col in (350, 550))
    od = section()
    od[lake | lumen] = 0
    od[lake] = np.array([0.02, 0.07, 0.03])
    mask = mask_of(tmp_path, od)
    assert mask[coarse(lake)].mean() > 0.99
    assert mask[coarse(lumen)].mean() < 0.1


def test_dust_and_a_shading_of_the_lamp_are_no_tissue(tmp_path: Path) -> None:
    rng = np.random.default_rng(4)
    od = section()
    for row, col in rng.integers(20, 130, (12, 2)):
        od[row : row + rng.integers(2, 9), col + 700 : col + 700 + rng.integers(2, 9)] = 0.9
    rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
    away = ((rows - 350) / 350) ** 2 + ((cols - 450) / 500) ** 2
    # 20 % darker in the corners is OD 0.1: more than many an immunostain has.
    mask = mask_of(tmp_path, od, lamp=1 - 0.1 * away)
    assert dice(mask, drawn_section()) > 0.97
    assert ndimage.label(mask)[1] == 1


def test_edges_of_a_coverslip_are_left_out(tmp_path: Path) -> None:
    lines = np.maximum(
        stroke((30.0, -20.0), (75.0, 1020.0), 60.0), stroke((-20.0, 930.0), (720.0, 905.0), 90.0)
    )
    od = section() + 0.45 * lines[..., None]
    drawn = coarse(lines > 0.5)
    assert mask_of(tmp_path, od, leave_out_marks=False)[drawn].mean() > 0.9
    mask = mask_of(tmp_path, od)
    assert mask[drawn].mean() < 0.05
    assert dice(mask, drawn_section()) > 0.97


def test_a_thin_strand_of_tissue_is_no_coverslip(tmp_path: Path) -> None:
    cols = np.arange(SHAPE[1])
    middle = 620 + 40 * np.sin(cols / 60)
    strand = np.abs(np.arange(SHAPE[0])[:, None] - middle) < 18
    strand &= (cols > 80) & (cols < 900)
    od = section()
    grain = 1 + 0.3 * noise(SHAPE, 1.0)
    od[strand] = (grain[..., None] * np.array([0.15, 0.45, 0.25]))[strand]
    assert mask_of(tmp_path, od)[coarse(strand)].mean() > 0.9


def net(pitch: float, wall: float) -> Density:
    """Return the walls of cells `pitch` px wide, 0 to 1, (rows, cols)."""
    rng = np.random.default_rng(5)
    rows, cols = (np.arange(0, n, pitch) for n in SHAPE)
    points = np.stack(np.meshgrid(rows, cols), -1).reshape(-1, 2)
    tree = cKDTree(points + rng.uniform(-pitch / 4, pitch / 4, points.shape))
    grid = np.stack(np.mgrid[: SHAPE[0], : SHAPE[1]], -1).reshape(-1, 2)
    near = tree.query(grid, k=2)[0].reshape(*SHAPE, 2)
    return np.clip(wall - (near[..., 1] - near[..., 0]), 0, 1)


def test_fat_is_kept(tmp_path: Path) -> None:
    # Vacuoles of about 80 µm with walls of one pixel beside the section.
    fat = np.zeros(SHAPE, bool)
    fat[150:550, 650:850] = True
    od = section() + (0.25 * net(20, 1.6) * fat)[..., None] * np.array([0.3, 1.0, 0.5])
    # Most of it is as clear as glass.
    assert (od[fat].max(-1) < 0.02).mean() > 0.8
    mask = mask_of(tmp_path, od)
    # The outermost vacuoles lie open to the glass.
    assert mask[coarse(fat)].mean() > 0.95
    assert dice(mask, drawn_section() | coarse(fat)) > 0.97


def test_a_grey_net_is_not_taken_for_a_line(tmp_path: Path) -> None:
    # Alveoli in a pale blue-grey counterstain, in a long narrow strip.
    strip = np.zeros(SHAPE, bool)
    strip[600:650, 50:950] = True
    od = section() + (0.3 * net(22, 5.0) * strip)[..., None] * np.array([1.0, 1.0, 0.8])
    assert mask_of(tmp_path, od)[coarse(strip)].mean() > 0.9


def test_a_pale_immunostain_is_kept_and_an_even_film_is_not(tmp_path: Path) -> None:
    film = np.zeros(SHAPE)
    film[100:600, 700:960] = 0.05
    film *= 1 + 0.3 * noise(SHAPE, 20.0)
    od = film[..., None] * np.array(HAEMATOXYLIN)
    od[SECTION] += cells(0.05)[SECTION]
    mask = mask_of(tmp_path, od)
    assert mask[drawn_section()].mean() > 0.97
    assert mask[coarse(film > 0.02)].mean() < 0.05


def test_pale_cells_are_kept_beside_a_strong_stain(tmp_path: Path) -> None:
    od = cells(0.05)
    outside = np.ones(SHAPE, bool)
    outside[SECTION] = False
    od[outside] = 0
    # Positive cells cover a tenth of the section.
    od[200:320, 300:430] += (
        np.array([0.25, 0.55, 0.8]) * (1 + 0.4 * noise((120, 130), 1.0))[..., None]
    )
    assert dice(mask_of(tmp_path, np.maximum(od, 0)), drawn_section()) > 0.97


def test_a_smear_beside_a_dense_section_is_left_out(tmp_path: Path) -> None:
    rows = np.arange(SHAPE[0])[:, None]
    edge = 700 + 20 * np.sin(rows / 40)
    film = (np.arange(SHAPE[1]) > edge - 60) * (0.07 + 0.025 * noise(SHAPE, 12.0))
    film = ndimage.gaussian_filter(film, 2.0)
    od = np.maximum(section(), np.maximum(film, 0)[..., None] * np.array([0.4, 1.0, 0.35]))
    mask = mask_of(tmp_path, od)
    assert mask[:, 340:].mean() < 0.02
    assert dice(mask, drawn_section()) > 0.96


def test_sensitivity_decides_over_what_is_faint(tmp_path: Path) -> None:
    od = section()
    od[150:550, 700:900] = cells(0.02)[150:550, 700:900]
    areas = [mask_of(tmp_path, od, sensitivity=s)[:, 345:].mean() for s in (0.5, 1.0, 4.0)]
    assert areas[0] < 0.1 < areas[2]
    assert areas == sorted(areas)


def test_small_pieces_and_gaps_follow_the_users_sizes(tmp_path: Path) -> None:
    od = section()
    od[330:370, 250:650] = 0  # a cleft of 160 µm
    od[600:648, 800:848] = section()[200:248, 300:348]  # a piece of 0.037 mm²
    assert ndimage.label(mask_of(tmp_path, od))[1] == 3
    assert ndimage.label(mask_of(tmp_path, od, close_um=100))[1] == 2
    assert ndimage.label(mask_of(tmp_path, od, smallest_mm2=0.05))[1] == 2


@pytest.mark.parametrize("shaded", [False, True])
def test_blank_glass_is_an_error(tmp_path: Path, shaded: bool) -> None:
    lamp = 1 - 0.15 * np.linspace(0, 1, SHAPE[1]) * np.ones(SHAPE) if shaded else 1.0
    with pytest.raises(SlideError, match="No tissue was found on drawn"):
        mask_of(tmp_path, np.zeros((*SHAPE, 3)), lamp=lamp)


def test_glass_with_only_dust_and_a_pen_mark_is_an_error(tmp_path: Path) -> None:
    od = stroke((100.0, 200.0), (600.0, 700.0), 400.0)[..., None] * np.array(INKS["blue"])
    od[50:58, 800:808] = 0.8
    with pytest.raises(SlideError, match="No tissue was found on drawn"):
        mask_of(tmp_path, od)


def test_smear_beside_a_real_section_is_left_out() -> None:
    slide = open_slide(shared("atlas", "liver_glycogen", "PAS.ome.tif")).with_mpp(2.0)
    mask = find_tissue(Stain.of("PAS", slide)).mask
    assert mask.mean() == pytest.approx(0.25, abs=0.05)
    # Between the arms of the V there is a smear with rings, and no tissue.
    assert not mask[250:500, 100:500].any()
    # The film right of the upper arm.
    assert mask[195:235, 900:].mean() < 0.1


def test_real_fat_is_kept() -> None:
    slide = open_slide(shared("labelled", "colorectal_tiles", "HE.ome.tif"))
    mask = find_tissue(Stain.of("HE", slide)).mask
    # The first row of tiles is fat, 14 mask pixels high.
    assert mask[:14].mean() > 0.9


def test_painting_returns_new_masks() -> None:
    found = TissueMask(np.eye(4, dtype=bool), 8.0)
    areas = np.zeros((4, 4), bool)
    areas[:2] = True
    painted = found.painted(areas)
    areas[3] = True
    assert painted.mask.sum() == 8
    assert found.without(areas).mask.sum() == 1
    assert found.within(areas).mask.sum() == 3
    assert found.mask.sum() == 4
    assert {m.mpp for m in (painted, found.without(areas), found.within(areas))} == {8.0}
    with pytest.raises(FrozenInstanceError):
        found.mpp = 4.0  # type: ignore[misc]


@pytest.mark.parametrize("method", ["painted", "without", "within"])
def test_areas_of_another_shape_are_refused(method: str) -> None:
    found = TissueMask(np.ones((4, 5), bool), 8.0)
    with pytest.raises(InputError, match=r"shape \(5, 4\), the tissue mask has \(4, 5\)"):
        getattr(found, method)(np.ones((5, 4), bool))
