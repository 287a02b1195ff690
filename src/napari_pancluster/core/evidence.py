"""Evidence: where a registration bends and folds the moving section, and where it can be trusted.

Everything lies in the frame of the fixed section, and of the transform only the displacement is
looked at: what its affine turns, shears and scales is no bending.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.confidence import Confidence
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.tissue_mask import TissueMask
from napari_pancluster.core.transform import Transform

# Of the longer side of the slide.
GRID_LINES = 40
# Pieces of a line from one crossing to the next.
_PIECES = 4
DOUBTFUL = 0.5
_LEAST_PERCENT = 0.1


@dataclass(frozen=True)
class EvidenceMap:
    """A quantity sampled over the fixed section.

    Attributes
    ----------
    values
        (rows, cols) float32; NaN where it is not looked at.
    spacing
        µm between samples.
    origin
        (row, col) in µm of the first sample.
    area
        What it covers, for people.
    """

    values: NDArray[np.float32]
    spacing: float
    origin: tuple[float, float]
    area: str = "slide"

    def within(self, tissue: TissueMask | None) -> EvidenceMap:
        """Return the part inside the tissue of the fixed section; all of it where none is known."""
        if tissue is None:
            return self
        inside = np.ones(self.values.shape, np.bool_)
        cells = []
        for axis, count in enumerate(self.values.shape):
            at = self.origin[axis] + self.spacing * np.arange(count)
            cell = np.floor(at / tissue.mpp).astype(np.int64)
            cells.append(np.clip(cell, 0, tissue.mask.shape[axis] - 1))
            off = (cell < 0) | (cell >= tissue.mask.shape[axis])
            inside &= ~np.expand_dims(off, 1 - axis)
        inside &= tissue.mask[np.ix_(*cells)]
        # Tissue smaller than a cell falls between the samples.
        if not inside.any():
            return self
        values = np.where(inside, self.values, np.float32(np.nan))
        return replace(self, values=values, area="tissue")

    @property
    def known(self) -> NDArray[np.float32]:
        """(N,) values that are looked at."""
        return self.values[~np.isnan(self.values)]


def bent_grid(
    transform: Transform, extent: Region, *, lines: int = GRID_LINES
) -> NDArray[np.float64]:
    """Return a regular grid of the moving section as it lies on the fixed one.

    The grid is drawn in the moving section after its affine is taken out, so a straight line was
    not bent: its points q come to lie at ``p = q + inverse_displacement(q)``.

    Parameters
    ----------
    extent
        Of the fixed slide.
    lines
        Meshes along its longer side.

    Returns
    -------
    ndarray
        (N, 2, 2) short pieces of the lines: where each starts and how far it goes, row and col in
        µm of the fixed frame.
    """
    mesh = max(extent.height, extent.width) / lines
    straight = replace(transform, affine=np.eye(3))
    rows, cols = (
        (extent.top, extent.height, extent.bottom),
        (extent.left, extent.width, extent.right),
    )
    pieces = []
    for axis, (across, along) in enumerate(((rows, cols), (cols, rows))):
        at = across[0] + mesh * np.arange(int(across[1] / mesh) + 1)
        fine = np.linspace(along[0], along[2], _PIECES * max(1, round(along[1] / mesh)) + 1)
        line = np.stack(np.meshgrid(at, fine, indexing="ij"), -1)
        # Lines run across the section first, then down it.
        points = line[..., ::-1] if axis else line
        laid = straight.to_fixed(points.reshape(-1, 2)).reshape(points.shape)
        starts, steps = laid[:, :-1], np.diff(laid, axis=1)
        pieces.append(np.stack([starts, steps], axis=2).reshape(-1, 2, 2))
    return np.concatenate(pieces)


def bending(transform: Transform, extent: Region) -> EvidenceMap:
    """Return how far the displacement moves every place, in µm."""
    shown = _sampled(transform, extent)
    length = np.hypot(*shown.displacement).astype(np.float32)
    return EvidenceMap(length, shown.spacing, shown.origin)


def growth(transform: Transform, extent: Region) -> EvidenceMap:
    """Return det(I + ∇d) of the displacement d.

    It is the area of the moving section that lies on an area of the fixed one: 1 where it was
    neither stretched nor squeezed, above 1 where it was squeezed to fit, 0 and less where it folds.
    """
    # The registration, and SimpleITK with it, is not needed to open the window.
    from napari_pancluster.core.registration.quality import jacobian

    shown = _sampled(transform, extent)
    return EvidenceMap(jacobian(shown.displacement, shown.spacing), shown.spacing, shown.origin)


def folds(growth_map: EvidenceMap) -> NDArray[np.bool_]:
    """Return where the section lies folded, (rows, cols)."""
    # What is NaN is not looked at, and compares as False.
    return np.asarray(growth_map.values <= 0)


def trust(confidence: Confidence) -> EvidenceMap:
    """Return how far a registration can be trusted, 0 to 1."""
    half = confidence.spacing / 2
    return EvidenceMap(confidence.values, confidence.spacing, (half, half))


def bending_in_words(length: EvidenceMap, unit: str) -> str:
    """Return how far the section was bent, for people."""
    if not length.known.any():
        return "Not bent: the section was turned, sheared and scaled as a whole."
    most, half = length.known.max(), np.median(length.known)
    return f"The {length.area} is bent by up to {most:,.0f} {unit} (median {half:,.0f} {unit})."


def growth_in_words(growth_map: EvidenceMap) -> str:
    """Return how much areas change and whether the section folds, for people."""
    low, high = growth_map.known.min(), growth_map.known.max()
    folded = float(folds(growth_map).sum()) / growth_map.known.size
    found = f"{percent(folded)} of the {growth_map.area} folds." if folded else "No folds."
    return f"Area factor {low:.2f} to {high:.2f} (1: as it was). {found}"


def trust_in_words(confidence: EvidenceMap) -> str:
    """Return how far the registration can be trusted, for people."""
    doubtful = float((confidence.known < DOUBTFUL).mean())
    return (
        f"Mean confidence of the {confidence.area}: {confidence.known.mean():.2f}. "
        f"Below {DOUBTFUL:g}: {percent(doubtful)} of it."
    )


def percent(share: float) -> str:
    """Return a share in percent; what is little is not called none."""
    if 0 < 100 * share < _LEAST_PERCENT:
        return f"less than {_LEAST_PERCENT:g} %"
    return f"{100 * share:.1f} %"


def _sampled(transform: Transform, extent: Region) -> Transform:
    """Return the transform with a field over the slide: one sample moves everything alike."""
    if min(transform.displacement.shape[1:]) > 1:
        return transform
    spacing = max(extent.height, extent.width) / GRID_LINES
    shape = tuple(max(2, round(side / spacing)) for side in (extent.height, extent.width))
    field = np.broadcast_to(transform.displacement[:, :1, :1], (2, *shape))
    return replace(
        transform, displacement=field, spacing=spacing, origin=(spacing / 2, spacing / 2)
    )
