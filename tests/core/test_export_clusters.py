"""Cluster maps for other programs: GeoJSON, OME-Zarr and AnnData say what the label image says."""

from __future__ import annotations

import csv
import json
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from drawing import write_slide
from scipy.ndimage import gaussian_filter

from napari_pancluster.core.annotations import rasterise, read_annotations, read_features
from napari_pancluster.core.edits import ClusterEdits, Hide, Merge, Recolour, Rename
from napari_pancluster.core.embedding import Embedding
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.export import images
from napari_pancluster.core.export.areas import outline, write_areas
from napari_pancluster.core.export.content import Content
from napari_pancluster.core.export.h5ad import write_h5ad
from napari_pancluster.core.export.label_zarr import write_label_zarrs
from napari_pancluster.core.export.tables import write_tables
from napari_pancluster.core.latents import Clustering, Latents
from napari_pancluster.core.patches import PatchGrid, PatchTable
from napari_pancluster.core.pipeline import exporting
from napari_pancluster.core.progress import run
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transfer import Transfer, map_labels
from napari_pancluster.core.transform import Transform

CELL_UM = 30.0
# 31.7 × 44.3 cells: the last ones overhang the slide, and a cell is no whole number of pixels.
HE = ((500, 700), (1.9, 1.9))
PAS = ((560, 900), (1.6, 1.2))
EDITS = ClusterEdits(5).extend(
    [
        Merge(labels=(4,), into=2),
        Rename(label=2, name="Ductus, größer"),
        Recolour(label=3, colour="#010203"),
        Hide(label=3),
    ]
)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Content:
    """Two cases of noisy clusters, with holes and cells that touch at corners; one has PAS."""
    folder = tmp_path_factory.mktemp("slides")
    stains = []
    for name, (shape, (down, across)) in {"HE": HE, "PAS": PAS}.items():
        path = write_slide(
            folder / f"{name}.ome.tif", np.full((*shape, 3), 240, np.uint8), across, levels=1
        )
        slide = replace(open_slide(path), oblong=down / across)
        stains.append(Stain(name, slide, (240.0,) * 3))
    affine = np.array([[0.9, 0.1, 20.0], [-0.1, 0.8, 60.0], [0, 0, 1]])
    stack = SlideStack("a", "HE", tuple(stains)).with_transform(Transform("HE", "PAS", affine))
    rng = np.random.default_rng(0)
    drawn = [np.digitize(gaussian_filter(rng.normal(size=(32, 45)), 1), (-0.2, -0.1, 0, 0.1, 0.2))]
    drawn.append(drawn[0][::-1])
    grids = tuple(
        PatchGrid(case, 2.0, 32, 15, np.argwhere(image).astype(np.int32), image.shape)
        for case, image in zip("ab", drawn, strict=True)
    )
    assignments = np.concatenate([image[image > 0] - 1 for image in drawn]).astype(np.uint8)
    count = len(assignments)
    placed = np.arange(0, count, 2)
    return Content(
        stacks={"a": stack, "b": SlideStack("b", "HE", (stains[0],))},
        table=PatchTable(grids),
        latents=Latents(rng.normal(size=(count, 8)).astype(np.float32)),
        clustering=Clustering(5, assignments, np.full((count, 5), 0.2, np.float32)),
        edits=EDITS,
        embedding=Embedding(rng.normal(size=(len(placed), 2)).astype(np.float32), placed),
        scores=None,
        unit="µm",
        nominal=False,
        run="r1",
        sheet={"a": {"group": "old", "label": "x", "mg/dl": "1"}, "b": {"group": "young"}},
    )


def drawn_again(path: Path, content: Content, shape: tuple[int, int], px: Any, size: Any) -> Any:
    """Return the labels of a GeoJSON file on cells of so many px, read as the house reads areas."""
    labels = {content.name(n): n for n in content.labels}
    image = np.zeros(shape, np.uint8)
    for area in read_annotations(path, size):
        inside = rasterise([area], shape, tuple(px))
        assert not image[inside].any(), "areas do not overlap"
        image[inside] = labels[area.name]
    return image


