"""Where the tissue is: a mask at a coarse pixel size."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.filters import threshold_otsu
from skimage.measure import regionprops
from skimage.morphology import remove_small_objects

from napari_pancluster.core.config import TissueConfig
from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.tissue_mask import TissueMask

Bools = NDArray[np.bool_]
Plane = NDArray[np.float32]


# Densities. Below the first, nothing but structure tells tissue; above the second, no film of
# mucus or glue is as dense; from the third on, tissue may be even (colloid, clot).
_LEAST_DENSE, _SURELY_DENSE, _EVEN = 0.035, 0.12, 0.15
# Membranes of fat cells, seen at the size of a mask pixel.
_FAINT = 0.012
# Grain: the geometric mean of differences to the blurred density. Tissue is grainy everywhere, for
# it consists of cells; films, folds, bubbles and lines are so at their edges only.
_LEAST_GRAIN, _MOST_GRAIN = 0.0012, 0.005
_GRAIN_SHARE = 0.1
_GRAIN_OVER_GLASS = 4.0
_GRAIN_FLOOR = 5e-4
# Grain over density: glass under an uneven lamp and ink stay below these, tissue above.
_SHADE_GRAIN, _INK_GRAIN = 0.025, 0.03
_INK_DENSE = 0.12
_COLOUR_BINS = 24
_INK_ODDS = 2
_PINK = 1.2
_LINE_UM, _LINE_LONG_UM, _LINE_STEP_UM = 150.0, 1500.0, 16.0
_LINE_DETOUR = 1.5
_GREY = 0.3
_HOLE_RADII = 2.0
# On a slide with much tissue pieces are dust up to this share of the largest, or this area.
_DUST_SHARE, _LARGEST_DUST_MM2 = 0.01, 0.1


def find_tissue(stain: Stain, config: TissueConfig | None = None) -> TissueMask:
    """Return the tissue of a stained slide.

    Tissue is what is dense for this slide, or grainy as cells make it; see `tissue_of_density`.

    Raises
    ------
    SlideError
        If nothing on the slide is tissue.
    """
    config = config or TissueConfig()
    od = stain.read_od(stain.slide.extent, config.mpp)
    mask = tissue_of_density(od, config)
    if not mask.any():
        raise SlideError(
            f"No tissue was found on {stain.slide.path.name} (stain {stain.name}). "
            "Check that it is a brightfield slide with bright glass, or raise the sensitivity."
        )
    return TissueMask(mask, config.mpp)


def tissue_of_density(od: NDArray[np.float32], config: TissueConfig) -> Bools:
    """Return the mask for densities (rows, cols, channels) at ``config.mpp``.

    1. Dense pixels (half of Otsu's threshold, within bounds) and grainy ones are tissue.
    2. Even ink of a colour the tissue does not have, and long thin lines, are taken out.
    3. Gaps are closed, holes filled where they are small or stained, small pieces dropped.
    """
    # The strongest channel: a blue or a brown stain is nearly clear in one of the three.
    strongest = np.moveaxis(od, -1, 0).max(axis=0)
    density = ndimage.gaussian_filter(strongest, 0.5)
    fine = np.abs(strongest - ndimage.gaussian_filter(strongest, 1.0))
    grain = _grain(fine)
    glass = _glass_grain(density, grain)
    mask = _stained(density, grain - 2 * glass, config)
    mask |= _structured(density, fine, mask, config)
    ink = np.zeros_like(mask)
    if config.leave_out_marks and mask.any():
        ink = _ink(od, density, grain, config.mpp)
        mask &= ~ink
        mask &= ~_lines(mask, od, config.mpp)
    mask = _close(mask, config.close_um / config.mpp)
    mask = _fill_holes(mask, density, _HOLE_RADII * config.close_um / config.mpp)
    # A ring of ink round tissue is no gap to be closed, ink amid tissue no stained lake.
    return _drop_dust(mask & ~ink, config)


def _grain(fine: Plane, beside: Bools | None = None) -> Plane:
    """Return the local geometric mean of fine differences, (rows, cols), in OD.

    With `beside` (rows, cols), what is True there does not count: dense tissue must not vouch for
    the film next to it.
    """
    log = np.log(fine + np.float32(_GRAIN_FLOOR))
    if beside is None:
        mean = ndimage.gaussian_filter(log, 3.0)
    else:
        counts = (~beside).astype(np.float32)
        total = ndimage.gaussian_filter(counts, 3.0)
        mean = ndimage.gaussian_filter(log * counts, 3.0) / np.maximum(total, 1e-3)
    return np.asarray(np.exp(mean) - _GRAIN_FLOOR, np.float32)


def _glass_grain(density: Plane, grain: Plane) -> float:
    """Return the grain that the camera's noise gives to clear glass."""
    clear = grain[density < _FAINT]
    # Most of what is clear may be the air in a lung, which is not free of structure.
    return float(np.percentile(clear, 10)) if clear.size else 0.0


def _stained(density: Plane, grain: Plane, config: TissueConfig) -> Bools:
    """Return what is dense for this slide, and not an even shade of the lamp."""
    otsu = float(threshold_otsu(np.minimum(density, 1.0))) if np.ptp(density) > 0 else 0.0
    least = np.clip(otsu / 2, _LEAST_DENSE, _SURELY_DENSE) / config.sensitivity
    return np.asarray((density > least) & ((density > _EVEN) | (grain > _SHADE_GRAIN * density)))


def _structured(density: Plane, fine: Plane, stained: Bools, config: TissueConfig) -> Bools:
    """Return what is grainy for this slide, stained or not: pale cells, the membranes of fat."""
    faint = density > _FAINT / config.sensitivity
    if not faint.any():
        return faint
    # As far as the blur carries an edge.
    grain = _grain(fine, ndimage.binary_dilation(stained, iterations=3))
    usual = _GRAIN_SHARE * float(np.percentile(fine[faint], 75))
    noise = _GRAIN_OVER_GLASS * _glass_grain(density, grain)
    least = np.clip(max(usual, noise), _LEAST_GRAIN, _MOST_GRAIN) / config.sensitivity
    return np.asarray(faint & (grain > least))


def _ink(od: NDArray[np.float32], density: Plane, grain: Plane, mpp: float) -> Bools:
    """Return even, dense areas of a colour that grainy tissue on this slide does not have."""
    dense = density > _INK_DENSE
    even = dense & (grain < _INK_GRAIN * density)
    even = np.asarray(ndimage.binary_opening(even, iterations=2))
    if not even.any():
        return even
    colour = _colour_bins(od)
    inks = _ink_colours(colour[even], colour[dense & (grain > _INK_GRAIN * density)])
    labels, count = ndimage.label((density > _LEAST_DENSE) & inks[colour])
    ink = np.zeros(count + 1, np.bool_)
    ink[labels[even]] = True
    ink[0] = False
    return np.asarray(ndimage.binary_dilation(ink[labels], iterations=max(1, round(24 / mpp))))


def _colour_bins(od: NDArray[np.float32]) -> NDArray[np.intp]:
    """Return a number (rows, cols) for the shares of the first and last channel in the density."""
    share = od[..., [0, -1]] / (od.sum(axis=-1, keepdims=True) + np.float32(1e-3))
    row, col = np.moveaxis((share * _COLOUR_BINS).astype(np.intp), -1, 0)
    return np.asarray(row * _COLOUR_BINS + col)


def _ink_colours(even: NDArray[np.intp], grainy: NDArray[np.intp]) -> Bools:
    """Return which colours (bins,) are even far more often than grainy, and no pink or purple."""
    side = _COLOUR_BINS
    counts = [np.bincount(c, minlength=side * side).reshape(side, side) for c in (even, grainy)]
    # With the neighbouring colours, for stains vary.
    flat, cellular = (
        ndimage.correlate(n, np.ones((3, 3), n.dtype), mode="constant") for n in counts
    )
    red, blue = (np.mgrid[:side, :side] + 0.5) / side
    # Colloid, clot and keratin may be even; no pen is as weak in green as they are.
    pink = 1 - red - blue > _PINK * np.maximum(red, blue)
    return np.asarray((flat > _INK_ODDS * cellular) & ~pink).ravel()


def _lines(mask: Bools, od: NDArray[np.float32], mpp: float) -> Bools:
    """Return long thin lines that are straight or grey: edges of coverslips, hairs."""
    step = max(1, round(_LINE_STEP_UM / mpp))
    radius = _LINE_UM / 2 / (mpp * step)
    padded = np.pad(mask[::step, ::step], 1, mode="edge")
    core = ndimage.distance_transform_edt(padded) > radius
    thick = ndimage.distance_transform_edt(~core) <= radius + 1.5 if core.any() else core
    thick = thick[1:-1, 1:-1].repeat(step, 0).repeat(step, 1)
    thin = mask & ~thick[: mask.shape[0], : mask.shape[1]]
    labels, _ = ndimage.label(thin, np.ones((3, 3)))
    lines = np.zeros_like(mask)
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        # Only these few are long enough to be measured.
        if mpp * float(np.hypot(*(side.stop - side.start for side in place))) > _LINE_LONG_UM:
            piece = labels[place] == number
            lines[place] |= piece & _is_line(piece, od[place][piece].mean(axis=0), mpp)
    return lines


def _is_line(piece: Bools, mean: NDArray[np.float32], mpp: float) -> bool:
    """Tell whether a thin piece (rows, cols) of mean density (channels,) is one line."""
    # A ribbon's pixels lie a quarter of its width from its edge. Nets (alveoli, fat) are
    # several times as long as their diagonal, a line at most the corner of a coverslip.
    width = 4 * float(ndimage.distance_transform_edt(np.pad(piece, 1))[1:-1, 1:-1][piece].mean())
    if piece.sum() / width > _LINE_DETOUR * float(np.hypot(*piece.shape)):
        return False
    grey = float(np.ptp(mean)) < _GREY * float(mean.max())
    straight = regionprops(piece.astype(np.uint8))[0].axis_minor_length * mpp < _LINE_UM
    return bool(grey or straight)


def _close(mask: Bools, radius: float) -> Bools:
    """Close gaps up to a radius in pixels; distances, so that a wide radius costs no more."""
    if radius < 1 or not mask.any():
        return mask
    # Padded with what lies at the edge, so that edges do not erode.
    margin = int(radius) + 1
    padded = np.pad(mask, margin, mode="edge")
    grown = ndimage.distance_transform_edt(~padded) <= radius
    if grown.all():
        return np.ones_like(mask)
    inner = slice(margin, -margin)
    closed = ndimage.distance_transform_edt(grown)[inner, inner] > radius
    return np.asarray(closed | mask)


def _fill_holes(mask: Bools, density: Plane, radius: float) -> Bools:
    """Fill holes smaller than a disc of that radius in pixels, and stained ones (colloid)."""
    labels, count = ndimage.label(~mask)
    if count == 0:
        return mask
    area = np.bincount(labels.ravel())
    stained = np.bincount(labels.ravel(), density.ravel()) > _LEAST_DENSE * area
    # A film that runs to the slide's edge is no lake; a fat cell cut by that edge is still one.
    stained[np.unique(np.r_[labels[[0, -1]].ravel(), labels[:, [0, -1]].ravel()])] = False
    filled = stained | (area < np.pi * radius**2)
    return np.asarray(mask | filled[labels])


def _drop_dust(mask: Bools, config: TissueConfig) -> Bools:
    # The opening takes fibres off; padded so that it does not eat at the slide's edge.
    cross = ndimage.generate_binary_structure(2, 1)
    opened = ndimage.binary_opening(np.pad(mask, 2, mode="edge"), cross)[2:-2, 2:-2]
    labels, count = ndimage.label(opened)
    if count == 0:
        return np.zeros_like(mask)
    largest = int(np.bincount(labels.ravel())[1:].max())
    mm2 = config.mpp**2 * 1e-6
    # A small section alone on its slide is not dust because it is the largest.
    by_share = min(_DUST_SHARE * largest, _LARGEST_DUST_MM2 / mm2)
    dust = int(max(config.smallest_mm2 / mm2, by_share))
    return np.asarray(remove_small_objects(opened, max_size=dust))
