"""Suspicions: said where they are true, and only there."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from napari_pancluster.core.dataset import PatchStore
from napari_pancluster.core.suspicions import PatchFacts, patch_facts, suspicions

SIDE = 64


def grain(count: int, *, size: float, density: float = 0.4, seed: int = 0) -> NDArray[np.uint8]:
    """Return crops (count, 3, SIDE, SIDE) of tissue with grain of a size in pixels."""
    rng = np.random.default_rng(seed)
    blobs = gaussian_filter(rng.normal(size=(count, 1, SIDE, SIDE)), (0, 0, size, size))
    od = density * (1 + 0.4 * blobs / blobs.std()) * np.array([0.5, 1, 0.7])[:, None, None]
    noise = rng.normal(0, 0.006, size=(count, 3, SIDE, SIDE))
    return np.round(np.clip(od + noise, 0, 2) * 127.5).astype(np.uint8)


def facts_of(*kinds: NDArray[np.uint8]) -> tuple[NDArray[np.int64], PatchFacts]:
    """Return the kind of every patch, and the facts of all of them, of one case."""
    codes = np.concatenate(kinds)
    kind = np.repeat(np.arange(len(kinds)), [len(k) for k in kinds])
    store = PatchStore(codes, np.ones((len(codes), 1), bool), SIDE)
    return kind, patch_facts(store, np.zeros(len(codes), np.int32))


def of_cases(table: list[list[int]], *names: str) -> tuple[str, ...]:
    """Return what is said of clusters with so many patches (k, cases) of good tissue."""
    cluster, case = (np.repeat(at.ravel(), np.ravel(table)) for at in np.indices(np.shape(table)))
    even = np.ones(len(cluster), np.float32)
    return suspicions(cluster, len(table), PatchFacts(even, 0 * even, even, case), names)


TISSUES = tuple(
    grain(60, size=size, density=density, seed=n)
    for n, (size, density) in enumerate([(1.5, 0.3), (2.0, 0.5), (2.5, 0.2), (1.8, 0.8)])
)


def test_nothing_is_said_of_ordinary_clusters_pale_or_dense_fine_or_coarse() -> None:
    kind, facts = facts_of(*TISSUES)
    assert suspicions(kind, 4, facts, ("a",)) == ()
    assert (facts.covered > 0.95).all()
    assert suspicions(kind[:0], 4, facts, ("a",)) == ()


def test_how_strong_a_stain_is_does_not_make_it_sharp() -> None:
    weak = grain(60, size=2, density=0.2)
    _, facts = facts_of(weak, (weak.astype(np.int64) * 3).clip(0, 255).astype(np.uint8))
    assert abs(np.median(facts.sharpness[:60]) - np.median(facts.sharpness[60:])) < 0.4


@pytest.mark.parametrize("pixels", [1.5, 4.0])
def test_a_blurred_cluster_is_named(pixels: float) -> None:
    sharp = grain(60, size=2, seed=9).astype(np.float64)
    blurred = np.round(gaussian_filter(sharp, (0, 0, pixels, pixels))).astype(np.uint8)
    kind, facts = facts_of(*TISSUES, blurred)
    (said,) = suspicions(kind, 5, facts, ("a",))
    assert said.startswith("Cluster 5 seems to be out of focus")


def test_glass_is_background_and_neither_blurred_nor_an_edge() -> None:
    noise = np.random.default_rng(0).normal(0.01, 0.006, size=(60, 3, SIDE, SIDE))
    glass = np.round(noise.clip(0) * 127.5).astype(np.uint8)
    for empty in (glass, 0 * glass):
        kind, facts = facts_of(*TISSUES, empty)
        (said,) = suspicions(kind, 5, facts, ("a",))
        assert said.startswith("Cluster 5 is only background") and "Lower the sensitivity" in said


def test_smooth_but_stained_is_not_blurred() -> None:
    even = np.full((60, 3, SIDE, SIDE), 50, np.uint8)
    kind, facts = facts_of(*TISSUES, even)
    assert np.isnan(facts.sharpness[kind == 4]).all()
    assert suspicions(kind, 5, facts, ("a",)) == ()


@pytest.mark.parametrize("angle", [0.0, 0.6])
def test_patches_cut_by_a_slides_edge_are_named_whatever_its_angle(angle: float) -> None:
    row, col = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    on = row * np.cos(angle) + col * np.sin(angle) < 12
    kind, facts = facts_of(*TISSUES, grain(60, size=2, seed=5) * on.astype(np.uint8))
    assert np.median(facts.covered[kind == 4]) == pytest.approx(on.mean(), abs=0.06)
    (said,) = suspicions(kind, 5, facts, ("a",))
    assert said.startswith("Cluster 5 lies at the edge of a slide") and "100 %" in said


def test_tissue_beside_perfectly_blank_glass_is_no_edge() -> None:
    row, col = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    round_piece = np.hypot(row + 30, col) < 40
    _, facts = facts_of(grain(60, size=2) * round_piece.astype(np.uint8))
    assert (facts.covered > 0.9).all()


def test_a_stain_that_is_missing_is_not_an_edge_and_one_told_is_believed() -> None:
    codes = np.concatenate([TISSUES[0], 0 * TISSUES[0]], axis=1)
    store = PatchStore(codes, np.array([[True, False]] * 60), SIDE)
    facts = patch_facts(store, np.zeros(60, np.int32))
    assert (facts.covered == 1).all() and np.isfinite(facts.sharpness).all()
    told = patch_facts(store, np.zeros(60, np.int32), covered=np.full(60, 0.7))
    assert told.covered == pytest.approx(0.7)


def test_collapse_is_told_with_its_figures() -> None:
    tiny, collapsed = of_cases([[960], [37], [3], [0]], "a")
    assert tiny.startswith("Clusters 3 and 4 hold hardly any patches (0.3 %, 0.0 %)")
    assert "as over 1.2 of equal size, not 4" in collapsed
    assert of_cases([[600], [200], [100], [100]], "a") == ()


def test_clusters_that_are_cases_or_scanners_raise_the_alarm() -> None:
    by_case = [[400, 8], [300, 4], [5, 350], [10, 340]]
    (said,) = of_cases(by_case, "mouse1", "mouse2")
    assert said.startswith("The clusters follow the case or the scanner") and "jitter" in said
    assert "cluster 4 to 97 % in mouse2" in said
    # Two scanners with two cases each: no cluster lies in one case, none in all of them.
    (said,) = of_cases([[200, 210, 2, 0], [180, 190, 0, 1], [0, 3, 400, 390]], *"abcd")
    assert "draws on 2.0 of 4 cases" in said


def test_a_case_with_more_patches_does_not_own_the_clusters() -> None:
    assert of_cases([[900, 100], [450, 50], [1350, 150]], "large", "small") == ()
    assert of_cases([[960, 40], [850, 150], [1350, 150]], "large", "small") == ()


def test_an_organ_that_one_case_shows_is_mentioned_mildly() -> None:
    for others in ([0], [0, 0]):
        shared = [[100] * (len(others) + 1)] * 2
        (said,) = of_cases([*shared, [90, *others]], *"abc"[: len(others) + 1])
        assert said.startswith("Cluster 3 to 100 % in a: a tissue that only this case shows")
    # Even if nothing of that case occurs elsewhere.
    (said,) = of_cases([[0, 100, 90], [0, 120, 130], [250, 0, 0]], *"abc")
    assert said.startswith("Cluster 3 to 100 % in a")


def test_few_patches_prove_nothing() -> None:
    assert of_cases([[500, 500], [400, 380], [0, 12]], "a", "b") == ()


def test_a_cluster_that_is_where_a_stain_is_missing() -> None:
    kind = np.repeat(np.arange(4), 100)
    ones, case = np.ones(400, np.float32), np.zeros(400, np.int32)
    lacks = kind == 2
    lacks[:10] = True
    facts = PatchFacts(ones, 0 * ones, ones, case, {"HE": 0 * lacks > 0, "SMA": lacks})
    (said,) = suspicions(kind, 4, facts, ("a",))
    assert said.startswith("Cluster 3 is where SMA is missing or lies unsurely: 100 %")
    # A case without the stain lacks it all over: that is said of the case, not of its clusters.
    everywhere = PatchFacts(ones, 0 * ones, ones, case, {"SMA": ones > 0})
    assert suspicions(kind, 4, everywhere, ("a",)) == ()
