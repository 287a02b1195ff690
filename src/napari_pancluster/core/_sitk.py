"""SimpleITK at arm's length: the only place with x, y order, and where its errors become ours."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import RegistrationError

_THREADS = 2


def demons(
    fixed: NDArray[np.float32],
    moving: NDArray[np.float32],
    field: NDArray[np.float32],
    *,
    iterations: int,
    smooth_px: float,
) -> NDArray[np.float32]:
    """Return the field after iterations of fast symmetric forces demons.

    Parameters
    ----------
    fixed, moving
        (rows, cols) pictures on one grid.
    field
        (2, rows, cols) px, row then col: where to start.
    iterations
        How many.
    smooth_px
        Standard deviation of the Gaussian that smooths the field after each one.

    Returns
    -------
    ndarray
        (2, rows, cols) px; ``moving(p + field(p))`` resembles ``fixed(p)``.

    References
    ----------
    Vercauteren et al., Non-parametric diffeomorphic image registration with the demons algorithm,
    MICCAI 2007.
    """
    import SimpleITK as sitk

    method = sitk.FastSymmetricForcesDemonsRegistrationFilter()
    method.SetNumberOfThreads(_THREADS)
    method.SetNumberOfIterations(iterations)
    method.SmoothDisplacementFieldOn()
    method.SetStandardDeviations(smooth_px)
    start = np.ascontiguousarray(field[::-1].transpose(1, 2, 0), np.float64)
    images = [sitk.GetImageFromArray(np.ascontiguousarray(p, np.float32)) for p in (fixed, moving)]
    try:
        found = method.Execute(*images, sitk.GetImageFromArray(start, isVector=True))
    except RuntimeError as error:
        raise RegistrationError(
            f"SimpleITK could not follow the deformation ({str(error).splitlines()[-1]}). "
            "Use the elastic deformation."
        ) from error
    return np.ascontiguousarray(sitk.GetArrayFromImage(found).transpose(2, 0, 1)[::-1], np.float32)
