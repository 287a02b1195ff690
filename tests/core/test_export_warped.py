"""Warped slides: the pixels that the stack shows, as a file that is whole or not there."""

from __future__ import annotations

import errno
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile
from drawing import texture, write_slide
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError, ProjectError
from napari_pancluster.core.export import warped
from napari_pancluster.core.export.warped import export_warped
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.progress import run
from napari_pancluster.core.readers.base import Facts, Level
from napari_pancluster.core.slide import Slide, open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform

# Odd, and one row beyond two tiles.
ROWS, COLS, MPP = 1025, 1239, 1.25


def curved(affine: NDArray[np.float64]) -> Transform:
    r, c = np.meshgrid(50.0 * np.arange(45), 50.0 * np.arange(45), indexing="ij")
    field = np.stack([8 * np.sin(c / 150), 6 * np.cos(r / 170)]).astype(np.float32)
    return Transform("HE", "PAS", affine, field, -field, 50.0)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> SlideStack:
    """A reference, and a stain that is mirrored, turned, bent and covers a part of it."""
    folder = tmp_path_factory.mktemp("slides")
    slides = {
        "HE": write_slide(folder / "he.ome.tif", texture((ROWS, COLS), coarse=False), MPP),
        "PAS": write_slide(folder / "pas.ome.tif", texture((1500, 1300), coarse=True), 0.8),
    }
    stains = tuple(Stain.of(name, open_slide(path)) for name, path in slides.items())
    affine = np.array([[0.5, -0.85, 940.0], [-0.85, -0.5, 1450.0], [0, 0, 1]])
    return SlideStack("block", "HE", stains).with_transform(curved(affine))


def shown(stack: SlideStack, mpp: float = MPP, name: str = "PAS") -> NDArray[np.uint8]:
    return stack.pictures((name,), stack.extent, mpp)[0]


def level(slide: Slide, number: int) -> NDArray[np.uint8]:
    return np.asarray(slide.read_level(number, 0, 0, *slide.levels[number].shape), np.uint8)


