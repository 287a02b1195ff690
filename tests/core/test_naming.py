"""Names proposed for stains and cases, on file names as labs write them."""

from __future__ import annotations

import random
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from drawing import SHARED, shared
from numpy.typing import NDArray

from napari_pancluster.core.cases import _NAME
from napari_pancluster.core.naming import (
    propose_case,
    propose_stain,
    propose_stains,
    stain_of_colours,
)
from napari_pancluster.core.separation import standard
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stain import thumbnail

_ONE = [
    ("KPC12_HE.svs", "HE"),
    ("KPC12_CK19.svs", "CK19"),
    ("KPC12-H&E_20x.ndpi", "HE"),
    ("Fall 12 H+E - 2021-03-04 10.22.33.ndpi", "HE"),
    ("S21-12345 A1 Ki-67 (MIB1) - 2021-03-04 10.22.33.ndpi", "Ki67"),
    ("liverHE.ome.tif", "HE"),
    ("膵癌_症例3_HE染色.ndpi", "HE"),
    ("症例12 マッソン・トリクローム.svs", "Masson"),
    ("症例12 ＨＥ.svs", "HE"),
    ("肝PAS染色_20x.tif", "PAS"),
    ("m12_PAS-D.ome.tif", "PASD"),
    ("m12_PASD.svs", "PASD"),
    ("m12_PAS_D12.svs", "PAS"),
    ("m12 D PAS.svs", "PAS"),
    ("m3_CD3_1.svs", "CD3"),
    ("m3_CD31_1.svs", "CD31"),
    ("m3_CD_31.svs", "CD31"),
    ("CD 45 KPC3.tif", "CD45"),
    ("CD11b.tif", "CD11b"),
    ("alpha-SMA_x.svs", "aSMA"),
    ("αSMA.svs", "aSMA"),
    ("SMA 40x.svs", "SMA"),
    ("CK7-p40.ome.tif", "CK7-p40"),
    ("CD3_CD20 m1.svs", "CD3-CD20"),
    ("P53_HE.svs", "HE"),
    ("P53_CK7.svs", "CK7"),
    ("case_p53.svs", "p53"),
    ("F4-80_m2.svs", "F4-80"),
    ("F480.svs", "F4-80"),
    ("proSPC.jpg", "proSPC"),
    ("CC10.jpg", "CC10"),
    ("Ki67.jpg", "Ki67"),
    ("giemsa.ome.tif", "Giemsa"),
    ("KPC12_DAPI.tif", "DAPI"),
    ("KPC12_FOXP3.tif", "FOXP3"),
    ("KPC12_FoxP3.tif", "FoxP3"),
    ("KPC12_ERG.tif", "ERG"),
    ("KPC12_TOM20.tif", "TOM20"),
    ("Picro-Sirius_Red 12.tif", "Sirius red"),
    ("SiriusRed_12.tif", "Sirius red"),
    ("12 Alcian blue.tif", "Alcian blue"),
    ("12_MT.tif", "Masson"),
    ("MT12_HE.svs", "HE"),
    (
        "TCGA-AA-3488-01Z-00-DX1.5b3a1c2d-1111-2222-3333-444455556666.svs",
        "TCGA-AA-3488-01Z-00-DX1.5b3a1c2d-1111-2222-3333-444455556666",
    ),
    ("A_BB_563479_1.svs", "A_BB_563479_1"),
    ("N1_BB_563479_1.ndpi", "N1_BB_563479_1"),
    ("CMU-1-Small-Region.svs", "CMU-1-Small-Region"),
    ("tumor_001.tif", "tumor_001"),
    ("CK5-6_p1.svs", "CK5-6"),
    ("CK5_6.svs", "CK5-6"),
    ("PD-L1 (22C3) S21-1.svs", "PD-L1"),
    ("S21-1234_A1-1_TTF1 (SP141).svs", "TTF1"),
    ("E-Cadherin_12.svs", "E-cadherin"),
    ("KPC12HE.svs", "HE"),
    ("KPC12CD31.svs", "CD31"),
    ("the mouse is here.tif", "the mouse is here"),
    ("H_E.svs", "HE"),
    ("Hematoxylin and Eosin.svs", "HE"),
    ("S20-1_HER2.svs", "HER2"),
    ("KPC_12_MUC5AC.svs", "MUC5AC"),
    ("G12D_Sox9.svs", "Sox9"),
    (".svs", "svs"),
    ("###.svs", "stain"),
    ("m1_HES.svs", "HE"),
    ("m1_masson_trichrome_10X.svs", "Masson"),
    ("PAS diastase 3.svs", "PASD"),
    ("20210304_HE_001.svs", "HE"),
    ("HE (1).svs", "HE"),
    ("AB-PAS 3.svs", "AB-PAS"),
    ("S100_12.svs", "S100"),
    ("HE-3.svs", "HE"),
    ("CD34-2.svs", "CD34"),
    ("CD3-4.svs", "CD3"),
    ("B-catenin 3.tif", "b-catenin"),
    ("γH2AX m1.tif", "gH2AX"),
    ("anti-CD8 m1.tif", "CD8"),
    ("CD8a_m1.tif", "CD8a"),
    ("HE_KrasG12D_m1.svs", "HE"),
    ("HE_liver_met.svs", "HE"),
    ("P16_HE.svs", "HE"),
    ("m1 Kras p53.svs", "p53"),
    ("KPC-p53flox_HE_2.svs", "HE"),
    ("Case 3 - CK19 (RCK108).svs", "CK19"),
    ("Präparat 4 Masson.svs", "Masson"),
    ("m1 Ki67 DAB.svs", "Ki67"),
    ("22-1234-A-2_CD8_C8-144B.svs", "CD8"),
    ("slide1.svs", "slide1"),
    ("1M01.mrxs", "1M01"),
    ("2021-03-04_09-11-12_KPC7_SiriusRed.czi", "Sirius red"),
    ("S2020 12345 CD 138.svs", "CD138"),
    ("IHC_CD68_KP1.svs", "CD68"),
    ("KPC12 - HE #2.svs", "HE"),
    ("PanCK AE1AE3.svs", "panCK"),
    ("Cytokeratin 7 m3.svs", "CK7"),
    ("Pan-CK_1.svs", "panCK"),
    ("FOXP3_CD8_m4.tif", "FOXP3-CD8"),
    ("colon_HE_roi1.png", "HE"),
    ("HER2.svs", "HER2"),
    ("HE2.svs", "HE"),
    ("CK19-HE.svs", "HE"),
    ("ヘマトキシリン・エオジン染色 12.ndpi", "HE"),
    ("Ki６７.svs", "Ki67"),
]

