"""Evidence over the tissue: layers on demand, exactly in place, gone with what they show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_pancluster._layers import CONFIDENCE, GRID, GROWTH
from napari_pancluster._widgets.evidence_box import EvidenceBox
from napari_pancluster.core.confidence import Confidence
from napari_pancluster.core.registration.quality import with_field
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform

SPACING = 40.0
KINDS = (GRID, GROWTH, CONFIDENCE)


def _bent(moving: str, furthest: float) -> Transform:
    """A registration of the 1280 × 2000 µm of the islands, bent to the right and back."""
    c = SPACING * (np.arange(50) + 0.5)
    field = np.zeros((2, 32, 50), np.float32)
    field[1] = furthest * np.sin(c / 300)
    return with_field(Transform("HE", moving, np.eye(3)), field, SPACING)


@pytest.fixture
def stack(islands: Path) -> SlideStack:
    """Three slides; PAS has a confidence, which is low left of x = 1000 µm, and CD31 has none."""
    slide = open_slide(islands)
    stains = tuple(Stain.of(name, slide) for name in ("HE", "PAS", "CD31"))
    values = np.full((64, 100), 0.8, np.float32)
    values[:, :50] = 0.2
    found = SlideStack("block", "HE", stains, confidences={"PAS": Confidence(values, 20.0)})
    return found.with_transform(_bent("PAS", 30.0)).with_transform(_bent("CD31", -500.0))


@pytest.fixture
def box(main: Any, stack: SlideStack, qtbot: Any) -> Iterator[EvidenceBox]:
    """The box over these slides."""
    main.session.case = "block"
    main.session.show_stack(stack)
    found = EvidenceBox(main.viewer, main.session)
    qtbot.addWidget(found)
    yield found
    found.close_session()


def _shown(main: Any) -> list[str]:
    return [t for t in (x.metadata.get("pancluster") for x in main.viewer.layers) if t in KINDS]


def test_every_button_shows_its_layer_and_takes_it_away(
    main: Any, box: EvidenceBox, wait: Callable[..., None]
) -> None:
    assert [box.stain.itemText(n) for n in range(box.stain.count())] == ["PAS", "CD31"]
    before = list(main.viewer.layers)
    for tag in KINDS:
        box.buttons[tag].click()
        wait(lambda tag=tag: box.layer(tag) is not None)
        assert not box.texts[tag].isHidden() and box.layer(tag).name.startswith("PAS")
    assert sorted(_shown(main)) == sorted(KINDS)
    assert "up to 30 µm" in box.texts[GRID].text() and "No folds" in box.texts[GROWTH].text()
    # Of the two islands one lies where the confidence is 0.2, the other where it is 0.8.
    assert "of the tissue: 0.5" in box.texts[CONFIDENCE].text()
    for tag in KINDS:
        box.buttons[tag].click()
        assert box.layer(tag) is None and box.texts[tag].isHidden()
    assert list(main.viewer.layers) == before


def test_layers_lie_exactly_over_the_tissue(
    main: Any, box: EvidenceBox, wait: Callable[..., None]
) -> None:
    for tag in KINDS:
        box.buttons[tag].click()
    wait(lambda: len(_shown(main)) == 3)
    slide = main.viewer.layers["HE"]
    # The outer corners of all agree, in a world that starts in the centre of a pixel of 2 µm.
    for tag in (GROWTH, CONFIDENCE):
        layer = box.layer(tag)
        assert np.allclose(layer.data_to_world((-0.5, -0.5)), (-1, -1)), tag
        rows, cols = layer.data.shape
        assert np.allclose(layer.data_to_world((rows - 0.5, cols - 0.5)), (1279, 1999)), tag
        assert layer.units == slide.units and layer.axis_labels == ("y", "x")
    grid = box.layer(GRID)
    assert np.allclose(grid.data_to_world((0.0, 0.0)), (-1, -1)) and grid.units == slide.units
    # Glass is clear, tissue is not.
    confidence = box.layer(CONFIDENCE)
    assert np.isnan(confidence.get_value((20.0, 20.0), world=True))
    assert confidence.get_value((600.0, 900.0), world=True) == np.float32(0.2)
    assert confidence.get_value((600.0, 1100.0), world=True) == np.float32(0.8)


def test_folds_are_seen_and_told(main: Any, box: EvidenceBox, wait: Callable[..., None]) -> None:
    box.show_stain("CD31")
    box.buttons[GROWTH].click()
    wait(lambda: box.layer(GROWTH) is not None)
    assert "% of the tissue folds" in box.texts[GROWTH].text()
    layer = box.layer(GROWTH)
    low, high = layer.contrast_limits
    folded, whole = np.nanmin(layer.data), 1.0
    assert folded <= 0
    colours = layer.colormap.map([(v - low) / (high - low) for v in (folded, 1e-3, whole)])
    assert np.allclose(colours[0], layer.colormap.low_color)
    assert not np.allclose(colours[1], colours[0]) and (colours[2] > 0.95).all()
    # Twice and half the area are as far from the middle.
    half, double = layer.colormap.map([(v - low) / (high - low) for v in (0.5, 2.0)])
    assert np.allclose(half, layer.colormap.colors[1])
    assert np.allclose(double, layer.colormap.colors[-1])


def test_where_no_confidence_was_measured_the_button_says_so(
    box: EvidenceBox, wait: Callable[..., None]
) -> None:
    assert box.buttons[CONFIDENCE].isEnabled()
    box.buttons[CONFIDENCE].click()
    wait(lambda: box.layer(CONFIDENCE) is not None)
    box.show_stain("CD31")
    assert not box.buttons[CONFIDENCE].isEnabled() and box.layer(CONFIDENCE) is None
    assert "Register CD31 again" in box.buttons[CONFIDENCE].toolTip()
    assert "Register CD31 again" in box._hint.text() and not box._hint.isHidden()
    box.show_stain("PAS")
    assert box.buttons[CONFIDENCE].isEnabled() and box._hint.isHidden()


def test_another_stain_takes_the_place_of_the_one_before(
    main: Any, box: EvidenceBox, wait: Callable[..., None]
) -> None:
    for tag in (GRID, GROWTH):
        box.buttons[tag].click()
    wait(lambda: len(_shown(main)) == 2)
    box.show_stain("CD31")
    wait(lambda: len(_shown(main)) == 2)
    assert {box.layer(t).metadata["stain"] for t in (GRID, GROWTH)} == {"CD31"}
    assert "up to 500 µm" in box.texts[GRID].text()


@pytest.mark.parametrize("what", ["stack", "case"])
def test_layers_go_with_what_they_show(
    main: Any, box: EvidenceBox, stack: SlideStack, wait: Callable[..., None], what: str
) -> None:
    for tag in (GRID, GROWTH):
        box.buttons[tag].click()
    wait(lambda: len(_shown(main)) == 2)
    if what == "stack":
        main.session.show_stack(replace(stack, transforms={}))
    else:
        main.session.show_case("another")
    assert _shown(main) == [] and not box.isEnabled() and box.stain.count() == 0
    assert not any(b.isChecked() for b in box.buttons.values())
    if what == "case":
        main.session.show_stack(replace(stack, case="another"))
        assert box.isEnabled() and box.stain.count() == 2


def test_a_layer_that_the_user_removes_is_switched_off(
    main: Any, box: EvidenceBox, wait: Callable[..., None]
) -> None:
    box.buttons[GRID].click()
    wait(lambda: box.layer(GRID) is not None)
    main.viewer.layers.remove(box.layer(GRID))
    assert not box.buttons[GRID].isChecked() and box.texts[GRID].isHidden()
    box.buttons[GRID].click()
    wait(lambda: box.layer(GRID) is not None)


def test_what_is_switched_off_before_it_is_made_is_not_shown(
    main: Any, box: EvidenceBox, wait: Callable[..., None]
) -> None:
    box.buttons[GRID].click()
    box.buttons[GRID].click()
    assert box.loader.busy
    wait(lambda: not box.loader.busy)
    assert _shown(main) == []
    box.buttons[GRID].click()
    box.buttons[GRID].click()
    box.buttons[GROWTH].click()
    wait(lambda: box.layer(GROWTH) is not None and not box.loader.busy)
    assert _shown(main) == [GROWTH]


def test_an_error_is_told_and_switches_off(
    main: Any, box: EvidenceBox, stack: SlideStack, wait: Callable[..., None]
) -> None:
    told: list[str] = []
    box.complained.connect(told.append)
    broken = replace(stack.transforms["PAS"], affine=np.eye(2), inverse_displacement=np.eye(3))
    main.session.show_stack(stack.with_transform(broken))
    box.buttons[GRID].click()
    wait(lambda: bool(told))
    assert not box.buttons[GRID].isChecked() and _shown(main) == []
