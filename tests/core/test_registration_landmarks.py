from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from drawing import GLASS, write_slide

from napari_pancluster.core.errors import InputError, ProjectError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.pipeline.marking import (
    Marking,
    Marks,
    judge_landmarks,
    keep_landmarks,
    kept_landmarks,
)
from napari_pancluster.core.project import Project
from napari_pancluster.core.records import ProjectState
from napari_pancluster.core.registration.landmark_checks import check_landmarks, crossed, warnings
from napari_pancluster.core.registration.landmark_fits import (
    ErrorSummary,
    errors_um,
    fit_affine,
    fit_rigid,
    landmark_transform,
    leave_one_out,
)
from napari_pancluster.core.registration.landmarks import Landmarks, read_landmarks, write_landmarks
from napari_pancluster.core.registration.quality import jacobian
from napari_pancluster.core.slide import Slide, open_slide

HEADER = "fixed_x,fixed_y,moving_x,moving_y\n"
ROWS = "10,20,30,40\n11,25,31,42\n50,20,60,41\n"
SLIDE = Region(0, 0, 8000, 10000)


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Slide:
    rgb = np.full((64, 64, 3), GLASS, np.uint8)
    return open_slide(write_slide(tmp_path_factory.mktemp("glass") / "glass.ome.tif", rgb, 0.5))


def test_reads_px_as_row_col_in_um(tmp_path: Path, slide: Slide) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(HEADER + ROWS)
    marks = read_landmarks(path, slide, slide.with_mpp(2.0))
    np.testing.assert_allclose(marks.fixed[0], [10, 5])
    np.testing.assert_allclose(marks.moving[0], [80, 60])
    unknown = read_landmarks(path, slide, slide.with_mpp(None))
    np.testing.assert_allclose(unknown.moving[0], [40, 30])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("fixed_x,fixed_y,moving_x\n1,2,3\n", "no column moving_y"),
        (HEADER + ROWS + "a,2,3,4\n", "line 5: fixed_x is 'a'"),
        (HEADER + ROWS + "1,2,nan,4\n", "moving_x is 'nan'"),
        (HEADER + ROWS + "1,2\n", "moving_x is ''"),
        (HEADER + "1,2,3,4\n5,6,7,8\n", "2 rows; at least 3"),
        (HEADER + ROWS + "1,64.5,3,4\n-1,2,3,4\n", "line 5, 6: fixed_x,fixed_y lies outside"),
        (HEADER + ROWS + "1,2,3,4\n1,2,99,4\n", "line 6: moving_x,moving_y lies outside"),
        ("", "no column"),
    ],
)
def test_bad_tables_are_told_in_one_line(
    tmp_path: Path, slide: Slide, text: str, says: str
) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        read_landmarks(path, slide, slide)
    assert "\n" not in str(caught.value)


def test_missing_table(tmp_path: Path, slide: Slide) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_landmarks(tmp_path / "none.csv", slide, slide)


def test_affine_of_exact_pairs() -> None:
    fixed = np.random.default_rng(0).uniform(0, 1000, (6, 2))
    linear = np.array([[0.2, -1.1], [0.9, 0.1]])
    matrix = fit_affine(Landmarks(fixed, fixed @ linear.T + [5, 7]))
    np.testing.assert_allclose(matrix[:2, :2], linear, atol=1e-9)
    np.testing.assert_allclose(matrix[:2, 2], [5, 7], atol=1e-6)


def test_points_on_a_line_give_a_similarity() -> None:
    fixed = np.array([[0.0, 0.0], [500.0, 500.0], [1000.0, 1000.0]])
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    matrix = fit_affine(Landmarks(fixed, fixed @ turn.T))
    np.testing.assert_allclose(matrix[:2, :2], turn, atol=1e-9)


def test_points_on_one_spot_are_refused() -> None:
    with pytest.raises(InputError, match="one spot"):
        fit_affine(Landmarks(np.ones((3, 2)), np.ones((3, 2))))


