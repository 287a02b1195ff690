"""ITK transforms: a registration as a composite (.h5) that other programs read, and back.

Like `_sitk` in x, y order on the side of ITK; everything here turns it at once.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import InputError, SlideError
from napari_pancluster.core.readers.probe import probe
from napari_pancluster.core.transform import Transform

_SUFFIXES = (".h5", ".hdf5")
_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_LARGEST_BYTES = 2 << 30
_LARGEST_JSON = 1 << 20
# A field as fine as this bends single cells; more is no registration of two sections.
_MOST_SAMPLES = 1 << 24
_MOST_PARTS = 64
# No slide is a metre wide.
_FARTHEST_UM = 1e6
_LEAST_DETERMINANT = 1e-6
_EQUAL = 1e-6
_UNITS = "µm"
_CONVENTION = (
    "Maps points of the fixed slide to points of the moving slide: TransformPoint((x, y)) in µm, "
    "x right and y down from the outer corner of each slide's first pixel. The displacement is "
    "applied first, then the affine. The centre of pixel (column, row) lies at ((column + 0.5) * "
    "mpp_x, (row + 0.5) * mpp_y), so a picture resampled with it needs half a pixel as its origin. "
    "Outside its field ITK takes the displacement as 0; napari-pancluster holds the edge value."
)
_REMEDY = (
    "Give the .h5 of an affine and at most one displacement field in 2 dimensions, in µm, "
    "as export writes it."
)
# The HDF5 library reads what the file says; a crafted one must not take this program with it. At
# once out: when it is closed after an error, the library writes pages of its own.
_FIRST_LOOK = f"""
import os
def refuse(what):
    print(what, file=sys.stderr, flush=True)
    os._exit(1)
import SimpleITK as sitk
try:
    transform = sitk.ReadTransform(sys.argv[1])
except Exception:
    refuse("ITK finds no sound transform in it")
if transform.GetNumberOfParameters() > 3 * {_MOST_SAMPLES}:
    refuse("its displacement field is too large")
