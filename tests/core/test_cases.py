"""Cases from options and from sample sheets, and what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest
from drawing import texture, write_slide

from napari_pancluster.core.cases import entries_of_options, entries_of_sheet, make_cases
from napari_pancluster.core.errors import InputError, PanclusterError


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
