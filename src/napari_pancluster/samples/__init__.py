"""Real slides that come with the package; see LICENSE-samples.md for their credit and terms."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Sample:
    """A packaged case.

    Attributes
    ----------
    name
        Of the case.
    slides
        Per stain, the file; the first is the reference.
    mpp
        Nominal pixel size of all of them, µm/px.
    """

    name: str
    slides: dict[str, Path]
    mpp: float


_HERE = Path(__file__).parent


def liver() -> Sample:
    """Return the liver core biopsy: H&E, PAS and PAS with diastase."""
    folder = _HERE / "liver_glycogen"
    files = {"HE": "HE.ome.tif", "PAS": "PAS.ome.tif", "PASD": "PASD.ome.tif"}
    return Sample("liver", {stain: folder / file for stain, file in files.items()}, 2.0)


def pancreas() -> Sample:
    """Return the pancreatic core biopsy: H&E and CK7/p40."""
    folder = _HERE / "pancreas_adenosquamous"
    files = {"HE": "HE.ome.tif", "CK7-p40": "CK7-p40.ome.tif"}
    return Sample("pancreas", {stain: folder / file for stain, file in files.items()}, 4.0)