"""


def write_itk(transform: Transform, path: Path) -> Path:
    """Write a registration for ITK, and beside it what it means as JSON.

    The file maps fixed points to moving points only: ITK keeps no inverse of a field, and
    `read_itk` finds it again.

    Parameters
    ----------
    path
        Ends in ``.h5``; replaced when all is written.

    Returns
    -------
    Path
        The JSON.

    Raises
    ------
    InputError
        If the name has another ending or the file cannot be written.
    """
    if path.suffix.lower() not in _SUFFIXES:
        raise InputError(f"{path} does not end in .h5, which is how ITK knows the format.")
    meaning = path.with_suffix(".json")
    mark = secrets.token_hex(4)
    partial, text = (p.with_name(f".{p.stem}.{mark}{p.suffix}") for p in (path, meaning))
    try:
        # First, as its errors are Python's: HDF5 fills the terminal with its own.
        text.write_text(
            json.dumps(_facts(transform, path.name), indent=2, ensure_ascii=False), encoding="utf-8"
        )
        _write(transform, partial)
        os.replace(text, meaning)
        os.replace(partial, path)
    # SimpleITK says RuntimeError to everything.
    except (OSError, RuntimeError) as error:
        why = getattr(error, "strerror", None) or str(error).strip().splitlines()[-1]
        raise InputError(f"{path} cannot be written ({why}). Choose another file.") from error
    finally:
        for left in (partial, text):
            with suppress(OSError):
                left.unlink()
    return meaning


def read_itk(path: Path, *, fixed: str | None = None, moving: str | None = None) -> Transform:
    """Read a registration from an ITK file: affine parts, and before them at most one field.

    Parameters
    ----------
    fixed, moving
        Stain names. Default: those in the JSON beside it, else "fixed" and "moving".

    Raises
    ------
    InputError
        If the file is missing, damaged, too large, or holds another kind of transform.
    """
    _check_file(path)
    try:
        probe(path, _FIRST_LOOK)
    except SlideError as error:
        raise InputError(str(error)) from error
    import SimpleITK as sitk

    try:
        parts = _parts(sitk.ReadTransform(str(path)), path)
    except RuntimeError as error:
        why = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"{path} cannot be read ({why}). {_REMEDY}") from error
    names = _names(path.with_suffix(".json"))
    # ITK applies the last part of a composite first.
    affine = np.eye(3)
    for number, part in enumerate(parts):
        if part.GetTransformEnum() == sitk.sitkDisplacementField:
            _check_first(parts[number + 1 :], path)
            found = _field(sitk.DisplacementFieldTransform(part).GetDisplacementField(), path)
            break
        with np.errstate(invalid="ignore"):
            affine = affine @ _matrix(part)
    else:
        found = {}
    _check_affine(affine, path)
    return Transform(fixed or names[0], moving or names[1], affine, **found)


def _write(transform: Transform, path: Path) -> None:
    import SimpleITK as sitk

    matrix, displacement = transform.affine, transform.displacement
    if displacement.shape[1:] == (1, 1):
        # One sample is a shift of everything; a field of ITK would end half a sample around it.
        shift = np.eye(3)
        shift[:2, 2] = displacement[:, 0, 0]
        matrix, displacement = matrix @ shift, displacement[:, :0]
    straight = _turned(matrix)
    affine = sitk.AffineTransform(2)
    affine.SetMatrix(straight[:2, :2].ravel().tolist())
    affine.SetTranslation(straight[:2, 2].tolist())
    parts = [affine]
    if displacement.size:
        values = np.ascontiguousarray(displacement[::-1].transpose(1, 2, 0), np.float64)
        field = sitk.GetImageFromArray(values, isVector=True)
        field.SetSpacing([float(transform.spacing)] * 2)
        field.SetOrigin([float(v) for v in transform.origin[::-1]])
        parts.append(sitk.DisplacementFieldTransform(field))
    sitk.WriteTransform(sitk.CompositeTransform(parts), str(path))


def _facts(transform: Transform, name: str) -> dict[str, Any]:
    return {
        "file": name,
        "fixed": transform.fixed,
        "moving": transform.moving,
        "units": _UNITS,
        "convention": _CONVENTION,
        "affine_xy": _turned(transform.affine).tolist(),
        "field_shape_yx": list(transform.displacement.shape[1:]),
        "field_spacing": float(transform.spacing),
        "field_origin_xy": [float(v) for v in transform.origin[::-1]],
    }


def _turned(matrix: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a (3, 3) matrix with x and y, or row and col, in the other order."""
    order = [1, 0, 2]
    return np.asarray(matrix[np.ix_(order, order)], np.float64)


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            start = file.read(len(_SIGNATURE))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror or error}). Check the file's name."
        ) from error
    if start != _SIGNATURE:
        raise InputError(f"{path} is not HDF5. {_REMEDY}")
    if size > _LARGEST_BYTES:
        raise InputError(f"{path} has {size / 1e9:.1f} GB, too much for a transform. {_REMEDY}")


def _parts(transform: Any, path: Path) -> list[Any]:
    """Return the parts of a transform in ITK's order, each of a kind that is understood."""
    import SimpleITK as sitk

    if transform.GetDimension() != 2:
        raise InputError(f"{path} maps {transform.GetDimension()} dimensions, not 2. {_REMEDY}")
    transform = transform.Downcast()
    parts = [transform]
    if transform.GetTransformEnum() == sitk.sitkComposite:
        transform.FlattenTransform()
        count = transform.GetNumberOfTransforms()
        if count > _MOST_PARTS:
            raise InputError(f"{path} chains {count:,} transforms. {_REMEDY}")
        parts = [transform.GetNthTransform(n) for n in range(count)]
    for part in parts:
        if not (part.IsLinear() or part.GetTransformEnum() == sitk.sitkDisplacementField):
            raise InputError(f"{path} holds a {part.GetName()}, which is not read. {_REMEDY}")
    return parts


