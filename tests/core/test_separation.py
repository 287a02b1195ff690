"""Stain vectors, the pictures of single dyes, and slides of one stain brought to one strength."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawing import GLASS, shared, write_slide
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_pancluster.core.config import TissueConfig
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.separation import (
    STANDARD,
    StainVectors,
    component_pyramid,
    estimate,
    macenko,
    od_gain,
    separate,
    slide_gain,
    standard,
    tissue_pixels,
)
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stain import Stain, optical_density, thumbnail
from napari_pancluster.core.tissue import tissue_of_density
from napari_pancluster.core.tissue_mask import TissueMask

_KINDS = sorted(STANDARD)
_REAL = [
    ("slides", "CMU-1-Small-Region.svs"),
    ("atlas", "liver_glycogen", "PAS.ome.tif"),
    ("landmarks", "lung_lesion1", "proSPC.jpg"),
]


def _amounts(shape: tuple[int, int], seed: int = 0) -> NDArray[np.float64]:
    """Return how much there is of two dyes, (rows, cols, 2): nuclei of one in a field of the other.

    Both are nearly pure somewhere, as nuclei and fibres are.
    """
    rng = np.random.default_rng(seed)
    noise = [gaussian_filter(rng.normal(size=shape), 3.0) for _ in range(2)]
    first, second = (n / n.std() for n in noise)
    return np.stack([0.9 * (first > 1.0), 0.5 * (first <= 1.0) * (second > -1.0)], -1)


def _slide(
    path: Path, vectors: StainVectors, strength: float = 1.0, seed: int = 0
) -> NDArray[np.float64]:
    """Write glass with an island of two dyes, 1 µm/px; return the amounts written."""
    amounts = np.zeros((900, 1100, 2))
    amounts[100:800, 150:950] = strength * _amounts((700, 800), seed)
    rgb = (GLASS + 1) * 10 ** -(amounts @ vectors.od) - 1
    write_slide(path, np.clip(np.rint(rgb), 0, 255).astype(np.uint8), 1.0)
    return amounts


def _angles(a: StainVectors, b: StainVectors) -> NDArray[np.float64]:
    return np.degrees(np.arccos(np.clip((a.od * b.od).sum(1), -1, 1)))


def _computed(level: object) -> NDArray[np.float32]:
    return np.asarray(level)


def test_standard_vectors_are_unit_and_look_like_their_dyes() -> None:
    for vectors in STANDARD.values():
        np.testing.assert_allclose(np.linalg.norm(vectors.od, axis=1), 1, atol=1e-9)
    # Ruifrok & Johnston's hematoxylin and DAB.
    np.testing.assert_allclose(
        standard("H-DAB").od, [[0.65, 0.70, 0.29], [0.27, 0.57, 0.78]], atol=0.005
    )
    red, green, blue = (int(standard("H&E").colour(0)[i : i + 2], 16) for i in (1, 3, 5))
    assert blue > red + 30 and blue > green + 30  # blue
    red, green, blue = (int(standard("H&E").colour(1)[i : i + 2], 16) for i in (1, 3, 5))
    assert red > blue + 30 > green  # pink
    red, green, blue = (int(standard("H-DAB").colour(1)[i : i + 2], 16) for i in (1, 3, 5))
    assert red > green + 30 and green > blue  # brown


def test_colour_is_the_vector_at_density_one() -> None:
    assert StainVectors.of(("x",), [[1.0, 0.0, 0.0]]).colour(0) == "#1AFFFF"
    assert StainVectors.of(("x",), [[0.0, -1.0, 1.0]]).colour(0)[:5] == "#FFFF"


def test_vectors_survive_json() -> None:
    text = json.dumps(standard("PAS").to_lists())
    back = StainVectors.from_lists(*json.loads(text))
    assert back.names == ("Hematoxylin", "PAS")
    np.testing.assert_allclose(back.od, standard("PAS").od, rtol=1e-12)


@pytest.mark.parametrize(
    ("names", "od", "message"),
    [
        (("a", "b"), [[1, 0, 0]], "do not fit"),
        (("a", "b", "c", "d"), np.ones((4, 3)), "do not fit"),
        (("a",), [[0, 0, 0]], "row of zeros"),
        (("a",), [[np.nan, 0, 1]], "row of zeros or no numbers"),
        (("a", "b"), [[1, 1, 1], [2, 2, 2.01]], "too alike"),
    ],
)
def test_vectors_that_cannot_be_are_refused(
    names: tuple[str, ...], od: NDArray[np.float64], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        StainVectors.of(names, od)


def test_unknown_kind_names_the_known_ones() -> None:
    with pytest.raises(InputError, match="no stain vectors for 'Azan'.*H&E, H-DAB, PAS"):
        standard("Azan")


@pytest.mark.parametrize("kind", _KINDS)
def test_separation_returns_the_amounts_mixed(kind: str) -> None:
    amounts = np.random.default_rng(0).uniform(0, 1, (5, 7, 2))
    found = separate(amounts @ standard(kind).od, standard(kind))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, amounts, atol=1e-5)


def test_separation_takes_one_or_three_dyes_and_is_never_negative() -> None:
    three = StainVectors.of(("H", "E", "D"), [*standard("H&E").od, standard("H-DAB").od[1]])
    amounts = np.random.default_rng(0).uniform(0, 1, (50, 3))
    np.testing.assert_allclose(separate(amounts @ three.od, three), amounts, atol=1e-4)
    one = StainVectors.of(("H",), standard("H&E").od[:1])
    np.testing.assert_allclose(separate(0.7 * one.od, one), [[0.7]], atol=1e-6)
    assert separate(standard("H-DAB").od[1], standard("H&E")).min() == 0


@pytest.mark.parametrize("kind", ["H&E", "H-DAB", "PAS", "Giemsa"])
@pytest.mark.parametrize("turned", [False, True])
def test_macenko_finds_the_dyes_in_order(kind: str, turned: bool) -> None:
    """Dyes 6° off the published ones, camera noise, glass and saturated dirt among the pixels."""
    rng = np.random.default_rng(3)
    true = StainVectors.of(
        standard(kind).names, standard(kind).od + np.array([[0, 0, 0.1], [0.06, 0, 0]])
    )
    amounts = _amounts((200, 200)).reshape(-1, 2)
    od = amounts[:, ::-1] @ true.od if turned else amounts @ true.od
    od = np.concatenate([od, np.zeros((9000, 3)), np.full((300, 3), 2.0)])
    od = od + rng.normal(0, 0.004, od.shape)
    found = macenko(od, standard(kind))
    assert found.names == standard(kind).names
    assert _angles(found, true).max() < 3
    np.testing.assert_array_equal(macenko(od, standard(kind)).od, found.od)


def test_macenko_says_what_is_missing() -> None:
    rng = np.random.default_rng(0)
    hematoxylin, eosin = standard("H&E").od
    glass = np.abs(rng.normal(0, 0.01, (20_000, 3)))
    with pytest.raises(InputError, match="Only 0 stained pixels.*standard stain vectors"):
        macenko(glass)
    with pytest.raises(InputError, match="Only 0 stained pixels"):
        macenko(np.empty((0, 3)))
    lone = rng.uniform(0.3, 1.0, (20_000, 1)) * hematoxylin + rng.normal(0, 0.005, (20_000, 3))
    with pytest.raises(InputError, match="Only one dye is seen.*standard stain vectors"):
        macenko(lone)
    magenta = _amounts((200, 200)).reshape(-1, 2) @ standard("PAS").od
    with pytest.raises(InputError, match="No DAB is seen"):
        macenko(magenta, standard("H-DAB"))
    three = StainVectors.of(("H", "E", "D"), [hematoxylin, eosin, standard("H-DAB").od[1]])
    with pytest.raises(InputError, match="Two dyes are found by colour, not 3"):
        macenko(lone, three)


def test_blue_slide_whose_edges_are_grey_has_no_dab() -> None:
    """A negative immunostain: hematoxylin alone, and the grey of refracting edges."""
    amounts = _amounts((200, 200)).reshape(-1, 2)
    od = amounts @ [standard("H-DAB").od[0], np.ones(3) / np.sqrt(3)]
    with pytest.raises(InputError, match="No DAB is seen"):
        macenko(od, standard("H-DAB"))


@pytest.mark.parametrize("kind", ["H&E", "H-DAB", "PAS"])
def test_estimate_from_a_slide(tmp_path: Path, kind: str) -> None:
    _slide(tmp_path / "a.ome.tif", standard(kind))
    stain = Stain.of(kind, open_slide(tmp_path / "a.ome.tif"))
    found = estimate(stain, kind=kind)
    assert _angles(found, standard(kind)).max() < 3
    np.testing.assert_array_equal(estimate(stain, kind=kind).od, found.od)
    assert (estimate(stain, kind=kind, seed=1).od != found.od).any()
    without_size = stain.with_mpp(None)
    assert _angles(estimate(without_size, kind=kind), standard(kind)).max() < 3


def test_tissue_pixels_come_from_the_tissue_given_and_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb = np.full((2000, 2400, 3), GLASS, np.uint8)
    rgb[200:1800, 200:1000] = (200, 100, 150)
    rgb[200:1800, 1400:2200] = (120, 120, 200)
    slide = open_slide(write_slide(tmp_path / "a.ome.tif", rgb, 1.0, levels=4))
    right = np.zeros((250, 300), bool)
    right[40:210, 190:260] = True
    stain = Stain.of("HE", slide)
    read: list[int] = []
    plain = type(slide).read_level

    def counted(self: object, level: int, top: int, left: int, rows: int, cols: int) -> object:
        read.append(rows * cols)
        return plain(slide, level, top, left, rows, cols)

    monkeypatch.setattr(type(slide), "read_level", counted)
    od = tissue_pixels(stain, TissueMask(right, 8.0))
    blue = optical_density(np.array([120.0, 120, 200]), stain.background)
    assert np.abs(od - blue).max(axis=1).mean() < 0.01
    # 96 patches of 128 px and their margins.
    assert len(read) <= 96 and sum(read) < 96 * 140**2


def test_without_tissue_or_colour_it_says_so(tmp_path: Path) -> None:
    blank = np.full((500, 500, 3), GLASS, np.uint8)
    stain = Stain.of("HE", open_slide(write_slide(tmp_path / "blank.ome.tif", blank, 1.0)))
    with pytest.raises(InputError, match="blank.ome.tif.*no tissue.*standard stain vectors"):
        estimate(stain)
    with pytest.raises(InputError, match="no dye number 3 of 2"):
        component_pyramid(stain, standard("H&E"), 2)


def test_component_is_lazy_and_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    amounts = _slide(tmp_path / "a.ome.tif", standard("H-DAB"))
    stain = Stain.of("Ki67", open_slide(tmp_path / "a.ome.tif"))
    kind = type(stain.slide)
    plain = kind.read_level
    reads: list[int] = []

    def counted(self: object, *at: int) -> object:
        reads.append(at[0])
        return plain(stain.slide, *at)

    monkeypatch.setattr(kind, "read_level", counted)
    pyramid = component_pyramid(stain, standard("H-DAB"), 1)
    assert not reads
    assert [level.shape for level in pyramid] == [lv.shape for lv in stain.slide.levels]
    assert all(level.dtype == np.float32 for level in pyramid)
    assert pyramid[0].chunks == stain.slide.data[0].chunks[:2]
    dab = _computed(pyramid[0])
    assert dab.shape == (900, 1100) and dab.dtype == np.float32
    # 8 bits: a grey value at OD 1 is 0.02.
    assert np.abs(dab - amounts[..., 1]).max() < 0.03
    np.testing.assert_allclose(
        _computed(component_pyramid(stain, standard("H-DAB"), 0)[0]), amounts[..., 0], atol=0.03
    )
    reads.clear()
    _computed(pyramid[0][:100, :100])
    assert len(reads) == 1


def test_component_of_a_16_bit_slide(tmp_path: Path) -> None:
    amounts = 0.8 * _amounts((300, 400))
    rgb = 60_000 * 10 ** -(amounts @ standard("H&E").od)
    tifffile.imwrite(
        tmp_path / "deep.tif", rgb.astype(np.uint16), photometric="rgb", tile=(256, 256)
    )
    stain = Stain.of("HE", open_slide(tmp_path / "deep.tif"))
    white = 60_000 / stain.slide.full_scale * 255
    eosin = component_pyramid(replace(stain, background=(white, white, white)), standard("H&E"), 1)[
        0
    ]
    np.testing.assert_allclose(_computed(eosin), amounts[..., 1], atol=0.02)


def test_grey_slide_has_no_dyes_and_keeps_its_strength(tmp_path: Path) -> None:
    grey = np.random.default_rng(0).integers(0, 255, (300, 300)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "grey.tif", grey, tile=(256, 256))
    stain = Stain.of("DAPI", open_slide(tmp_path / "grey.tif"))
    with pytest.raises(InputError, match="grey.tif .stain DAPI. is no RGB brightfield slide"):
        estimate(stain)
    with pytest.raises(InputError, match="no RGB brightfield slide"):
        component_pyramid(stain, standard("H&E"), 0)
    assert slide_gain(stain) == 1.0


def _meet(pale: Stain, dark: Stain) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return by which share the channels' medians of two scans differ, before and after the gain.

    Every scan finds its own tissue and draws its own patches for its gain; the medians are those
    of the same pixels of both, tissue of the dark one.
    """
    od = [s.read_od(s.slide.extent, 4.0) for s in (pale, dark)]
    seen = tissue_of_density(od[1], TissueConfig(mpp=4.0))
    medians = [np.median(o[seen], axis=0) for o in od]
    gains = [od_gain(tissue_pixels(s, seed=i)) for i, s in enumerate((pale, dark))]
    after = gains[1] * medians[1] / (gains[0] * medians[0])
    return medians[1] / medians[0] - 1, np.abs(after - 1)