# File names of a case, their stains, the case ("": not asked).
_CASES = [
    (["KPC12_HE.svs", "KPC12_CK19.svs"], ["HE", "CK19"], "KPC12"),
    (["d/KPC12_ERG.svs", "d/KPC12_HE.svs", "d/KPC12_Foo.svs"], ["ERG", "HE", "Foo"], "KPC12"),
    (["S21-12345 A1 HE.ndpi", "S21-12345 A1 CK 7.ndpi"], ["HE", "CK7"], "S21-12345 A1"),
    (["HE_KPC12.svs", "CK7_KPC12.svs"], ["HE", "CK7"], "KPC12"),
    (["blockA/HE.svs", "blockA/CK7.svs"], ["HE", "CK7"], "blockA"),
    (["x/KPC1_HE.svs", "x/KPC12_HE.svs"], ["HE", "HE 2"], "x"),
    (["x/P53_HE.svs", "x/P53_CK7.svs"], ["HE", "CK7"], "P53"),
    (["x/m1_p53_AAA.svs", "x/m1_p53_HE.svs"], ["AAA", "HE"], "m1"),
    (["x/12_ERG_003.svs", "x/12_HE_004.svs"], ["ERG", "HE"], "12"),
    (["x/KPC12.svs", "x/KPC13.svs"], ["KPC12", "KPC13"], "x"),
    (["x/tumor_001.tif", "x/normal_002.tif"], ["tumor_001", "normal_002"], "x"),
    (["x/Slide_HE.svs", "x/Slide_CK7.svs"], ["HE", "CK7"], "x"),
    (["x/症例3_HE染色.svs", "x/症例3_PAS染色.svs"], ["HE", "PAS"], "症例3"),
    (["x/KPC12HE.svs", "x/KPC12CD31.svs"], ["HE", "CD31"], "KPC12"),
    (
        ["x/Fall 12 - HE - 2021-03-04 10.22.33.ndpi", "x/Fall 12 - PAS - 2021-03-05 11.22.33.ndpi"],
        ["HE", "PAS"],
        "Fall 12",
    ),
    (
        ["x/KPC12_liver_HE_20x.svs", "x/KPC12_liver_TOM20_20x.svs", "x/KPC12_liver_COX4_20x.svs"],
        ["HE", "TOM20", "COX4"],
        "KPC12_liver",
    ),
    (["x/KPC12_a.svs", "x/KPC12_b.svs"], ["KPC12_a", "KPC12_b"], "KPC12"),
    (["x/KPC12_HE.svs", "x/KPC13_HE.svs", "x/KPC12_Foo.svs"], ["HE", "HE 2", "Foo"], "x"),
    (
        ["x/A_BB_563479_1.svs", "x/N1_BB_563479_1.ndpi"],
        ["A_BB_563479_1", "N1_BB_563479_1"],
        "BB_563479_1",
    ),
    (["HE.svs"], ["HE"], ""),
    (["/a/b c/HE.svs"], ["HE"], "b c"),
    (["/HE.svs"], ["HE"], "case"),
    (["x/KPC12_HE.svs"], ["HE"], "KPC12"),
    (["x/CMU-1-Small-Region.svs"], ["CMU-1-Small-Region"], "CMU-1-Small-Region"),
    (["x/m7_HE_1.svs", "x/m7_HE_2.svs"], ["HE", "HE 2"], "m7"),
    (
        ["x/lung 1 CD3.svs", "x/lung 1 CD34.svs", "x/lung 1 CD31.svs"],
        ["CD3", "CD34", "CD31"],
        "lung 1",
    ),
]


