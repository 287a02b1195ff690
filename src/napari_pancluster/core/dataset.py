"""Training crops on disk: read once in chunk order, then served as pairs of views."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from napari_pancluster.core.geometry import Region
from napari_pancluster.core.patches import PatchSample, whole_patches
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.stack import CHANNELS, Block, SlideStack
from napari_pancluster.core.stain import MAX_OD

# Densities are kept in 8 bits: steps of 0.008, below the noise of an 8-bit scanner.
_CODE = 255 / MAX_OD
_NOISE_OD = 0.01
_BLOCK_PX = 1024
_HUE_SHARE = 0.25


@dataclass(frozen=True)
class PatchStore:
    """Crops of the registered stack, memory-mapped.

    Attributes
    ----------
    codes
        (M, C, S, S) uint8 optical density, ``od = code * MAX_OD / 255``.
    present
        (M, stains) whether a stain covers the crop.
    patch_px
        Side of the patches to be cut from the crops, whose margin allows for shifts.
    learnt
        (L,) rows of the crops that are learnt from, see `whole_patches`; default: all.
    """

    codes: NDArray[np.uint8]
    present: NDArray[np.bool_]
    patch_px: int
    learnt: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))

    def __post_init__(self) -> None:
        if not len(self.learnt):
            object.__setattr__(self, "learnt", np.arange(len(self.codes)))

    @property
    def stains(self) -> int:
        """Number of stains."""
        return int(self.present.shape[1])

    def __len__(self) -> int:
        return len(self.codes)

    def channel_statistics(
        self, most: int = 512
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return mean and standard deviation of the density of every channel, each (C,).

        The deviation of a channel without any contrast is 1.
        """
        rows = np.linspace(0, len(self) - 1, min(most, len(self))).astype(np.int64)
        codes = self.codes[rows].astype(np.float32) / _CODE
        shown = np.repeat(self.present[rows], CHANNELS, axis=1)
        mean = np.zeros(codes.shape[1], np.float32)
        std = np.ones(codes.shape[1], np.float32)
        for c in range(codes.shape[1]):
            values = codes[shown[:, c], c]
            if values.size:
                spread = float(values.std())
                # Scaled up, a stain that is the same everywhere is nothing but the variation that
                # views are given, and hides what the other stains show.
                mean[c], std[c] = values.mean(), spread if spread > _NOISE_OD else 1.0
        return mean, std


def build_store(
    stacks: Sequence[SlideStack],
    sample: PatchSample,
    *,
    mpp: float,
    patch_px: int,
    shift_px: int,
    folder: Path,
) -> Task[PatchStore]:
    """Cut a crop of ``patch_px + 2 * shift_px`` at every position of the sample into `folder`.

    A store that is complete already is opened again, so that a resumed run sees the same crops.
    """
    side = patch_px + 2 * shift_px
    shape = (len(sample.centres), len(stacks[0].read_names) * CHANNELS, side, side)
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "store.json"
    if not done.exists():
        codes = np.lib.format.open_memmap(folder / "codes.npy", "w+", np.uint8, shape)
        present = np.zeros((shape[0], len(stacks[0].read_names)), np.bool_)
        finished = 0
        for rows, block, corner in sampled_blocks(stacks, sample, mpp=mpp, side=side):
            least = stacks[int(sample.case_id[rows[0]])].least_inside
            present[rows] = block.shows(corner, side, least)
            for row, (top, left) in zip(rows, corner, strict=True):
                codes[row] = np.round(block.od[:, top : top + side, left : left + side] * _CODE)
            finished += len(rows)
            yield Progress("Cutting patches", finished, shape[0])
        codes.flush()
        np.save(folder / "present.npy", present)
        np.save(folder / "learnt.npy", np.flatnonzero(whole_patches(present, sample.case_id)))
        done.write_text(json.dumps({"shape": shape, "patch_px": patch_px}))
    return open_store(folder)


def open_store(folder: Path) -> PatchStore:
    """Open a complete store; its crops stay on disk until they are used."""
    patch_px = json.loads((folder / "store.json").read_text())["patch_px"]
    codes = np.load(folder / "codes.npy", mmap_mode="r")
    present, learnt = (np.load(folder / f"{name}.npy") for name in ("present", "learnt"))
    return PatchStore(codes, present, patch_px, learnt)


