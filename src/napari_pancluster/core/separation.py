"""Stain vectors: the colours of a slide's dyes, and the slide taken apart into them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.color import rgb_from_bex, rgb_from_bpx, rgb_from_hax, rgb_from_hpx

from napari_pancluster.core.config import TissueConfig
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.slide import WHITE
from napari_pancluster.core.stain import Stain, optical_density, seen_in_part
from napari_pancluster.core.tissue import tissue_of_density
from napari_pancluster.core.tissue_mask import TissueMask

if TYPE_CHECKING:
    import dask.array as da

# Pixels are read at no finer size than this, µm/px: nuclei are still apart.
_READ_MPP = 1.0
_PATCHES, _PATCH_PX = 96, 128
# Longer side of the picture that tissue is looked for on, where no mask is given.
_COARSE_PX = 2000
# JPEG stores hue at half size: pixels are averaged two by two, or detail would pass for a dye.
_POOL = 2
# Of an OD vector's length: below it the hue is the camera's noise.
_LEAST_OD = 0.15
# Of a channel: above it 8 bits hold few grey values, and the hue bends towards black.
_MOST_OD = 1.5
_LEAST_PIXELS = 500
_TAIL_PERCENT = 1.0
# Two dyes nearer than this (degrees) cannot be told apart; a lone dye spreads about as far.
_LEAST_ANGLE = 10.0
# A vector farther than this (degrees) from the dye it is named after is another dye: eosin and
# DAB are 21° apart.
_MOST_ASTRAY = 20.0
# Strength of an ordinary slide: the middle mean OD of its stained pixels.
_USUAL_STRENGTH = 0.2
_GAIN_LIMITS = (0.5, 2.0)
# Of the dense end of a slide's own tissue; below it is lumen, fat and background.
_STAINED_SHARE = 0.25
_DENSE_PERCENT = 95.0
# A dense end below this is an unevenly lit glass, not a pale stain.
_LEAST_DENSE = 0.03


@dataclass(frozen=True, eq=False)
class StainVectors:
    """The colours of the dyes of a slide.

    Attributes
    ----------
    names
        Of the dyes, one a row of `od`.
    od
        (n, 3) float64, unit rows: share of a dye's optical density in red, green and blue.
    """

    names: tuple[str, ...]
    od: NDArray[np.float64]

    @classmethod
    def of(cls, names: tuple[str, ...], od: ArrayLike) -> StainVectors:
        """Return the vectors with `od` (n, 3) brought to unit length.

        Raises
        ------
        InputError
            If they are not 1 to 3 independent directions of absorbed light, one a name.
        """
        rows = np.asarray(od, np.float64)
        if rows.shape != (len(names), 3) or not 1 <= len(names) <= 3:
            raise InputError(
                f"{len(names)} stain name(s) and vectors of shape {rows.shape} do not fit. "
                "Give one to three names with three numbers (red, green, blue) each."
            )
        length = np.linalg.norm(rows, axis=1)
        if not np.isfinite(rows).all() or (length < 1e-6).any():
            raise InputError(
                f"Stain vectors {rows.tolist()} hold a row of zeros or no numbers. "
                "Give the optical density in red, green and blue of every dye."
            )
        rows = rows / length[:, None]
        # The smallest singular value is about half the angle between the nearest two, in radians.
        if np.linalg.svd(rows, compute_uv=False)[-1] < 0.02:
            raise InputError(
                f"The vectors of {' and '.join(names)} are too alike to take the dyes apart. "
                "Use the standard vectors, or pick a clearer place for one of them."
            )
        return cls(tuple(names), rows)

    @classmethod
    def from_lists(cls, names: list[str], od: list[list[float]]) -> StainVectors:
        """Return the vectors from the lists that `to_lists` gave."""
        return cls.of(tuple(names), od)

    def to_lists(self) -> tuple[list[str], list[list[float]]]:
        """Return `names` and `od` as lists, for JSON."""
        return list(self.names), [[float(v) for v in row] for row in self.od]

    def colour(self, index: int) -> str:
        """Return a dye at an OD of 1 (the length of its vector) on white glass, ``#RRGGBB``."""
        red, green, blue = np.clip(np.rint(255 * 10 ** -self.od[index]), 0, 255).astype(int)
        return f"#{red:02X}{green:02X}{blue:02X}"


