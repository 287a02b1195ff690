"""Slides: formats told by content, and reads that are exact to half a pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawing import shared, texture, write_slide
from PIL import Image

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stain import Stain, optical_density, thumbnail


def ramp(rows: int, cols: int) -> np.ndarray:
    """An image whose value is linear in place, so that any exact read is known."""
    r, c = np.mgrid[:rows, :cols] + 0.5
    return np.stack([r / 4, c / 4, (r + c) / 8], -1)


@pytest.mark.parametrize("levels", [1, 3])
def test_read_gives_pixel_centres_at_any_pixel_size_and_place(tmp_path: Path, levels: int) -> None:
    values = np.round(ramp(512, 640)).astype(np.uint8)
    slide = open_slide(write_slide(tmp_path / "ramp.ome.tif", values, 0.5, levels=levels))
    for mpp in (0.5, 0.8, 1.0, 1.7, 4.0):
        region = Region(40.3, 33.1, 48 * mpp, 40 * mpp)
        read = slide.read(region, mpp)
        rows = (region.top + (np.arange(48) + 0.5) * mpp) / 0.5
        cols = (region.left + (np.arange(40) + 0.5) * mpp) / 0.5
        assert read.shape == (48, 40, 3)
        # Rounding to whole grey values costs at most half a level on each pixel.
        assert np.abs(read[..., 0] - rows[:, None] / 4).max() < 0.6
        assert np.abs(read[..., 1] - cols[None, :] / 4).max() < 0.6


def test_whole_pixels_come_back_untouched(tmp_path: Path) -> None:
    values = texture((300, 400), coarse=False)
    slide = open_slide(write_slide(tmp_path / "a.ome.tif", values, 0.5))
    region = Region.of_pixels(top=20, left=31, rows=64, cols=50, mpp=0.5)
    assert np.array_equal(slide.read(region, 0.5), values[20:84, 31:81])
    # A hair beside them they are averaged, which comes to the same, at the edge, too.
    for top, left in ((20, 31), (-9, 380), (290, -30)):
        region = Region.of_pixels(top=top, left=left, rows=64, cols=50, mpp=0.5)
        beside = Region(region.top + 1e-5, region.left, region.height, region.width)
        assert np.allclose(slide.read(region, 0.5), slide.read(beside, 0.5), atol=0.01)


def test_a_block_reads_the_same_whatever_was_read_with_it(tmp_path: Path) -> None:
    slide = open_slide(write_slide(tmp_path / "a.ome.tif", texture((600, 600), coarse=False), 0.5))
    whole = slide.read(slide.extent, 1.5)
    part = slide.read(Region(75, 90, 60, 45), 1.5)
    assert np.allclose(part, whole[50:90, 60:90], atol=1e-3)


def test_outside_the_slide_is_white(tmp_path: Path) -> None:
    slide = open_slide(write_slide(tmp_path / "a.ome.tif", np.zeros((64, 64, 3), np.uint8), 1.0))
    read = slide.read(Region(-10, -10, 84, 84), 1.0)
    assert (read[:10] == 255).all() and (read[-10:] == 255).all()
    assert (read[10:-10, 10:-10] == 0).all()
    assert (slide.read(Region(500, 500, 10, 10), 1.0) == 255).all()


def test_lazy_levels_hold_the_stored_pixels(tmp_path: Path) -> None:
    values = texture((700, 900), coarse=False)
    slide = open_slide(write_slide(tmp_path / "a.ome.tif", values, 0.5, levels=2))
    assert [level.shape for level in slide.levels] == [(700, 900), (350, 450)]
    assert np.array_equal(slide.data[0].compute(), values)
    assert slide.data[1].shape == (350, 450, 3)


def test_the_content_tells_the_format_not_the_name(tmp_path: Path) -> None:
    image = Image.fromarray(texture((90, 120), coarse=True))
    image.save(tmp_path / "slide.png")
    (tmp_path / "slide.png").rename(tmp_path / "slide.svs")
    slide = open_slide(tmp_path / "slide.svs")
    assert (slide.format, slide.shape, slide.mpp) == ("png", (90, 120), None)


@pytest.mark.parametrize(
    ("name", "content"),
    [("empty.svs", b""), ("text.tif", b"not a slide"), ("cut.tif", b"II*\0\x08\0\0\0\xff\xff")],
)
def test_what_is_no_slide_is_one_clear_line(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SlideError, match=name) as error:
        open_slide(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_truncated_slide_is_a_slide_error(tmp_path: Path) -> None:
    path = write_slide(tmp_path / "a.ome.tif", texture((600, 600), coarse=False))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(SlideError, match="a.ome.tif"):
        slide = open_slide(path)
        slide.read(slide.with_mpp(1.0).extent, 1.0)


def test_missing_file_and_missing_pixel_size_are_named(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="nowhere.svs does not exist"):
        open_slide(tmp_path / "nowhere.svs")
    slide = open_slide(write_slide(tmp_path / "a.ome.tif", texture((64, 64), coarse=True), None))
    with pytest.raises(SlideError, match="has no pixel size"):
        _ = slide.extent


def test_optical_density_follows_lambert_beer() -> None:
    od = optical_density(np.array([[[243.0, 24.3, 0.0]]]), (243.0, 243.0, 243.0))
    assert od[0, 0] == pytest.approx([0, 0.984, 2.0], abs=2e-3)


def test_background_is_the_glass(islands: Path, two_tissues: Path) -> None:
    assert Stain.of("HE", open_slide(islands)).background == pytest.approx((243, 243, 243), abs=1)
    # Tissue from edge to edge: no glass to measure.
    assert Stain.of("HE", open_slide(two_tissues)).background == (245, 245, 245)


def test_thumbnail_needs_no_pixel_size(tmp_path: Path) -> None:
    slide = open_slide(write_slide(tmp_path / "a.ome.tif", texture((400, 800), coarse=True), None))
    assert thumbnail(slide, 200).shape == (100, 200, 3)


def test_real_slides_are_read_whatever_their_extension() -> None:
    svs = open_slide(shared("slides", "CMU-1-Small-Region.svs"))
    assert (svs.shape, svs.mpp) == ((2967, 2220), 0.499)
    liar = open_slide(shared("slides", "N1_BB_563479_1.ndpi"))
    assert (liar.format, liar.mpp, len(liar.levels)) == ("tiff", None, 6)
    with pytest.raises(SlideError, match="broken.svs"):
        open_slide(shared("slides", "broken.svs"))
    ome = open_slide(shared("atlas", "liver_glycogen", "HE.ome.tif"))
    assert len(ome.levels) == 4


def test_what_is_no_number_in_a_float_slide_reads_as_glass(tmp_path: Path) -> None:
    pixels = np.full((64, 64, 3), 0.4, np.float32)
    pixels[:, :32] = np.nan
    pixels[:, 32:40] = -np.inf
    tifffile.imwrite(tmp_path / "float.tif", pixels, photometric="rgb", resolution=(20000, 20000))
    slide = open_slide(tmp_path / "float.tif")
    read = slide.read(slide.extent, slide.um_per_px)
    assert np.allclose(read[:, :40], 255) and np.allclose(read[:, 40:], 0.4 * 255, atol=0.1)
    assert np.isfinite(slide.read(slide.extent, 4 * slide.um_per_px)).all()