@pytest.mark.parametrize("mpp", [2.0, None])
def test_what_is_written_is_read_again(tmp_path: Path, slide: Slide, mpp: float | None) -> None:
    rng = np.random.default_rng(0)
    oblong = replace(slide.with_mpp(mpp), oblong=1.5)
    unit = np.array([1.5, 1.0]) * (mpp or 1.0)
    marks = Landmarks(rng.uniform(0, 32, (20, 2)), rng.uniform(0, 64, (20, 2)) * unit)
    path = tmp_path / "pairs.csv"
    write_landmarks(path, marks, slide, oblong)
    again = read_landmarks(path, slide, oblong)
    np.testing.assert_allclose(again.fixed / 0.5, marks.fixed / 0.5, atol=1e-3)
    np.testing.assert_allclose(again.moving / unit, marks.moving / unit, atol=1e-3)
    assert path.read_text().splitlines()[0] == HEADER.strip()
    assert [p.name for p in tmp_path.iterdir()] == ["pairs.csv"]


def test_a_table_that_cannot_be_written_is_told(tmp_path: Path, slide: Slide) -> None:
    marks = Landmarks(np.ones((3, 2)), np.ones((3, 2)))
    with pytest.raises(InputError, match="cannot be written"):
        write_landmarks(tmp_path / "missing" / "pairs.csv", marks, slide, slide)


def test_fewer_rows_are_read_where_they_are_asked_for(tmp_path: Path, slide: Slide) -> None:
    path = tmp_path / "pairs.csv"
    path.write_text(HEADER + "1,2,3,4\n")
    assert len(read_landmarks(path, slide, slide, least=1)) == 1
    path.write_text(HEADER)
    with pytest.raises(InputError, match="0 rows; at least 1"):
        read_landmarks(path, slide, slide, least=1)


# Fits


def _pairs(count: int, *, seed: int = 0, bend: float = 60.0, flip: bool = True) -> Landmarks:
    """Pairs of a section that is turned, flipped, stretched a little and bent."""
    fixed = np.random.default_rng(seed).uniform((500, 500), (7500, 9500), (count, 2))
    return Landmarks(fixed, _truth(fixed, bend=bend, flip=flip))


def _truth(fixed: np.ndarray, *, bend: float = 60.0, flip: bool = True) -> np.ndarray:
    waves = bend * np.sin(fixed[:, ::-1] / 1800)
    turn = np.array([[0.8, -0.6], [0.6, 0.8]]) @ np.diag([1.02, -0.99 if flip else 0.99])
    return (fixed + waves) @ turn.T + [9000, 4000]


@pytest.mark.parametrize("flip", [False, True])
def test_a_rigid_fit_moves_turns_and_flips_and_does_not_scale(flip: bool) -> None:
    fixed = np.random.default_rng(0).uniform(0, 1000, (5, 2))
    turn = np.array([[0.6, 0.8], [-0.8, 0.6]]) @ np.diag([1.0, -1.0 if flip else 1.0])
    moving = 1.3 * fixed @ turn.T + [50, 70]
    matrix = fit_rigid(Landmarks(fixed, moving))
    np.testing.assert_allclose(matrix[:2, :2], turn, atol=1e-9)
    np.testing.assert_allclose(matrix[:2, :2] @ fixed.mean(0) + matrix[:2, 2], moving.mean(0))
    scaled = fit_rigid(Landmarks(fixed, moving), scaled=True)
    np.testing.assert_allclose(scaled[:2, :2], 1.3 * turn, atol=1e-9)


def test_moving_points_on_a_line_give_a_similarity() -> None:
    fixed = np.array([[0.0, 0.0], [500.0, 100.0], [1000.0, 0.0], [300.0, 800.0]])
    matrix = fit_affine(Landmarks(fixed, fixed * [1.0, 0.0]))
    left = matrix[:2, :2]
    assert np.linalg.det(left) > 0.1
    np.testing.assert_allclose(left.T @ left, np.eye(2) * np.linalg.det(left), atol=1e-9)


