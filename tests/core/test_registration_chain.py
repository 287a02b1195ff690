"""The way along the order of sections."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy.ndimage import gaussian_filter

from napari_pancluster.core.registration import Registration, RegistrationReport
from napari_pancluster.core.registration.chain import better, composed, neighbour_of
from napari_pancluster.core.registration.quality import with_field
from napari_pancluster.core.transform import Transform

LONG = 2000.0


def _bent(names: tuple[str, str], seed: int, angle: float, *, mpp: float = 10.0) -> Transform:
    a = np.deg2rad(angle)
    affine = np.array([[np.cos(a), -np.sin(a), 300.0], [np.sin(a), np.cos(a), -150.0], [0, 0, 1.0]])
    noise = np.random.default_rng(seed).normal(size=(2, 200, 200))
    field = gaussian_filter(noise, (0, 25, 25))
    return with_field(Transform(*names, affine), np.float32(field / field.std() * 12), mpp)


def test_a_composed_way_is_both_ways_one_after_the_other() -> None:
    first, second = _bent(("HE", "PAS"), 1, 35), _bent(("PAS", "CK7"), 2, -80)
    both = composed(first, second, LONG)
    assert (both.fixed, both.moving) == ("HE", "CK7")
    points = np.random.default_rng(0).uniform(100, 1900, (500, 2))
    wanted = second.to_moving(first.to_moving(points))
    assert np.linalg.norm(both.to_moving(points) - wanted, axis=1).max() < 1.0
    assert np.linalg.norm(both.to_fixed(wanted) - points, axis=1).max() < 2.0


def test_a_straight_way_and_a_bent_one_compose_too() -> None:
    first = replace(_bent(("HE", "PAS"), 1, 35), displacement=np.zeros((2, 1, 1), np.float32))
    second = _bent(("PAS", "CK7"), 2, 10)
    points = np.random.default_rng(0).uniform(100, 1900, (500, 2))
    wanted = second.to_moving(first.to_moving(points))
    got = composed(first, second, LONG).to_moving(points)
    assert np.linalg.norm(got - wanted, axis=1).max() < 1.0


def test_the_neighbour_lies_towards_the_reference() -> None:
    order = ["PAS", "CK7", "HE", "SMA", "CD31"]
    ways = {name: neighbour_of(order, "HE", name) for name in order if name != "HE"}
    assert ways == {"PAS": "CK7", "CK7": "HE", "SMA": "HE", "CD31": "SMA"}


def test_the_surer_way_is_better_and_of_two_as_sure_the_closer_fit() -> None:
    def found(status: str, similarity: float) -> Registration:
        report = RegistrationReport("PAS", status, "")  # type: ignore[arg-type]
        report = replace(report, similarity_after=similarity, dice_after=0.9)
        return Registration(None, report)

    sure, close, closer = found("ok", 0.1), found("doubtful", 0.3), found("doubtful", 0.4)
    assert better(sure, close) is sure and better(close, closer) is closer
