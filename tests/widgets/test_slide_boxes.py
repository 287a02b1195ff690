"""The boxes below the slides of a project: tissue that is painted and kept, dyes as layers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from napari_pancluster._layers import TISSUE_IN, TISSUE_OUT
from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.pipeline.opening import open_stack, tissue_of
from napari_pancluster.core.pipeline.tissue import kept_tissue
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project


@pytest.fixture
def box(main: Any, islands: Path, tmp_path: Path, wait: Callable[..., None]) -> Any:
    """The tissue box of a project of one slide with two islands of tissue."""
    cases = make_cases([SlideEntry("block", "HE", islands)])
    main.open_project(Project.create(tmp_path / "p.pancluster", cases).root)
    wait(lambda: main.session.stack is not None)
    main.slides.tissue.find()
    wait(lambda: main.slides.tissue.layer is not None)
    return main.slides.tissue


def _islands(mask: np.ndarray) -> tuple[float, float]:
    """Share of the left and of the right half that is tissue."""
    half = mask.shape[1] // 2
    return float(mask[:, :half].mean()), float(mask[:, half:].mean())


def test_what_is_painted_excluded_and_kept_is_what_is_trained_on(main: Any, box: Any) -> None:
    left, right = _islands(box.painted.mask)
    assert left > 0.4 and right > 0.4
    columns = box.layer.data.shape[1]
    box.layer.data[:, columns // 2 :] = TISSUE_OUT
    box.layer.data[:5, :5] = TISSUE_IN
    box.keep()
    assert box.layer is None
    kept = kept_tissue(main.session.project, "block")
    assert kept.mask[:5, :5].all() and _islands(kept.mask)[1] == 0
    # The steps take this one, and do not find it anew.
    project = Project.open(main.session.project.root)
    used = run(tissue_of(project, open_stack(project, project.case("block"))))
    assert np.array_equal(used.mask, kept.mask)


def test_other_settings_are_seen_at_once_and_leave_the_painting(
    box: Any, wait: Callable[..., None]
) -> None:
    box.layer.data[:3, :3] = TISSUE_IN
    box.layer.data[-9:] = TISSUE_OUT
    before = box.painted.mask.sum()
    # The islands lie 160 µm apart.
    box.form["close_um"].value = 200.0
    wait(lambda: box.painted.mask.sum() != before)
    assert (box.layer.data[:3, :3] == TISSUE_IN).all() and (box.layer.data[-9:] == TISSUE_OUT).all()


def test_annotations_restrict_the_tissue(box: Any, tmp_path: Path) -> None:
    def square(x0: int, x1: int, name: str) -> dict[str, Any]:
        ring = [[x0, 0], [x1, 0], [x1, 640], [x0, 640], [x0, 0]]
        return {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [ring]},
            "properties": {"objectType": "annotation", "classification": {"name": name}},
        }

    features = [square(500, 1000, "Tumor"), square(500, 600, "Ignore*")]
    path = tmp_path / "a.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    box.restrict(path)
    left, right = _islands(box.painted.mask)
    assert left == 0 and right > 0.3
    columns = box.painted.mask.shape[1]
    assert not box.painted.mask[:, : int(columns * 0.59)].any()


def test_nothing_left_is_told(main: Any, box: Any, tmp_path: Path) -> None:
    box.layer.data[:] = TISSUE_OUT
    box.keep()
    assert "Nothing is left" in main.bar.message and box.layer is not None
    (tmp_path / "a.geojson").write_text("{}")
    box.restrict(tmp_path / "a.geojson")
    assert "a.geojson" in main.bar.message


def test_dyes_are_swatches_and_layers(main: Any, box: Any, wait: Callable[..., None]) -> None:
    dyes = main.slides.dyes
    assert dyes.stain.currentText() == "HE" and dyes.vectors.names == ("Hematoxylin", "Eosin")
    texts = [dyes._swatches.itemAt(n).widget().text() for n in range(dyes._swatches.count())]
    assert texts == ["Hematoxylin", "Eosin"]
    dyes.add_layer(1)
    dyes.add_layer(1)
    layers = [x for x in main.viewer.layers if x.metadata.get("pancluster") == "dye"]
    assert [x.name for x in layers] == ["HE · Eosin"]
    coarse = np.asarray(layers[0].data[-1])
    assert coarse[coarse.shape[0] // 2, 10] < 0.05 < coarse.max()


def test_a_slide_without_two_dyes_falls_back_and_says_so(
    main: Any, box: Any, wait: Callable[..., None]
) -> None:
    dyes = main.slides.dyes
    dyes.source.setCurrentIndex(1)
    dyes.refresh()
    # The drawn tissue has one colour only: there is nothing to measure a second dye on.
    wait(lambda: main.bar.message != "")
    assert dyes.source.currentText() == "published" and dyes.vectors is not None


@pytest.fixture
def pair(main: Any, islands: Path, two_tissues: Path, wait: Callable[..., None]) -> Any:
    """The compare box over two slides, one registered onto the other."""
    from napari_pancluster.core.slide import open_slide
    from napari_pancluster.core.stack import SlideStack
    from napari_pancluster.core.stain import Stain
    from napari_pancluster.core.transform import Transform

    stains = (
        Stain.of("HE", open_slide(islands)),
        Stain.of("PAS", open_slide(two_tissues).with_mpp(2.0)),
    )
    stack = SlideStack("block", "HE", stains).with_transform(Transform.identity("HE", "PAS"))
    main.session.case = "block"
    main.session.show_stack(stack)
    return main.register.compare


def _choose(box: Any, mode: str) -> None:
    box.mode.setCurrentText(mode)
    box.refresh()


def test_stains_are_compared_in_one_picture(main: Any, pair: Any) -> None:
    assert [pair.stain.itemText(n) for n in range(pair.stain.count())] == ["PAS"]
    for mode in ("Two colours", "Checkerboard", "Curtain"):
        _choose(pair, mode)
        layers = [x for x in main.viewer.layers if x.metadata.get("pancluster") == "compare"]
        assert len(layers) == 1 and layers[0].data[0].shape == (640, 1000, 3)
    before = np.asarray(pair.layer.data[-1])
    pair.curtain.setValue(900)
    assert not np.array_equal(before, np.asarray(pair.layer.data[-1]))
    _choose(pair, "off")
    assert pair.layer is None


def test_blinking_shows_them_in_turns_and_ends_with_the_reference(
    main: Any, pair: Any, wait: Callable[..., None]
) -> None:
    reference, moving = main.viewer.layers["HE"], main.viewer.layers["PAS (registered)"]
    assert reference.visible and not moving.visible
    _choose(pair, "Blink")
    wait(lambda: moving.visible and not reference.visible)
    wait(lambda: reference.visible and not moving.visible)
    wait(lambda: moving.visible)
    _choose(pair, "off")
    assert reference.visible and not moving.visible