@pytest.mark.parametrize(
    ("kind", "count", "says"),
    [
        ("rigid", 2, "2 landmark pairs are too few for a rigid fit; at least 3"),
        ("affine", 2, "too few for an affine fit"),
        ("spline", 9, "9 landmark pairs are too few for a spline fit; at least 10.*affine"),
    ],
)
def test_too_few_landmarks_are_told(kind: Any, count: int, says: str) -> None:
    marks = _pairs(count)
    with pytest.raises(InputError, match=says):
        check_landmarks(marks, kind)
    with pytest.raises(InputError, match=says):
        landmark_transform(("HE", "PAS"), marks, kind=kind, extent=SLIDE)


def test_landmarks_alone_make_a_transform_the_better_the_freer_it_is() -> None:
    marks = _pairs(60)
    inside = np.random.default_rng(1).uniform((1000, 1000), (7000, 9000), (400, 2))
    truth = _truth(inside)
    errors = {}
    for kind in ("rigid", "affine", "spline"):
        transform = landmark_transform(("HE", "PAS"), marks, kind=kind, extent=SLIDE)
        assert (transform.fixed, transform.moving) == ("HE", "PAS")
        mapped = transform.to_moving(inside)
        errors[kind] = float(np.median(np.linalg.norm(mapped - truth, axis=1)))
        np.testing.assert_allclose(transform.to_fixed(mapped), inside, atol=2.0)
    assert errors["spline"] < 0.25 * errors["affine"] < 0.25 * errors["rigid"]
    assert max(transform.displacement.shape) <= 256
    # Pixel size not known: the moving points are px, and even "rigid" has to scale.
    px = Landmarks(marks.fixed, marks.moving / 4)
    scaled = landmark_transform(("HE", "PAS"), px, kind="rigid", extent=SLIDE, scale_known=False)
    assert abs(np.linalg.det(scaled.affine)) == pytest.approx(1 / 16, rel=0.05)


def test_a_spline_that_would_fold_is_left_out() -> None:
    marks = _pairs(12, bend=0)
    marks.moving[[0, 1]] = marks.moving[[1, 0]]
    transform = landmark_transform(("HE", "PAS"), marks, kind="spline", extent=SLIDE)
    assert transform.displacement.shape == (2, 1, 1)
    np.testing.assert_allclose(transform.affine, fit_affine(marks))
    bent = landmark_transform(("HE", "PAS"), _pairs(12), kind="spline", extent=SLIDE)
    assert min(bent.displacement.shape[1:]) > 100
    assert jacobian(bent.displacement, bent.spacing).min() > 0


def test_no_spline_comes_from_points_on_a_line() -> None:
    fixed = np.stack([np.linspace(500, 7000, 12)] * 2, axis=1)
    marks = Landmarks(fixed, fixed + 30 * np.sin(fixed / 500))
    transform = landmark_transform(("HE", "PAS"), marks, kind="spline", extent=SLIDE)
    assert transform.displacement.shape == (2, 1, 1)
    assert np.isfinite(leave_one_out(marks, "spline")).all()


# Errors


@pytest.mark.parametrize(("kind", "least"), [("rigid", 3), ("affine", 4), ("spline", 10)])
def test_each_pair_is_foretold_by_the_others(kind: Any, least: int) -> None:
    marks = _pairs(least)
    errors = leave_one_out(marks, kind)
    assert errors.shape == (least,) and np.isfinite(errors).all()
    with pytest.raises(InputError, match=f"{least} are needed"):
        leave_one_out(marks.without(0), kind)
    # Moved far off, a pair is foretold no worse, but misses what is foretold.
    exact = _pairs(least + 8, bend=0, flip=False)
    exact.moving[3] += (300, 400)
    if kind != "rigid":
        assert leave_one_out(exact, kind)[3] == pytest.approx(500, abs=1e-3)
    assert np.argmax(leave_one_out(exact, kind)) == 3


