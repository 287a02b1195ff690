"""Large slides: how soon they are seen, how much memory they take, how fast patches are read.

``python benchmarks/bench_slides.py [--folder DIR] [--json]`` draws a slide of 100,000 × 80,000 px
(about 1 GB, kept in DIR) and needs a screen. Peers are measured in the same run where they are
installed: OpenSlide with dask (always), napari-tiff, napari-wsi.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROWS, COLS, TILE, BANK = 80_000, 100_000, 512, 4096
JUMPS, READS = 15, 400
METHODS = ("ours", "openslide-dask", "napari-tiff", "napari-wsi")
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "bench_slides")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--show", nargs=2, metavar=("METHOD", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.show:
        print(json.dumps(show(options.show[0], Path(options.show[1]))))
        return
    options.folder.mkdir(parents=True, exist_ok=True)
    giant = options.folder / "giant.tif"
    if not giant.exists():
        draw_giant(giant)
    found = {
        "info_s": info_seconds(giant),
        "napari": {m: in_a_process(m, giant) for m in ("empty", *METHODS)},
        "patches": patch_reads(options.folder),
    }
    if options.json:
        print(json.dumps(found))
        return
    print(f"pancluster info: {found['info_s']:.2f} s (limit 0.3)")
    print(f"{'':<16}{'first paint s':>14}{'jump ms':>9}{'peak MB':>9}")
    for name, row in found["napari"].items():
        print(
            f"{name:<16}{row['first_s']:>14.2f}{row['jump_ms']:>9.0f}{row['peak_mb']:>9.0f}"
            if row
            else f"{name:<16}  not installed, or it failed"
        )
    print(f"{'patch reads':<28}{'px':>4}{'threads':>8}{'reads/s':>9}{'decoder/s':>10}{'ratio':>7}")
    for row in found["patches"]:
        print(
            f"{row['file']:<28}{row['px']:>4}{row['threads']:>8}{row['reads']:>9.0f}"
            f"{row['decoder']:>10.0f}{row['reads'] / row['decoder']:>7.2f}"
        )


def bank() -> np.ndarray:
    """Return a picture like tissue that can be repeated without a seam."""
    rng = np.random.default_rng(0)
    noise = np.fft.rfft2(rng.normal(size=(BANK, BANK)))
    r, c = np.fft.fftfreq(BANK)[:, None], np.fft.rfftfreq(BANK)[None]
    grain = np.fft.irfft2(noise * np.exp(-((r**2 + c**2) * 900.0)))
    grain /= grain.std()
    od = np.array([0.2, 0.5, 0.25]) * (1 + 0.4 * np.clip(grain, -2, 2))[..., None]
    return (240 * 10**-od).astype(np.uint8)


def draw_giant(path: Path) -> None:
    """Write a tiled JPEG pyramid whose tiles repeat, every level the mean of the one before."""
    import imagecodecs
    import tifffile

    picture = bank()
    shapes = [(ROWS, COLS)]
    while max(shapes[-1]) > TILE:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, (rows, cols) in enumerate(shapes):
            tiles = _tiles_of(picture, number, imagecodecs.jpeg8_encode)
            tiff.write(
                _repeated(tiles, rows, cols),
                shape=(rows, cols, 3),
                dtype=np.uint8,
                tile=(TILE, TILE),
                compression="jpeg",
                photometric="rgb",
                # Pages, not SubIFDs: OpenSlide sees only the first level of those.
                subfiletype=1 if number else 0,
                resolution=(4e4, 4e4),
                resolutionunit=3,
            )


def _tiles_of(picture: np.ndarray, level: int, encode: Callable[..., bytes]) -> list[list[bytes]]:
    small = picture
    for _ in range(min(level, 3)):
        small = small.reshape(small.shape[0] // 2, 2, -1, 2, 3).mean((1, 3)).astype(np.uint8)
    for _ in range(level - 3):
        small = small.reshape(small.shape[0] // 2, 2, -1, 2, 3).mean((1, 3)).astype(np.uint8)
        small = np.tile(small, (2, 2, 1))
    count = small.shape[0] // TILE
    cut = small.reshape(count, TILE, count, TILE, 3)
    # As tifffile says of RGB tiles in the header it writes.
    options = {"level": 80, "colorspace": "rgb", "outcolorspace": "ycbcr", "subsampling": "420"}
    return [[encode(cut[r, :, c], **options) for c in range(count)] for r in range(count)]


def _repeated(tiles: list[list[bytes]], rows: int, cols: int) -> Iterator[bytes]:
    for r in range(-(-rows // TILE)):
        for c in range(-(-cols // TILE)):
            yield tiles[r % len(tiles)][c % len(tiles)]


def info_seconds(path: Path) -> float:
    """Return the shortest of five runs of ``pancluster info``, the start of Python included."""
    command = [sys.executable, "-m", "napari_pancluster.cli", "info", str(path), "--json"]
    command = [str(Path(sys.executable).with_name("pancluster")), *command[3:]]
    seconds = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - began)
    return min(seconds)


# In napari, every method in a process of its own


def in_a_process(method: str, path: Path) -> dict[str, float] | None:
    """Show the slide one way; None where that way is not installed or fails."""
    done = subprocess.run(
        [sys.executable, __file__, "--show", method, str(path)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        print(f"{method}: {done.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        return None
    return dict(json.loads(lines[-1]))


def show(method: str, path: Path) -> dict[str, float]:
    """Open, paint, jump about at full resolution."""
    import napari
    from qtpy.QtWidgets import QApplication

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1600, 1000)
    for _ in range(20):
        QApplication.processEvents()
        time.sleep(0.02)
    began = time.perf_counter()
    if method != "empty":
        _add(viewer, method, path)
    viewer.screenshot(canvas_only=True, flash=False)
    first = time.perf_counter() - began
    rng, jumps = np.random.default_rng(0), [0.0]
    if method != "empty":
        scale = float(viewer.layers[0].scale[-1])
        viewer.scene.camera.zoom = 1 / scale
        jumps = []
        for _ in range(JUMPS):
            began = time.perf_counter()
            centre = rng.uniform(0.1, 0.9, 2) * (ROWS * scale, COLS * scale)
            viewer.scene.camera.center = (0, *centre)
            viewer.screenshot(canvas_only=True, flash=False)
            jumps.append(1000 * (time.perf_counter() - began))
            assert viewer.layers[0].data_level == 0
    # Not getrusage: its figure is inherited from the process that started this one.
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) / 1024
    result = {"first_s": first, "jump_ms": statistics.median(jumps), "peak_mb": peak}
    print(json.dumps(result), flush=True)
    os._exit(0)


def _add(viewer: Any, method: str, path: Path) -> None:
    if method == "ours":
        from napari_pancluster._layers import slide_layer
        from napari_pancluster.core.slide import open_slide

        data, options, _ = slide_layer(open_slide(path), "giant")
        viewer.add_image(data, **options)
    elif method == "openslide-dask":
        viewer.add_image(_openslide_levels(path), multiscale=True, rgb=True)
    elif method == "napari-tiff":
        viewer.open(str(path), plugin="napari-tiff")
    else:
        viewer.open(str(path), plugin="napari-wsi")


def _openslide_levels(path: Path) -> list[Any]:
    import dask.array as da
    import openslide

    slide = openslide.OpenSlide(path)

    def level(number: int) -> Any:
        cols, rows = slide.level_dimensions[number]
        down = slide.level_downsamples[number]

        def block(block_info: Any) -> np.ndarray:
            (top, bottom), (left, right), _ = block_info[None]["array-location"]
            corner = (int(left * down), int(top * down))
            return np.asarray(slide.read_region(corner, number, (right - left, bottom - top)))[
                ..., :3
            ]

        chunks = da.core.normalize_chunks((TILE, TILE, 3), (rows, cols, 3), dtype=np.uint8)
        return da.map_blocks(block, chunks=chunks, dtype=np.uint8, meta=np.empty((0, 0, 0), "u1"))

    return [level(n) for n in range(slide.level_count)]


# Patches


def patch_reads(folder: Path) -> list[dict[str, Any]]:
    """Read random patches, and decode the tiles they touch without anything else."""
    from napari_pancluster.core.slide import open_slide

    rows = []
    for name, path, decode, tile in _patch_files(folder):
        slide = open_slide(path)
        height, width = slide.shape
        for px in (64, 128):
            for threads in (1, 2):
                rng = np.random.default_rng(px + threads)
                at = rng.integers(0, (height - px, width - px), (READS, 2))
                touched = [_touched(y, x, px, tile) for y, x in at]

                def read(n: int, at: Any = at, px: int = px, slide: Any = slide) -> None:
                    slide.read_level(0, int(at[n][0]), int(at[n][1]), px, px)

                def alone(n: int, touched: Any = touched, decode: Any = decode) -> None:
                    for place in touched[n]:
                        decode(*place)

                # In turns, so that a noisy neighbour slows both alike.
                rates = [(_rate(read, threads), _rate(alone, threads)) for _ in range(5)]
                reads, decoder = (statistics.median(r[i] for r in rates) for i in (0, 1))
                row = {"file": name, "px": px, "threads": threads}
                rows.append({**row, "reads": reads, "decoder": decoder})
    return rows


def _rate(work: Callable[[int], None], threads: int) -> float:
    def part(first: int) -> None:
        for n in range(first, READS, threads):
            work(n)

    began = time.perf_counter()
    pool = [threading.Thread(target=part, args=(n,)) for n in range(threads)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()
    return READS / (time.perf_counter() - began)


def _touched(y: int, x: int, px: int, tile: int) -> list[tuple[int, int]]:
    rows = range(y // tile, (y + px - 1) // tile + 1)
    return [(r, c) for r in rows for c in range(x // tile, (x + px - 1) // tile + 1)]


def _patch_files(folder: Path) -> Iterator[tuple[str, Path, Callable[[int, int], Any], int]]:
    import tifffile

    picture = bank()
    jpeg = folder / "patches.tif"
    options = {"photometric": "rgb", "tile": (256, 256), "compression": "jpeg"}
    tifffile.imwrite(jpeg, picture, **options)
    yield "JPEG TIFF, tiles of 256", jpeg, _tiff_decoder(jpeg), 256
    svs = SHARED / "slides" / "CMU-1-Small-Region.svs"
    if svs.exists():
        yield "SVS (real), tiles of 240", svs, _tiff_decoder(svs), 240
    for sharded in (False, True):
        path = folder / f"patches{'_sharded' if sharded else ''}.zarr"
        _write_zarr(path, picture, sharded=sharded)
        name = f"OME-Zarr zstd{', sharded' if sharded else ''}"
        yield name, path, _zarr_decoder(folder / "patches.zarr"), 256


def _tiff_decoder(path: Path) -> Callable[[int, int], Any]:
    """Return the decoder of tiles that are in memory already."""
    import tifffile

    data = path.read_bytes()
    page = tifffile.TiffFile(path).pages[0]
    across = -(-page.imagewidth // page.tilewidth)
    tables, decode = page.jpegtables, page.decode
    spans = list(zip(page.dataoffsets, page.databytecounts, strict=True))

    def one(r: int, c: int) -> Any:
        start, count = spans[r * across + c]
        return decode(data[start : start + count], r * across + c, jpegtables=tables)

    return one


def _zarr_decoder(path: Path) -> Callable[[int, int], Any]:
    import numcodecs

    chunks = {
        (int(p.parent.parent.name), int(p.parent.name)): p.read_bytes()
        for p in (path / "0" / "c").glob("*/*/0")
    }
    zstd = numcodecs.Zstd()
    return lambda r, c: zstd.decode(chunks[r, c])


def _write_zarr(path: Path, picture: np.ndarray, *, sharded: bool) -> None:
    import zarr

    group = zarr.open_group(path, mode="w")
    shards = (2048, 2048, 3) if sharded else None
    array = group.create_array(
        "0", shape=picture.shape, chunks=(256, 256, 3), shards=shards, dtype="u1"
    )
    array[:] = picture
    axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    axes.append({"name": "c", "type": "channel"})
    scale = [{"type": "scale", "scale": [0.5, 0.5, 1]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["ome"] = {
        "version": "0.5",
        "multiscales": [{"axes": axes, "datasets": datasets}],
    }


if __name__ == "__main__":
    main()
