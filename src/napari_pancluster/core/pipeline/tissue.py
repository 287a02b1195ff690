"""The tissue of a case, looked at, painted and kept."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from napari_pancluster.core import artefacts
from napari_pancluster.core.annotations import rasterise, read_annotations
from napari_pancluster.core.config import TissueConfig
from napari_pancluster.core.errors import InputError
from napari_pancluster.core.pipeline.opening import current, tissue_key
from napari_pancluster.core.project import Project
from napari_pancluster.core.slide import Slide
from napari_pancluster.core.stack import SlideStack
from napari_pancluster.core.tissue import find_tissue
from napari_pancluster.core.tissue_mask import TissueMask

# Classes of QuPath and of its users for what does not count.
_TAKEN_OUT = ("ignore", "exclude", "excluded")


def kept_tissue(project: Project, case: str) -> TissueMask | None:
    """Return the tissue that the project has of a case, if it is up to date."""
    return current(project, tissue_key(case), artefacts.read_tissue)


def propose_tissue(stack: SlideStack, config: TissueConfig) -> TissueMask:
    """Return the tissue of the reference slide of a case as these settings find it."""
    return find_tissue(stack.stain(stack.reference), config)


def annotated(path: Path, slide: Slide, tissue: TissueMask) -> TissueMask:
    """Return the part of the tissue inside the areas of a QuPath GeoJSON file.

    Areas of the classes Ignore and Exclude are taken out instead.

    Parameters
    ----------
    slide
        The slide that was annotated, the reference.

    Raises
    ------
    InputError
        If the file has no area, or no tissue is left.
    """
    shape = (tissue.mask.shape[0], tissue.mask.shape[1])
    down, across = (float(v) for v in tissue.mpp / slide.um_per_px_yx)
    areas = read_annotations(path, slide.shape)
    out = [a for a in areas if a.name.strip("* ").lower() in _TAKEN_OUT]
    wanted = [a for a in areas if a not in out]
    if wanted:
        tissue = tissue.within(rasterise(wanted, shape, (down, across)))
    if out:
        tissue = tissue.without(rasterise(out, shape, (down, across)))
    if not tissue.mask.any():
        raise InputError(f"The annotations of {path} leave no tissue of {slide.path.name}.")
    return tissue


def keep_tissue(project: Project, case: str, tissue: TissueMask) -> None:
    """Make a mask the tissue of a case; what was trained and mapped before becomes out of date.

    Raises
    ------
    InputError
        If nothing is left of the tissue.
    """
    if not np.any(tissue.mask):
        raise InputError("Nothing is left of the tissue. Paint some, or find it anew.")
    record = project.case(case)
    token = record.stain(record.reference).token
    summary = {"area_mm2": tissue.area_mm2, "by": "user"}
    with project.writing(tissue_key(case), (token,), summary) as folder:
        artefacts.write_tissue(folder, tissue)
