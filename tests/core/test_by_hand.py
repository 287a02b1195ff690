"""Where a slide lies that a person has put on the reference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawing import texture, write_slide

from napari_pancluster.core.by_hand import Placement, placement_of
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.registration.search import orientation_of
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform

REFERENCE, SLIDE = Region(0.0, 0.0, 700.0, 1100.0), Region(0.0, 0.0, 310.0, 530.0)
# As registration leaves it: turned, sheared, and a little larger one way.
SHEARED = np.array([[0.82, -0.55, 130.25], [0.61, 0.79, -47.5], [0.0, 0.0, 1.0]])


def _lands(placement: Placement, row: float, col: float) -> complex:
    """Where a point of the slide lies, as right + i·up."""
    at = placement.onto @ [row, col, 1.0]
    return complex(at[1], -at[0])


def test_turns_flips_and_moves_are_what_they_say_on_the_screen() -> None:
    placement = Placement.centred(REFERENCE, SLIDE)
    middle, corner = complex(550, -350), complex(-265, 155)
    assert _lands(placement, 0, 0) == pytest.approx(middle + corner)
    # Counter-clockwise on the screen is counter-clockwise in the complex plane.
    turned = placement.turned(33.0)
    ahead = corner * np.exp(1j * np.deg2rad(33))
    assert _lands(turned, 0, 0) == pytest.approx(middle + ahead)
    mirrored = turned.mirrored()
    assert _lands(mirrored, 0, 0) == pytest.approx(middle - ahead.conjugate())
    moved = mirrored.moved(12.5, -80.0)
    assert _lands(moved, 0, 0) == pytest.approx(middle - ahead.conjugate() - 80 - 12.5j)
    assert moved.place == pytest.approx((362.5, 470.0))
    assert moved.flipped and moved.rotation_deg == pytest.approx(327.0)
    assert moved.scale == pytest.approx(1.0)


def test_the_start_is_the_way_back_and_in_the_words_of_the_search() -> None:
    moved = Placement.centred(REFERENCE, SLIDE).mirrored().turned(140.0).moved(3.0, 40.0)
    there = moved.onto @ [17.0, 401.0, 1.0]
    assert moved.start @ there == pytest.approx([17.0, 401.0, 1.0], abs=1e-9)
    rotation, flipped, scale = orientation_of(moved.start)
    # A flipped picture is turned the same way on both sides of the mirror.
    assert (flipped, scale) == (True, pytest.approx(1.0)) and rotation == pytest.approx(140.0)
    upright = Placement.centred(REFERENCE, SLIDE).turned(140.0)
    assert orientation_of(upright.start)[0] == pytest.approx(220.0)


def test_a_drag_may_turn_and_move_but_not_scale() -> None:
    placement = Placement.of_start(SHEARED, SLIDE)
    rigid = placement.turned(71.0).moved(-5.0, 600.0).onto
    assert placement.dragged(rigid).onto is rigid
    grown = np.diag([1.3, 1.3, 1.0]) @ placement.onto
    assert placement.dragged(grown) is placement
    stretched = placement.onto @ np.diag([1.0, 1.01, 1.0])
    assert placement.dragged(stretched) is placement


def test_a_slide_of_unknown_pixel_size_grows_but_keeps_its_shape() -> None:
    placement = Placement.of_start(SHEARED, SLIDE, scalable=True)
    stretched = np.array([[1.2, 0, 7.0], [0, 1.5, -31.0], [0, 0, 1.0]]) @ placement.onto
    dragged = placement.dragged(stretched)
    ratio = dragged.onto[:2, :2] @ np.linalg.inv(placement.onto[:2, :2])
    assert ratio @ ratio.T == pytest.approx(1.8 * np.eye(2))
    # Its middle is where the drag took it.
    assert dragged.place == pytest.approx(tuple((stretched @ [*placement.middle, 1.0])[:2]))
    # Drawn through itself, it stays as it was.
    assert placement.dragged(np.diag([-1.2, 1.0, 1.0]) @ placement.onto) is placement


@pytest.fixture
def stack(tmp_path: Path) -> SlideStack:
    """A reference of 2 µm and a slide of 0.75 µm, as long as 0.4 of it."""
    first = write_slide(tmp_path / "a.ome.tif", texture((300, 500), coarse=False), 2.0)
    other = write_slide(tmp_path / "b.ome.tif", texture((530, 400), coarse=True), 0.75)
    stains = [Stain.of(n, open_slide(p)) for n, p in (("HE", first), ("PAS", other))]
    return SlideStack("case", "HE", tuple(stains))


def test_what_is_not_registered_lies_upright_in_the_middle(stack: SlideStack) -> None:
    placement = placement_of(stack, stack.stain("PAS"))
    assert placement.place == pytest.approx((300.0, 500.0))
    assert placement.onto[:2, :2] == pytest.approx(np.eye(2)) and not placement.scalable
    unknown = placement_of(stack, stack.stain("PAS").with_mpp(None))
    assert unknown.place == pytest.approx((300.0, 500.0)) and unknown.scalable
    # As long as the reference: 530 px on 1000 µm.
    assert unknown.scale == pytest.approx(1000 / 530)


def test_what_is_registered_starts_from_there(stack: SlideStack) -> None:
    registered = stack.with_transform(Transform("HE", "PAS", SHEARED))
    placement = placement_of(registered, registered.stain("PAS"))
    assert np.abs(placement.start - SHEARED).max() < 1e-9
    # The pixel size was estimated: registration takes level-0 px.
    unknown = placement_of(registered, registered.stain("PAS").with_mpp(None))
    points = np.array([[10.0, 20.0, 1.0], [500.0, -30.0, 1.0]]).T
    assert (unknown.start @ points)[:2] * 0.75 == pytest.approx((SHEARED @ points)[:2])
