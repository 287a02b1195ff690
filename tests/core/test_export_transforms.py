"""ITK files: what ITK makes of them, what comes back, and what is refused."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.export.transforms import read_itk, write_itk
from napari_pancluster.core.registration.quality import inverse_displacement
from napari_pancluster.core.transform import Transform

SPACING, ORIGIN = 25.0, (12.5, 30.0)
# Inside the field, µm from the corner: row, col.
LOW, HIGH = (13.0, 31.0), (960.0, 1200.0)


def bent(affine: np.ndarray | None = None) -> Transform:
    """A curved field with unlike components and unlike sides, so that no swap of axes hides."""
    r, c = np.meshgrid(SPACING * np.arange(40), SPACING * np.arange(50), indexing="ij")
    field = np.stack([9 * np.sin(c / 150) + r / 200, 7 * np.cos(r / 170)]).astype(np.float32)
    if affine is None:
        # Mirrored, turned, stretched by unlike factors and shifted.
        affine = np.array([[0.3, -1.1, 740.0], [-0.9, 0.2, 1315.0], [0, 0, 1]])
    inverse = inverse_displacement(field, SPACING)
    return Transform("HE", "PAS", affine, field, inverse, SPACING, ORIGIN)


def points(n: int = 300) -> np.ndarray:
    return np.random.default_rng(0).uniform(LOW, HIGH, (n, 2))


def by_itk(path: Path, at: np.ndarray) -> np.ndarray:
    """Map row, col as any other program would: x, y through ITK."""
    transform = sitk.ReadTransform(str(path))
    mapped = [transform.TransformPoint((float(x), float(y))) for y, x in at]
    return np.array(mapped)[:, ::-1]


def test_itk_maps_fixed_points_to_the_same_moving_points(tmp_path: Path) -> None:
    write_itk(bent(), tmp_path / "pas.h5")
    assert np.abs(by_itk(tmp_path / "pas.h5", points()) - bent().to_moving(points())).max() < 1e-3


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    write_itk(bent(), tmp_path / "pas.h5")
    found = read_itk(tmp_path / "pas.h5")
    assert (found.fixed, found.moving) == ("HE", "PAS")
    assert (found.spacing, found.origin) == (SPACING, ORIGIN)
    assert np.allclose(found.affine, bent().affine, atol=1e-9)
    assert np.array_equal(found.displacement, bent().displacement)
    # Not at the rim, beyond which no inverse is sampled.
    inner = (points() + 500) / 2
    assert np.abs(found.to_fixed(found.to_moving(inner)) - inner).max() < 0.1
    assert np.abs(found.to_fixed(points()) - bent().to_fixed(points())).max() < 1e-3


def test_the_json_says_what_it_means(tmp_path: Path) -> None:
    facts = json.loads(write_itk(bent(), tmp_path / "pas.h5").read_text(encoding="utf-8"))
    assert (facts["fixed"], facts["moving"], facts["units"]) == ("HE", "PAS", "µm")
    assert facts["file"] == "pas.h5"
    assert "fixed slide to points of the moving slide" in facts["convention"]
    assert facts["field_origin_xy"] == [30.0, 12.5] and facts["field_spacing"] == SPACING
    x, y, _ = np.array(facts["affine_xy"]) @ [100.0, 50.0, 1]
    row, col, _ = bent().affine @ [50.0, 100.0, 1]
    assert np.allclose((x, y), (col, row))


def test_a_plain_affine_and_a_single_shift_are_whole_everywhere(tmp_path: Path) -> None:
    shift = np.array([[[4.0]], [[-6.0]]], np.float32)
    straight = replace(bent(), displacement=shift, inverse_displacement=-shift, origin=(0.0, 0.0))
    write_itk(straight, tmp_path / "pas.h5")
    far = points() * 50
    assert np.abs(by_itk(tmp_path / "pas.h5", far) - straight.to_moving(far)).max() < 1e-6
    found = read_itk(tmp_path / "pas.h5")
    assert np.abs(found.to_moving(far) - straight.to_moving(far)).max() < 1e-6
    assert np.abs(found.to_fixed(far) - straight.to_fixed(far)).max() < 1e-6


def test_transforms_of_other_programs_are_read(tmp_path: Path) -> None:
    turn = sitk.Euler2DTransform((300.0, 200.0), 0.3, (5.0, -8.0))
    stretch = sitk.ScaleTransform(2, (1.1, 0.9))
    field = sitk.GetImageFromArray(np.random.default_rng(0).normal(0, 3, (30, 40, 2)), True)
    field.SetSpacing((20.0, 20.0))
    inside = np.random.default_rng(1).uniform(1, 570, (100, 2))
    for number, parts in enumerate(([turn], [turn, stretch], [turn, stretch, None])):
        chain = [p if p is not None else sitk.DisplacementFieldTransform(field) for p in parts]
        path = tmp_path / f"{number}.h5"
        sitk.WriteTransform(sitk.CompositeTransform(chain) if number else turn, str(path))
        found = read_itk(path)
        assert (found.fixed, found.moving) == ("fixed", "moving")
        assert np.abs(found.to_moving(inside) - by_itk(path, inside)).max() < 1e-3
    assert read_itk(path, fixed="HE", moving="CD3").moving == "CD3"


def displaced(
    values: np.ndarray, spacing: tuple[float, ...] = (5.0, 5.0), **where: tuple[float, ...]
) -> sitk.Transform:
    image = sitk.GetImageFromArray(values, isVector=True)
    image.SetSpacing(spacing)
    if "direction" in where:
        image.SetDirection(where["direction"])
    return sitk.DisplacementFieldTransform(image)


PLAIN = np.zeros((6, 8, 2))
REFUSED = {
    "3 dimensions": lambda: sitk.AffineTransform(3),
    "BSplineTransform": lambda: sitk.BSplineTransform(2),
    "before its displacement": lambda: sitk.CompositeTransform(
        [displaced(PLAIN), sitk.TranslationTransform(2, (5, 5))]
    ),
    "no lengths on a slide": lambda: displaced(np.full((6, 8, 2), np.nan)),
    "that are no lengths": lambda: displaced(PLAIN + 1e30),
    "numbers no slide has": lambda: sitk.TranslationTransform(2, (np.inf, 0)),
    "flattens": lambda: sitk.CompositeTransform([sitk.ScaleTransform(2, (1e-4, 1e-4))]),
    "5 × 7 µm": lambda: displaced(PLAIN, (5.0, 7.0)),
    "at a place no slide has": lambda: displaced(PLAIN, (1e9, 1e9)),
    "turned or mirrored": lambda: displaced(PLAIN, direction=(0.0, 1.0, 1.0, 0.0)),
    "chains 65": lambda: sitk.CompositeTransform([sitk.TranslationTransform(2)] * 65),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_is_no_affine_and_field_is_refused(tmp_path: Path, message: str) -> None:
    sitk.WriteTransform(REFUSED[message](), str(tmp_path / "x.h5"))
    with pytest.raises(InputError, match=message):
        read_itk(tmp_path / "x.h5")


def test_a_field_larger_than_any_registration_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.h5"
    sitk.WriteTransform(displaced(np.zeros((60, 80, 2))), str(path))
    where = "napari_pancluster.core.export.transforms"
    monkeypatch.setattr(f"{where}._MOST_SAMPLES", 4000)
    with pytest.raises(InputError, match="field of 80 × 60 samples"):
        read_itk(path)
    monkeypatch.setattr(f"{where}._LARGEST_BYTES", 4000)
    with pytest.raises(InputError, match="too much for a transform"):
        read_itk(path)


def test_missing_foreign_and_damaged_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="none.h5 cannot be read"):
        read_itk(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("#Insight Transform File V1.0\n")
    with pytest.raises(InputError, match="is not HDF5"):
        read_itk(tmp_path / "text.h5")
    (tmp_path / "head.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(range(256)) * 20)
    with pytest.raises(InputError, match="head.h5 cannot be read: ITK finds no sound transform"):
        read_itk(tmp_path / "head.h5")


def test_crafted_files_end_in_a_message_or_a_sound_transform(tmp_path: Path) -> None:
    """The C library may do what it likes with these, in its own process."""
    write_itk(bent(), tmp_path / "good.h5")
    good = (tmp_path / "good.h5").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(6):
        data = bytearray(good[: len(good) // 3] if number == 0 else good)
        # The structure lies in the first and last kilobytes, between them the field.
        for at in rng.integers(8, 3000, 40 * (number > 0)):
            data[at] = rng.integers(256)
        (tmp_path / "bad.h5").write_bytes(data)
        try:
            found = read_itk(tmp_path / "bad.h5")
        except InputError as error:
            refused += 1
            # Words of ours, whatever the library had to say.
            assert re.search(r"bad\.h5 (cannot be read: (ITK|its)|has|holds|maps)", str(error))
        else:
            assert np.isfinite(found.to_moving(points())).all()
    assert refused


def test_a_json_that_contradicts_is_refused(tmp_path: Path) -> None:
    meaning = write_itk(bent(), tmp_path / "pas.h5")
    facts = json.loads(meaning.read_text(encoding="utf-8"))
    meaning.write_text(json.dumps({**facts, "units": "mm"}))
    with pytest.raises(InputError, match="'mm'"):
        read_itk(tmp_path / "pas.h5")
    meaning.write_text("[" * 10_000)
    with pytest.raises(InputError, match="does not describe a transform"):
        read_itk(tmp_path / "pas.h5")


def test_nothing_is_left_of_a_failed_write(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="end in .h5"):
        write_itk(bent(), tmp_path / "pas.tfm")
    with pytest.raises(InputError, match="cannot be written"):
        write_itk(bent(), tmp_path / "no folder" / "pas.h5")
    assert list(tmp_path.iterdir()) == []
