"""One pattern, written in every format that can be written, is the same slide from each."""

from __future__ import annotations

import gc
import json
import shutil
import sys
import zipfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from drawing import shared
from PIL import Image

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.readers.openslide import OpenSlideReader
from napari_pancluster.core.readers.probe import probe
from napari_pancluster.core.slide import open_slide

ROWS, COLS, MPP = 600, 808, 0.5


def pattern() -> np.ndarray:
    """Smooth in place, so that lossy formats keep it; red by row, green by column."""
    r, c = np.mgrid[:ROWS, :COLS] + 0.5
    waves = 120 + 60 * np.sin(r / 37) + 40 * np.cos(c / 29)
    return np.stack([r / ROWS * 250, c / COLS * 250, waves], -1).round().astype(np.uint8)


def halves(levels: int = 3) -> list[np.ndarray]:
    found = [pattern()]
    for _ in range(levels - 1):
        a = found[-1][: found[-1].shape[0] // 2 * 2, : found[-1].shape[1] // 2 * 2].astype(float)
        found.append(
            a.reshape(a.shape[0] // 2, 2, a.shape[1] // 2, 2, -1)
            .mean((1, 3))
            .round()
            .astype(np.uint8)
        )
    return found


def tiff(**options: Any) -> Callable[[Path], Path]:
    """Write one tiled level."""

    def write(folder: Path) -> Path:
        path = folder / "slide.tif"
        given = {"photometric": "rgb", "tile": (256, 256), **options}
        resolution = (1e4 / MPP, 1e4 / MPP)
        tifffile.imwrite(path, pattern(), resolution=resolution, resolutionunit=3, **given)
        return path

    return write


def pyramid(*, ome: bool, subifds: bool) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / ("slide.ome.tif" if ome else "slide.tif")
        levels = halves()
        options = {"photometric": "rgb", "tile": (128, 128), "compression": "zlib"}
        meta = {"axes": "YXS", "PhysicalSizeX": MPP, "PhysicalSizeY": MPP} if ome else None
        with tifffile.TiffWriter(path, ome=ome) as file:
            place = {"resolution": (1e4 / MPP, 1e4 / MPP), "resolutionunit": 3}
            first = {"subifds": len(levels) - 1} if subifds else {}
            file.write(levels[0], metadata=meta, **first, **options, **({} if ome else place))
            for level in levels[1:]:
                file.write(level, subfiletype=1, metadata=None, **options)
        return path

    return write


def planes(folder: Path) -> Path:
    path = folder / "slide.tif"
    tifffile.imwrite(
        path,
        pattern().transpose(2, 0, 1),
        photometric="rgb",
        planarconfig="separate",
        tile=(256, 256),
        compression="lzw",
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit=3,
    )
    return path


def imagej(folder: Path) -> Path:
    path = folder / "slide.tif"
    tifffile.imwrite(
        path,
        pattern().transpose(2, 0, 1),
        imagej=True,
        resolution=(1 / MPP, 1 / MPP),
        metadata={"unit": "um", "axes": "CYX"},
    )
    return path


def ome_zarr(*, version: str, sharded: bool = False, zipped: bool = False, root: str = "") -> Any:
    def write(folder: Path) -> Path:
        path = folder / "slide.ome.zarr"
        write_zarr(path, root, version, sharded)
        if not zipped:
            return path
        packed = folder / "slide.ozx"
        with zipfile.ZipFile(packed, "w") as archive:
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                archive.write(file, file.relative_to(path).as_posix())
        shutil.rmtree(path)
        return packed

    return write


def write_zarr(store: Any, root: str, version: str, sharded: bool) -> None:
    old = version == "0.4"
    group = zarr.open_group(store, path=root, mode="w", zarr_format=2 if old else 3)
    datasets = []
    for number, level in enumerate(halves()):
        array = group.create_array(
            str(number),
            shape=(3, *level.shape[:2]),
            chunks=(1, 64, 64),
            shards=(3, 256, 256) if sharded else None,
            dtype=np.uint8,
            fill_value=0,
            **({"chunk_key_encoding": {"name": "v2", "separator": "/"}} if old else {}),
        )
        array[:] = level.transpose(2, 0, 1)
        scale = [1.0, MPP * ROWS / level.shape[0], MPP * COLS / level.shape[1]]
        datasets.append(
            {
                "path": str(number),
                "coordinateTransformations": [{"type": "scale", "scale": scale}],
            }
        )
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    image = {"multiscales": [{"axes": axes, "datasets": datasets, "version": version}]}
    group.attrs.update(image if old else {"ome": {"version": version, **image}})


def plain(kind: str, **options: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        path = folder / f"slide.{kind}"
        Image.fromarray(pattern()).save(path, **options)
        return path

    return write


def rgba(folder: Path) -> Path:
    path = folder / "slide.tif"
    image = np.dstack([pattern(), np.full((ROWS, COLS), 255, np.uint8)])
    image[:20, :20] = 0
    tifffile.imwrite(
        path,
        image,
        photometric="rgb",
        extrasamples=["unassalpha"],
        tile=(256, 256),
        resolution=(1e4 / MPP, 1e4 / MPP),
        resolutionunit=3,
    )
    return path


LOSSLESS = {
    "tiles": tiff(),
    "strips": tiff(tile=None, rowsperstrip=50, compression="zlib"),
    "one strip": tiff(tile=None, rowsperstrip=ROWS, compression="zlib"),
    "raw run": tiff(tile=None),
    "lzw": tiff(compression="lzw", predictor=2),
    "deflate": tiff(compression="zlib"),
    "zstd": tiff(compression="zstd"),
    "jpeg 2000": tiff(compression="jpeg2000", compressionargs={"reversible": True, "level": 0}),
    "webp": tiff(compression="webp", compressionargs={"lossless": True}),
    "big endian": tiff(byteorder=">"),
    "bigtiff": tiff(bigtiff=True, compression="lzw"),
    "planes apart": planes,
    "pyramid of pages": pyramid(ome=False, subifds=False),
    "pyramid of subifds": pyramid(ome=False, subifds=True),
    "ome-tiff of subifds": pyramid(ome=True, subifds=True),
    "ome-tiff of pages": pyramid(ome=True, subifds=False),
    "imagej": imagej,
    "rgba": rgba,
    "ome-zarr 0.4": ome_zarr(version="0.4"),
    "ome-zarr 0.5": ome_zarr(version="0.5"),
    "ome-zarr sharded": ome_zarr(version="0.5", sharded=True),
    "ome-zarr 0.4 zip": ome_zarr(version="0.4", zipped=True),
    "ome-zarr 0.5 zip": ome_zarr(version="0.5", zipped=True, sharded=True),
    "ome-zarr in a folder of a zip": ome_zarr(version="0.5", zipped=True, root="slide"),
    "png": plain("png"),
    "bmp": plain("bmp"),
    "webp image": plain("webp", lossless=True),
}
LOSSY = {
    "jpeg tiles": tiff(compression="jpeg", compressionargs={"level": 95}),
    "jpeg": plain("jpg", quality=95),
}
NO_PIXEL_SIZE = {"png", "bmp", "webp image", "jpeg"}


@pytest.mark.parametrize("name", [*LOSSLESS, *LOSSY])
def test_the_same_place_is_the_same_pixel_in_every_format(name: str, tmp_path: Path) -> None:
    slide = open_slide({**LOSSLESS, **LOSSY}[name](tmp_path))
    assert slide.shape == (ROWS, COLS) and slide.channels == 3
    assert slide.mpp == (None if name in NO_PIXEL_SIZE else pytest.approx(MPP, rel=1e-4))
    slide = slide.with_mpp(MPP)
    near = 0 if name in LOSSLESS else 8
    stored = slide.read_level(0, 130, 251, 200, 300)
    assert np.abs(stored.astype(int) - pattern()[130:330, 251:551]).max() <= near
    # At another pixel size, from whichever level: the mean of what lies under each pixel.
    region, mpp = Region(41.3, 77.7, 120.0, 160.0), 2.3
    read = slide.read(region, mpp)
    rows = (region.top + (np.arange(read.shape[0]) + 0.5) * mpp) / MPP / ROWS * 250
    cols = (region.left + (np.arange(read.shape[1]) + 0.5) * mpp) / MPP / COLS * 250
    # Rounded twice, a value may be one off; half a pixel of a level would move all by 0.4.
    for off in (read[..., 0] - rows[:, None], read[..., 1] - cols[None]):
        assert np.abs(off).max() < 1 + near / 2 and abs(off.mean()) < 0.1


@pytest.mark.parametrize("name", ["pyramid of pages", "ome-tiff of subifds", "ome-tiff of pages"])
def test_every_level_of_a_pyramid_is_seen(name: str, tmp_path: Path) -> None:
    slide = open_slide(LOSSLESS[name](tmp_path))
    assert [level.shape for level in slide.levels] == [(600, 808), (300, 404), (150, 202)]
    assert np.array_equal(slide.read_level(2, 10, 20, 100, 100), halves()[2][10:110, 20:120])


def test_what_is_clear_is_glass(tmp_path: Path) -> None:
    slide = open_slide(rgba(tmp_path))
    assert (slide.read_level(0, 0, 0, 20, 20) == 255).all()
    assert np.array_equal(slide.read_level(0, 20, 20, 9, 9), pattern()[20:29, 20:29])


def test_sixteen_bits_of_a_twelve_bit_camera(tmp_path: Path) -> None:
    from napari_pancluster.core.stain import Stain

    glass = np.full((300, 400, 3), 243, np.uint8)
    glass[100:200, 100:300] = (150, 60, 120)
    tifffile.imwrite(tmp_path / "8.tif", glass, photometric="rgb")
    tifffile.imwrite(
        tmp_path / "16.tif", (glass.astype(np.float64) * 4095 / 255).round().astype(np.uint16)
    )
    stains = [Stain.of("HE", open_slide(tmp_path / f"{n}.tif").with_mpp(1.0)) for n in ("8", "16")]
    regions = [s.read_od(s.slide.extent, 1.0) for s in stains]
    assert stains[1].slide.dtype == np.uint16
    assert np.allclose(regions[0], regions[1], atol=0.01)
    assert regions[0][150, 200].max() > 0.5


def test_fluorescence_is_dark_where_nothing_is(tmp_path: Path) -> None:
    from napari_pancluster.core.stain import Stain

    dyes = np.full((4, 300, 400), 100, np.uint16)
    dyes[0, 50:250, 50:350] += 3000
    dyes[3, 100:150, 100:200] += 900
    path = tmp_path / "if.ome.tif"
    names = ["DAPI", "CD3", "CD8", "PanCK"]
    meta = {"axes": "CYX", "PhysicalSizeX": 1.0, "PhysicalSizeY": 1.0, "Channel": {"Name": names}}
    tifffile.imwrite(path, dyes, ome=True, metadata=meta, photometric="minisblack")
    slide = open_slide(path)
    assert (slide.channels, slide.facts.channel_names) == (4, tuple(names))
    stain = Stain.of("IF", slide, [0, 3])
    assert stain.modality == "fluorescence" and stain.picked == (0, 3, 3)
    density = stain.read_od(slide.extent, 1.0)
    assert density[20, 20].max() < 0.02
    assert density[200, 300] == pytest.approx([1, 0, 0], abs=0.02)
    assert density[120, 150] == pytest.approx([1, 1, 1], abs=0.02)
    # Beyond the slide there is nothing, and nothing shines.
    assert stain.read_od(Region(-50, -50, 20, 20), 1.0).max() == 0


def test_grey_brightfield_is_not_fluorescence(tmp_path: Path) -> None:
    from napari_pancluster.core.stain import Stain

    grey = np.full((300, 400), 240, np.uint8)
    grey[100:150, 100:300] = 90
    tifffile.imwrite(tmp_path / "grey.tif", grey)
    stain = Stain.of("IHC", open_slide(tmp_path / "grey.tif").with_mpp(1.0))
    density = stain.read_od(stain.slide.extent, 1.0)
    assert stain.modality == "brightfield" and stain.picked == (0, 0, 0)
    assert density[20, 20].max() < 0.02 and density[120, 200].min() > 0.3


def test_pixels_that_are_not_square(tmp_path: Path) -> None:
    values = pattern()[::2]
    meta = {"axes": "YXS", "PhysicalSizeX": MPP, "PhysicalSizeY": 2 * MPP}
    tifffile.imwrite(tmp_path / "oblong.ome.tif", values, metadata=meta, photometric="rgb")
    slide = open_slide(tmp_path / "oblong.ome.tif")
    assert slide.mpp == MPP and slide.oblong == 2
    assert (slide.extent.height, slide.extent.width) == (300, 404)
    read = slide.read(Region(40, 60, 100, 120), 1.0)
    rows = (40 + np.arange(100) + 0.5) / MPP / ROWS * 250
    assert np.abs(read[..., 0] - rows[:, None]).max() < 1


@pytest.mark.parametrize(
    ("unit", "value", "mpp"),
    [
        ("µm", 0.25, 0.25),
        ("nm", 250, 0.25),
        ("mm", 0.00025, 0.25),
        ("µm", 1000, None),
        ("pixel", 1, None),
    ],
)
def test_pixel_sizes_have_units_and_bounds(
    tmp_path: Path, unit: str, value: float, mpp: float | None
) -> None:
    meta = {
        "axes": "YXS",
        "PhysicalSizeX": value,
        "PhysicalSizeY": value,
        "PhysicalSizeXUnit": unit,
        "PhysicalSizeYUnit": unit,
    }
    tifffile.imwrite(tmp_path / "a.ome.tif", pattern(), metadata=meta, photometric="rgb")
    slide = open_slide(tmp_path / "a.ome.tif")
    assert slide.mpp == (mpp if mpp is None else pytest.approx(mpp))
    assert bool(slide.facts.mpp_doubt) == (value == 1000)


def test_a_missing_chunk_is_told_where_the_overview_shows_tissue(tmp_path: Path) -> None:
    path = ome_zarr(version="0.5")(tmp_path)
    for channel in range(3):
        (path / "0" / "c" / str(channel) / "4" / "4").unlink()
    slide = open_slide(path)
    assert slide.read_level(0, 0, 0, 64, 64).any()
    with pytest.raises(SlideError, match="slide.ome.zarr lacks pixels"):
        slide.read_level(0, 256, 256, 64, 64)


def test_a_chunk_that_was_never_scanned_is_glass(tmp_path: Path) -> None:
    path = ome_zarr(version="0.5")(tmp_path)
    group = zarr.open_group(path, mode="r+")
    for number in range(3):
        size = 256 >> number
        group[str(number)][:, :size, :size] = 0
    slide = open_slide(path)
    assert (slide.read_level(0, 64, 64, 64, 64) == 255).all()


def test_a_zip_that_reaches_out_of_itself_is_refused(tmp_path: Path) -> None:
    path = ome_zarr(version="0.5", zipped=True)(tmp_path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("../evil.txt", "x")
    with pytest.raises(SlideError, match="outside itself"):
        open_slide(path)
    assert not (tmp_path.parent / "evil.txt").exists()


def test_a_zarr_that_points_out_of_itself_is_refused(tmp_path: Path) -> None:
    path = ome_zarr(version="0.5")(tmp_path)
    document = json.loads((path / "zarr.json").read_text())
    document["attributes"]["ome"]["multiscales"][0]["datasets"][0]["path"] = "../other"
    (path / "zarr.json").write_text(json.dumps(document))
    with pytest.raises(SlideError, match="outside itself"):
        open_slide(path)


def _header(rows: int, cols: int, **tags: Any) -> bytes:
    """A little-endian TIFF that claims a size and holds one byte of it."""
    entries = {
        256: (4, cols),
        257: (4, rows),
        258: (3, 8),
        259: (3, 1),
        262: (3, 1),
        273: (4, 200),
        277: (3, 1),
        278: (4, rows),
        279: (4, 1),
        **{int(k[1:]): v for k, v in tags.items()},
    }
    body = b"II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little")
    for tag, (kind, value) in sorted(entries.items()):
        body += tag.to_bytes(2, "little") + kind.to_bytes(2, "little")
        body += (1).to_bytes(4, "little") + value.to_bytes(4, "little")
    return (body + b"\0" * 4).ljust(201, b"\0")


@pytest.mark.parametrize(
    "content",
    [
        _header(2**31 - 1, 2**31 - 1),
        _header(2**31 - 1, 1),
        _header(200_000, 200_000, t259=(3, 5)),
        _header(200_000, 200_000, t322=(4, 256), t323=(4, 256)),
        _header(0, 100),
        _header(100, 100, t258=(3, 3)),
        _header(100, 100, t259=(3, 65000)),
        _header(100, 100, t262=(3, 5)),
        _header(100, 100, t277=(3, 60_000)),
    ],
)
def test_headers_that_lie_are_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "liar.tif"
    path.write_bytes(content)
    with pytest.raises(SlideError, match="liar.tif") as error:
        slide = open_slide(path)
        slide.read_level(0, 0, 0, 10, 10)
    assert "\n" not in str(error.value)


def test_one_long_strip_is_read_or_refused(tmp_path: Path) -> None:
    strip = np.tile(pattern()[:40], (1, 248, 1))[:, :200_000]
    tifffile.imwrite(tmp_path / "strip.tif", strip, compression="zlib", rowsperstrip=40)
    slide = open_slide(tmp_path / "strip.tif")
    assert np.array_equal(slide.read_level(0, 10, 150_000, 8, 9), strip[10:18, 150_000:150_009])


@pytest.mark.parametrize("name", ["with spaces.tif", "膵臓 切片.tif", "ümläut (1).tif"])
def test_any_file_name(tmp_path: Path, name: str) -> None:
    path = tiff()(tmp_path).rename(tmp_path / name)
    assert open_slide(path).shape == (ROWS, COLS)


def test_one_pixel(tmp_path: Path) -> None:
    Image.new("RGB", (1, 1), (9, 8, 7)).save(tmp_path / "one.png")
    slide = open_slide(tmp_path / "one.png")
    assert slide.read_level(0, 0, 0, 1, 1).tolist() == [[[9, 8, 7]]]


def test_a_file_deleted_or_cut_while_open(tmp_path: Path) -> None:
    path = tiff(compression="zlib")(tmp_path)
    slide = open_slide(path)
    with path.open("r+b") as file:
        file.truncate(2000)
    with pytest.raises(SlideError, match="slide.tif"):
        slide.read_level(0, 300, 300, 200, 200)
    path.unlink()
    with pytest.raises(SlideError, match="slide.tif"):
        slide.read_level(0, 300, 300, 200, 200)


@pytest.mark.parametrize("content", [b"PK\x03\x04rubbish", b"\x89PNG\r\n\x1a\n1234", b"BM1234"])
def test_beginnings_without_an_end(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "cut.png").write_bytes(content)
    with pytest.raises(SlideError, match="cut.png"):
        slide = open_slide(tmp_path / "cut.png")
        slide.read_level(0, 0, 0, 1, 1)


def test_a_folder_that_is_no_slide(tmp_path: Path) -> None:
    with pytest.raises(SlideError, match="is a folder"):
        open_slide(tmp_path)


@pytest.mark.parametrize("name", ["tiles", "pyramid of pages"])
def test_openslide_puts_pixels_where_tifffile_does(name: str, tmp_path: Path) -> None:
    path = LOSSLESS[name](tmp_path)
    ours, theirs = open_slide(path), OpenSlideReader(path)
    assert theirs.facts.levels == ours.levels and theirs.facts.rgb
    for number, level in enumerate(ours.levels):
        box = (number, 20, 31, level.shape[0] - 30, level.shape[1] - 40)
        assert np.array_equal(theirs.read(*box), ours.read_level(*box))


def test_openslide_reads_a_real_slide_as_tifffile_does() -> None:
    path = shared("slides", "CMU-1-Small-Region.svs")
    ours, theirs = open_slide(path), OpenSlideReader(path)
    assert theirs.facts.mpp_yx == (0.499, 0.499) == ours.facts.mpp_yx
    a = theirs.read(0, 1000, 900, 300, 400).astype(int)
    # Two JPEG decoders round differently.
    assert np.abs(a - ours.read_level(0, 1000, 900, 300, 400)).max() <= 3


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os.abort()", "its decoder crashed"),
        ("while True: pass", "takes over 1 s"),
        ("raise ValueError('no such tile')", "no such tile"),
        pytest.param(
            "bytearray(8 << 30)",
            "MemoryError",
            marks=pytest.mark.skipif(sys.platform == "win32", reason="no memory limit there"),
        ),
    ],
)
def test_a_file_that_would_take_us_down_is_an_error(code: str, words: str, tmp_path: Path) -> None:
    limit = 1.0 if "while" in code else 30.0
    with pytest.raises(SlideError, match=words):
        probe(tmp_path / "slide.mrxs", code, limit_s=limit)
    probe(tmp_path / "slide.mrxs", "assert sys.argv[1].endswith('slide.mrxs')")


def test_an_mrxs_without_its_folder_is_one_clear_error(tmp_path: Path) -> None:
    Image.fromarray(pattern()).save(tmp_path / "thumb.jpg")
    (tmp_path / "slide.mrxs").write_bytes((tmp_path / "thumb.jpg").read_bytes())
    # Its own file is a JPEG thumbnail: alone, it is no slide, and must not pass for one.
    with pytest.raises(SlideError, match="slide.mrxs"):
        open_slide(tmp_path / "slide.mrxs")


@pytest.mark.parametrize("name", ["deflate", "ome-zarr sharded", "ome-zarr 0.5 zip", "png"])
def test_several_threads_read_at_once(name: str, tmp_path: Path) -> None:
    slide = open_slide(LOSSLESS[name](tmp_path))
    boxes = [(int(y), int(x)) for y, x in np.random.default_rng(0).integers(0, 500, (200, 2))]

    def right(box: tuple[int, int]) -> bool:
        y, x = box
        return bool((slide.read_level(0, y, x, 90, 90) == pattern()[y : y + 90, x : x + 90]).all())

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(right, boxes))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="counts open files as Linux does")
@pytest.mark.parametrize("name", ["deflate", "raw run", "ome-zarr 0.5", "ome-zarr 0.5 zip", "png"])
def test_a_slide_nobody_holds_leaves_no_file_open(name: str, tmp_path: Path) -> None:
    def open_here() -> list[str]:
        files = [f for f in Path("/proc/self/fd").iterdir() if f.is_symlink()]
        return [str(f.readlink()) for f in files if str(tmp_path) in str(f.readlink())]

    path = LOSSLESS[name](tmp_path)
    slide = open_slide(path)
    levels = slide.data
    assert levels[0][:9, :9].compute().shape == (9, 9, 3)
    del slide, levels
    gc.collect()
    assert open_here() == []
    open_slide(path).close()
    assert open_here() == []


def test_a_scale_without_a_unit_is_no_pixel_size(tmp_path: Path) -> None:
    path = ome_zarr(version="0.5")(tmp_path)
    document = json.loads((path / "zarr.json").read_text())
    for axis in document["attributes"]["ome"]["multiscales"][0]["axes"]:
        axis.pop("unit", None)
    (path / "zarr.json").write_text(json.dumps(document))
    assert open_slide(path).mpp is None


def test_exactly_one_micrometre_a_pixel_is_a_pixel_size(tmp_path: Path) -> None:
    path = ome_zarr(version="0.5")(tmp_path)
    document = json.loads((path / "zarr.json").read_text())
    for dataset in document["attributes"]["ome"]["multiscales"][0]["datasets"]:
        dataset["coordinateTransformations"][0]["scale"] = [1.0, 1.0, 1.0]
    (path / "zarr.json").write_text(json.dumps(document))
    assert open_slide(path).mpp == 1.0