def test_leaving_out_eighty_pairs_is_fast_enough_to_watch() -> None:
    marks = _pairs(80)
    leave_one_out(marks, "spline")
    began = time.perf_counter()
    leave_one_out(marks, "spline")
    # It takes 0.03 s; machines are shared.
    assert time.perf_counter() - began < 0.5


def test_errors_in_few_numbers() -> None:
    summary = ErrorSummary.of(np.arange(11.0), Region(0, 0, 300, 400))
    assert (summary.median, summary.p90, summary.median_share) == (5.0, 9.0, 0.01)


# Doubts


def test_good_pairs_raise_no_doubt() -> None:
    for count in (3, 4, 5, 6, 10, 40):
        for seed in range(10):
            assert crossed(_pairs(count, seed=seed, bend=100)) == []
    assert warnings(_pairs(8)) == []


@pytest.mark.parametrize("count", [4, 5, 6, 9, 40])
def test_swapped_points_are_found(count: int) -> None:
    found = 0
    for seed in range(20):
        marks = _pairs(count, seed=seed)
        marks.moving[[1, 3]] = marks.moving[[3, 1]]
        found += crossed(marks) == [(1, 3)]
    assert found >= 18
    marks = _pairs(count, seed=1)
    marks.moving[[1, 3]] = marks.moving[[3, 1]]
    assert "Pairs 2 and 4 are probably swapped" in warnings(marks)[0]


def test_two_swaps_are_both_found() -> None:
    marks = _pairs(20)
    marks.moving[[1, 3, 7, 12]] = marks.moving[[3, 1, 12, 7]]
    assert sorted(crossed(marks)) == [(1, 3), (7, 12)]


def test_one_misplaced_point_is_no_swap() -> None:
    marks = _pairs(12, bend=10)
    marks.moving[4] += (700, -500)
    assert crossed(marks) == []


def test_lines_and_shared_spots_are_told() -> None:
    assert warnings(_pairs(2)) == ["2 of at least 3 pairs are set."]
    line = np.array([[0.0, 0.0], [500.0, 510.0], [1000.0, 1000.0], [2000.0, 1990.0]])
    (told,) = warnings(Landmarks(line, line))
    assert "on a line on the reference and on the other slide" in told
    marks = _pairs(7)
    marks.moving[5] = marks.moving[2]
    assert "Pairs 3 and 6 lie on one spot of the other slide" in warnings(marks)[0]
    # What a live window meets: nothing of it may raise.
    spot = Landmarks(np.ones((12, 2)), np.ones((12, 2)))
    for kind in ("rigid", "affine", "spline"):
        judged = judge_landmarks(spot, None, kind=kind, extent=SLIDE)
        assert judged.left_out is None and judged.warnings and "12 pairs" in judged.words("µm")


def test_a_judgement_in_words() -> None:
    marks = _pairs(12)
    transform = landmark_transform(("HE", "PAS"), marks, kind="affine", extent=SLIDE)
    judged = judge_landmarks(marks, transform, kind="affine", extent=SLIDE)
    middle = np.median(errors_um(transform, marks))
    words = judged.words("µm").replace("\N{NO-BREAK SPACE}", " ")
    assert words.startswith(f"12 pairs · error now {middle:.3g} µm median (")
    assert words.endswith(
        f"leave one out {np.median(leave_one_out(marks, 'affine')):.3g} µm (affine)"
    )
    assert judged.worst == np.argmax(leave_one_out(marks, "affine"))
    few = judge_landmarks(_pairs(5), None, kind="spline", extent=SLIDE)
    assert few.kind == "affine" and "not registered yet" in few.words("µm")
    assert judge_landmarks(_pairs(0), None, kind="affine", extent=SLIDE).words("µm") == "0 pairs"


# Setting and keeping


