"""Synthetic section: a ruler with known truth, drawn in up to five stains."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from napari_pancluster.core.config import SynthConfig
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.synth.draw import Painter, Placement
from napari_pancluster.core.synth.layout import Layout, draw_layout
from napari_pancluster.core.synth.texture import PAIR, STAINS, draw_banks
from napari_pancluster.core.synth.tiff import TILE, Pixels, StreamedPyramid, write_labels
from napari_pancluster.core.synth.warp import Warp

POINTS = 1000
"""Truth points a moving stain."""

_BLOCK_COLS = 512


@dataclass(frozen=True)
class SynthResult:
    """The files of a synthetic section.

    Attributes
    ----------
    slides
        One pyramidal OME-TIFF a stain, the reference first.
    sheet
        Sample sheet with the columns ``case,stain,path,mpp,reference``.
    truth_labels
        uint8 image of the reference frame, 0 on glass, 1...tissues; coarser than the slides.
    truth_points
        ``stain,reference_x,reference_y,x,y`` in level-0 px, corner coordinates.
    tissues
        How many types there are. Two of them, see `one_stain_pair`, differ in one stain only.
    """

    slides: dict[str, Path]
    sheet: Path
    truth_labels: Path
    truth_points: Path
    tissues: int


@dataclass(frozen=True)
class Section:
    """Everything that is drawn by chance, save the textures: the layout and each slide's warp."""

    layout: Layout
    placement: Placement
    warps: dict[str, Warp]


def one_stain_pair(config: SynthConfig) -> tuple[int, int, str]:
    """Return the labels of two types that differ in one stain only, and the name of that stain."""
    if config.stains < 2:
        raise InputError(
            f"With {config.stains} stain no two types can differ in one immunostain only. "
            "Draw 2 stains or more."
        )
    stain = "Ki67" if config.stains > STAINS.index("Ki67") else STAINS[config.stains - 1]
    return (*PAIR, stain)


def draw_section(config: SynthConfig) -> Section:
    """Draw the layout of a section and the geometry of its slides."""
    layout = draw_layout(
        np.random.default_rng([config.seed, 1]), size=config.size, tissues=config.tissues
    )
    placement = Placement.random(
        np.random.default_rng([config.seed, 2]), len(layout.cell_labels) - 1
    )
    moving = STAINS[1 : config.stains]
    rng = np.random.default_rng([config.seed, 3])
    flips = dict(zip(moving, rng.uniform(size=len(moving)) < 0.4, strict=True))
    if len(moving) >= 2 and not any(flips.values()):
        flips[moving[int(rng.integers(len(moving)))]] = np.True_
    warps = {stain: Warp.identity(config.size) for stain in STAINS[: config.stains]}
    if config.deform:
        outline = layout.outline()
        for number, stain in enumerate(moving):
            rng = np.random.default_rng([config.seed, 4, number])
            warps[stain] = Warp.random(rng, outline, size=config.size, flip=bool(flips[stain]))
    return Section(layout, placement, warps)


def synthesise(out: Path, config: SynthConfig) -> Task[SynthResult]:
    """Draw a synthetic section with known truth into an empty or new folder.

    Parameters
    ----------
    out
        The folder; made if it is missing. What was written is removed again on cancel or failure.
    config
        What to draw.

    Raises
    ------
    InputError
        The folder is not empty or cannot be written, or the format is not drawn yet.
    """
    if config.format != "ome-tiff":
        raise InputError(
            f"A synthetic section cannot be drawn as {config.format} yet. Use --format ome-tiff."
        )
    with _new_files(out) as files:
        yield Progress("Laying out the section")
        section = draw_section(config)
        banks = yield from draw_banks(config.seed, tissues=config.tissues, stains=config.stains)
        slides: dict[str, Path] = {}
        for number, (stain, warp) in enumerate(section.warps.items()):
            painter = Painter(
                section.layout,
                section.placement,
                banks[number],
                stain=stain,
                warp=warp,
                rng=np.random.default_rng([config.seed, 5, number]),
            )
            slides[stain] = files.add(f"{stain}.ome.tif")
            yield from _write_slide(slides[stain], painter, warp.shape, config.mpp, stain)
        labels, points, sheet = (
            files.add(name) for name in ("truth_labels.ome.tif", "truth_points.csv", "slides.csv")
        )
        write_labels(labels, section.layout.labels, mpp=config.mpp * section.layout.scale)
        _write_points(points, section, np.random.default_rng([config.seed, 6]))
        _write_sheet(sheet, slides, config.mpp)
        files.keep()
    return SynthResult(slides, sheet, labels, points, config.tissues)


