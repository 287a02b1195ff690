"""Areas from QuPath's GeoJSON: what is read, what is refused, and the mask they make."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import shapely

from napari_pancluster.core import annotations
from napari_pancluster.core.annotations import Annotation, rasterise, read_annotations
from napari_pancluster.core.errors import InputError

SHAPE = (400, 600)
SQUARE = [[100, 40], [300, 40], [300, 140], [100, 140], [100, 40]]
HOLE = [[150, 60], [250, 60], [250, 120], [150, 120], [150, 60]]


def feature(kind: str, coordinates: object, **properties: object) -> dict[str, object]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "areas.geojson"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize("form", ["collection", "list", "single"])
def test_all_forms_of_qupath_are_read(tmp_path: Path, form: str) -> None:
    one = feature("Polygon", [SQUARE, HOLE], objectType="annotation", name="Tumour")
    content = {"collection": {"type": "FeatureCollection", "features": [one]}, "list": [one]}
    (area,) = read_annotations(write(tmp_path, content.get(form, one)), SHAPE)
    assert area.name == "Tumour"
    assert area.polygon.area == 200 * 100 - 100 * 60


def test_x_runs_right_and_y_down_and_holes_stay_open(tmp_path: Path) -> None:
    path = write(tmp_path, [feature("Polygon", [SQUARE, HOLE])])
    mask = rasterise(read_annotations(path, SHAPE), (40, 60), (10, 10))
    truth = np.zeros((40, 60), bool)
    truth[4:14, 10:30] = True
    truth[6:12, 15:25] = False
    assert np.array_equal(mask, truth)


def test_rows_and_columns_have_their_own_pixel_size(tmp_path: Path) -> None:
    path = write(tmp_path, [feature("Polygon", [SQUARE])])
    mask = rasterise(read_annotations(path, SHAPE), (20, 60), (20, 10))
    assert np.array_equal(np.flatnonzero(mask.any(1)), np.arange(2, 7))
    assert np.array_equal(np.flatnonzero(mask.any(0)), np.arange(10, 30))


def test_parts_of_one_annotation_are_all_drawn(tmp_path: Path) -> None:
    other = [[400, 300], [500, 300], [500, 350], [400, 350], [400, 300]]
    path = write(tmp_path, [feature("MultiPolygon", [[SQUARE, HOLE], [other]])])
    mask = rasterise(read_annotations(path, SHAPE), (40, 60), (10, 10))
    assert mask.sum() == 200 - 60 + 50
    assert mask[32, 45]


def test_class_stands_in_for_a_missing_name(tmp_path: Path) -> None:
    one = feature("Polygon", [SQUARE], classification={"name": "Stroma", "color": [1, 2, 3]})
    two = feature("Polygon", [SQUARE]) | {"properties": None}
    assert [a.name for a in read_annotations(write(tmp_path, [one, two]), SHAPE)] == ["Stroma", ""]


def test_points_and_lines_are_ignored(tmp_path: Path) -> None:
    others = [feature("Point", [3, 4]), feature("LineString", [[0, 0], [9, 9]])]
    place_less = {"type": "Feature", "geometry": None, "properties": {}}
    path = write(tmp_path, [*others, place_less, feature("Polygon", [SQUARE])])
    assert len(read_annotations(path, SHAPE)) == 1
    with pytest.raises(InputError, match="3 features and no area"):
        read_annotations(write(tmp_path, [*others, place_less]), SHAPE)


def test_a_crossing_outline_is_repaired(tmp_path: Path) -> None:
    bow = [[100, 100], [200, 200], [200, 100], [100, 200], [100, 100]]
    (area,) = read_annotations(write(tmp_path, feature("Polygon", [bow])), SHAPE)
    assert area.polygon.is_valid
    assert area.polygon.area == pytest.approx(5000)
    mask = rasterise([area], SHAPE, (1, 1))
    assert mask.sum() == pytest.approx(5000, rel=0.03)
    # The two wings, and neither of the gaps above and below the crossing.
    assert mask[150, 110]
    assert mask[150, 190]
    assert not mask[110, 150]


def test_an_area_may_reach_over_the_edge_but_not_lie_outside(tmp_path: Path) -> None:
    over = [[-50, -50], [50, -50], [50, 50], [-50, 50], [-50, -50]]
    areas = read_annotations(write(tmp_path, feature("Polygon", [over])), SHAPE)
    assert rasterise(areas, (40, 60), (10, 10)).sum() == 25
    away = [[x + 700, y] for x, y in SQUARE]
    with pytest.raises(InputError, match="'far' of .* x 800 to 1000 .* 600 × 400 px"):
        read_annotations(write(tmp_path, feature("Polygon", [away], name="far")), SHAPE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{not json", "not valid GeoJSON"),
        ("", "not valid GeoJSON"),
        ("[" * 200_000, "not valid GeoJSON"),
        ("17", "holds 17 where features"),
        ("[1]", "holds 1 where a feature"),
        ('{"type": "FeatureCollection"}', "holds null where features"),
        ({"type": "Topology", "objects": {}}, "type 'Topology'"),
        ([], "0 features and no area"),
        (feature("Sphere", [SQUARE]), "Feature 1 of .* type 'Sphere'"),
        (feature("Polygon", None), "broken coordinates"),
        (feature("Polygon", []), "broken coordinates"),
        (feature("Polygon", [[[1, 2], [3, "x"], [4, 5]]]), "broken coordinates"),
        (feature("Polygon", [[[1, 2], [3], [4, 5]]]), "broken coordinates"),
        (feature("Polygon", [[[1, 2], [3, float("nan")], [4, 5]]]), "broken coordinates"),
        (feature("MultiPolygon", [SQUARE]), "broken coordinates"),
        (feature("Polygon", [[[1, 1], [9, 9], [1, 1], [1, 1]]]), "no area"),
    ],
)
def test_what_is_no_area_is_refused_in_words(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_annotations(write(tmp_path, content), SHAPE)


def test_missing_binary_and_too_large_files_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_annotations(tmp_path / "none.geojson", SHAPE)
    binary = tmp_path / "binary.geojson"
    binary.write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(InputError, match="not valid GeoJSON"):
        read_annotations(binary, SHAPE)
    path = write(tmp_path, feature("Polygon", [SQUARE]))
    monkeypatch.setattr(annotations, "_LARGEST_BYTES", path.stat().st_size - 1)
    with pytest.raises(InputError, match="without detections"):
        read_annotations(path, SHAPE)


def test_many_areas_agree_with_a_test_of_every_cell() -> None:
    rng = np.random.default_rng(0)
    centres, radii = rng.uniform(0, 300, (60, 2)), rng.uniform(2, 20, 60)
    areas = [
        Annotation("", shapely.Point(c).buffer(r)) for c, r in zip(centres, radii, strict=True)
    ]
    mask = rasterise(areas, (100, 120), (3, 2.5))
    y, x = (np.mgrid[:100, :120] + 0.5) * np.array([3, 2.5])[:, None, None]
    truth = shapely.contains_xy(shapely.union_all([a.polygon for a in areas]), x, y)
    assert 0.1 < truth.mean() < 0.9
    assert np.array_equal(mask, truth)
