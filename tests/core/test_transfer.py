"""Transfer: areas, points and labels from any slide of a case to any other."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
from drawing import write_slide
from numpy.typing import NDArray

from napari_pancluster.core.annotations import Annotation, rasterise, read_annotations
from napari_pancluster.core.errors import InputError, ProjectError
from napari_pancluster.core.progress import run
from napari_pancluster.core.registration.quality import inverse_displacement
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transfer import (
    Transfer,
    map_annotation,
    map_geojson,
    map_geometry,
    map_labels,
)
from napari_pancluster.core.transform import Transform

# Pixels down and across of each slide, and their size in µm.
SLIDES = {
    "HE": ((500, 700), (2.0, 2.0)),
    "PAS": ((900, 620), (2.0, 1.6)),
    "CD3": ((460, 640), (2.0, 2.4)),
}
SQUARE = shapely.Polygon(
    [(250, 150), (450, 150), (450, 300), (250, 300)],
    [[(300, 190), (400, 190), (400, 260), (300, 260)]],
)


def curved(moving: str, affine: list[list[float]], bend: float) -> Transform:
    r, c = np.meshgrid(20.0 * np.arange(60), 20.0 * np.arange(80), indexing="ij")
    field = bend * np.stack([np.sin(c / 120), 0.8 * np.cos(r / 140)]).astype(np.float32)
    inverse = inverse_displacement(field, 20.0)
    return Transform("HE", moving, np.array([*affine, [0, 0, 1]]), field, inverse, 20.0)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> SlideStack:
    """A reference, a stain mirrored and turned on oblong pixels, and one shifted the other way."""
    folder = tmp_path_factory.mktemp("slides")
    stains = []
    for name, (shape, (down, across)) in SLIDES.items():
        pixels = np.full((*shape, 3), 240, np.uint8)
        slide = open_slide(write_slide(folder / f"{name}.ome.tif", pixels, across, levels=1))
        slide = replace(slide, oblong=down / across)
        stains.append(Stain(name, slide, (240.0,) * 3))
    found = SlideStack("block", "HE", tuple(stains))
    # Mirrored: row and column change places.
    found = found.with_transform(curved("PAS", [[0.2, 1.1, 60.0], [0.8, -0.1, 40.0]], 14))
    return found.with_transform(curved("CD3", [[0.95, 0.05, -60.0], [-0.05, 1.05, 30.0]], -11))


PAIRS = [("HE", "PAS"), ("PAS", "HE"), ("PAS", "CD3"), ("CD3", "PAS")]


@pytest.mark.parametrize(("from_", "to"), PAIRS)
def test_points_go_through_the_reference_in_each_slides_own_pixels(
    stack: SlideStack, from_: str, to: str
) -> None:
    way = Transfer.between(stack, from_, to)
    reference = np.random.default_rng(0).uniform((250, 350), (750, 1050), (50, 2))
    px = {}
    for name in (from_, to):
        transform = stack.transform(name)
        assert transform is not None
        px[name] = transform.to_moving(reference) / SLIDES[name][1]
    assert np.abs(way.px(px[from_]) - px[to]).max() < 0.1
    assert np.abs(way.reverse.px(way.px(px[from_])) - px[from_]).max() < 0.1


@pytest.mark.parametrize(("from_", "to"), PAIRS)
def test_an_area_keeps_its_hole_and_comes_back(stack: SlideStack, from_: str, to: str) -> None:
    way = Transfer.between(stack, from_, to)
    there = map_annotation(way, Annotation("Tumour", SQUARE))
    assert there.name == "Tumour" and there.polygon.is_valid
    assert len(there.polygon.interiors) == 1
    assert there.polygon.symmetric_difference(SQUARE).area > 0.2 * SQUARE.area
    back = map_annotation(way.reverse, there).polygon
    assert len(back.interiors) == 1
    assert back.symmetric_difference(SQUARE).area < 0.005 * SQUARE.area


def test_edges_bend_with_the_tissue(stack: SlideStack) -> None:
    """Points drawn densely along an edge lie on the mapped edge; its corners alone miss them."""
    way = Transfer.between(stack, "HE", "PAS")
    box = shapely.box(150, 120, 550, 380)
    shares = np.linspace(0, 1, 400, endpoint=False)
    points = shapely.line_interpolate_point(box.exterior, shares, normalized=True)
    along = shapely.get_coordinates(points)
    truth = shapely.points(way.px(along[:, ::-1])[:, ::-1])
    mapped = map_geometry(way, box).exterior
    assert shapely.distance(mapped, truth).max() < 0.15
    corners = shapely.Polygon(way.px(shapely.get_coordinates(box)[:, ::-1])[:, ::-1]).exterior
    assert shapely.distance(corners, truth).max() > 3


def test_straight_edges_gain_no_corners(stack: SlideStack) -> None:
    straight = stack.with_transform(
        Transform("HE", "PAS", np.array([[0.0, 1.0, 5.0], [1.0, 0.0, 9.0], [0, 0, 1]]))
    )
    mapped = map_geometry(Transfer.between(straight, "HE", "PAS"), SQUARE)
    assert shapely.get_num_coordinates(mapped) == shapely.get_num_coordinates(SQUARE)


def test_what_the_way_folds_over_is_repaired(stack: SlideStack) -> None:
    r, c = np.meshgrid(20.0 * np.arange(60), 20.0 * np.arange(80), indexing="ij")
    # Steeper than one: the tissue overtakes itself.
    fold = np.stack([90 * np.sin(r / 30), 60 * np.sin((r + c) / 40)]).astype(np.float32)
    folded = stack.with_transform(Transform("HE", "PAS", np.eye(3), fold, -fold, 20.0))
    mapped = map_geometry(Transfer.between(folded, "HE", "PAS"), SQUARE)
    assert mapped.is_valid and mapped.area > 0
    assert mapped.geom_type in ("Polygon", "MultiPolygon")


def feature(geometry: dict[str, object], **more: object) -> dict[str, object]:
    return {"type": "Feature", "geometry": geometry, "properties": {}, **more}


def test_geojson_keeps_everything_but_the_places(stack: SlideStack, tmp_path: Path) -> None:
    way = Transfer.between(stack, "PAS", "CD3")
    properties = {
        "objectType": "annotation",
        "name": "Tümour",
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
        "measurements": {"Area µm^2": 12.5},
    }
    square = shapely.geometry.mapping(SQUARE)
    objects = [
        feature({**square, "plane": {"c": -1, "z": 0, "t": 0}}, id="abc", properties=properties),
        feature({"type": "MultiPoint", "coordinates": [[300, 200], [310.5, 220]]}),
        feature({"type": "LineString", "coordinates": [[300, 200, 0], [400, 300, 0]]}),
        feature({"type": "Point", "coordinates": [300, 200]}, nucleusGeometry=square),
        feature({"type": "Point", "coordinates": [1e5, 200]}),
        {"type": "Feature", "geometry": None, "properties": {}},
    ]
    (tmp_path / "pas.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": objects}), encoding="utf-8"
    )
    counts = map_geojson(way, tmp_path / "pas.geojson", tmp_path / "cd3.geojson")
    assert counts == {"n": 6, "outside": 1}
    found = json.loads((tmp_path / "cd3.geojson").read_text(encoding="utf-8"))
    assert found["type"] == "FeatureCollection"
    area, points, line, cell, _, nowhere = found["features"]
    assert area["id"] == "abc" and area["properties"] == properties
    assert area["geometry"]["plane"] == {"c": -1, "z": 0, "t": 0}
    truth = way.px(np.array([[200, 300], [220, 310.5]]))[:, ::-1]
    assert np.allclose(points["geometry"]["coordinates"], truth)
    assert np.allclose(line["geometry"]["coordinates"][0], truth[0])
    assert shapely.geometry.shape(cell["nucleusGeometry"]).equals(
        shapely.geometry.shape(area["geometry"])
    )
    assert nowhere["geometry"] is None
    # What is written is what annotations are read from, and it is where the mapped area is.
    (read,) = (
        a
        for a in read_annotations(tmp_path / "cd3.geojson", SLIDES["CD3"][0])
        if a.name == "Tümour"
    )
    assert read.polygon.equals(map_geometry(way, SQUARE))


def test_a_bow_tie_is_repaired_and_an_ellipse_is_one_no_longer(
    stack: SlideStack, tmp_path: Path
) -> None:
    tie = [[200, 200], [400, 300], [400, 200], [200, 300], [200, 200]]
    geometry = {"type": "Polygon", "coordinates": [tie], "isEllipse": True}
    (tmp_path / "a.geojson").write_text(json.dumps([feature(geometry)]))
    way = Transfer.between(stack, "HE", "CD3")
    map_geojson(way, tmp_path / "a.geojson", tmp_path / "b.geojson")
    (found,) = json.loads((tmp_path / "b.geojson").read_text())["features"]
    shape = shapely.geometry.shape(found["geometry"])
    assert shape.is_valid and shape.area > 1000 and "isEllipse" not in found["geometry"]


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": [[[0, 0], [1, "a"], [2, 2]]]},
        {"type": "Polygon", "coordinates": 7},
        {"type": "Polygon"},
        {"type": "Cube", "coordinates": []},
        {"type": "Point", "coordinates": [float("nan"), 1]},
        {"type": "Polygon", "coordinates": []},
        "nowhere",
        [1, 2],
    ],
)
def test_broken_geometries_are_named(
    stack: SlideStack, tmp_path: Path, geometry: dict[str, object]
) -> None:
    source, target = tmp_path / "a.geojson", tmp_path / "b.geojson"
    source.write_text(json.dumps([feature(geometry)]))
    with pytest.raises(InputError, match="Feature 1 of .*a.geojson has"):
        map_geojson(Transfer.between(stack, "HE", "CD3"), source, target)
    assert not target.exists()


def test_what_cannot_be_mapped_is_said(stack: SlideStack, tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="CD3 of case block is not registered"):
        Transfer.between(replace(stack, transforms={}), "HE", "CD3")
    way = Transfer.between(stack, "HE", "CD3")
    with pytest.raises(InputError, match="too long"):
        map_geometry(way, shapely.box(0, 0, 1e12, 1e12))
    (tmp_path / "a.geojson").write_text(json.dumps([]))
    with pytest.raises(InputError, match="cannot be written"):
        map_geojson(way, tmp_path / "a.geojson", tmp_path / "no" / "b.geojson")
    for labels, mpp, message in (
        (np.zeros((4, 4, 3), np.uint8), 1.0, "rows and columns"),
        (np.zeros((4, 4), np.float32), 1.0, "float32"),
        (np.zeros((4, 4), np.uint8), 0.0, "makes no sense"),
        (np.zeros((4, 4), np.uint8), 1e-3, "larger pixel size"),
    ):
        with pytest.raises(InputError, match=message):
            run(map_labels(way, labels, mpp))


def labelled(name: str, mpp: float) -> NDArray[np.uint16]:
    """Return a label image over a slide: a frame with a hole as 40,000, and a patch of 7."""
    (rows, cols), (down, across) = SLIDES[name]
    shape = round(rows * down / mpp), round(cols * across / mpp)
    patch = shapely.box(150, 320, 330, 400)
    labels = np.zeros(shape, np.uint16)
    for value, area in ((40_000, SQUARE), (7, patch)):
        labels[rasterise([Annotation("", area)], shape, (mpp / down, mpp / across))] = value
    return labels


@pytest.mark.parametrize(("from_", "to"), PAIRS)
def test_labels_land_where_the_areas_do(
    stack: SlideStack, from_: str, to: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("napari_pancluster.core.transfer.BLOCK_PX", 100)
    way = Transfer.between(stack, from_, to)
    mapped = run(map_labels(way, labelled(from_, 2.0), 2.0))
    (rows, cols), (down, across) = SLIDES[to]
    assert mapped.dtype == np.uint16
    assert mapped.shape == (round(rows * down / 2), round(cols * across / 2))
    assert set(np.unique(mapped)) == {0, 7, 40_000}
    area = map_annotation(way, Annotation("", SQUARE))
    truth = rasterise([area], mapped.shape, (2.0 / down, 2.0 / across))
    found = mapped == 40_000
    assert (found & truth).sum() / (found | truth).sum() > 0.97
    back = run(map_labels(way.reverse, mapped, 2.0))
    assert (back == labelled(from_, 2.0)).mean() > 0.985


def test_labels_may_be_oblong_and_come_out_finer(stack: SlideStack) -> None:
    """On the way to itself nothing moves: each pixel is repeated, and no label is mixed."""
    way = Transfer.between(stack, "PAS", "PAS")
    labels = np.random.default_rng(0).integers(0, 250, SLIDES["PAS"][0]).astype(np.uint8)
    straight = replace(way, back=Transform.identity("a", "b"), onward=Transform.identity("a", "b"))
    fine = run(map_labels(straight, labels, SLIDES["PAS"][1], mpp_out=0.4))
    assert np.array_equal(fine, labels.repeat(5, 0).repeat(4, 1))
    assert fine.dtype == np.uint8


def test_labels_are_read_in_blocks(stack: SlideStack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("napari_pancluster.core.transfer.BLOCK_PX", 100)

    class Counting:
        """Labels that remember the largest part that was asked for."""

        dtype, ndim, shape, most = np.dtype(np.uint8), 2, (900, 620), 0

        def __getitem__(self, at: tuple[slice, slice]) -> NDArray[np.uint8]:
            part = np.ones(self.shape, np.uint8)[at]
            self.most = max(self.most, part.size)
            return part

    labels = Counting()
    run(map_labels(Transfer.between(stack, "PAS", "HE"), labels, (2.0, 1.6), mpp_out=2.0))
    assert 0 < labels.most < 200 * 200
