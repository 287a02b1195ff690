"""A placement: where a person has put a slide on the reference, by hand."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.geometry import Region
from napari_pancluster.core.registration.images import Matrix, compose
from napari_pancluster.core.registration.search import orientation, orientation_of
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain

# A drag that turns and moves is rigid to the last digits; one that scales is far from it.
_RIGID = 1e-6
_LEAST_SCALE = 1e-3


@dataclass(frozen=True)
class Placement:
    """Where a person has put a slide on the reference.

    Attributes
    ----------
    onto
        (3, 3), µm of the slide (level-0 px where its pixel size is not known) to µm of the
        reference, row and col.
    middle
        (row, col) of the slide's middle in its own unit; it is turned and flipped about it.
    scalable
        Whether it may be made larger and smaller: its pixel size is not known.
    """

    onto: Matrix
    middle: tuple[float, float]
    scalable: bool = False

    @classmethod
    def of_start(cls, start: Matrix, extent: Region, *, scalable: bool = False) -> Placement:
        """Return where a slide of this extent lies by a (3, 3) matrix, fixed to moving."""
        return cls(_inverse(start), _middle(extent), scalable)

    @classmethod
    def centred(cls, reference: Region, extent: Region, *, scalable: bool = False) -> Placement:
        """Return a slide upright, its middle on the reference's; as long as it if `scalable`."""
        scale = _long(reference) / _long(extent) if scalable else 1.0
        offset = np.array(_middle(reference)) - scale * np.array(_middle(extent))
        return cls(compose(scale * np.eye(2), offset), _middle(extent), scalable)

    @property
    def start(self) -> Matrix:
        """(3, 3), fixed µm to moving µm (or level-0 px): what registration starts from."""
        return _inverse(self.onto)

    @property
    def place(self) -> tuple[float, float]:
        """(row, col) of the slide's middle in µm of the reference."""
        row, col = self.onto[:2, :2] @ self.middle + self.onto[:2, 2]
        return float(row), float(col)

    @property
    def rotation_deg(self) -> float:
        """How far the picture is turned counter-clockwise, after it was flipped; [0, 360)."""
        return orientation_of(self.onto)[0]

    @property
    def flipped(self) -> bool:
        """Whether the picture is mirrored left to right before it is turned."""
        return orientation_of(self.onto)[1]

    @property
    def scale(self) -> float:
        """µm of the reference per unit of the slide."""
        return orientation_of(self.onto)[2]

    def turned(self, degrees: float) -> Placement:
        """Return it turned counter-clockwise about its middle."""
        return self._then(orientation(degrees, flipped=False))

    def mirrored(self) -> Placement:
        """Return it mirrored left to right, as seen on the screen."""
        return self._then(orientation(0.0, flipped=True))

    def moved(self, down: float, right: float) -> Placement:
        """Return it moved by µm of the reference."""
        return replace(self, onto=compose(np.eye(2), np.array([down, right])) @ self.onto)

    def dragged(self, onto: Matrix) -> Placement:
        """Return what a drag to `onto` (3, 3) comes to.

        A slide of known pixel size only turns, flips and moves: a drag that scales it is ignored.
        Another one keeps its shape: of a drag that stretches it, the growth as a whole counts.
        """
        linear = onto[:2, :2] @ np.linalg.inv(self.onto[:2, :2])
        if np.abs(linear @ linear.T - np.eye(2)).max() < _RIGID:
            return replace(self, onto=onto)
        growth = float(np.linalg.det(linear))
        if not self.scalable or growth < _LEAST_SCALE**2:
            return self
        left, _, right = np.linalg.svd(linear)
        alike = np.sqrt(growth) * (left @ right) @ self.onto[:2, :2]
        place = onto[:2, :2] @ self.middle + onto[:2, 2]
        return replace(self, onto=compose(alike, place - alike @ self.middle))

    def _then(self, linear: NDArray[np.float64]) -> Placement:
        """Return it after a (2, 2) matrix about its middle."""
        about = np.array(self.place)
        return replace(self, onto=compose(linear, about - linear @ about) @ self.onto)


def placement_of(stack: SlideStack, stain: Stain) -> Placement:
    """Return where a stain lies now: as it is registered, or else centred on the reference.

    Parameters
    ----------
    stain
        Of the stack, without pixel size where only a registration has estimated it.
    """
    scalable = stain.slide.mpp is None
    extent = stain.slide.with_mpp(stain.slide.mpp or 1.0).extent
    found = stack.transforms.get(stain.name)
    if found is None:
        return Placement.centred(stack.extent, extent, scalable=scalable)
    start = found.affine
    if scalable:
        px = 1 / stack.stain(stain.name).slide.um_per_px
        start = np.diag([px, px, 1.0]) @ start
    return Placement.of_start(start, extent, scalable=scalable)


def _inverse(matrix: Matrix) -> Matrix:
    return np.asarray(np.linalg.inv(matrix), np.float64)


def _middle(extent: Region) -> tuple[float, float]:
    return extent.top + extent.height / 2, extent.left + extent.width / 2


def _long(extent: Region) -> float:
    return max(extent.height, extent.width)