def test_areas_are_the_cells(content: Content, tmp_path: Path) -> None:
    paths = write_areas(tmp_path, content)
    assert [p.name for p in paths] == ["a_clusters.geojson", "b_clusters.geojson"]
    px = CELL_UM / np.array(HE[1])
    for number, path in enumerate(paths):
        image = content.label_image(number)
        assert np.array_equal(drawn_again(path, content, image.shape, px, HE[0]), image)
        features = read_features(path)
        assert [f["properties"]["measurements"]["Cluster"] for f in features] == [1, 2, 3, 5]
        for feature in features:
            said = feature["properties"]
            label = said["measurements"]["Cluster"]
            area = shapely.geometry.shape(feature["geometry"])
            cells = (image == label).sum()
            assert area.is_valid and said["measurements"]["Patches"] == cells
            assert area.area == pytest.approx(cells * px.prod(), rel=1e-5)
            corners = shapely.get_coordinates(area) / px[::-1]
            assert np.abs(corners - corners.round()).max() < 1e-4
            assert said["objectType"] == "annotation" and said["name"] == content.name(label)
            colour = [int(content.colour(label)[i : i + 2], 16) for i in (1, 3, 5)]
            assert said["classification"] == {"name": content.name(label), "color": colour}


def test_areas_touch_at_corners_and_have_holes() -> None:
    mask = np.array([[1, 1, 1, 0], [1, 0, 1, 0], [1, 1, 0, 0], [0, 0, 0, 1]], bool)
    area = outline(mask)
    assert area.is_valid and area.area == 8 and len(shapely.get_parts(area)) == 2
    # The ring is bitten at its corner, where the hole and the outside meet in a point.
    assert {p.area for p in shapely.get_parts(area)} == {7, 1}
    assert shapely.get_num_coordinates(outline(np.ones((5, 9), bool))) == 5


def test_areas_on_another_stains_own_slide(content: Content, tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="PAS of case b is not registered"):
        paths = write_areas(tmp_path, content, ["PAS", "HE"])
    assert [p.name for p in paths] == [
        "a_clusters.geojson",
        "a_clusters_PAS.geojson",
        "b_clusters.geojson",
    ]
    way = Transfer.between(content.stacks["a"], "HE", "PAS")
    truth = run(map_labels(way, content.label_image(0), CELL_UM, mpp_out=3.0))
    found = drawn_again(paths[1], content, truth.shape, 3.0 / np.array(PAS[1]), PAS[0])
    assert (truth > 0).mean() > 0.3
    # Outlines are straightened to a twentieth of a pixel.
    assert (found != truth).mean() < 0.005
    with pytest.raises(InputError, match="--geojson-for CD3: .* Choose from: HE, PAS"):
        write_areas(tmp_path, content, ["CD3"])