def _check_first(later: list[Any], path: Path) -> None:
    """Refuse what acts before a field: the two cannot be told as one field and one affine."""
    if any(not part.IsLinear() or not np.allclose(_matrix(part), np.eye(3)) for part in later):
        raise InputError(f"{path} applies other transforms before its displacement. {_REMEDY}")


def _matrix(part: Any) -> NDArray[np.float64]:
    """Return the (3, 3) matrix, on row and col, of any linear transform."""
    corner, right, down = (
        np.array(part.TransformPoint(p)) for p in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    )
    matrix = np.eye(3)
    # What is infinite is refused once it is known for all parts.
    with np.errstate(invalid="ignore"):
        matrix[:2] = np.stack([right - corner, down - corner, corner], axis=1)
    return _turned(matrix)


def _check_affine(matrix: NDArray[np.float64], path: Path) -> None:
    if not np.isfinite(matrix).all() or np.abs(matrix).max() > _FARTHEST_UM:
        raise InputError(f"{path} has an affine with numbers no slide has. {_REMEDY}")
    if abs(np.linalg.det(matrix)) < _LEAST_DETERMINANT:
        raise InputError(f"{path} has an affine that flattens the slide to a line. {_REMEDY}")


def _field(image: Any, path: Path) -> dict[str, Any]:
    """Return displacement, inverse, spacing and origin of a `Transform`."""
    import SimpleITK as sitk

    # Late: the registration comes with it.
    from napari_pancluster.core.registration.quality import inverse_displacement

    size, spacing, origin = image.GetSize(), image.GetSpacing(), image.GetOrigin()
    if size[0] * size[1] > _MOST_SAMPLES:
        raise InputError(f"{path} has a field of {size[0]:,} × {size[1]:,} samples. {_REMEDY}")
    if not np.allclose(image.GetDirection(), (1, 0, 0, 1), atol=_EQUAL):
        raise InputError(f"{path} has a field that lies turned or mirrored. {_REMEDY}")
    if not np.isfinite([*spacing, *origin]).all() or np.abs([*spacing, *origin]).max() > (
        _FARTHEST_UM
    ):
        raise InputError(f"{path} has a field at a place no slide has. {_REMEDY}")
    if not spacing[0] > 0 or abs(spacing[1] / spacing[0] - 1) > _EQUAL:
        raise InputError(
            f"{path} has samples every {spacing[0]:g} × {spacing[1]:g} µm. Resample the field to "
            "square spacing."
        )
    values = sitk.GetArrayFromImage(image)
    if not np.isfinite(values).all() or np.abs(values).max() > _FARTHEST_UM:
        raise InputError(f"{path} has displacements that are no lengths on a slide. {_REMEDY}")
    displacement = np.ascontiguousarray(values.transpose(2, 0, 1)[::-1], np.float32)
    return {
        "displacement": displacement,
        "inverse_displacement": inverse_displacement(displacement, spacing[0]),
        "spacing": float(spacing[0]),
        "origin": (float(origin[1]), float(origin[0])),
    }


def _names(meaning: Path) -> tuple[str, str]:
    """Return the names of the fixed and the moving stain."""
    if not meaning.is_file():
        return "fixed", "moving"
    try:
        if meaning.stat().st_size > _LARGEST_JSON:
            raise ValueError("too large")
        facts = json.loads(meaning.read_text(encoding="utf-8"))
        fixed, moving, units = facts["fixed"], facts["moving"], facts["units"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(
            f"{meaning} does not describe a transform ({error}). Remove it or export again."
        ) from error
    if not isinstance(fixed, str) or not isinstance(moving, str) or units != _UNITS:
        raise InputError(
            f"{meaning} names {fixed!r} and {moving!r} in {units!r}; two stains in {_UNITS} are "
            "expected. Remove it or export again."
        )
    return fixed, moving