def test_pale_and_dark_scan_of_a_drawn_stain_meet(tmp_path: Path) -> None:
    stains = []
    for name, strength in (("pale", 0.6), ("dark", 1.3)):
        _slide(tmp_path / f"{name}.ome.tif", standard("H&E"), strength)
        stains.append(Stain.of(name, open_slide(tmp_path / f"{name}.ome.tif")))
    before, after = _meet(*stains)
    assert before.min() > 0.3
    assert after.max() < 0.05


@pytest.mark.parametrize("parts", _REAL, ids=lambda p: p[-1])
def test_pale_and_dark_scan_of_a_real_slide_meet(tmp_path: Path, parts: tuple[str, ...]) -> None:
    slide = open_slide(shared(*parts)).with_mpp(1.0)
    image = thumbnail(slide, 1500)
    glass = np.array(Stain.of("x", slide).background) + 1
    middle = od_gain(tissue_pixels(Stain.of("x", slide)))
    stains = []
    for name, strength in (("pale", 0.75 * middle), ("dark", 1.35 * middle)):
        # Over one white glass, so that glass is glass at any strength.
        rgb = (GLASS + 1) * (np.minimum(image + 1, glass) / glass) ** strength - 1
        path = tmp_path / f"{name}.ome.tif"
        write_slide(path, np.clip(np.rint(rgb), 0, 255).astype(np.uint8), 2.0)
        stains.append(Stain.of(name, open_slide(path)))
    before, after = _meet(*stains)
    assert before.min() > 0.3
    assert after.max() < 0.05


