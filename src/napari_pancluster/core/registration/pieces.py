"""A start for tissue that came in pieces, or broke into them, each of which moved on its own."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.cluster.vq import kmeans2

from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.registration.affine import alignment, refine_affine
from napari_pancluster.core.registration.candidates import both_at
from napari_pancluster.core.registration.images import FloatImage, Matrix, WorkImage, compose
from napari_pancluster.core.registration.search import Correlator, orientation

# Longer side in px at which tissue is divided, a piece is looked for, and fitted.
_PIECES_PX, _LOOK_PX, _FIT_PX = 256, 160, (128, 256)
# A piece of a strand is about this many times as long as the strand is wide.
_LENGTH, _MOST_PIECES = 2.0, 8
_TURNS_DEG = tuple(range(-24, 25, 6))
_REACH_SHARE = 0.12
# How much better a piece must match where it moved to than where the whole section put it.
_LEAST_GAIN = 1.15
_BLEND_SHARE, _SMOOTH_SHARE = 0.01, 0.015
_RIM_PX = 3


@dataclass(frozen=True)
class Pieces:
    """A section's tissue, divided.

    Attributes
    ----------
    labels
        (rows, cols) which piece the tissue of a pixel belongs to, from 1; 0 for glass.
    centres
        (pieces, 2) row, col of their middles, µm.
    mpp
        Pixel size, µm/px.
    """

    labels: NDArray[np.int32]
    centres: NDArray[np.float64]
    mpp: float

    def __len__(self) -> int:
        return len(self.centres)


def pieces_of(section: WorkImage) -> Pieces:
    """Divide a section into compact pieces, about as wide as its strands are.

    Where it broke is not asked: the parts of a broken strand often still touch. Tissue as wide as
    it is long is one piece.
    """
    small = section.at(max(section.long_um / _PIECES_PX, section.mpp))
    tissue = small.tissue > 0.5
    points = np.argwhere(tissue).astype(np.float64)
    if len(points) == 0:
        return Pieces(np.zeros(small.shape, np.int32), np.zeros((0, 2)), small.mpp)
    width = 2 * float(np.percentile(ndimage.distance_transform_edt(tissue)[tissue], 95))
    count = int(np.clip(round(len(points) / (_LENGTH * width**2)), 1, _MOST_PIECES))
    centres, nearest = kmeans2(points, count, minit="++", seed=0, missing="warn")
    labels = np.zeros(small.shape, np.int32)
    labels[tissue] = nearest + 1
    return Pieces(labels, (centres + 0.5) * small.mpp, small.mpp)


def piecewise_field(
    fixed: WorkImage, moving: WorkImage, matrix: Matrix
) -> Task[tuple[NDArray[np.float32], float] | None]:
    """Return the field that takes every piece to its own place, before the affine.

    The piece that lies best where the affine of the whole puts it comes first; each next one is
    looked for near where the whole, and where its neighbour, would have it. Between the pieces
    their moves are blended by distance.

    Returns
    -------
    field, spacing
        (2, rows, cols) in µm, and its pixel size in µm; None where there is one piece only, or
        none lies better elsewhere.
    """
    pieces = pieces_of(fixed)
    if len(pieces) < 2:
        return None
    target, source = both_at(fixed, moving, _FIT_PX[-1])
    scores = [
        alignment(_only(target, pieces, n), source, matrix, inside=True) for n in range(len(pieces))
    ]
    placed: dict[int, Matrix] = {}
    for done in range(len(pieces)):
        yield Progress("Matching the pieces", done, len(pieces))
        if not placed:
            number, starts = int(np.argmax(scores)), [matrix]
        else:
            number, neighbour = _next(pieces, placed)
            starts = [matrix, placed[neighbour]]
        found = yield from _place(fixed, moving, starts, pieces, number)
        better = found is not None and found[0] > _LEAST_GAIN * max(scores[number], 0)
        placed[number] = found[1] if found is not None and better else matrix
    if all(move is matrix for move in placed.values()):
        return None
    back = np.linalg.inv(matrix)
    return _blend(pieces, [back @ placed[n] for n in range(len(pieces))]), pieces.mpp


def _next(pieces: Pieces, placed: dict[int, Matrix]) -> tuple[int, int]:
    """Return the piece nearest to those that are placed, and which of them that is."""
    apart = np.linalg.norm(pieces.centres[:, None] - pieces.centres[None], axis=-1)
    apart[list(placed)] = np.inf
    others = list(placed)
    row, col = np.unravel_index(int(np.argmin(apart[:, others])), (len(pieces), len(others)))
    return int(row), others[int(col)]


def _place(
    fixed: WorkImage, moving: WorkImage, starts: list[Matrix], pieces: Pieces, number: int
) -> Task[tuple[float, Matrix] | None]:
    """Return how well a piece lies at its best place, and that place, fixed µm to moving µm."""
    look, source = both_at(fixed, moving, _LOOK_PX)
    piece = _only(look, pieces, number)
    if not piece.tissue.any():
        return None
    cover = ndimage.binary_dilation(piece.tissue > 0, iterations=_RIM_PX)
    correlate = Correlator(piece, source, cover)
    centre, reach = pieces.centres[number], _REACH_SHARE * fixed.long_um
    looked = []
    for start in starts:
        for turn in _TURNS_DEG:
            # Turned about the piece's own middle, in the frame of the fixed section.
            about = compose(orientation(turn, flipped=False), np.zeros(2))
            about[:2, 2] = centre - about[:2, :2] @ centre
            looked.append(correlate.near(start @ about, centre, reach))
        yield Progress("Matching the pieces", len(pieces), len(pieces))
    looked.sort(key=lambda f: -f[1])
    best: tuple[float, Matrix] | None = None
    for start in (*starts, *(f[0] for f in looked[:2])):
        fitted = start
        for px in _FIT_PX:
            yield Progress("Matching the pieces", len(pieces), len(pieces))
            target, source = both_at(fixed, moving, px)
            fitted = _fit(_only(target, pieces, number), source, fitted)
        score = alignment(_only(target, pieces, number), source, fitted, inside=True)
        ends = [m[:2, :2] @ centre + m[:2, 2] for m in (fitted, *starts)]
        moved = min(float(np.linalg.norm(ends[0] - end)) for end in ends[1:])
        if moved < 1.5 * reach and (best is None or score > best[0]):
            best = score, fitted
    return best


def _fit(piece: WorkImage, source: WorkImage, start: Matrix) -> Matrix:
    """Return a piece fitted rigidly, on the part of the picture that it fills."""
    box = [slice(max(0, s.start - _RIM_PX), s.stop + _RIM_PX) for s in _bounds(piece)]
    corner = np.array([s.start for s in box]) * piece.mpp
    part = replace(piece, density=piece.density[tuple(box)], tissue=piece.tissue[tuple(box)])
    there = compose(np.eye(2), corner)
    fitted = refine_affine(part, source, start @ there, rigid=True, inside=True)
    return fitted @ np.linalg.inv(there)


def _bounds(piece: WorkImage) -> tuple[slice, slice]:
    found = ndimage.find_objects((piece.tissue > 0).astype(np.int8))
    return found[0] if found else (slice(0, None), slice(0, None))


def _only(section: WorkImage, pieces: Pieces, number: int) -> WorkImage:
    """Return a section with the tissue of one piece alone."""
    rows, cols = (
        np.minimum(((np.arange(n) + 0.5) * section.mpp / pieces.mpp).astype(int), size - 1)
        for n, size in zip(section.shape, pieces.labels.shape, strict=True)
    )
    near = ndimage.grey_dilation(pieces.labels, size=(3, 3))
    mask = near[np.ix_(rows, cols)] == number + 1
    return replace(section, density=section.density * mask, tissue=section.tissue * mask)


def _blend(pieces: Pieces, moves: list[Matrix]) -> NDArray[np.float32]:
    """Return the displacement of affine maps of the fixed frame, each of them at its piece."""
    shape = pieces.labels.shape
    at = (np.indices(shape) + 0.5) * pieces.mpp
    total: FloatImage = np.zeros(shape, np.float32)
    field = np.zeros((2, *shape), np.float32)
    for number, move in enumerate(moves, start=1):
        distance = ndimage.distance_transform_edt(pieces.labels != number)
        weight = 1.0 / (distance + _BLEND_SHARE * max(shape)) ** 2
        there = np.tensordot(move[:2, :2], at, 1) + move[:2, 2][:, None, None]
        field += weight * (there - at)
        total += weight
    reach = _SMOOTH_SHARE * max(shape)
    smooth = [ndimage.gaussian_filter(f / total, reach, mode="nearest") for f in field]
    return np.asarray(smooth, np.float32)