@pytest.mark.parametrize(("name", "stain"), _ONE)
def test_stain_of_a_file_name(name: str, stain: str) -> None:
    assert propose_stain(Path("folder", name)) == stain


@pytest.mark.parametrize(("names", "stains", "case"), _CASES)
def test_stains_and_case_of_file_names(names: list[str], stains: list[str], case: str) -> None:
    paths = [Path(n) for n in names]
    assert propose_stains(paths) == stains
    if case:
        assert propose_case(paths) == case


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("x/HE_1.svs", "x"),
        ("x/Case 3 - CK19 (RCK108).svs", "Case 3"),
        ("x/P16_HE.svs", "P16"),
        ("x/2021-03-04_09-11-12_KPC7_SiriusRed.czi", "KPC7"),
        ("x/S2020 12345 CD 138.svs", "S2020 12345"),
        ("x/KPC12HE.svs", "KPC12"),
        ("x/膵癌_症例3_HE染色.ndpi", "膵癌_症例3"),
        ("mouse 4/slide_HE.svs", "mouse 4"),
    ],
)
def test_case_of_one_file(name: str, case: str) -> None:
    assert propose_case([Path(name)]) == case


def test_names_from_a_mac_are_composed() -> None:
    path = Path(unicodedata.normalize("NFD", "症例1_ギムザ.svs"))
    assert propose_stain(path) == "Giemsa"
    assert _NAME.fullmatch(propose_stain(Path(unicodedata.normalize("NFD", "がん.svs"))))


def test_a_taken_name_gets_a_number() -> None:
    assert propose_stain(Path("a_HE.svs"), taken=["HE"]) == "HE 2"
    assert propose_stain(Path("a_HE.svs"), taken=["he", "HE 2"]) == "HE 3"
    three = [Path(f"m1_HE_{i}.svs") for i in range(3)]
    assert propose_stains(three, taken=["HE"]) == ["HE 2", "HE 3", "HE 4"]


def test_every_proposal_is_a_valid_and_different_name() -> None:
    rng = random.Random(0)
    signs = "aZ09 _-.+&()#%~[]{}'・αµ膵ＨＥ\u0301\u200b"
    words = ["HE", "CK7", "(", "2021-03-04", "20x", "-", "_", "..", "ome.tif", "p53", "スライド"]
    for _ in range(1500):
        names = [
            "".join(rng.choice([*signs, *words]) for _ in range(rng.randint(1, 12))) + ".svs"
            for _ in range(rng.randint(1, 4))
        ]
        paths = [Path("/data/#1 case") / n for n in names]
        found = propose_stains(paths)
        for name in (*found, propose_case(paths)):
            assert _NAME.fullmatch(name), (names, name)
        assert len({n.casefold() for n in found}) == len(found)


