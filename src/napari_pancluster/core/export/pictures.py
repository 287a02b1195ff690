"""PNG pictures: map, registered stains, densities, gallery, UMAP, index curves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from numpy.typing import NDArray

from napari_pancluster.core.export.content import Content
from napari_pancluster.core.gallery import (
    density,
    patch_region,
    typical_rows,
)
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.palette import rgb
from napari_pancluster.core.patches import PatchGrid
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.validation import BETTER, PLAIN_NAMES

_PICTURE_PX = 1400
_GALLERY = 6
_ROUND_LENGTHS = (1, 2, 5)


def write_pictures(folder: Path, content: Content) -> list[Path]:
    """Write every picture there is data for."""
    paths = []
    for number, grid in enumerate(content.table.grids):
        stack = content.stacks[grid.case]
        labels = content.label_image(number)
        paths += [
            _map_picture(folder / f"{grid.case}_map.png", content, grid, labels, stack),
            _stains_picture(folder / f"{grid.case}_stains.png", content, grid, stack),
            _density_picture(folder / f"{grid.case}_density.png", content, grid, labels),
        ]
    paths.append(gallery_picture(folder / "gallery.png", content))
    if content.embedding is not None:
        paths.append(_umap_picture(folder / "umap.png", content))
    if content.scores is not None and len(content.scores.k) > 1:
        paths.append(curves_picture(folder / "k_curves.png", content))
    return paths


@contextmanager
def figure_file(path: Path, width: float, height: float) -> Iterator[Figure]:
    """Give a figure of a size in inches, and write it as PNG."""
    # No pyplot: it keeps global state and may pick a window backend.
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure
    figure.savefig(path, dpi=120)


def _tissue_box(grid: PatchGrid, extent: Region) -> Region:
    """Return the rectangle around the mapped cells, with a margin, inside the slide."""
    low = np.maximum((grid.index.min(0) - 2) * grid.cell_um, 0)
    high = np.minimum((grid.index.max(0) + 3) * grid.cell_um, (extent.height, extent.width))
    return Region(float(low[0]), float(low[1]), float(high[0] - low[0]), float(high[1] - low[1]))


def _picture_mpp(box: Region, grid: PatchGrid, longest_px: float) -> float:
    return max(grid.mpp, max(box.height, box.width) / longest_px)


def _extent(box: Region) -> tuple[float, float, float, float]:
    return box.left, box.right, box.bottom, box.top


def _coloured(content: Content, image: NDArray[np.uint8], alpha: int) -> NDArray[np.uint8]:
    table = np.zeros((256, 4), np.uint8)
    for label in content.labels:
        table[label] = (*rgb(content.colour(label)), alpha)
    return table[image]


def _map_extent(grid: PatchGrid) -> tuple[float, float, float, float]:
    return 0, grid.shape[1] * grid.cell_um, grid.shape[0] * grid.cell_um, 0


def _scale_bar(axes: Axes, box: Region, content: Content) -> None:
    target = box.width / 5
    power = 10 ** np.floor(np.log10(target))
    length = max(v * power for v in _ROUND_LENGTHS if v * power <= target)
    x, y = box.left + 0.03 * box.width, box.bottom - 0.03 * box.height
    axes.add_patch(Rectangle((x, y), length, -0.008 * box.height, color="black"))
    unit = content.unit
    shown = length
    if content.calibrated and length >= 1000:
        shown, unit = length / 1000, "mm"
    note = " (nominal)" if content.nominal else ""
    axes.text(
        x + length / 2,
        y - 0.015 * box.height,
        f"{shown:g} {unit}{note}",
        ha="center",
        va="bottom",
        fontsize=9,
    )


def _bare(axes: Axes, box: Region) -> None:
    axes.set_xlim(box.left, box.right)
    axes.set_ylim(box.bottom, box.top)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_aspect("equal")
    for side in axes.spines.values():
        side.set_visible(False)


def _legend(figure: Figure, content: Content) -> None:
    handles = [Patch(color=content.colour(n), label=content.name(n)) for n in content.labels]
    figure.legend(handles=handles, loc="outside right center", frameon=False, fontsize=9)


def _size(box: Region, count: int, each: float) -> tuple[float, float]:
    """Return figure inches for `count` panels of `each` inches side by side."""
    aspect = box.height / box.width
    return (count * each, min(max(each * aspect, 2.0), 12.0))


def _map_picture(
    path: Path, content: Content, grid: PatchGrid, labels: NDArray[np.uint8], stack: SlideStack
) -> Path:
    box = _tissue_box(grid, stack.extent)
    (seen,) = stack.pictures((stack.reference,), box, _picture_mpp(box, grid, _PICTURE_PX))
    width, height = _size(box, 2, 6.0)
    with figure_file(path, width + 1.6, height + 0.5) as figure:
        left, right = figure.subplots(1, 2)
        left.imshow(seen, extent=_extent(box), interpolation="antialiased")
        left.set_title(f"{stack.case}: {stack.reference}")
        right.imshow(seen.mean(2), cmap="gray", vmin=0, vmax=255, extent=_extent(box))
        right.imshow(
            _coloured(content, labels, 215), extent=_map_extent(grid), interpolation="nearest"
        )
        right.set_title(f"{len(content.labels)} clusters")
        for axes in (left, right):
            _bare(axes, box)
            _scale_bar(axes, box, content)
        _legend(figure, content)
    return path


def _stains_picture(path: Path, content: Content, grid: PatchGrid, stack: SlideStack) -> Path:
    box = _tissue_box(grid, stack.extent)
    names = stack.names
    pictures = stack.pictures(names, box, _picture_mpp(box, grid, 700))
    width, height = _size(box, len(names), 4.0)
    with figure_file(path, width, height + 0.4) as figure:
        for i, axes in enumerate(figure.subplots(1, len(names), squeeze=False)[0]):
            axes.imshow(pictures[i], extent=_extent(box))
            known = names[i] in stack.registered
            axes.set_title(
                names[i]
                + (
                    " (reference)"
                    if names[i] == stack.reference
                    else ""
                    if known
                    else " (not registered)"
                )
            )
            _bare(axes, box)
        _scale_bar(figure.axes[0], box, content)
    return path


def _density_picture(
    path: Path, content: Content, grid: PatchGrid, labels: NDArray[np.uint8]
) -> Path:
    box = _tissue_box(
        grid, Region(0, 0, grid.shape[0] * grid.cell_um, grid.shape[1] * grid.cell_um)
    )
    columns = min(5, len(content.labels))
    lines = -(-len(content.labels) // columns)
    width, height = _size(box, columns, 2.6)
    with figure_file(path, width + 0.8, lines * (height + 0.35)) as figure:
        panels = figure.subplots(lines, columns, squeeze=False).ravel()
        for axes in panels[len(content.labels) :]:
            axes.set_visible(False)
        for label, axes in zip(content.labels, panels, strict=False):
            shown = axes.imshow(
                density(labels, label),
                cmap="viridis",
                vmin=0,
                vmax=1,
                extent=_map_extent(grid),
                interpolation="nearest",
            )
            axes.set_title(content.name(label), fontsize=9)
            _bare(axes, box)
        figure.colorbar(shown, ax=list(panels), label="share of the neighbourhood", shrink=0.6)
    return path


def gallery_picture(path: Path, content: Content) -> Path:
    """Write typical patches of every cluster in every stain."""
    names = list(dict.fromkeys(n for s in content.stacks.values() for n in s.registered))
    lines = len(content.labels)
    with figure_file(path, 0.75 * _GALLERY * len(names) + 1.2, 0.8 * lines + 0.5) as figure:
        panels = figure.subplots(lines, len(names), squeeze=False)
        for label, line in zip(content.labels, panels, strict=True):
            strips = _gallery_strips(content, names, label)
            for name, axes, strip in zip(names, line, strips, strict=True):
                axes.imshow(strip)
                axes.set_xticks([])
                axes.set_yticks([])
                if label == content.labels[0]:
                    axes.set_title(name, fontsize=10)
            line[0].set_ylabel(content.name(label), fontsize=9, rotation=0, ha="right", va="center")
            for side in line[0].spines.values():
                side.set_color(content.colour(label))
                side.set_linewidth(3)
    return path


def _gallery_strips(content: Content, names: list[str], label: int) -> list[NDArray[np.uint8]]:
    """Return one strip of typical patches a stain, the same places in each."""
    side = content.table.grids[0].patch_px
    gap = max(1, side // 16)
    strips = [np.full((side, _GALLERY * (side + gap) - gap, 3), 255, np.uint8) for _ in names]
    rows = np.flatnonzero(content.row_labels == label)
    for n, row in enumerate(typical_rows(content.latents.values, rows, _GALLERY)):
        number = int(content.table.grid_id[row])
        grid = content.table.grids[number]
        region = patch_region(grid, int(row) - content.table.rows_of(number).start)
        patches = content.stacks[grid.case].pictures(tuple(names), region, grid.mpp)
        for strip, patch in zip(strips, patches, strict=True):
            strip[:, n * (side + gap) : n * (side + gap) + side] = patch
    return strips


def _umap_picture(path: Path, content: Content) -> Path:
    assert content.embedding is not None
    coords, rows = content.embedding.coords, content.embedding.rows
    colours = np.zeros((256, 3))
    for label in content.labels:
        colours[label] = np.array(rgb(content.colour(label))) / 255
    size = float(np.clip(20_000 / max(len(rows), 1), 0.3, 12))
    with figure_file(path, 8, 6.5) as figure:
        axes = figure.subplots()
        axes.scatter(
            coords[:, 0],
            coords[:, 1],
            s=size,
            c=colours[content.row_labels[rows]],
            linewidths=0,
        )
        axes.set_xlabel("UMAP 1")
        axes.set_ylabel("UMAP 2")
        axes.set_title(f"{len(rows):,} patches in {len(content.labels)} clusters")
        _legend(figure, content)
    return path


def curves_picture(path: Path, content: Content) -> Path:
    """Write the validation indices of every k."""
    assert content.scores is not None
    scores = content.scores
    with figure_file(path, 15, 7) as figure:
        panels = figure.subplots(2, 4).ravel()
        for (name, better), axes in zip(BETTER.items(), panels, strict=False):
            axes.errorbar(
                scores.k,
                scores.mean[name],
                scores.std[name],
                marker="o",
                ms=4,
                color="#1965B0",
                capsize=2,
            )
            axes.axvline(
                scores.suggested_k, color="#E65518", lw=1, label=f"suggested: {scores.suggested_k}"
            )
            if content.clustering.k != scores.suggested_k:
                axes.axvline(
                    content.clustering.k,
                    color="black",
                    lw=1,
                    ls="--",
                    label=f"mapped: {content.clustering.k}",
                )
            axes.set_title(f"{PLAIN_NAMES[name]} ({better} is better)", fontsize=10)
            axes.set_xlabel("k")
        panels[0].legend(frameon=False, fontsize=9)
        for empty in panels[len(BETTER) :]:
            empty.axis("off")
        panels[-1].text(0, 0.9, scores.why, wrap=True, va="top", fontsize=10)
    return path
