"""The way along the order of sections: neighbours look alike, and their registrations add up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.progress import Task
from napari_pancluster.core.registration.pair import register_pair
from napari_pancluster.core.registration.quality import OK_DICE, Status, with_field
from napari_pancluster.core.registration.report import Registration, beside_of, measured
from napari_pancluster.core.registration.sections import read_sections
from napari_pancluster.core.stain import Stain
from napari_pancluster.core.transform import Transform

_RANK: Mapping[Status, int] = {"failed": 0, "doubtful": 1, "ok": 2}
_FINEST_SHARE = 1 / 384


def composed(first: Transform, second: Transform, long_um: float) -> Transform:
    """Return the transform that maps as `first`, then as `second`.

    Parameters
    ----------
    long_um
        Longer side of the fixed slide of `first`, over which the result is sampled.
    """
    spacing = long_um * _FINEST_SHARE
    bent = min(first.displacement.shape[1:]) > 1
    if bent:
        spacing = first.spacing
    shape = first.displacement.shape[1:] if bent else (384, 384)
    grid = (np.indices(shape) + 0.5).reshape(2, -1).T * spacing
    there = second.to_moving(first.to_moving(grid))
    affine = second.affine @ first.affine
    back = np.linalg.inv(affine)
    field = there @ back[:2, :2].T + back[:2, 2] - grid
    straight = Transform(first.fixed, second.moving, affine)
    return with_field(straight, np.asarray(field.T.reshape(2, *shape), np.float32), spacing)


def register_along(
    reference: Stain,
    neighbour: Stain,
    moving: Stain,
    known: Registration,
    config: RegisterConfig,
) -> Task[Registration]:
    """Register `moving` onto its neighbour in the order, and with it onto the reference.

    Parameters
    ----------
    known
        The registration of the neighbour onto the reference.

    Returns
    -------
    Registration
        Measured against the reference. It is as sure as its least sure link, whatever the
        stains at its two ends have in common, as long as their outlines agree.
    """
    link = yield from register_pair(neighbour, moving, config)
    if link.transform is None or known.transform is None:
        return link
    mpp = link.report.mpp_estimated
    sized = moving if mpp is None else moving.with_mpp(mpp)
    pair = yield from read_sections(reference, sized, config)
    way = composed(known.transform, link.transform, pair.fixed.long_um)
    # It was fitted to neither picture, so wrong places need no fitting.
    wrong = beside_of(way, pair.fixed.long_um)
    found = measured(pair, way, min(known.margin, link.margin), wrong)
    links = (known.report, link.report)
    worst = min(links, key=lambda r: _RANK[r.status])
    report = replace(
        found.report,
        way=f"along {_way_of(known, neighbour)}",
        mpp_estimated=mpp,
        seconds=link.report.seconds,
    )
    agree = report.dice_after >= OK_DICE and report.folding_fraction == 0
    if worst.status == "ok" and agree:
        report = replace(report, status="ok", reason=f"Both steps agree: {link.report.reason}")
    elif worst.status != "ok":
        report = replace(report, status=worst.status, reason=worst.reason)
    kept = found.transform if report.status != "failed" else None
    return replace(found, transform=kept, report=report)


def _way_of(known: Registration, neighbour: Stain) -> str:
    way = known.report.way
    before = f"{way.removeprefix('along ')}, " if way.startswith("along ") else ""
    return f"{before}{neighbour.name}"


def better(one: Registration, other: Registration) -> Registration:
    """Return the surer of two registrations; of two as sure, the one that fits better."""

    def rank(found: Registration) -> tuple[int, float]:
        report = found.report
        return _RANK[report.status], report.similarity_after * report.dice_after

    return max(one, other, key=rank)


def neighbour_of(names: Sequence[str], reference: str, moving: str) -> str:
    """Return the next stain towards the reference in the order of sections."""
    here, there = names.index(moving), names.index(reference)
    return names[here + (1 if there > here else -1)]
