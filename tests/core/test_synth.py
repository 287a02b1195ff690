"""The synthetic section is a ruler: what it says of itself must be true of its pixels."""

from __future__ import annotations

import csv
import hashlib
import itertools
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, map_coordinates
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import adjusted_rand_score
from sklearn.model_selection import cross_val_score
from sklearn.preprocessing import StandardScaler

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.progress import Progress, run
from napari_pancluster.core.synth.draw import Painter
from napari_pancluster.core.synth.section import (
    POINTS,
    Section,
    SynthConfig,
    SynthResult,
    draw_section,
    one_stain_pair,
    synthesise,
)
from napari_pancluster.core.synth.texture import PAIR, STAINS, draw_banks, recipes

Array = NDArray[np.float64]

CONFIG = SynthConfig(size=701, stains=3, tissues=5, seed=4)


@dataclass(frozen=True)
class Drawn:
    config: SynthConfig
    section: Section
    result: SynthResult
    progress: list[Progress]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    """Draw a small deformed section of odd size on disk."""
    progress: list[Progress] = []
    out = tmp_path_factory.mktemp("synth") / "deep" / "section"
    result = run(synthesise(out, CONFIG), progress.append)
    return Drawn(CONFIG, draw_section(CONFIG), result, progress)


@dataclass(frozen=True)
class Patches:
    """64-px patches that lie in one type: labels (N,), mean and spread of colour (N, S, 3)."""

    labels: NDArray[np.uint8]
    means: Array
    spreads: Array


