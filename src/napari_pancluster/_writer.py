"""npe2 writer: a labels layer as OME-TIFF with its pixel size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from napari_pancluster.core.errors import InputError


def write_labels(path: str, data: Any, attributes: dict[str, Any]) -> list[str]:
    """Write one labels layer, as `export` does; return the path written.

    The pixel size is written where the layer is in µm.

    Raises
    ------
    InputError
        If the labels are not one plane.
    """
    from napari_pancluster.core.export.images import write_label_image

    labels = np.asarray(data)
    if labels.ndim != 2:
        raise InputError(
            f"These labels have {labels.ndim} dimensions. Save a single plane, or choose "
            "another file type."
        )
    units = [str(u) for u in attributes.get("units") or ()]
    in_um = bool(units) and all(u in ("micrometer", "um", "µm") for u in units)
    scale = attributes.get("scale")
    pixel_um = float(scale[-1]) if in_um and scale is not None else None
    write_label_image(Path(path), labels, pixel_um)
    return [path]