def test_points_wait_for_their_partner_on_either_side() -> None:
    one, two, three = (np.array([n, n + 1.0]) for n in (10, 20, 30))
    marks = Marks().put("moving", one).put("moving", two)
    assert len(marks.landmarks) == 0 and marks.points("moving").tolist() == [two.tolist()]
    marks = marks.put("fixed", three)
    assert marks.fixed.tolist() == [three.tolist()] and marks.moving.tolist() == [two.tolist()]
    marks = marks.put("fixed", one)
    assert marks.moved("fixed", 1, two).waiting[1].tolist() == two.tolist()
    assert marks.moved("moving", 0, one).moving.tolist() == [one.tolist()]
    assert marks.without({1}).waiting is None and len(marks.without({1}).fixed) == 1
    assert marks.without({0}).waiting is not None and len(marks.without({0}).fixed) == 0
    assert marks.moving.tolist() == [two.tolist()], "marks do not change"


def test_steps_are_taken_back_one_by_one() -> None:
    marking = Marking(_pairs(3))
    seen = [marking.now]
    for n in range(5):
        marking.do(marking.now.put("fixed" if n % 2 else "moving", np.array([n, n])))
        seen.append(marking.now)
    for marks in reversed(seen[:-1]):
        assert marking.can_undo
        marking.undo()
        assert marking.now is marks
    marking.undo()
    assert not marking.can_undo and len(marking.now.landmarks) == 3


@pytest.fixture
def project(make_project: Callable[..., Project], islands: Path, two_tissues: Path) -> Project:
    return make_project(HE=islands, PAS=two_tissues)


def _with_stain(project: Project, **changes: Any) -> Project:
    """The same project with another record of its PAS."""
    (case,) = project.state.cases
    stains = (case.stains[0], case.stains[1].model_copy(update=changes))
    cases = (case.model_copy(update={"stains": stains}),)
    state: ProjectState = project.state.model_copy(update={"cases": cases})
    (project.root / "project.json").write_text(state.model_dump_json())
    return Project.open(project.root)


def test_landmarks_are_kept_in_the_project(project: Project) -> None:
    marks = _pairs(7)
    assert kept_landmarks(project, "block", "PAS") is None
    keep_landmarks(project, "block", "PAS", marks)
    again = Project.open(project.root)
    kept = kept_landmarks(again, "block", "PAS")
    assert kept is not None
    np.testing.assert_allclose(kept.fixed, marks.fixed)
    np.testing.assert_allclose(kept.moving, marks.moving)
    record = again.state.artefacts["landmarks/block/PAS"]
    assert record.summary["pairs"] == 7 and not again.is_stale("landmarks/block/PAS")
    keep_landmarks(again, "block", "PAS", Landmarks(np.zeros((0, 2)), np.zeros((0, 2))))
    assert kept_landmarks(Project.open(project.root), "block", "PAS") is None


def test_kept_landmarks_follow_a_corrected_pixel_size_and_no_other_slide(project: Project) -> None:
    marks = _pairs(4)
    keep_landmarks(project, "block", "PAS", marks)
    finer = kept_landmarks(_with_stain(project, mpp=0.25, gain=1.5), "block", "PAS")
    assert finer is not None
    np.testing.assert_allclose(finer.moving, marks.moving / 2)
    unknown = kept_landmarks(_with_stain(project, mpp=None), "block", "PAS")
    assert unknown is not None
    np.testing.assert_allclose(unknown.moving, marks.moving / 0.5)
    other = _with_stain(project, fingerprint="another")
    assert kept_landmarks(other, "block", "PAS") is None


def test_damaged_landmarks_are_told(project: Project) -> None:
    keep_landmarks(project, "block", "PAS", _pairs(4))
    folder = project.folder(project.state.artefacts["landmarks/block/PAS"])
    (folder / "facts.json").write_text("{")
    with pytest.raises(ProjectError, match="cannot be read"):
        kept_landmarks(project, "block", "PAS")