def painted(config: SynthConfig, *, px: int = 64) -> Patches:
    """Paint an undeformed section in memory and cut it in patches."""
    section = draw_section(config)
    banks = run(draw_banks(config.seed, tissues=config.tissues, stains=config.stains))
    truth = section.layout.labels
    scale = section.layout.scale
    found: list[int] = []
    corners: list[tuple[int, int]] = []
    for top in range(0, config.size - px + 1, px // 2):
        for left in range(0, config.size - px + 1, px // 2):
            part = truth[
                top // scale : (top + px) // scale, left // scale : (left + px) // scale
            ].ravel()
            counts = np.bincount(part, minlength=config.tissues + 1)
            if counts[0] == 0 and counts.max() > 0.9 * part.size:
                found.append(int(counts.argmax()))
                corners.append((top, left))
    means, spreads = [], []
    for number, (stain, warp) in enumerate(section.warps.items()):
        rng = np.random.default_rng([config.seed, 5, number])
        painter = Painter(
            section.layout, section.placement, banks[number], stain=stain, warp=warp, rng=rng
        )
        strips = range(0, config.size, 256)
        picture = np.concatenate(
            [painter.block(top, 0, min(256, config.size - top), config.size) for top in strips]
        ).astype(np.float32)
        cut = np.stack([picture[top : top + px, left : left + px] for top, left in corners])
        means.append(cut.mean(axis=(1, 2)))
        spreads.append(
            np.concatenate(
                [
                    cut.std(axis=(1, 2)),
                    *(
                        np.abs(np.diff(cut, n, axis)).mean(axis=(1, 2))
                        for axis in (1, 2)
                        for n in (1, 3)
                    ),
                    *(
                        gaussian_filter(cut, (0, width, width, 0)).std(axis=(1, 2))
                        for width in (2, 4)
                    ),
                ],
                axis=1,
            )
        )
    labels = np.array(found, np.uint8)
    return Patches(labels, np.stack(means, axis=1), np.stack(spreads, axis=1))


def read_points(path: Path) -> dict[str, Array]:
    """Return (N, 4) reference row, col, moving row, col of each moving stain."""
    points: dict[str, list[list[float]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for line in csv.DictReader(file):
            names = ("reference_y", "reference_x", "y", "x")
            points.setdefault(line["stain"], []).append([float(line[name]) for name in names])
    return {stain: np.array(rows) for stain, rows in points.items()}


def darkness(path: Path, blur: float) -> Array:
    """Return the smoothed optical density (H, W) of a slide's level 0."""
    light = tifffile.imread(path, level=0).astype(np.float64).mean(axis=-1)
    smooth: Array = gaussian_filter(-np.log10((light + 1) / 243), blur)
    return smooth


def digest(folder: Path) -> dict[str, str]:
    """Return the hash of the pixels or the text of every file of a folder."""
    hashes = {}
    for path in sorted(folder.iterdir()):
        data = tifffile.imread(path).tobytes() if path.suffix == ".tif" else path.read_bytes()
        hashes[path.name] = hashlib.sha256(data).hexdigest()
    return hashes


def test_slides_are_calibrated_jpeg_pyramids(drawn: Drawn) -> None:
    assert tuple(drawn.result.slides) == STAINS[:3]
    for stain, path in drawn.result.slides.items():
        shape = drawn.section.warps[stain].shape
        with tifffile.TiffFile(path) as tiff:
            levels = tiff.series[0].levels
            assert levels[0].shape == (*shape, 3)
            for upper, lower in itertools.pairwise(levels):
                assert lower.shape == (upper.shape[0] // 2, upper.shape[1] // 2, 3)
            assert max(levels[-1].shape) <= 256
            assert levels[0].keyframe.compression == tifffile.COMPRESSION.JPEG
            assert levels[0].keyframe.tile == (256, 256)
            pixels = ElementTree.fromstring(tiff.ome_metadata or "").find(".//{*}Pixels")
            assert pixels is not None
            assert float(pixels.attrib["PhysicalSizeX"]) == 0.5
            assert float(pixels.attrib["PhysicalSizeY"]) == 0.5
            assert pixels.attrib["PhysicalSizeXUnit"] == "µm"
            coarse = levels[1].asarray().astype(float)
            fine = levels[0].asarray()[: 2 * coarse.shape[0], : 2 * coarse.shape[1]].astype(float)
            halved = fine.reshape(coarse.shape[0], 2, coarse.shape[1], 2, 3).mean(axis=(1, 3))
            # Grey only: JPEG keeps the colour of every second pixel.
            assert np.abs((halved - coarse).mean(axis=-1)).mean() < 3
            assert np.abs((halved - coarse).mean(axis=(0, 1))).max() < 1


def test_colours_survive_the_jpeg(drawn: Drawn) -> None:
    section = drawn.section
    banks = run(draw_banks(CONFIG.seed, tissues=CONFIG.tissues, stains=CONFIG.stains))
    rng = np.random.default_rng([CONFIG.seed, 5, 0])
    painter = Painter(
        section.layout,
        section.placement,
        banks[0],
        stain="HE",
        warp=section.warps["HE"],
        rng=rng,
    )
    exact = painter.block(256, 0, 256, 512).astype(float)
    stored = tifffile.imread(drawn.result.slides["HE"], level=0)[256:512, :512].astype(float)
    assert np.abs((exact - stored).mean(axis=(0, 1))).max() < 1.5
    glass = tifffile.imread(drawn.result.slides["HE"], level=0)[:6, :200]
    assert np.all(np.abs(glass.mean(axis=(0, 1)) - 242) < 4)


def test_truth_labels_hold_every_tissue(drawn: Drawn) -> None:
    with tifffile.TiffFile(drawn.result.truth_labels) as tiff:
        labels = tiff.asarray()
        pixels = ElementTree.fromstring(tiff.ome_metadata or "").find(".//{*}Pixels")
    assert pixels is not None
    assert float(pixels.attrib["PhysicalSizeX"]) == 0.5 * drawn.section.layout.scale
    assert labels.dtype == np.uint8
    assert labels.shape == (176, 176)
    assert set(np.unique(labels)) == set(range(CONFIG.tissues + 1))
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    assert not edge.any()


@pytest.mark.parametrize(("size", "tissues"), [(4000, 14), (2000, 8), (512, 20)])
def test_layout_is_uneven_but_fair(size: int, tissues: int) -> None:
    layout = draw_section(SynthConfig(size=size, tissues=tissues)).layout
    areas = np.bincount(layout.labels.ravel(), minlength=tissues + 1)
    assert 0.65 <= areas[1:].sum() / areas.sum() <= 0.8
    assert areas[1:].max() / areas[1:].min() < 3.5
    assert np.bincount(layout.cell_labels)[1:].min() >= 2


def test_truth_labels_match_what_is_drawn(drawn: Drawn) -> None:
    density = darkness(drawn.result.slides["HE"], 4)
    scale = drawn.section.layout.scale
    labels = np.kron(drawn.section.layout.labels, np.ones((scale, scale)))[:701, :701]
    tissue, dark = labels > 0, density > 0.08
    dice = 2 * (tissue & dark).sum() / (tissue.sum() + dark.sum())
    assert dice > 0.97


def test_truth_points_match_the_drawn_slides(drawn: Drawn) -> None:
    points = read_points(drawn.result.truth_points)
    assert list(points) == ["CK19", "CD31"]
    reference = darkness(drawn.result.slides["HE"], 0)
    for stain, table in points.items():
        assert len(table) == POINTS
        fixed, moving = table[:, :2], table[:, 2:]
        warp = drawn.section.warps[stain]
        assert np.abs(warp.backward(moving) - fixed).max() < 1e-3
        picture = darkness(drawn.result.slides[stain], 0)
        # Draw the slide back by the map the points are a sample of, and ask by how much its parts
        # would still have to be moved: well below half a pixel, or a convention is wrong.
        for top, left in itertools.product((90, 350), repeat=2):
            rows, cols = np.mgrid[top : top + 256, left : left + 256] + 0.5
            there = warp.forward(np.stack([rows.ravel(), cols.ravel()], axis=1)) - 0.5
            back = map_coordinates(picture, there.T, order=1).reshape(rows.shape)
            part = reference[top : top + 256, left : left + 256]
            assert np.abs(residual_shift(part, back)).max() < 0.3


def residual_shift(first: Array, second: Array) -> Array:
    """Return the shift in px, row and col, at which two pictures correlate best."""
    spectrum = np.fft.rfft2(first - first.mean()) * np.conj(np.fft.rfft2(second - second.mean()))
    peak = np.fft.irfft2(spectrum, s=first.shape)
    best = np.array(np.unravel_index(peak.argmax(), peak.shape))
    shift = (best + np.array(peak.shape) // 2) % peak.shape - np.array(peak.shape) // 2.0
    for axis in range(2):
        line = np.moveaxis(peak, axis, 0)[:, best[1 - axis]]
        before, here, after = (line[(best[axis] + step) % line.size] for step in (-1, 0, 1))
        shift[axis] += (before - after) / (2 * (before - 2 * here + after))
    return np.asarray(shift, np.float64)


def test_warps_do_not_fold_and_keep_all_tissue() -> None:
    config = SynthConfig(size=1000, seed=9)
    section = draw_section(config)
    outline = section.layout.outline()
    mirrored = 0
    for stain, warp in section.warps.items():
        placed = warp.forward(outline)
        assert placed.min() > 0
        assert np.all(placed.max(axis=0) < warp.shape)
        rows, cols = np.arange(0, warp.shape[0], 8.0), np.arange(0, warp.shape[1], 8.0)
        down, right = warp.backward_grid(rows, cols)
        sides = [np.gradient(plane.astype(float), 8.0) for plane in (down, right)]
        area = sides[0][0] * sides[1][1] - sides[0][1] * sides[1][0]
        mirrored += int(area.mean() < 0)
        assert np.all(area * np.sign(area.mean()) > 0.2)
        grid = np.stack(np.meshgrid(rows, cols, indexing="ij"), axis=-1).reshape(-1, 2)
        exact = warp.backward(grid).reshape(*down.shape, 2)
        assert np.abs(exact - np.stack([down, right], axis=-1)).max() < 0.01
        if stain == "HE":
            assert np.allclose(exact.reshape(-1, 2), grid)
    assert mirrored >= 1


def test_undeformed_slides_lie_on_the_reference(tmp_path: Path) -> None:
    config = SynthConfig(size=512, stains=2, tissues=2, deform=False)
    result = run(synthesise(tmp_path, config))
    table = read_points(result.truth_points)["CK19"]
    assert np.allclose(table[:, :2], table[:, 2:])
    assert tifffile.imread(result.slides["CK19"]).shape == (512, 512, 3)


def test_same_seed_same_pixels(tmp_path: Path) -> None:
    config = SynthConfig(size=512, stains=2, tissues=3, seed=8)
    for name in ("a", "b"):
        run(synthesise(tmp_path / name, config))
    run(synthesise(tmp_path / "c", config.model_copy(update={"seed": 9})))
    first, second, other = (digest(tmp_path / name) for name in ("a", "b", "c"))
    del first["slides.csv"], second["slides.csv"], other["slides.csv"]
    assert first == second
    assert not set(first.values()) & set(other.values())


def test_sheet_names_every_slide(drawn: Drawn) -> None:
    with drawn.result.sheet.open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [line["stain"] for line in lines] == list(STAINS[:3])
    assert [line["reference"] for line in lines] == ["true", "false", "false"]
    assert {line["case"] for line in lines} == {"synthetic"}
    assert {line["mpp"] for line in lines} == {"0.5"}
    assert all(Path(line["path"]).is_absolute() and Path(line["path"]).exists() for line in lines)


def test_progress_counts_up(drawn: Drawn) -> None:
    assert all(0 <= progress.done <= progress.total for progress in drawn.progress)
    assert len({progress.stage for progress in drawn.progress}) == 2 + 2 * 3


@pytest.mark.parametrize("tissues", [8, 14])
def test_texture_not_colour_tells_the_types(tissues: int) -> None:
    patches = painted(SynthConfig(size=1000, tissues=tissues, seed=2, deform=False))
    for number, stain in enumerate(STAINS):
        guess = KMeans(tissues, n_init=2, random_state=0).fit_predict(patches.means[:, number])
        assert adjusted_rand_score(patches.labels, guess) <= 0.5, stain
    features = StandardScaler().fit_transform(patches.spreads.reshape(len(patches.labels), -1))
    judge = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.05)
    assert cross_val_score(judge, features, patches.labels, cv=3).mean() > 0.95


def test_the_pair_differs_in_one_stain_only() -> None:
    config = SynthConfig(size=1000, tissues=4, seed=5, deform=False)
    first, second, stain = one_stain_pair(config)
    assert stain == "Ki67"
    patches = painted(config)
    alike, unlike = (patches.labels == label for label in (first, second))
    for number, name in enumerate(STAINS):
        # Regions are stained unevenly on purpose; shares of the whole spread cancel most of that,
        # and the next test shows that the rest is equal to the last bit.
        spread = patches.spreads[:, number]
        spread = spread / spread.mean(axis=1, keepdims=True)
        noise = np.sqrt((spread[alike].var(axis=0) + spread[unlike].var(axis=0)) / 2)
        gap = np.abs(spread[alike].mean(axis=0) - spread[unlike].mean(axis=0)) / noise
        if name == stain:
            assert gap.max() > 5
        else:
            assert gap.max() < 2, name


@pytest.mark.parametrize(("stains", "stain"), [(2, "CK19"), (3, "CD31"), (4, "Ki67"), (5, "Ki67")])
def test_the_pair_shares_its_bank_in_the_other_stains(stains: int, stain: str) -> None:
    assert one_stain_pair(SynthConfig(stains=stains)) == (*PAIR, stain)
    banks = run(draw_banks(0, tissues=2, stains=stains))
    same = [bool(np.array_equal(bank[PAIR[0]], bank[PAIR[1]])) for bank in banks]
    assert same == [name != stain for name in STAINS[:stains]]


def test_with_one_stain_no_two_types_are_the_same() -> None:
    assert len({recipe.anatomy for recipe in recipes(20, 1)}) == 20
    with pytest.raises(InputError, match="2 stains"):
        one_stain_pair(SynthConfig(stains=1))


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("mine")
    for out, words in ((tmp_path, "is not empty"), (note, "folder"), (note / "x", "folder")):
        with pytest.raises(InputError, match=words) as caught:
            run(synthesise(out, CONFIG))
        assert str(out) in str(caught.value)
        assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]


def test_ome_zarr_is_refused_for_now(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ome-tiff"):
        run(synthesise(tmp_path / "new", SynthConfig(format="ome-zarr")))
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("made", [True, False])
def test_cancel_leaves_nothing(tmp_path: Path, made: bool) -> None:
    out = tmp_path if made else tmp_path / "a" / "b"
    task = synthesise(out, SynthConfig(size=512, stains=2, tissues=2))
    for progress in task:
        if progress.stage == "Drawing CK19" and progress.done:
            break
    assert (out / "HE.ome.tif").exists()
    task.close()
    assert tmp_path.exists()
    assert not list(tmp_path.iterdir())