def sampled_blocks(
    stacks: Sequence[SlideStack], sample: PatchSample, *, mpp: float, side: int
) -> Iterator[tuple[NDArray[np.int64], Block, NDArray[np.int64]]]:
    """Yield rows, the pixels read for them, and each row's corner in those pixels.

    A row needs `side` px of `mpp` µm a side, about its position of the sample. Positions close
    together share one read; where they are sparse, each is read alone.
    """
    corners = np.round(sample.centres / mpp - side / 2).astype(np.int64)
    keys = np.column_stack([sample.case_id, corners // _BLOCK_PX])
    unique, group = np.unique(keys, axis=0, return_inverse=True)
    order = np.argsort(group, kind="stable")
    for rows in np.split(order, np.cumsum(np.bincount(group.ravel(), minlength=len(unique)))[:-1]):
        low, high = corners[rows].min(0), corners[rows].max(0) + side
        together = len(rows) * side * side >= np.prod(high - low)
        for part in [rows] if together else np.split(rows, len(rows)):
            top, left = corners[part].min(0)
            height, width = corners[part].max(0) + side - (top, left)
            region = Region.of_pixels(top=top, left=left, rows=height, cols=width, mpp=mpp)
            block = stacks[int(sample.case_id[part[0]])].read(region, mpp)
            yield part, block, corners[part] - (top, left)


def _stain_gain(
    count: int, stains: int, jitter: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return factors (count, C, 1, 1) from codes to densities of slightly other stainings.

    A section may be stained longer or shorter as a whole; its hue changes much less.
    """
    whole = rng.normal(0, jitter, size=(count, stains, 1))
    hue = rng.normal(0, jitter * _HUE_SHARE, size=(count, stains, CHANNELS))
    gain = np.exp(whole + hue).reshape(count, stains * CHANNELS, 1, 1) / _CODE
    return np.asarray(gain, np.float32)


@dataclass(frozen=True)
class ViewConfig:
    """How two views of one tissue may differ.

    Attributes
    ----------
    shift_px
        Farthest shift from the middle of the crop.
    stain_jitter
        How much the density of a stain varies (standard deviation of its logarithm).
    stain_dropout
        Share of the views that do without one of their stains, where they have several.
    turned
        Whether views are turned and mirrored.
    """

    shift_px: int
    stain_jitter: float
    stain_dropout: float = 0.0
    turned: bool = True


@dataclass(frozen=True)
class Views:
    """Patches as the network is shown them.

    Attributes
    ----------
    od
        (B, C, P, P) float32 density.
    present
        (B, stains) float32, 1 where a stain is there.
    """

    od: torch.Tensor
    present: torch.Tensor

    def __len__(self) -> int:
        return len(self.od)

    @classmethod
    def together(cls, parts: Sequence[Views]) -> Views:
        """Return several views of the same patches, one after the other."""
        return cls(torch.cat([p.od for p in parts]), torch.cat([p.present for p in parts]))

    def halves(self, copies: int) -> list[Views]:
        """Return the two halves of the patches, each with its `copies` views."""
        rows = torch.arange(len(self)).reshape(copies, -1)
        middle = rows.shape[1] // 2
        parts = [part.reshape(-1) for part in (rows[:, :middle], rows[:, middle:])]
        return [Views(self.od[part], self.present[part]) for part in parts]

    def to(self, device: torch.device) -> Views:
        """Return the views on a device, in the layout that pays."""
        od = self.od.to(device, memory_format=torch.channels_last)
        return Views(od, self.present.to(device))


def view(
    store: PatchStore,
    rows: NDArray[np.int64],
    config: ViewConfig,
    rng: np.random.Generator,
    *,
    patch_px: int | None = None,
) -> Views:
    """Return one random view of each crop.

    A view is a window anywhere in the crop (a neighbour is the same tissue), in one of the eight
    dihedral orientations, with the density of every stain and colour scaled a little.

    Parameters
    ----------
    patch_px
        Side of the window, where it is not that of the store's patches.
    """
    side, patch = store.codes.shape[-1], patch_px or store.patch_px
    room = (side - patch) // 2
    reach = min(config.shift_px, room)
    corner = (
        room + rng.integers(-reach, reach + 1, size=(len(rows), 2))
        if reach
        else np.full((len(rows), 2), room)
    )
    out = np.empty((len(rows), store.codes.shape[1], patch, patch), np.float32)
    turns, flips = (rng.integers(n, size=len(rows)) * config.turned for n in (4, 2))
    for i, row in enumerate(rows):
        top, left = corner[i]
        window = store.codes[row, :, top : top + patch, left : left + patch]
        window = np.rot90(window, int(turns[i]), axes=(1, 2))
        out[i] = window[:, :, ::-1] if flips[i] else window
    out *= _stain_gain(len(rows), store.stains, config.stain_jitter, rng)
    present = _shown(store.present[rows], config.stain_dropout, rng)
    return Views(torch.from_numpy(out), torch.from_numpy(present.astype(np.float32)))


def _shown(
    present: NDArray[np.bool_], dropout: float, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Return which stains a view shows: at times one less than there are, but never none."""
    if not dropout:
        return present
    score = rng.random(present.shape) * present
    left_out = (rng.random(len(present)) < dropout) & (present.sum(axis=1) > 1)
    shown = present.copy()
    shown[left_out, score.argmax(axis=1)[left_out]] = False
    return shown