def test_gain_is_bounded_and_needs_stain() -> None:
    eosin = standard("H&E").od[1]
    amounts = np.random.default_rng(0).uniform(0.2, 0.6, (5000, 1))
    strong, weak = od_gain(4 * amounts * eosin), od_gain(0.25 * amounts * eosin)
    assert (strong, weak) == (0.5, 2.0)
    assert od_gain(np.zeros((0, 3))) == 1.0
    assert od_gain(np.full((100, 3), 0.01)) == 1.0
    # Lumina and air in the tissue do not count.
    airy = np.concatenate([amounts * eosin, np.zeros((15_000, 3))])
    assert od_gain(airy) == pytest.approx(od_gain(amounts * eosin), rel=0.05)


def test_dyes_of_a_real_dab_slide() -> None:
    stain = Stain.of("proSPC", open_slide(shared("landmarks", "lung_lesion1", "proSPC.jpg")))
    found = estimate(stain, kind="H-DAB")
    assert _angles(found, standard("H-DAB")).max() < 20
    # Epithelium of the lesion is brown, its rim and the normal lung are blue.
    dab = _computed(component_pyramid(stain, standard("H-DAB"), 1)[0])
    assert np.median(dab[450:600, 500:800]) > 2 * np.median(dab[60:100, 400:800])


def test_dyes_of_a_real_he_slide() -> None:
    stain = Stain.of("HE", open_slide(shared("slides", "CMU-1-Small-Region.svs")))
    assert _angles(estimate(stain, kind="H&E"), standard("H&E")).max() < 20