def _picture(od: NDArray[np.float64], share: float = 0.5) -> NDArray[np.float64]:
    """Return a picture whose left `share` has these optical densities (colours, 3), mixed."""
    image = np.full((60, 100, 3), 243.0)
    cols = round(100 * share)
    rng = np.random.default_rng(0)
    image[:, :cols] = 244 * 10 ** -od[rng.integers(0, len(od), (60, cols))] - 1
    return image


def test_stain_of_drawn_colours() -> None:
    hematoxylin, eosin = standard("H&E").od
    dab, pas = standard("H-DAB").od[1], standard("PAS").od[1]
    assert stain_of_colours(_picture(np.stack([0.8 * hematoxylin, *[0.5 * eosin] * 4]))) == "HE"
    assert stain_of_colours(_picture(np.stack([0.6 * dab, *[0.4 * hematoxylin] * 9]))) == "IHC"
    assert stain_of_colours(_picture(np.stack([0.3 * hematoxylin, *[0.6 * pas] * 4]))) == "PAS"
    # Blue alone may be anything; so may a speck, an empty slide and fluorescence.
    assert stain_of_colours(_picture(0.5 * hematoxylin[None])) == ""
    assert stain_of_colours(_picture(np.stack([0.6 * dab, 0.4 * hematoxylin]), 0.005)) == ""
    assert stain_of_colours(_picture(eosin[None], 0.0)) == ""
    assert stain_of_colours(np.random.default_rng(0).uniform(0, 30, (60, 100, 3))) == ""


def test_colours_count_only_where_the_name_is_silent() -> None:
    pink = _picture(0.5 * standard("H&E").od[1:])
    assert propose_stain(Path("scan 0001.svs"), pink) == "HE"
    assert propose_stain(Path("m1_CD31.svs"), pink) == "CD31"
    paths = [Path("0001.svs"), Path("0002.svs"), Path("0003.svs")]
    assert propose_stains(paths, [pink, None, pink]) == ["HE", "0002", "HE 2"]


@pytest.mark.parametrize(
    "parts",
    [
        ("slides", "CMU-1-Small-Region.svs"),
        ("atlas", "liver_glycogen", "HE.ome.tif"),
        ("atlas", "pancreas_adenosquamous", "HE.ome.tif"),
        ("atlas", "stomach_hpylori", "HE.ome.tif"),
        ("landmarks", "lung_lesion1", "HE.jpg"),
        ("landmarks", "lung_lesion3", "HE.jpg"),
    ],
    ids=lambda p: p[-2],
)
def test_real_he_is_told_by_its_colours(parts: tuple[str, ...]) -> None:
    assert propose_stain(Path("0001.svs"), thumbnail(open_slide(shared(*parts)))) == "HE"


@pytest.mark.parametrize(
    "parts",
    [
        ("atlas", "stomach_hpylori", "giemsa.ome.tif"),
        ("landmarks", "lung_lesion1", "proSPC.jpg"),
        ("landmarks", "lung_lesion3", "CD31.jpg"),
    ],
    ids=lambda p: p[-1],
)
def test_real_immunostains_and_giemsa_are_not_taken_for_he(parts: tuple[str, ...]) -> None:
    assert stain_of_colours(thumbnail(open_slide(shared(*parts)))) in ("", "IHC")


def test_real_file_names() -> None:
    folder = shared("landmarks", "lung_lesion3")
    paths = sorted(p for p in folder.iterdir() if p.suffix == ".jpg")
    assert propose_stains(paths) == ["CC10", "CD31", "HE", "Ki67", "proSPC"]
    assert propose_case(paths) == "lung_lesion3"
    liver = [SHARED / "atlas" / "liver_glycogen" / f"{n}.ome.tif" for n in ("HE", "PAS", "PASD")]
    assert propose_stains(liver) == ["HE", "PAS", "PASD"]
    assert propose_case(liver) == "liver_glycogen"
