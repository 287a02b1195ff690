from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from drawing import GLASS, write_slide

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.registration.landmarks import Landmarks, fit_affine, read_landmarks
from napari_pancluster.core.slide import Slide, open_slide

HEADER = "fixed_x,fixed_y,moving_x,moving_y\n"
ROWS = "10,20,30,40\n11,25,31,42\n50,20,70,41\n"


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
