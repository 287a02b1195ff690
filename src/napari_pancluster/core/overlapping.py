"""Patches that overlap, encoded with one first convolution over all of them."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from napari_pancluster.core.model import PatchNetwork

# Pixels of all patches over those of the window around them, from which on sharing is faster (64 px
# patches; 3.2 at a stride of half a patch, 1,024 of them in 0.39 s in place of 0.46).
_LEAST_OVERLAP = 1.5
# Pixels that the first and the last place of a map see: a kernel of 4, less the padding of 1.
_SEEN = 3


def can_share(corners: NDArray[np.int64], side: int, present: NDArray[np.bool_]) -> bool:
    """Return whether `encode_overlapping` gives what encoding one by one does, and is faster.

    Parameters
    ----------
    corners
        (M, 2) first pixels (row, col) of the patches.
    side
        Of a patch in pixels.
    present
        (M, stains) whether a patch has a stain.
    """
    within = corners - corners.min(axis=0)
    window = (within.max(axis=0) + side).prod()
    aligned = not (within % 2).any()
    alike = bool((present == present[0]).all())
    return aligned and alike and len(corners) * side**2 >= _LEAST_OVERLAP * window


def encode_overlapping(
    network: PatchNetwork,
    od: NDArray[np.float32],
    corners: NDArray[np.int64],
    side: int,
    present: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """Return the latents of patches that overlap, the same as if each were encoded by itself.

    A convolution pads its input with zeros at the border of the *patch*, where one over the whole
    window sees the neighbours. With a kernel of 4 and a stride of 2 this concerns the outermost
    places of the first stage's map and no others. These are computed apart, on the three
    outermost pixels: of a row of patches at once, of a column, and of every patch in its corners.

    Only the first stage is shared. Of the later maps the border is a larger part (12 of the 16
    places of the last one of 64 px): to share the second stage too took longer at a stride of 32
    px. To share all four and leave the border as it comes would not be exact: latents would differ
    by 0.3 to 1.1 standard deviations on average with the networks of three sections, and from none
    to all of 144 cells would change their cluster (64 px patches, stride 16).

    Parameters
    ----------
    network
        In evaluation mode.
    od
        (C, rows, cols) densities in which the patches lie; fastest with channels last in memory.
    corners
        (M, 2) first pixels (row, col) of the patches, see `can_share`.
    side
        Of a patch in pixels.
    present
        (stains,) which all of the patches have.

    Returns
    -------
    ndarray
        (M, D) latents.
    """
    first = corners.min(axis=0)
    (top, left), (bottom, right) = first, corners.max(axis=0) + side
    with torch.inference_mode():
        window = torch.from_numpy(od[:, top:bottom, left:right])[None].to(network.device)
        shown = torch.from_numpy(present[None].astype(np.float32)).to(network.device)
        window = network.normalise(window, shown)
        maps = _first_maps(network, window, corners - first, side)
        latents = network.encode_from(maps)[1]
    return latents.float().cpu().numpy()


def _first_maps(
    network: PatchNetwork, window: torch.Tensor, corners: NDArray[np.int64], side: int
) -> torch.Tensor:
    """Return the first stage's maps (M, width, side / 2, side / 2) of patches in a window."""

    def stage(x: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = network.stages[0](x.permute(0, 3, 1, 2))
        return maps.permute(0, 2, 3, 1)

    # Channels last from here on: (…, row, col, channel).
    pixels = window[0].permute(1, 2, 0)
    (tops, row), (lefts, col) = (_lines(corners[:, axis]) for axis in (0, 1))
    # Both borders side by side, padded as one: the first and the last place of what comes out.
    outer = torch.cat([torch.arange(_SEEN), torch.arange(side - _SEEN, side)])
    starts = torch.from_numpy(corners)
    in_rows, in_cols = starts[:, :1] + outer, starts[:, 1:] + outer
    rows = stage(pixels[tops[:, None] + outer])
    cols = stage(pixels[:, lefts[:, None] + outer].transpose(0, 1))
    angles = stage(pixels[in_rows[:, :, None], in_cols[:, None]])
    whole = stage(pixels[None])[0]

    half = side // 2
    places = starts // 2
    maps = torch.stack([whole[r : r + half, c : c + half] for r, c in places.tolist()])
    along_rows = places[:, :1] + torch.arange(half)
    along_cols = places[:, 1:] + torch.arange(half)
    for end in (0, -1):
        maps[:, end] = rows[row[:, None], end, along_cols]
        maps[:, :, end] = cols[col[:, None], along_rows, end]
    for end in (0, -1):
        for side_end in (0, -1):
            maps[:, end, side_end] = angles[:, end, side_end]
    return maps.permute(0, 3, 1, 2)


def _lines(starts: NDArray[np.int64]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return where rows (or columns) of patches start, and in which each patch lies."""
    first, number = np.unique(starts, return_inverse=True)
    return torch.from_numpy(first), torch.from_numpy(number)
