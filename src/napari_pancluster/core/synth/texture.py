"""Texture bank: for each tissue type and stain, a seamless square of dye amounts."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.synth.anatomy import (
    FINE,
    PERIOD,
    Anatomy,
    Field,
    noise,
    stamp,
)
from napari_pancluster.core.synth.tissues import draw_anatomy

STAINS = ("HE", "CK19", "CD31", "Ki67", "SMA")
"""The stains in the order in which they are drawn; the first is the reference."""

PAIR = (1, 2)
"""Labels of the two types that differ in one immunostain only."""

OD_STEP = 2.0 / 255
"""Optical density of one step of a bank."""

# Optical density in red, green and blue of one unit: hematoxylin and DAB after Ruifrok & Johnston
# (2001); eosin a little redder than theirs, as scanners show it.
_HEMATOXYLIN = (0.644, 0.717, 0.267)
_EOSIN = (0.150, 0.880, 0.400)
_DAB = (0.268, 0.570, 0.776)

# Mean amounts all types are drawn towards, and how much of a type's own difference is left, so that
# the mean colour of a patch says little about its type.
_MEANS = {"HE": (0.2, 0.22), "IHC": (0.14, 0.11)}
_KEPT = {"HE": (0.08, 0.08), "IHC": (0.1, 0.1)}
_GAINS = (0.15, 1.3)
_HAZE = 0.05


@dataclass(frozen=True)
class Recipe:
    """A tissue type: its anatomy and what each immunostain marks in it.

    Attributes
    ----------
    anatomy
        A name known to `draw_anatomy`.
    ck19, cd31, sma
        What is stained brown: "none" or a field of the anatomy.
    ki67
        Fraction of nuclei stained brown.
    """

    anatomy: str
    ck19: str = "none"
    cd31: str = "none"
    ki67: float = 0.03
    sma: str = "none"


_RECIPES = (
    Recipe("solid", "cells", "vessels", 0.03, "none"),
    Recipe("solid", "cells", "vessels", 0.45, "none"),
    Recipe("glands", "cells", "none", 0.15, "rim"),
    Recipe("collagen", "none", "vessels", 0.03, "fibres"),
    Recipe("fat", "none", "membranes", 0.03, "none"),
    Recipe("lymphoid", "none", "vessels", 0.4, "none"),
    Recipe("reticular", "none", "fibres", 0.1, "speckles"),
    Recipe("cords", "cells", "rim", 0.03, "none"),
    Recipe("squamous", "membranes", "none", 0.15, "none"),
    Recipe("muscle", "none", "none", 0.03, "fibres"),
    Recipe("granular", "speckles", "none", 0.03, "none"),
    Recipe("cystic", "cells", "none", 0.03, "rim"),
    Recipe("foamy", "none", "speckles", 0.03, "none"),
    Recipe("bundles", "none", "vessels", 0.15, "none"),
    Recipe("nests", "cells", "none", 0.45, "fibres"),
    Recipe("pleomorphic", "membranes", "vessels", 0.4, "speckles"),
    Recipe("whorls", "none", "vessels", 0.03, "fibres"),
    Recipe("cribriform", "cells", "none", 0.4, "none"),
    Recipe("vascular", "none", "rim", 0.03, "rim"),
    Recipe("felt", "none", "fibres", 0.25, "speckles"),
)


def recipes(tissues: int, stains: int) -> tuple[Recipe, ...]:
    """Return the recipe of each type, label 1 first.

    Without Ki67 the two types of `PAIR` differ in the last immunostain there is; with HE alone
    they differ in their anatomy, or they would be one type.
    """
    first = _RECIPES[0]
    twins = {
        1: Recipe("sparse"),
        2: Recipe("solid", "membranes"),
        3: Recipe("solid", "cells", "membranes"),
    }
    second = twins.get(stains, _RECIPES[1])
    return (first, second, *_RECIPES[2:tissues])


@dataclass(frozen=True)
class Dyes:
    """The two dyes of a stain: optical density of red, green, blue a unit of each."""

    first: tuple[float, float, float] = _HEMATOXYLIN
    second: tuple[float, float, float] = _DAB
    means: tuple[float, float] = field(default=_MEANS["IHC"])
    kept: tuple[float, float] = field(default=_KEPT["IHC"])


def dyes(stain: str) -> Dyes:
    """Return the dyes of a stain: hematoxylin with eosin or, for an immunostain, with DAB."""
    if stain == "HE":
        return Dyes(second=_EOSIN, means=_MEANS["HE"], kept=_KEPT["HE"])
    return Dyes()


def draw_banks(seed: int, *, tissues: int, stains: int) -> Task[NDArray[np.uint16]]:
    """Draw the texture of every type in every stain.

    Returns
    -------
    (stains, tissues + 1, F, F) uint16, F = `PERIOD` * `FINE`: the first dye in the low byte, the
    second in the high byte, in steps of `OD_STEP`; entry 0 of the types is glass.
    """
    side = PERIOD * FINE
    banks = np.zeros((stains, tissues + 1, side, side), np.uint16)
    for index, recipe in enumerate(recipes(tissues, stains)):
        # The twins share their generator: what is not marked differently is drawn the same.
        shared = 0 if recipe.anatomy == "solid" else index
        anatomy = draw_anatomy(recipe.anatomy, np.random.default_rng([seed, 7, shared]))
        yield Progress("Drawing textures", index, tissues)
        for number, stain in enumerate(STAINS[:stains]):
            rng = np.random.default_rng([seed, 11, shared, number])
            banks[number, index + 1] = _packed(_amounts(anatomy, recipe, stain, rng), stain)
    return banks


def _amounts(
    anatomy: Anatomy, recipe: Recipe, stain: str, rng: np.random.Generator
) -> tuple[Field, Field]:
    """Return the two dyes of one type in one stain, before they are evened out."""
    nuclei = anatomy.nuclei.shaken(rng, 0.0 if stain == "HE" else 1.5)
    chromatin = 1 + 0.18 * noise(rng, 4.0)
    solid = stamp(nuclei)
    open_tissue = 1 - anatomy.gaps
    if stain == "HE":
        blue = solid * chromatin + 0.1 * open_tissue
        pink = anatomy.eosin * (1 - 0.6 * np.minimum(solid, 1)) * (1 + 0.1 * noise(rng, 3.0))
        return blue, pink
    blue = 0.7 * solid * chromatin + 0.12 * anatomy.eosin + 0.05 * open_tissue
    haze = _HAZE * open_tissue * (1 + 0.3 * noise(rng, 9.0))
    if stain == "Ki67":
        positive = nuclei.some(rng, recipe.ki67)
        marked = stamp(positive)
        return blue * (1 - 0.7 * np.minimum(marked, 1)), marked * chromatin + haze
    name = {"CK19": recipe.ck19, "CD31": recipe.cd31, "SMA": recipe.sma}[stain]
    grain = 1 + 0.2 * noise(rng, 3.5)
    return blue, anatomy.marked(name, rng) * grain + haze


def _evened(amount: Field, mean: float, kept: float) -> float:
    """Return the gain that brings the light lost in `amount` near that of its stain's mean.

    The light lost, ``mean(1 - 10**-a)``, is what the mean colour of a patch shows; a gap loses
    none however dark its walls, so that the gain is bounded.
    """
    sample = amount[::2, ::2]

    def lost(gain: float) -> float:
        return float((1 - np.power(10.0, -gain * sample)).mean())

    flat = 1 - 10.0**-mean
    low, high = _GAINS
    target = flat * (lost(mean / float(sample.mean())) / flat) ** kept
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if lost(middle) < target else (low, middle)
    return (low + high) / 2


def _packed(amounts: tuple[Field, Field], stain: str) -> NDArray[np.uint16]:
    """Even the amounts out towards the means of the stain, and pack both in 16 bits."""
    kind = dyes(stain)
    steps = []
    for amount, mean, kept in zip(amounts, kind.means, kind.kept, strict=True):
        gain = _evened(np.maximum(amount, 0), mean, kept)
        steps.append(np.clip(amount * (gain / OD_STEP), 0, 255).astype(np.uint16))
    return np.asarray(steps[0] | (steps[1] << 8), np.uint16)
