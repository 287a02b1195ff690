"""Small slides drawn on the spot, and the way to the real ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
GLASS = 243

# A network small enough to learn two textures in seconds.
TINY = {
    "epochs": 6,
    "patches": 192,
    "batch": 32,
    "width": 8,
    "latent": 16,
    "k_min": 2,
    "k_max": 4,
    "learning_rate": 0.004,
}


def shared(*parts: str) -> Path:
    """Return a development file, or skip where the checkout has none."""
    path = SHARED.joinpath(*parts)
    if not path.exists():
        pytest.skip(f"development data {'/'.join(parts)} is not beside this checkout")
    return path


def texture(shape: tuple[int, int], *, coarse: bool, seed: int = 0) -> NDArray[np.uint8]:
    """Return pink tissue: fine grain, or coarse blobs of the same mean colour."""
    rng = np.random.default_rng(seed)
    grain = gaussian_filter(rng.normal(size=shape), 6.0 if coarse else 1.0)
    grain /= grain.std()
    od = np.array([0.15, 0.45, 0.25]) * (1 + 0.45 * np.clip(grain, -2, 2))[..., None]
    return (GLASS * 10**-od).astype(np.uint8)


def write_slide(
    path: Path, rgb: NDArray[np.uint8], mpp: float | None = 0.5, *, levels: int = 2
) -> Path:
    """Write a lossless OME-TIFF with its levels as SubIFDs."""
    metadata: dict[str, object] = {"axes": "YXS"}
    if mpp is not None:
        metadata |= {"PhysicalSizeX": mpp, "PhysicalSizeY": mpp}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        options = {"photometric": "rgb", "tile": (256, 256), "compression": "zlib"}
        tiff.write(rgb, subifds=levels - 1, metadata=metadata, **options)
        for level in range(1, levels):
            step = 2**level
            rows, cols = rgb.shape[0] // step * step, rgb.shape[1] // step * step
            blocks = rgb[:rows, :cols].reshape(rows // step, step, cols // step, step, 3)
            tiff.write(blocks.mean((1, 3)).round().astype(np.uint8), subfiletype=1, **options)
    return path


def make_results(
    slide: Path, *, cases: int = 1, k: int = 5, stride: int = 16, seed: int = 0
) -> Any:
    """Return results over a slide whose latents and clusters are drawn, not learnt.

    Row i of the scatter lies near the middle of its cluster at k, on a ring; every case has a
    rectangle of cells with a margin of background.
    """
    from napari_pancluster.core.edits import ClusterEdits
    from napari_pancluster.core.embedding import Embedding
    from napari_pancluster.core.geometry import cells_along
    from napari_pancluster.core.patches import PatchGrid, PatchTable
    from napari_pancluster.core.results import Results
    from napari_pancluster.core.slide import open_slide
    from napari_pancluster.core.stack import SlideStack
    from napari_pancluster.core.stain import Stain

    rng = np.random.default_rng(0)
    stain = Stain.of("HE", open_slide(slide))
    mpp, extent = stain.slide.um_per_px, stain.slide.extent
    shape = tuple(cells_along(v, stride * mpp) for v in (extent.height, extent.width))
    inner = np.argwhere(np.pad(np.ones((shape[0] - 4, shape[1] - 4), bool), 2)).astype(np.int32)
    names = [f"case{n}" for n in range(cases)]
    grids = tuple(PatchGrid(name, mpp, 32, stride, inner, shape) for name in names)
    table = PatchTable(grids)
    ks = range(2, k + 2)
    blocks = (inner[:, 0] // 4 * 7 + inner[:, 1] // 4) % k
    assignments = {n: (np.tile(blocks, cases) % n).astype(np.uint8) for n in ks}
    angle = 2 * np.pi * assignments[k] / k
    coords = 10 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    coords = (coords + rng.normal(0, 0.8, coords.shape)).astype(np.float32)
    return Results(
        run="run",
        stacks={name: SlideStack(name, "HE", (stain,)) for name in names},
        table=table,
        latents=np.concatenate([coords, rng.normal(size=(len(table), 6))], 1).astype(np.float32),
        assignments=assignments,
        certainty={n: np.full(len(table), 200, np.uint8) for n in ks},
        embedding=Embedding(coords, np.arange(len(table))),
        embedding_name="UMAP",
        scores=None,
        k=k,
        edits={n: ClusterEdits(n) for n in ks},
        cell_mm2=(stride * mpp) ** 2 * 1e-6,
    )