def halved(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    rows, cols = image.shape[0] // 2, image.shape[1] // 2
    blocks = image[: 2 * rows, : 2 * cols].reshape(rows, 2, cols, 2, 3)
    return np.asarray(blocks.mean((1, 3)))


@pytest.mark.parametrize("format", ["ome-tiff", "ome-zarr"])
def test_the_file_shows_what_the_stack_shows(
    stack: SlideStack, tmp_path: Path, format: warped.Format
) -> None:
    path = tmp_path / f"pas.{format}"
    assert run(export_warped(stack, "PAS", path, format=format, compression="deflate")) == path
    slide, truth = open_slide(path), shown(stack)
    assert slide.format == format and slide.facts.rgb and slide.um_per_px_yx.tolist() == [MPP, MPP]
    assert [v.shape for v in slide.levels] == [(1025, 1239), (512, 619), (256, 309)]
    found = level(slide, 0)
    # A block is resampled at float32 positions of its own, which may turn a rounding.
    off = np.abs(found.astype(int) - truth)
    assert off.max() <= 1 and (off > 0).mean() < 0.01
    assert truth.std() > 20 and (truth == 255).all(-1).mean() > 0.1
    for number in (1, 2):
        step = halved(level(slide, number - 1)) - level(slide, number)
        assert np.abs(step).max() <= 0.5
        # Halves go both ways: no level is brighter than the last.
        assert abs(step.mean()) < 0.02


def test_where_the_slide_ends_it_is_white(stack: SlideStack, tmp_path: Path) -> None:
    run(export_warped(stack, "PAS", tmp_path / "pas.ome.tif", compression="deflate"))
    found = level(open_slide(tmp_path / "pas.ome.tif"), 0)
    inside = stack.select(("PAS",)).read(stack.extent, MPP).inside[0]
    assert 0.2 < inside.mean() < 0.9
    assert (found[~inside] == 255).all()


def test_jpeg_is_close_and_small(stack: SlideStack, tmp_path: Path) -> None:
    path, plain = tmp_path / "pas.ome.tif", tmp_path / "plain.ome.tif"
    run(export_warped(stack, "PAS", path))
    run(export_warped(stack, "PAS", plain, compression="deflate"))
    assert path.stat().st_size < 0.7 * plain.stat().st_size
    assert np.abs(level(open_slide(path), 0).astype(int) - shown(stack)).mean() < 2
    with tifffile.TiffFile(path) as tiff:
        assert tiff.is_bigtiff and len(tiff.series) == 1 and len(tiff.series[0].levels) == 3
        for number, found in enumerate(tiff.series[0].levels):
            page = found.keyframe
            assert page.is_tiled and page.tile == (512, 512) and page.compression.name == "JPEG"
            assert page.resolutionunit == 3
            assert np.isclose(page.resolution[0], 1e4 / MPP / 2**number)
            # Another program's view of the file: every tile is there and decodes.
            assert min(page.databytecounts) > 0 and page.asarray().shape == (*found.shape[:2], 3)
        assert 'PhysicalSizeX="1.25"' in str(tiff.ome_metadata)


def test_the_reference_and_other_pixel_sizes(stack: SlideStack, tmp_path: Path) -> None:
    for mpp in (2.5, 0.7):
        path = tmp_path / f"{mpp}.ome.tif"
        run(export_warped(stack, "HE", path, mpp=mpp, compression="deflate"))
        slide, truth = open_slide(path), shown(stack, mpp, "HE")
        assert slide.um_per_px == mpp
        assert np.abs(level(slide, 0).astype(int) - truth).max() <= 1


def test_oblong_pixels_come_out_square(stack: SlideStack, tmp_path: Path) -> None:
    stains = tuple(replace(s, slide=replace(s.slide, oblong=1.25)) for s in stack.stains)
    oblong = replace(stack, stains=stains)
    path = tmp_path / "x.ome.tif"
    run(export_warped(oblong, "PAS", path, compression="deflate"))
    slide = open_slide(path)
    assert slide.shape == (round(ROWS * 1.25), COLS) and slide.oblong == 1.0
    assert np.abs(level(slide, 0).astype(int) - shown(oblong)).max() <= 1


def test_dark_tiles_stay_dark(tmp_path: Path) -> None:
    """A zarr may leave out what equals its fill value; the reader then takes it for glass."""
    rgb = np.zeros((700, 600, 3), np.uint8)
    rgb[20:300, 20:300] = 200
    slide = open_slide(write_slide(tmp_path / "dark.ome.tif", rgb, 1.0))
    stain = Stain("DAPI", slide, (0.0,) * 3, "fluorescence", (0, 1, 2), (255.0,) * 3)
    run(
        export_warped(
            SlideStack("b", "DAPI", (stain,)), "DAPI", tmp_path / "x.ome.zarr", format="ome-zarr"
        )
    )
    assert np.abs(level(open_slide(tmp_path / "x.ome.zarr"), 0).astype(int) - rgb).max() <= 1


@pytest.mark.parametrize("format", ["ome-tiff", "ome-zarr"])
def test_a_cancelled_export_leaves_nothing(
    stack: SlideStack, tmp_path: Path, format: warped.Format
) -> None:
    task = export_warped(stack, "PAS", tmp_path / "pas", format=format)
    seen = [next(task) for _ in range(4)]
    assert [(p.done, p.total) for p in seen] == [(n, 9) for n in range(4)]
    assert len(list(tmp_path.iterdir())) == 1
    task.close()
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_the_earlier_file(
    stack: SlideStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pas.ome.tif"
    path.write_bytes(b"earlier")
    put = warped._Tiff.put

    def full(self: warped._Tiff, level: int, row: int, col: int, tile: NDArray[np.uint8]) -> None:
        if level == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(self, level, row, col, tile)

    monkeypatch.setattr(warped._Tiff, "put", full)
    with pytest.raises(InputError, match="No space left on device.*Free some space"):
        run(export_warped(stack, "PAS", path))
    assert list(tmp_path.iterdir()) == [path] and path.read_bytes() == b"earlier"


def test_what_cannot_be_exported_is_said_at_once(stack: SlideStack, tmp_path: Path) -> None:
    own = stack.stain("HE").slide.path
    (tmp_path / "x.ome.zarr").mkdir()
    wrong = [
        (ProjectError, "not registered", replace(stack, transforms={}), tmp_path / "x", {}),
        (InputError, "makes no sense", stack, tmp_path / "x", {"mpp": -1.0}),
        (InputError, "Choose a larger pixel size", stack, tmp_path / "x", {"mpp": 1e-5}),
        (InputError, "is the slide of HE itself", stack, own, {}),
        (InputError, "is there already", stack, tmp_path / "x.ome.zarr", {"format": "ome-zarr"}),
        (InputError, "cannot be written", stack, tmp_path / "no" / "x.ome.tif", {}),
    ]
    with pytest.raises(InputError, match="no stain 'CD31'"):
        run(export_warped(stack, "CD31", tmp_path / "x"))
    for kind, message, case, path, options in wrong:
        with pytest.raises(kind, match=message):
            run(export_warped(case, "PAS", path, **options))
    assert [p.name for p in tmp_path.iterdir()] == ["x.ome.zarr"]
    assert open_slide(own).shape == (ROWS, COLS)


class _Plain:
    """A large slide without a pyramid; remembers the largest block it was asked for."""

    def __init__(self, side: int) -> None:
        level = Level(1.0, (side, side), (side, side))
        self.facts = Facts("made", (level,), np.dtype(np.uint8), 3, True, (0.5, 0.5))
        self.most = 0

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.uint8]:
        self.most = max(self.most, rows * cols)
        line = (np.arange(left, left + cols) % 90 + 100).astype(np.uint8)
        return np.repeat(np.broadcast_to(line, (rows, cols))[..., None], 3, axis=2)

    def close(self) -> None:
        """Nothing is open."""


@pytest.mark.parametrize("mpp", [0.5, 4.0])
def test_memory_does_not_grow_with_the_slide(tmp_path: Path, mpp: float) -> None:
    peaks = []
    for side in (1600, 6400):
        reader = _Plain(int(side * mpp / 0.5 / 2))
        slide = Slide(tmp_path / "made", 0.5, reader.facts, "", 1.0, 255.0, reader)
        stains = tuple(Stain(name, slide, (245.0,) * 3) for name in ("HE", "PAS"))
        turn = np.array([[0.7, -0.7, 50.0], [0.7, 0.7, 0], [0, 0, 1]])
        stack = SlideStack("b", "HE", stains).with_transform(Transform("HE", "PAS", turn))
        tracemalloc.start()
        try:
            run(export_warped(stack, "PAS", tmp_path / f"{side}.ome.tif", mpp=mpp))
            peaks.append(tracemalloc.get_traced_memory()[1] / 1e6)
        finally:
            tracemalloc.stop()
        assert reader.most < 4096**2
    assert peaks[1] < 120 and peaks[1] < 1.6 * peaks[0]
    found = open_slide(tmp_path / "6400.ome.tif")
    assert found.shape == (3200, 3200) and found.levels[-1].shape == (400, 400)
    region = Region.of_pixels(top=1000, left=1500, rows=64, cols=64, mpp=mpp)
    truth = stack.pictures(("PAS",), region, mpp)[0].astype(int)
    assert np.abs(found.read_level(0, 1000, 1500, 64, 64).astype(int) - truth).mean() < 4
