"""Small slides drawn on the spot, and the way to the real ones."""

from __future__ import annotations

from pathlib import Path

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