def _standard() -> Mapping[str, StainVectors]:
    """Return the published vectors by kind.

    H&E and H-DAB are the defaults that QuPath documents and writes into its projects (Bankhead et
    al., Sci Rep 2017); their hematoxylin and DAB are those of Ruifrok & Johnston, Anal Quant Cytol
    Histol 23:291 (2001). The others are G. Landini's, as scikit-image ships them.
    """
    hematoxylin, dab = (0.65111, 0.70119, 0.29049), (0.26917, 0.56824, 0.77759)
    eosin = (0.2159, 0.8012, 0.5581)
    kinds = {
        "H&E": (("Hematoxylin", "Eosin"), (hematoxylin, eosin)),
        "H-DAB": (("Hematoxylin", "DAB"), (hematoxylin, dab)),
        "PAS": (("Hematoxylin", "PAS"), rgb_from_hpx[:2]),
        "H-AEC": (("Hematoxylin", "AEC"), rgb_from_hax[:2]),
        "Giemsa": (("Methylene blue", "Eosin"), rgb_from_bex[:2]),
        "Masson": (("Methyl blue", "Ponceau fuchsin"), rgb_from_bpx[:2]),
    }
    return MappingProxyType({k: StainVectors.of(names, od) for k, (names, od) in kinds.items()})


STANDARD = _standard()


def standard(kind: str) -> StainVectors:
    """Return the published vectors of a kind of stain ("H&E", "H-DAB", "PAS", …).

    Raises
    ------
    InputError
        If there are none.
    """
    if kind not in STANDARD:
        raise InputError(
            f"There are no stain vectors for {kind!r}. Choose one of: {', '.join(STANDARD)}."
        )
    return STANDARD[kind]


