"""Broken slides by the thousand: bit flips and truncations of small files in every format.

Each variant is opened and read in a worker process. Allowed is a slide or one `SlideError`; not
allowed are another exception, a crash, more than 5 s or more than 2 GB. Prints a line a format.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import select
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

LONGEST_S, MOST_MB = 5.0, 2048
SIDE = 300


def main() -> None:
    """Run the variants and print what came of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--variants", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work()
        return
    with tempfile.TemporaryDirectory() as folder:
        found = fuzz(Path(folder), options.variants, options.seed)
    bad = {k: v for kind in found.values() for k, v in kind["bad"].items()}
    if options.json:
        print(json.dumps(found))
    else:
        print(
            f"{'format':<20}{'variants':>9}{'read':>6}{'refused':>9}{'bad':>5}"
            f"{'worst s':>9}{'MB':>6}"
        )
        for name, kind in found.items():
            print(
                f"{name:<20}{kind['variants']:>9}{kind['read']:>6}{kind['refused']:>9}"
                f"{sum(kind['bad'].values()):>5}{kind['worst_s']:>9.2f}{kind['most_mb']:>6.0f}"
            )
        print(f"not allowed: {bad or 'none'}")
    sys.exit(1 if bad else 0)


def fuzz(folder: Path, variants: int, seed: int) -> dict[str, dict[str, Any]]:
    """Spoil every file in turn until that many variants were tried."""
    originals = write_originals(folder)
    rng = np.random.default_rng(seed)
    found: dict[str, dict[str, Any]] = {}
    worker = Worker()
    names = list(originals)
    for name, path in originals.items():
        assert worker.read(path)[0] == "read", f"the sound {name} is not read"
    for number in range(variants):
        name = names[number % len(names)]
        target = folder / f"variant{originals[name].suffix}"
        target.write_bytes(spoil(originals[name].read_bytes(), rng))
        kind = found.setdefault(
            name,
            {
                "variants": 0,
                "read": 0,
                "refused": 0,
                "bad": Counter(),
                "worst_s": 0.0,
                "most_mb": 0.0,
            },
        )
        began = time.monotonic()
        outcome, megabytes = worker.read(target)
        kind["variants"] += 1
        kind["worst_s"] = max(kind["worst_s"], time.monotonic() - began)
        kind["most_mb"] = max(kind["most_mb"], megabytes)
        if megabytes > MOST_MB:
            outcome = f"{megabytes:.0f} MB"
        if outcome in ("read", "refused"):
            kind[outcome] += 1
        else:
            kind["bad"][outcome] += 1
            kept = Path(tempfile.gettempdir()) / f"bad_{number}{target.suffix}"
            kept.write_bytes(target.read_bytes())
            print(f"{name}: {outcome}, kept as {kept}", file=sys.stderr)
        if outcome not in ("read", "refused"):
            worker.stop()
            worker = Worker()
    worker.stop()
    return found


