"""What clusters are, in numbers, on maps and slides where the numbers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import GLASS, write_slide

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.patches import PatchGrid, PatchTable
from napari_pancluster.core.progress import run
from napari_pancluster.core.slide import open_slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.statistics.agreement import agreement
from napari_pancluster.core.statistics.areas import CaseAreas
from napari_pancluster.core.statistics.classes import read_classes
from napari_pancluster.core.statistics.neighbourhood import neighbourhood
from napari_pancluster.core.statistics.stain_profile import measure_stains
from napari_pancluster.core.transfer import Transfer
from napari_pancluster.core.transform import Transform

MAP = """
112233
112233
112233
444444
.44444
.....5
"""
# Density of the two halves of a slide; of the third stain nothing is registered.
PALE, DARK, SIDE, MPP = 0.2, 0.6, 64, 2.0


def make_table(*drawn: str, stride_px: int = 16) -> tuple[PatchTable, np.ndarray]:
    """Return the table of maps drawn with digits, and its labels; a dot is no tissue."""
    grids, labels = [], []
    for n, text in enumerate(drawn):
        cells = np.array([[0 if c == "." else int(c) for c in line] for line in text.split()])
        index = np.argwhere(cells > 0).astype(np.int32)
        grids.append(PatchGrid(f"case{n}", MPP, 16, stride_px, index, cells.shape))
        labels.append(cells[cells > 0])
    return PatchTable(tuple(grids)), np.concatenate(labels).astype(np.uint8)


def test_neighbours_are_counted_at_the_sides_of_cells() -> None:
    table, labels = make_table(MAP)
    found = neighbourhood(table, labels, (1, 2, 3, 4, 5))
    touching = {(1, 2): 3, (2, 3): 3, (1, 4): 2, (2, 4): 2, (3, 4): 2, (4, 5): 1}
    for a in range(5):
        for b in range(a + 1, 5):
            assert found.borders[a, b] == found.borders[b, a] == touching.get((a + 1, b + 1), 0)
    # A block of 2 × 3 cells has seven sides within.
    assert np.diag(found.borders).tolist() == [7, 7, 7, 5 + 4 + 5, 0]
    assert found.nearest(1, 9) == [(2, 0.6), (4, 0.4)]
    assert found.nearest(5, 9) == [(4, 1.0)]
    assert found.log2_ratio[0, 4] == -np.inf and found.log2_ratio[0, 0] > 1


def test_chance_is_that_of_cells_strewn_case_by_case() -> None:
    rng = np.random.default_rng(0)
    shuffled = "\n".join("".join(rng.choice(list("1112"), 80)) for _ in range(80))
    table, labels = make_table(shuffled)
    assert np.abs(neighbourhood(table, labels, (1, 2)).log2_ratio).max() < 0.1
    # One cluster a case: across cases nothing can touch, and nothing is expected to.
    table, labels = make_table("11\n11", "22\n22")
    found = neighbourhood(table, labels, (1, 2))
    assert found.expected.tolist() == [[4, 0], [0, 4]] and np.isnan(found.log2_ratio[0, 1])
    assert found.nearest(1, 3) == []


def test_areas_by_group_have_the_case_as_their_unit() -> None:
    # A large case counts no more than a small one.
    table, labels = make_table("1112", "12", "22\n22")
    areas = CaseAreas.of(table, labels, (1, 2), calibrated=True)
    cell = (16 * MPP) ** 2 * 1e-6
    assert np.allclose(areas.mm2, np.array([[3, 1], [1, 1], [0, 4]]) * cell)
    treated, control = areas.by_group(("treated", "treated", "control"))
    assert (treated.name, treated.cases, control.cases) == ("treated", 2, 1)
    assert np.allclose(treated.mean_share, [(0.75 + 0.5) / 2, (0.25 + 0.5) / 2])
    assert np.allclose(treated.sd_share, np.std([0.75, 0.5], ddof=1))
    assert np.allclose(treated.mean_mm2, [2 * cell, cell]) and treated.sd_mm2[1] == 0
    assert control.mean_share.tolist() == [0, 1] and np.isnan(control.sd_share).all()
    bare = CaseAreas.of(table, labels, (1, 2), calibrated=False)
    assert np.isnan(bare.mm2).all() and np.isfinite(bare.share).all()


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> SlideStack:
    """HE pale left and dark right; PAS the other way round, shifted by one cell; SMA nowhere."""
    folder = tmp_path_factory.mktemp("halves")
    od = np.full((SIDE, 3 * SIDE, 3), PALE)
    od[:, SIDE:] = DARK
    stains = []
    for name, seen in (("HE", od), ("PAS", od[:, ::-1]), ("SMA", od)):
        rgb = np.round((GLASS + 1) * 10**-seen - 1).astype(np.uint8)
        slide = open_slide(write_slide(folder / f"{name}.ome.tif", rgb, MPP, levels=1))
        gain = 3.0 if name == "PAS" else 1.0
        stains.append(Stain(name, slide, (GLASS,) * 3, gain=gain))
    move = np.eye(3)
    move[1, 2] = -16 * MPP
    return SlideStack("case0", "HE", tuple(stains), {"PAS": Transform("HE", "PAS", move)})


def test_density_is_what_was_drawn_and_what_is_missing_is_told(halves: SlideStack) -> None:
    # Columns of 16 px: HE turns dark at column 4, PAS, seen in the frame of HE, pale at 9.
    table, labels = make_table("\n".join(["111122223444"] * 4))
    profile = run(measure_stains({"case0": halves}, table, labels, (1, 2, 3, 4, 5)))
    assert profile.stains == ("HE", "PAS", "SMA") and profile.missing == (("case0", "SMA"),)
    he, pas = profile.mean[0, :, 0], profile.mean[0, :, 1]
    assert np.allclose(he[:4], [PALE, DARK, DARK, DARK], atol=0.01)
    assert np.allclose(pas[:4], [DARK, DARK, DARK, PALE], atol=0.01)
    # The first column lies beyond the slide of PAS, and is not counted as glass.
    assert profile.patches[0, :, 1].tolist() == [12, 16, 4, 12, 0]
    assert np.isnan(he[4]) and np.nanmax(profile.spread) < 0.01
    # Measured on few patches of many, a cluster of two tissues shows both; and again the same.
    half = np.ones_like(labels)
    few = [run(measure_stains({"case0": halves}, table, half, (1,), per_cluster=12)) for _ in "ab"]
    assert few[0].patches[0, 0, 0] == 12 and np.array_equal(few[0].mean, few[1].mean, True)
    assert few[0].mean[0, 0, 0] == pytest.approx((PALE + 2 * DARK) / 3, abs=0.02)
    assert few[0].spread[0, 0, 0] == pytest.approx((DARK - PALE) * 0.49, abs=0.03)


def test_pooled_cases_are_what_all_patches_together_are(halves: SlideStack) -> None:
    table, labels = make_table("\n".join(["111111111111"] * 4), "1111")
    stacks = {"case0": halves, "case1": halves}
    pooled = run(measure_stains(stacks, table, labels, (1,))).pooled
    each = np.repeat([PALE, DARK], [16 + 4, 32])
    assert pooled.patches[0, 0].tolist() == [52, 44 + 3, 0]
    assert pooled.mean[0, 0, 0] == pytest.approx(each.mean(), abs=0.01)
    assert pooled.spread[0, 0, 0] == pytest.approx(each.std(ddof=1), abs=0.01)
    assert np.isnan(pooled.mean[0, 0, 2])


def square(x0: float, x1: float, name: str | None, y1: float = 64) -> dict[str, Any]:
    """Return a QuPath annotation of some columns."""
    ring = [[x0, 0], [x1, 0], [x1, y1], [x0, y1], [x0, 0]]
    properties: dict[str, Any] = {"objectType": "annotation", "name": "drawn by me"}
    if name is not None:
        properties["classification"] = {"name": name, "color": [1, 2, 3]}
    geometry = {"type": "Polygon", "coordinates": [ring]}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def write_areas(path: Path, *features: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def test_clusters_are_set_against_the_classes_of_another_slide(
    halves: SlideStack, tmp_path: Path
) -> None:
    table, labels = make_table("\n".join(["111122223333"] * 4))
    # On PAS everything lies one cell, 16 px, further left; the lymphocytes lie within the stroma.
    path = write_areas(
        tmp_path / "a.geojson",
        square(80, 112, "Lymphocytes", 32),
        square(0, 48, "Tumor"),
        square(48, 112, "Stroma"),
        square(112, 128, "Ignore*"),
    )
    areas = read_classes(path, halves.stain("PAS").slide.shape)
    way = Transfer.between(halves, "HE", "PAS")
    found = agreement(table.grids[0], labels, (1, 2, 3), areas, way)
    assert found.classes == ("Lymphocytes", "Stroma", "Tumor")
    # Columns of HE: 1 to 3 tumour, 4 to 7 stroma, of which the upper half of 6 and 7 lymphocytes.
    assert found.cells.tolist() == [[0, 0, 12], [4, 12, 0], [0, 0, 0]]
    assert found.annotated == 28 / 48
    assert found.ari is not None and 0.5 < found.ari < 1 and found.nmi is not None
    only = read_classes(write_areas(tmp_path / "b.geojson", square(0, 48, "Tumor")), (64, 192))
    assert agreement(table.grids[0], labels, (1, 2, 3), only, way).ari is None


def test_annotations_that_cannot_be_compared_are_refused(
    halves: SlideStack, tmp_path: Path
) -> None:
    def refused(*features: dict[str, Any]) -> str:
        with pytest.raises(InputError) as error:
            read_classes(write_areas(tmp_path / "a.geojson", *features), (64, 192))
        return str(error.value)

    assert "none with a class" in refused(square(0, 48, None), square(48, 64, "Ignore*"))
    assert "outside the slide" in refused(square(0, 48, "Tumor"), square(200, 220, "Tumor"))
    (tmp_path / "x.geojson").write_text("tumour: yes")
    with pytest.raises(InputError, match="not valid GeoJSON"):
        read_classes(tmp_path / "x.geojson", (64, 192))
    areas = read_classes(write_areas(tmp_path / "a.geojson", square(180, 190, "Tumor")), (64, 192))
    table, labels = make_table("1111")
    with pytest.raises(InputError, match="covers mapped tissue of case case0"):
        agreement(table.grids[0], labels, (1,), areas, Transfer.between(halves, "HE", "HE"))