def test_label_images_open_as_ome_zarr(
    content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import zarr

    monkeypatch.setattr(images, "_PYRAMID_FROM_PX", 12)
    path, _ = write_label_zarrs(tmp_path, content)
    image = content.label_image(0)
    slide = open_slide(path)
    assert slide.format == "ome-zarr" and slide.channels == 1 and slide.dtype == np.uint8
    assert slide.um_per_px_yx.tolist() == [CELL_UM, CELL_UM]
    assert [v.shape for v in slide.levels] == [(32, 45), (16, 23), (8, 12)]
    assert np.array_equal(slide.read_level(0, 0, 0, *image.shape)[..., 0], image)
    group = zarr.open_group(path, mode="r")
    # Every pixel of a level is one of the cells in the middle of those it covers.
    assert np.array_equal(group["2"][:, :11], image[2::4, 2::4])
    (multiscale,) = group.attrs["multiscales"]
    assert [(a["name"], a["unit"]) for a in multiscale["axes"]] == [
        ("y", "micrometer"),
        ("x", "micrometer"),
    ]
    for number, dataset in enumerate(multiscale["datasets"]):
        size = CELL_UM * 2**number
        scale, translation = dataset["coordinateTransformations"]
        assert scale == {"type": "scale", "scale": [size, size]}
        # A pixel's centre is where NGFF says it is: the first one's corner is that of the slide.
        assert translation == {"type": "translation", "translation": [size / 2, size / 2]}
    label = group.attrs["image-label"]
    assert {"label-value": 2, "name": "Ductus, größer"} in label["properties"]
    assert {"label-value": 3, "rgba": [1, 2, 3, 255]} in label["colors"]
    assert [c["label-value"] for c in label["colors"]] == [1, 2, 3, 5]


def test_a_label_image_takes_the_place_of_the_last_and_of_nothing_else(
    content: Content, tmp_path: Path
) -> None:
    path, other = write_label_zarrs(tmp_path, replace(content, edits=ClusterEdits(5)))
    write_label_zarrs(tmp_path, replace(content, unit="px"))
    meta = json.loads((path / ".zattrs").read_text())
    assert len(meta["image-label"]["colors"]) == 4
    assert not any("unit" in axis for axis in meta["multiscales"][0]["axes"])
    assert open_slide(path).mpp is None
    assert sorted(tmp_path.iterdir()) == [path, other]
    (other / ".zattrs").write_text('{"multiscales": []}')
    with pytest.raises(InputError, match="is no cluster map"):
        write_label_zarrs(tmp_path, content)


def test_annotated_patches_are_the_table(content: Content, tmp_path: Path) -> None:
    import anndata

    (path,) = write_h5ad(tmp_path, content)
    table = anndata.read_h5ad(path)
    patches, _ = write_tables(tmp_path, content)
    with patches.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(table.obs)[: len(rows[0])] == list(rows[0])
    assert table.obs_names[0] == f"a_{rows[0]['row']}_{rows[0]['col']}"
    for key in ("case", "name"):
        assert table.obs[key].tolist() == [r[key] for r in rows]
    for key in ("row", "col", "label", "x_um", "y_um", "probability"):
        assert np.allclose(table.obs[key], [float(r[key]) for r in rows], atol=1e-3)
    found = np.array([[float(r[f"umap_{n}"] or "nan") for n in (1, 2)] for r in rows])
    assert np.allclose(table.obsm["X_umap"], found, atol=1e-4, equal_nan=True)
    assert np.isnan(found).any() and np.isfinite(found).any()
    assert np.array_equal(table.obsm["latents"], content.latents.values)
    assert np.array_equal(table.X, content.latents.values) and table.var_names[7] == "latent_7"
    assert np.array_equal(table.obsm["spatial"], table.obs[["x_um", "y_um"]])
    assert set(table.obs["group"][table.obs["case"] == "b"]) == {"young"}
    assert {"sheet_label", "mg_dl"} <= set(table.obs)
    facts = table.uns
    assert facts["names"]["2"] == "Ductus, größer" and facts["colours"]["3"] == "#010203"
    assert list(table.obs["name"].cat.categories) == [content.name(n) for n in content.labels]
    assert list(facts["name_colors"]) == [content.colour(n) for n in content.labels]
    keys = ("k", "run", "mpp", "patch_px", "stride_px", "unit")
    assert [facts[k] for k in keys] == [5, "r1", 2.0, 32, 15, "µm"]


def test_patches_without_a_umap_or_a_pixel_size(content: Content, tmp_path: Path) -> None:
    import anndata

    # Two clusters of one name that were not merged: a category of obs exists only once.
    edits = EDITS.extend([Rename(label=1, name="Fat"), Rename(label=5, name="Fat")])
    plain = replace(content, embedding=None, unit="px", edits=edits)
    (path,) = write_h5ad(tmp_path, plain)
    table = anndata.read_h5ad(path)
    assert "X_umap" not in table.obsm and "mpp" not in table.uns and table.uns["unit"] == "px"
    assert table.obs["umap_1"].isna().all()
    fat = table.obs["name"] == "Fat"
    assert np.array_equal(fat, np.isin(plain.row_labels, (1, 5)))
    assert len(table.uns["name_colors"]) == len(table.obs["name"].cat.categories) == 3


@contextmanager
def full_disk() -> Iterator[None]:
    """Let no file grow beyond a few bytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    kept = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, kept)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
@pytest.mark.parametrize("name", ["ome-zarr", "geojson", "h5ad"])
def test_a_full_disk_is_told_in_a_line_and_leaves_what_was_there(
    content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    project: Any = None
    monkeypatch.setattr(exporting, "open_content", lambda *_: content)
    files = [Path(f) for f in run(exporting.export(project, tmp_path, [name]))["files"]]
    there = sorted(tmp_path.rglob("*"))
    with full_disk(), pytest.raises(InputError, match=r"cannot be written \([^\n]+\)\. Choose"):
        run(exporting.export(project, tmp_path, [name]))
    assert sorted(tmp_path.rglob("*")) == there and files[0].exists()


def test_what_goes_with_what(
    content: Content, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project: Any = None
    monkeypatch.setattr(exporting, "open_content", lambda *_: replace(content, edits=EDITS))
    with pytest.raises(InputError, match="needs geojson"):
        run(exporting.export(project, tmp_path, ["csv"], geojson_for=["PAS"]))
    with pytest.raises(InputError, match="--geojson-for CD3"):
        run(exporting.export(project, tmp_path, ["geojson"], geojson_for=["CD3"]))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        run(exporting.export(project, tmp_path / "file" / "out", ["h5ad"]))
