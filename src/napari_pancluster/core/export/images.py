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
    levels = label_levels(image)
    with tifffile.TiffWriter(path, ome=True) as tiff:
        for number, level in enumerate(levels):
            tiff.write(
                level,
                metadata=None if number else metadata,
                subifds=None if number else len(levels) - 1,
                subfiletype=1 if number else 0,
                tile=_TILE,
                compression="zlib",
            )


def label_levels(image: NDArray[np.integer]) -> list[NDArray[np.integer]]:
    """Return labels (rows, cols) and, when they are large, half, a quarter … of them.

    A pixel of a level covers 2, 4 … pixels a side of the first and shows the one in their middle:
    labels cannot be averaged.
    """
    levels = [image]
    while max(levels[-1].shape) > _PYRAMID_FROM_PX:
        step = 2 ** len(levels)
        middles = [np.minimum(np.arange(0, n, step) + step // 2, n - 1) for n in image.shape]
        levels.append(image[np.ix_(*middles)])
    return levels