class _Files:
    """The files written so far, removed again unless they are kept."""

    def __init__(self, folder: Path) -> None:
        self.made: list[Path] = []
        self._folder = folder
        self._paths: list[Path] = []

    def add(self, name: str) -> Path:
        """Return the absolute path of a new file."""
        self._paths.append(self._folder / name)
        return self._paths[-1]

    def keep(self) -> None:
        """Leave everything where it is."""
        self._paths, self.made = [], []

    def remove(self) -> None:
        """Remove the files and the folders that were made for them."""
        for path in self._paths:
            path.unlink(missing_ok=True)
        for folder in self.made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()


@contextmanager
def _new_files(out: Path) -> Iterator[_Files]:
    """Check and make the folder `out`; on any failure leave it as it was found."""
    out = out.absolute()
    files = _Files(out)
    try:
        try:
            files.made = [path for path in (out, *out.parents) if not path.exists()]
            out.mkdir(parents=True, exist_ok=True)
            occupied = any(out.iterdir())
        except OSError as error:
            raise InputError(
                f"{out} cannot be used as a folder ({error.strerror}). "
                "Name a folder that you may write to."
            ) from error
        if occupied:
            raise InputError(f"{out} is not empty. Name a new folder, or empty this one first.")
        try:
            yield files
        except OSError as error:
            raise InputError(
                f"{out} cannot be written ({error.strerror or error}). "
                "Name a folder that you may write to, with enough free space."
            ) from error
    finally:
        files.remove()


def _write_slide(
    path: Path, painter: Painter, shape: tuple[int, int], mpp: float, stain: str
) -> Task[None]:
    """Paint a slide a strip at a time, a block of it between two yields."""
    height, width = shape
    blocks = [
        (top, left) for top in range(0, height, TILE) for left in range(0, width, _BLOCK_COLS)
    ]
    pyramid = StreamedPyramid(path, shape, mpp=mpp)
    try:
        strip: list[Pixels] = []
        for done, (top, left) in enumerate(blocks):
            yield Progress(f"Drawing {stain}", done, len(blocks))
            size = (min(TILE, height - top), min(_BLOCK_COLS, width - left))
            strip.append(painter.block(top, left, *size))
            if left + size[1] == width:
                pyramid.add(np.concatenate(strip, axis=1))
                strip.clear()
        yield Progress(f"Writing {stain}", len(blocks), len(blocks))
        pyramid.finish()
    finally:
        pyramid.close()


def _write_points(path: Path, section: Section, rng: np.random.Generator) -> None:
    """Write pairs of true positions, x right and y down in level-0 px, for each moving stain."""
    _, *moving = section.warps
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["stain", "reference_x", "reference_y", "x", "y"])
        for stain in moving:
            # Rounded before they are mapped, so that the file itself is exact.
            fixed = section.layout.points(rng, POINTS).round(3)
            moved = section.warps[stain].forward(fixed)
            for (y, x), (to_y, to_x) in zip(fixed, moved, strict=True):
                table.writerow([stain, f"{x:.3f}", f"{y:.3f}", f"{to_x:.4f}", f"{to_y:.4f}"])


def _write_sheet(path: Path, slides: dict[str, Path], mpp: float) -> None:
    """Write the sample sheet that `new --sheet` reads."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["case", "stain", "path", "mpp", "reference"])
        for stain, slide in slides.items():
            first = "true" if stain == STAINS[0] else "false"
            table.writerow(["synthetic", stain, slide, mpp, first])