def spoil(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip bits (mostly in the header, where it matters), cut off, or blank a run."""
    spoilt = np.frombuffer(data, np.uint8).copy()
    kind = rng.integers(4)
    if kind == 0:
        return data[: int(rng.integers(0, len(data)))]
    if kind == 1:
        start = int(rng.integers(len(data)))
        spoilt[start : start + int(rng.integers(1, 400))] = rng.integers(256)
        return spoilt.tobytes()
    reach = len(data) if kind == 2 else min(len(data), 2000)
    places = rng.integers(0, reach, int(rng.integers(1, 40)))
    if rng.random() < 0.3:
        places = len(data) - 1 - places
    spoilt[places] ^= (1 << rng.integers(0, 8, len(places))).astype(np.uint8)
    return spoilt.tobytes()


def write_originals(folder: Path) -> dict[str, Path]:
    """Write one small picture in every format, and copy real slides where they are."""
    import shutil
    import zipfile

    import tifffile
    import zarr
    from PIL import Image

    rng = np.random.default_rng(0)
    rgb = rng.integers(120, 255, (SIDE, SIDE, 3)).astype(np.uint8)
    place = {"resolution": (2e4, 2e4), "resolutionunit": 3}
    found = {}
    for name, options in {
        "tiff": {},
        "tiff lzw strips": {"compression": "lzw", "rowsperstrip": 32},
        "tiff deflate": {"compression": "zlib", "tile": (128, 128)},
        "tiff jpeg": {"compression": "jpeg", "tile": (128, 128)},
        "tiff jpeg 2000": {"compression": "jpeg2000", "tile": (128, 128)},
        "tiff webp": {"compression": "webp", "tile": (128, 128)},
        "tiff zstd": {"compression": "zstd", "tile": (128, 128)},
    }.items():
        found[name] = folder / f"{name}.tif"
        tifffile.imwrite(found[name], rgb, photometric="rgb", **place, **options)
    found["ome-tiff"] = folder / "a.ome.tif"
    with tifffile.TiffWriter(found["ome-tiff"], ome=True) as tiff:
        options = {"photometric": "rgb", "tile": (128, 128), "compression": "jpeg"}
        meta = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
        tiff.write(rgb, subifds=1, metadata=meta, **options)
        tiff.write(rgb[::2, ::2], subfiletype=1, **options)
    for kind in ("png", "jpg", "bmp", "webp"):
        found[kind] = folder / f"a.{kind}"
        Image.fromarray(rgb).save(found[kind])
    for version, sharded in ((2, False), (3, True)):
        path = folder / f"v{version}.zarr"
        group = zarr.open_group(path, mode="w", zarr_format=version)
        shards = (256, 256, 3) if sharded else None
        array = group.create_array(
            "0", shape=rgb.shape, chunks=(128, 128, 3), shards=shards, dtype="u1"
        )
        array[:] = rgb
        axes = [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
        axes.append({"name": "c", "type": "channel"})
        scale = [{"type": "scale", "scale": [0.5, 0.5, 1]}]
        image = {
            "multiscales": [
                {"axes": axes, "datasets": [{"path": "0", "coordinateTransformations": scale}]}
            ]
        }
        group.attrs.update(image if version == 2 else {"ome": {"version": "0.5", **image}})
        found[f"ome-zarr v{version} zip"] = folder / f"v{version}.zip"
        with zipfile.ZipFile(found[f"ome-zarr v{version} zip"], "w") as archive:
            for file in sorted(p for p in path.rglob("*") if p.is_file()):
                archive.write(file, file.relative_to(path).as_posix())
    shared = Path(__file__).resolve().parents[2] / "shared" / "data" / "slides"
    real = shared / "CMU-1-Small-Region.svs"
    if real.exists():
        found["svs (real)"] = folder / "real.svs"
        shutil.copy(real, found["svs (real)"])
    return found


class Worker:
    """A process that reads one file after the other."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "--work"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self._process.stdout.readline()

    def read(self, path: Path) -> tuple[str, float]:
        """Return what became of a file, and the most memory the process ever took, MB."""
        process = self._process
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(f"{path}\n")
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], 2 * LONGEST_S)
        if not ready:
            return f"hang over {2 * LONGEST_S:.0f} s", 0.0
        line = process.stdout.readline()
        if not line:
            return f"crash, signal {-process.wait()}", 0.0
        answer = json.loads(line)
        if answer["seconds"] > LONGEST_S:
            return f"{answer['seconds']:.1f} s", answer["mb"]
        return answer["outcome"], answer["mb"]

    def stop(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                stream.close()  # type: ignore[union-attr]


def work() -> None:
    """Read files named on stdin; answer a line each."""
    import resource

    from napari_pancluster.core.errors import SlideError
    from napari_pancluster.core.looking import look_at
    from napari_pancluster.core.slide import open_slide

    print("ready", flush=True)
    for line in sys.stdin:
        path, began = Path(line.rstrip("\n")), time.monotonic()
        try:
            look_at(path)
            slide = open_slide(path)
            for number, level in enumerate(slide.levels):
                rows, cols = (min(256, n) for n in level.shape)
                slide.read_level(number, 0, 0, rows, cols)
                slide.read_level(number, level.shape[0] - rows, level.shape[1] - cols, rows, cols)
            slide.close()
            outcome = "read"
        except SlideError:
            outcome = "refused"
        # Anything else is what this looks for.
        except Exception as error:
            outcome = f"{type(error).__name__}: {error}"[:100]
        megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        answer = {"outcome": outcome, "seconds": time.monotonic() - began, "mb": megabytes}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
