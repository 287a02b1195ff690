"""Cases from options and from sample sheets, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawing import GLASS, texture, write_slide
from PIL import Image, ImageCms

from napari_pancluster.core.cases import (
    SlideEntry,
    entries_of_options,
    entries_of_sheet,
    make_cases,
)
from napari_pancluster.core.errors import InputError, PanclusterError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.pipeline.opening import open_stack
from napari_pancluster.core.project import Project
from napari_pancluster.core.stack import SlideStack


@pytest.fixture
def slides(tmp_path: Path) -> Path:
    """A folder with a calibrated slide and two without a pixel size."""
    write_slide(tmp_path / "he.ome.tif", texture((64, 64), coarse=False), 0.5)
    write_slide(tmp_path / "pas.ome.tif", texture((64, 64), coarse=True), None)
    write_slide(tmp_path / "cd31.ome.tif", texture((64, 64), coarse=True), None)
    return tmp_path


def test_pixel_sizes_come_from_file_user_or_registration(slides: Path) -> None:
    options = [
        f"HE={slides}/he.ome.tif",
        f"PAS={slides}/pas.ome.tif",
        f"CD31={slides}/cd31.ome.tif",
    ]
    entries = entries_of_options(options, ["PAS=0.7", "CD31=?"], case="m1", reference="HE")
    (case,) = make_cases(entries)
    assert [(s.name, s.mpp, s.mpp_source) for s in case.stains] == [
        ("HE", 0.5, "file"),
        ("PAS", 0.7, "user"),
        ("CD31", None, "unknown"),
    ]
    (plain,) = make_cases(entries, uncalibrated=True)
    assert {(s.mpp, s.mpp_source) for s in plain.stains} == {(1.0, "uncalibrated")}


def test_a_sheet_holds_many_cases_with_relative_paths(slides: Path) -> None:
    sheet = slides / "slides.csv"
    sheet.write_text(
        "case,stain,path,mpp,reference,group\n"
        "m1,PAS,pas.ome.tif,0.4,,kpc\nm1,HE,he.ome.tif,,yes,kpc\n"
        f"m2,HE,{slides}/he.ome.tif,,,wt\n"
    )
    one, two = make_cases(entries_of_sheet(sheet))
    assert (one.name, one.reference, [s.name for s in one.stains]) == ("m1", "HE", ["PAS", "HE"])
    assert (two.name, two.reference) == ("m2", "HE")


@pytest.mark.parametrize(
    ("slide", "mpp", "message"),
    [
        (["HE=he.ome.tif", "HE=pas.ome.tif"], [], "stain 'HE' twice"),
        (["HE=none.tif"], [], "none.tif does not exist"),
        (["PAS=pas.ome.tif"], [], "is the reference and has no pixel size"),
        (["PAS=pas.ome.tif"], ["PAS=?"], "is the reference and has no pixel size"),
        (["HE=he.ome.tif"], ["HE=1000"], "'1000' of stain HE is not between"),
        (["HE=he.ome.tif"], ["HE=big"], "'big' of stain HE"),
        (["HE=he.ome.tif"], ["PAS=1"], "--mpp names 'PAS'"),
        (["he.ome.tif"], [], "is not STAIN=VALUE"),
        (["../x=he.ome.tif"], [], "cannot name a stain"),
        ([], [], "No slide was given"),
    ],
)
def test_wrong_options_are_named(
    slides: Path, slide: list[str], mpp: list[str], message: str
) -> None:
    full = [s.replace("=", f"={slides}/") for s in slide]
    with pytest.raises(PanclusterError, match=message):
        make_cases(entries_of_options(full, mpp, case="m1", reference=None))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no slide"),
        ("case,stain\nm1,HE\n", "line 2: no path"),
        ("case,stain,path\nm1,HE,he.ome.tif\nm1,HE,pas.ome.tif\n", "stain 'HE' twice"),
        (
            "case,stain,path,reference\nm1,HE,he.ome.tif,1\nm1,PAS,pas.ome.tif,1\n",
            "2 references",
        ),
    ],
)
def test_wrong_sheets_are_named(slides: Path, text: str, message: str) -> None:
    (slides / "slides.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        make_cases(entries_of_sheet(slides / "slides.csv"))
    with pytest.raises(InputError, match="cannot be read"):
        entries_of_sheet(slides / "missing.csv")


def test_a_pale_and_a_dark_scan_of_one_stain_meet(tmp_path: Path) -> None:
    tissue = texture((600, 600), coarse=False).astype(np.float64)
    entries = []
    for name, strength in (("pale", 0.65), ("dark", 1.35)):
        rgb = np.full((800, 800, 3), GLASS, np.float64)
        rgb[100:700, 100:700] = GLASS * (tissue / GLASS) ** strength
        path = write_slide(tmp_path / f"{name}.ome.tif", rgb.round().astype(np.uint8))
        entries.append(SlideEntry(name, "HE", path))
    project = Project.create(tmp_path / "p.pancluster", make_cases(entries))
    stacks = [open_stack(project, case) for case in project.state.cases]
    region = Region(100.0, 100.0, 200.0, 200.0)

    def medians(stacks: list[SlideStack]) -> np.ndarray:
        return np.array([np.median(s.read(region, 1.0).od, axis=(1, 2)) for s in stacks])

    scanned, compared = medians([s.as_scanned() for s in stacks]), medians(stacks)
    assert (scanned[1] / scanned[0] > 1.9).all()
    assert np.abs(compared[1] / compared[0] - 1).max() < 0.05
    # People see the slides as they are.
    (pale,), (dark,) = (s.pictures(("HE",), region, 1.0) for s in stacks)
    assert np.median(pale) > np.median(dark) + 20


def test_a_colour_profile_is_applied_when_asked(tmp_path: Path) -> None:
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    # A screen whose red and green are exchanged: red means green there.
    red, green = profile.index(b"rXYZ") + 4, profile.index(b"gXYZ") + 4
    profile[red : red + 4], profile[green : green + 4] = (
        profile[green : green + 4],
        profile[red : red + 4],
    )
    rgb = np.full((64, 64, 3), GLASS, np.uint8)
    rgb[20:40, 20:40] = (200, 40, 60)
    Image.fromarray(rgb).save(tmp_path / "a.png", icc_profile=bytes(profile))
    reads = []
    for asked in (False, True):
        entry = SlideEntry("case", "HE", tmp_path / "a.png", "1.0", profiled=asked)
        (case,) = make_cases([entry])
        assert case.stains[0].profiled is asked
        project = Project.create(tmp_path / f"{asked}.pancluster", (case,))
        slide = open_stack(project, case).stain("HE").slide
        reads.append(slide.read_level(0, 25, 25, 5, 5)[0, 0].tolist())
    assert reads[0] == [200, 40, 60]
    assert np.abs(np.subtract(reads[1], [40, 200, 60])).max() <= 3


def test_channels_are_named_or_numbered(tmp_path: Path) -> None:
    dyes = np.zeros((4, 300, 300), np.uint16)
    dyes[1, 50:200, 50:200] = 900
    names = {"Channel": {"Name": ["DAPI", "CD3", "CD8", "PanCK"]}}
    meta = {"axes": "CYX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0, **names}
    path = tmp_path / "if.ome.tif"
    tifffile.imwrite(path, dyes, ome=True, metadata=meta, photometric="minisblack")

    def picked(channels: str) -> tuple[int, ...]:
        (case,) = make_cases([SlideEntry("case", "IF", path, channels=channels)])
        assert case.stains[0].modality == "fluorescence"
        return case.stains[0].picked

    assert picked("") == (0, 1, 2)
    assert picked("cd8, 2") == (2, 1, 1)
    for wrong in ("CD20", "5", "1,2,3,4"):
        with pytest.raises(InputError, match=r"if\.ome\.tif"):
            picked(wrong)


@pytest.mark.parametrize(
    ("text", "mpp"), [("20x", 0.5), ("40 X", 0.25), ("10×", 1.0), ("0.3", 0.3)]
)
def test_a_pixel_size_may_be_an_objective(text: str, mpp: float, islands: Path) -> None:
    (case,) = make_cases([SlideEntry("case", "HE", islands, text)])
    assert case.stains[0].mpp == mpp


@pytest.mark.parametrize("text", ["0x", "1000", "-1", "400x", "fine"])
def test_a_pixel_size_that_cannot_be_is_refused(text: str, islands: Path) -> None:
    with pytest.raises(InputError, match="20x"):
        make_cases([SlideEntry("case", "HE", islands, text)])


def test_a_stain_of_one_case_is_read_as_it_was_scanned(islands: Path, two_tissues: Path) -> None:
    entries = [SlideEntry("one", "HE", islands), SlideEntry("one", "PAS", two_tissues)]
    (case,) = make_cases(entries)
    assert [s.gain for s in case.stains] == [1.0, 1.0]