def tissue_pixels(
    stain: Stain, tissue: TissueMask | None = None, *, seed: int = 0
) -> NDArray[np.float32]:
    """Return optical densities (N, 3) of a few dozen random patches of tissue.

    At most 96 patches of 128 px at 1 µm/px (or the slide's own, coarser size) are read, whatever
    the size of the slide, and averaged to 64 px. A slide without a pixel size counts as 1 µm/px.

    Parameters
    ----------
    tissue
        Of this slide; None: found on a coarse picture.

    Raises
    ------
    InputError
        If the slide is not RGB or shows no tissue.
    """
    _check_rgb(stain)
    if stain.slide.mpp is None:
        stain, tissue = stain.with_mpp(1.0), None
    tissue = tissue or _coarse_tissue(stain)
    inside = np.flatnonzero(tissue.mask)
    if not len(inside):
        raise InputError(
            f"{stain.slide.path.name} (stain {stain.name}) shows no tissue to measure colours on. "
            "Use the standard stain vectors, or draw the tissue by hand."
        )
    rng = np.random.default_rng(seed)
    chosen = np.sort(rng.choice(inside, min(_PATCHES, len(inside)), replace=False))
    mpp = max(_READ_MPP, stain.slide.um_per_px)
    side = _PATCH_PX * mpp
    patches = []
    for row, col in zip(*np.unravel_index(chosen, tissue.mask.shape), strict=True):
        middle = (row + 0.5) * tissue.mpp, (col + 0.5) * tissue.mpp
        region = Region(middle[0] - side / 2, middle[1] - side / 2, side, side)
        patches.append(stain.read_od(region, mpp))
    shape = (-1, _PATCH_PX // _POOL, _POOL, _PATCH_PX // _POOL, _POOL, 3)
    pooled = np.stack(patches).reshape(shape).mean((2, 4))
    return np.asarray(pooled.reshape(-1, 3), np.float32)


def macenko(od_pixels: NDArray[np.floating], expected: StainVectors | None = None) -> StainVectors:
    """Return the two dyes of a slide from its own pixels.

    The pixels' densities lie in the plane of the two dyes. The plane is that of the two largest
    singular vectors; the dyes are the two ends (1st and 99th percentile) of the angles in it.
    Macenko et al., "A method for normalizing histology slides for quantitative analysis", ISBI
    2009. Other than there, a pixel is glass by the length of its OD vector and not by any channel:
    eosin and DAB each leave one channel nearly clear. And what is found must be nearer to its own
    dye than to the other one: a slide of hematoxylin alone has two ends as well, blue and grey.

    Parameters
    ----------
    od_pixels
        (N, 3) optical densities, glass among them or not.
    expected
        The two dyes looked for; gives names and order. Default: H&E.

    Raises
    ------
    InputError
        If there are too few stained pixels, only one dye, or other dyes than expected. The remedy
        is `standard`.
    """
    expected = expected or STANDARD["H&E"]
    if len(expected.names) != 2:
        raise InputError(
            f"Two dyes are found by colour, not {len(expected.names)} ({', '.join(expected.names)}"
            "). Use the standard vectors, or name two."
        )
    dyes = " and ".join(expected.names)
    od = np.asarray(od_pixels, np.float64).reshape(-1, 3)
    used = (np.linalg.norm(od, axis=1) >= _LEAST_OD) & (od.max(axis=1) <= _MOST_OD)
    od = od[used & np.isfinite(od).all(axis=1)]
    if len(od) < _LEAST_PIXELS:
        raise InputError(
            f"Only {len(od)} stained pixels were found, too few to measure {dyes}. "
            "Use the standard stain vectors."
        )
    ends = _plane_ends(od)
    between = float(_degrees_between(ends[:1], ends[1:])[0, 0])
    if between < _LEAST_ANGLE:
        raise InputError(
            f"Only one dye is seen ({between:.0f}° from end to end), so {dyes} cannot be told "
            "apart. Use the standard stain vectors."
        )
    off = _degrees_between(ends, expected.od)
    # Row i of `ends` is dye i, unless the other way round fits better.
    turned = off[0, 1] + off[1, 0] < off[0, 0] + off[1, 1]
    ends, off = (ends[::-1], off[::-1]) if turned else (ends, off)
    for i, name in enumerate(expected.names):
        if off[i, i] > min(_MOST_ASTRAY, off[i, 1 - i]):
            raise InputError(
                f"No {name} is seen: the nearest colour is {off[i, i]:.0f}° from it. Choose the "
                "right kind of stain, or use the standard stain vectors."
            )
    return StainVectors.of(expected.names, ends)


def estimate(
    stain: Stain, tissue: TissueMask | None = None, *, kind: str = "H&E", seed: int = 0
) -> StainVectors:
    """Return the dyes of a slide, measured on random tissue by `macenko`.

    Parameters
    ----------
    tissue
        Of this slide; None: found on a coarse picture.
    kind
        Which dyes to look for: a key of `STANDARD`.

    Raises
    ------
    InputError
        As `standard`, `tissue_pixels` and `macenko`.
    """
    return macenko(tissue_pixels(stain, tissue, seed=seed), standard(kind))


def separate(od: NDArray[np.floating], vectors: StainVectors) -> NDArray[np.float32]:
    """Return how much of every dye there is, in OD units, never below 0.

    Least squares: ``c = od @ pinv(vectors)``. For two dyes this equals adding their cross product
    as a third and dropping it, as Ruifrok & Johnston and scikit-image do. What would be negative
    is 0, since a dye cannot be less than absent.

    Parameters
    ----------
    od
        (…, 3) optical densities.

    Returns
    -------
    ndarray
        (…, n) one concentration a dye.
    """
    inverse = np.linalg.pinv(vectors.od).astype(np.float32)
    return np.asarray(np.maximum(np.asarray(od, np.float32) @ inverse, 0), np.float32)


def component_pyramid(
    stain: Stain,
    vectors: StainVectors,
    index: int,
    *,
    levels: tuple[da.Array, ...] | None = None,
) -> tuple[da.Array, ...]:
    """Return one dye of a slide as a lazy pyramid; no pixel is read before a block is computed.

    Parameters
    ----------
    levels
        The slide as it is shown in another frame, on white glass (Y, X, 3) uint8. Default: its
        own pixels.

    Returns
    -------
    tuple of dask.array.Array
        (Y, X) float32 concentrations, level 0 first, in the blocks of the levels.

    Raises
    ------
    InputError
        If the slide is not RGB or there is no such dye.
    """
    _check_rgb(stain)
    if not 0 <= index < len(vectors.names):
        raise InputError(
            f"There is no dye number {index + 1} of {len(vectors.names)}. "
            f"Choose one of: {', '.join(vectors.names)}."
        )
    import dask.array as da

    # One column of the inverse: the other dyes' pictures are not made.
    column = np.linalg.pinv(vectors.od)[:, index].astype(np.float32)
    scale = np.float32(WHITE / stain.slide.full_scale)

    def density(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        if levels is not None:
            return optical_density(pixels.astype(np.float32), (WHITE, WHITE, WHITE))
        return stain.density(pixels[..., stain.picked].astype(np.float32) * scale)

    def block(pixels: NDArray[np.generic]) -> NDArray[np.float32]:
        return np.asarray(np.maximum(density(pixels) @ column, 0), np.float32)

    empty = np.empty((0, 0), np.float32)
    return tuple(
        da.map_blocks(block, level, dtype=np.float32, drop_axis=2, meta=empty)
        for level in levels or stain.slide.data
    )


def od_gain(od_tissue_pixels: NDArray[np.floating]) -> float:
    """Return the factor on OD that brings a slide to the usual strength; 0.5 … 2.

    Strength is the median of the mean OD over the stained pixels; stained is what exceeds a
    quarter of the slide's own dense end (95th percentile), so that lumina and air weigh nothing
    and the result turns exactly with the slide: ``strength(s · od) = s · strength(od)``.

    One factor a slide, not one a dye. Lamp, section thickness and time in the bath act on all
    channels alike (Lambert–Beer), and one factor keeps hue and the ratio of the dyes, which is
    what tissue differs by. A factor a dye would need right vectors on every slide, and would turn
    the noise of a negative immunostain into a positive one. The price: a slide in which one dye
    alone has faded is not mended. Compare slides of one stain only.

    Parameters
    ----------
    od_tissue_pixels
        (N, 3), from `tissue_pixels`.

    Returns
    -------
    float
        1.0 where nothing is stained.
    """
    density = np.asarray(od_tissue_pixels, np.float64).reshape(-1, 3).mean(axis=1)
    density = density[np.isfinite(density)]
    dense = float(np.percentile(density, _DENSE_PERCENT)) if len(density) else 0.0
    if dense < _LEAST_DENSE:
        return 1.0
    strength = float(np.median(density[density > _STAINED_SHARE * dense]))
    return float(np.clip(_USUAL_STRENGTH / strength, *_GAIN_LIMITS))


def slide_gain(stain: Stain, *, seed: int = 0) -> float:
    """Return `od_gain` of a slide; 1.0 where it is not brightfield in colour or shows no tissue."""
    if stain.slide.lacks_overview:
        return od_gain(stain.density(seen_in_part(stain.slide)[..., stain.picked]))
    try:
        return od_gain(tissue_pixels(stain, seed=seed))
    except InputError:
        return 1.0


def _coarse_tissue(stain: Stain) -> TissueMask:
    extent = stain.slide.extent
    mpp = max(TissueConfig().mpp, max(extent.height, extent.width) / _COARSE_PX)
    od = stain.read_od(extent, mpp)
    return TissueMask(tissue_of_density(od, TissueConfig(mpp=mpp)), mpp)


def _check_rgb(stain: Stain) -> None:
    if stain.modality != "brightfield" or stain.slide.channels < 3:
        raise InputError(
            f"{stain.slide.path.name} (stain {stain.name}) is no RGB brightfield slide, so it has "
            "no stain vectors. Show its channels instead."
        )


def _plane_ends(od: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the two ends (2, 3), unit rows, of the angles in the plane of most density."""
    _, axes = np.linalg.eigh(od.T @ od)
    plane = axes[:, [2, 1]]
    # An eigenvector's sign is arbitrary; the first one is the mean colour, so make it positive.
    plane = plane * np.where(plane.sum(axis=0) < 0, -1.0, 1.0)
    x, y = (od @ plane).T
    angles = np.percentile(np.arctan2(y, x), [_TAIL_PERCENT, 100 - _TAIL_PERCENT])
    ends = np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane.T
    # No dye gives off light.
    ends = np.maximum(ends, 0.0)
    return np.asarray(ends / np.linalg.norm(ends, axis=1, keepdims=True), np.float64)


def _degrees_between(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the angles (len(a), len(b)) between unit rows."""
    return np.asarray(np.degrees(np.arccos(np.clip(a @ b.T, -1.0, 1.0))), np.float64)
