"""Where landmarks are shown in napari's world, and which place of a slide a click means."""

from __future__ import annotations

from dataclasses import dataclass

from napari_pancluster._layers import to_um, to_world
from napari_pancluster.core.pipeline.marking import SIDES, Side
from napari_pancluster.core.registration.landmarks import Landmarks, Points
from napari_pancluster.core.slide import Slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.transform import Transform


@dataclass(frozen=True)
class Frames:
    """The two slides on which the landmarks of a stain are set, and how they are shown.

    Attributes
    ----------
    fixed, moving
        The stains.
    slides
        Their slides; one without pixel size is taken at 1.
    transform
        The registration in which the moving slide is shown; None: it is shown as its own slide.
    known_mpp
        The pixel size that the project, not a registration, gives the moving slide. Without one
        the landmarks of that slide are in px.
    """

    fixed: str
    moving: str
    slides: tuple[Slide, Slide]
    transform: Transform | None
    known_mpp: float | None

    @classmethod
    def of(cls, stack: SlideStack, moving: str, known_mpp: float | None) -> Frames:
        """Return the frames of a stain."""
        slide = stack.stain(moving).slide
        slides = (stack.stain(stack.reference).slide, slide.with_mpp(slide.mpp or 1.0))
        return cls(stack.reference, moving, slides, stack.transform(moving), known_mpp)

    @property
    def apart(self) -> bool:
        """Whether the two slides are shown each in its own frame."""
        return self.transform is None

    @property
    def table_slides(self) -> tuple[Slide, Slide]:
        """The slides at the pixel sizes in which landmarks are given."""
        return self.slides[0], self.slides[1].with_mpp(self.known_mpp)

    def slide(self, side: Side) -> Slide:
        """Return the slide of a side."""
        return self.slides[SIDES.index(side)]

    def name(self, side: Side) -> str:
        """Return the stain of a side."""
        return self.fixed if side == "fixed" else self.moving

    def shown(self, side: Side, points: Points) -> Points:
        """Return where points (N, 2) of a side are in napari's world."""
        um = points * self._unit(side)
        if side == "moving" and self.transform is not None:
            um = self.transform.to_fixed(um)
        return to_world(um, self._ground(side))

    def meant(self, side: Side, world: Points) -> Points:
        """Return which points (N, 2) of a side are at these places of napari's world."""
        um = to_um(world, self._ground(side))
        if side == "moving" and self.transform is not None:
            um = self.transform.to_moving(um)
        return um / self._unit(side)

    def inside(self, side: Side, points: Points) -> bool:
        """Return whether all points (N, 2) of a side lie on its slide."""
        um, extent = points * self._unit(side), self.slide(side).extent
        return bool(((um >= 0) & (um <= (extent.bottom, extent.right))).all())

    def in_um(self, landmarks: Landmarks) -> Landmarks:
        """Return landmarks as the transform knows them."""
        return Landmarks(landmarks.fixed, landmarks.moving * self._unit("moving"))

    def _ground(self, side: Side) -> Slide:
        """Return the slide in whose frame a side is shown."""
        return self.slide(side if self.apart else "fixed")

    def _unit(self, side: Side) -> float:
        """Return the µm of a slide per unit of its landmarks."""
        in_px = side == "moving" and self.known_mpp is None
        return self.slides[1].um_per_px if in_px else 1.0
