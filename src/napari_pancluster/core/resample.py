"""Exact resampling on one axis, shared by every reader, so that half-pixel rules are the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from scipy import sparse


def halve(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return means of 2 × 2 pixels (rows, cols, channels); an odd last row or column is dropped."""
    rows, cols = (n // 2 * 2 for n in pixels.shape[:2])
    wide = pixels[:rows, :cols].astype(np.float32)
    mean = (wide[::2, ::2] + wide[1::2, ::2] + wide[::2, 1::2] + wide[1::2, 1::2]) / 4
    # To even at a half: rounding up, level after level, would brighten the coarse ones.
    return np.asarray((mean if pixels.dtype.kind == "f" else np.rint(mean)).astype(pixels.dtype))


def area_weights(
    *, start: float, step: float, count: int, size: int
) -> tuple[sparse.csr_array, NDArray[np.float32]]:
    """Return the matrix that averages `size` input pixels into `count` output pixels.

    Output pixel *i* is centred at ``start + (i + 0.5) * step`` in input pixels (corner
    coordinates) and averages a box ``max(step, 1)`` wide: the area mean when shrinking, linear
    interpolation when not.

    Returns
    -------
    weights
        (count, size) sparse, rows summing to 1 where any input lies under the box, else 0.
    coverage
        (count,) share of each box that lies inside the input, 0 to 1.
    """
    # Not on top: what a slide is can be told without scipy.
    from scipy import sparse

    width = max(step, 1.0)
    low = start + (np.arange(count) + 0.5) * step - width / 2
    first = np.floor(low).astype(np.int64)
    offsets = np.arange(int(np.ceil(width)) + 1)
    pixel = first[:, None] + offsets[None, :]
    overlap = np.minimum(pixel + 1, low[:, None] + width) - np.maximum(pixel, low[:, None])
    inside = (pixel >= 0) & (pixel < size)
    weight = np.where(inside, np.clip(overlap, 0, None), 0)
    total = weight.sum(axis=1)
    coverage = (total / width).astype(np.float32)
    weight = weight / np.where(total > 1e-9, total, 1)[:, None]
    kept = weight > 1e-9
    row = np.broadcast_to(np.arange(count)[:, None], pixel.shape)[kept]
    matrix = sparse.csr_array(
        (weight[kept].astype(np.float32), (row, pixel[kept])), shape=(count, size)
    )
    return matrix, coverage


def apply_separable(
    rows: sparse.csr_array, cols: sparse.csr_array, image: NDArray[np.generic]
) -> NDArray[np.float32]:
    """Return ``rows @ image @ cols.T`` for an image of shape (H, W, C)."""
    height, width, channels = image.shape
    narrow = rows @ np.ascontiguousarray(image, dtype=np.float32).reshape(height, width * channels)
    narrow = narrow.reshape(-1, width, channels).transpose(1, 0, 2).reshape(width, -1)
    out = (cols @ narrow).reshape(cols.shape[0], rows.shape[0], channels)
    return np.ascontiguousarray(out.transpose(1, 0, 2), dtype=np.float32)


def interpolate(image: NDArray[np.float32], at: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return an image at places between its pixels, bilinear; beyond its edge the edge holds.

    Parameters
    ----------
    image
        (H, W, C).
    at
        (2, rows, cols) row and col, relative to the centre of the first pixel.

    Returns
    -------
    ndarray
        (C, rows, cols).
    """
    # Not on top: torch takes a second or two. It does this in a tenth of the time of scipy, and
    # for one image on the thread that asks.
    import torch

    height, width = image.shape[:2]
    # From -1 at the first pixel's outer edge to 1 at the last one's, col first.
    grid = np.empty((*at.shape[1:], 2), np.float32)
    for axis, (places, size) in enumerate(((at[1], width), (at[0], height))):
        np.multiply(places, np.float32(2 / size), out=grid[..., axis])
        grid[..., axis] += np.float32(1 / size - 1)
    with torch.inference_mode():
        # Sampling a channel at a time is faster, the copy included.
        pixels = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))[None]
        found = torch.nn.functional.grid_sample(
            pixels, torch.from_numpy(grid)[None], padding_mode="border", align_corners=False
        )
    return np.asarray(found[0].numpy())
