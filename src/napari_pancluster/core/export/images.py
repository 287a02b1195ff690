"""OME-TIFF: the cluster map of every case as a label image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray

from napari_pancluster.core.export.content import Content

_PYRAMID_FROM_PX = 4096
_TILE = (256, 256)


def write_label_images(folder: Path, content: Content) -> list[Path]:
    """Write ``CASE_clusters.ome.tif``: uint8, 0 = background, one pixel a cell of the map."""
    paths = []
    for number, grid in enumerate(content.table.grids):
        path = folder / f"{grid.case}_clusters.ome.tif"
        write_label_image(
            path, content.label_image(number), grid.cell_um if content.calibrated else None
        )
        paths.append(path)
    return paths


def write_label_image(path: Path, image: NDArray[np.integer], pixel_um: float | None) -> None:
    """Write labels (rows, cols) as OME-TIFF, a pyramid when large.

    Parameters
    ----------
    pixel_um
        Side of a pixel in µm; None where it is not known.
    """
    metadata: dict[str, object] = {"axes": "YX"}
    if pixel_um is not None:
        metadata |= {
            "PhysicalSizeX": pixel_um,
            "PhysicalSizeY": pixel_um,
            "PhysicalSizeXUnit": "µm",
            "PhysicalSizeYUnit": "µm",
        }
    levels = 0
    while max(image.shape) >> levels > _PYRAMID_FROM_PX:
        levels += 1
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(image, metadata=metadata, subifds=levels, tile=_TILE, compression="zlib")
        for level in range(1, levels + 1):
            # Labels cannot be averaged: every second one is kept.
            step = 2**level
            tiff.write(image[::step, ::step], subfiletype=1, tile=_TILE, compression="zlib")
