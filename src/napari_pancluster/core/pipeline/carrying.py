"""What is carried through registrations: transforms, warped slides, annotations, labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from napari_pancluster.core.errors import InputError
from napari_pancluster.core.pipeline.opening import make_overviews, open_stack
from napari_pancluster.core.progress import Progress, Task
from napari_pancluster.core.project import Project

_GEOJSON, _TIFF = (".geojson", ".json"), (".tif", ".tiff")
_SUFFIX = {"ome-tiff": ".ome.tif", "ome-zarr": ".ome.zarr"}


def export_transforms(project: Project, folder: Path, cases: Sequence[str] = ()) -> Task[list[str]]:
    """Write every registration as an ITK transform with its meaning beside it; return the files."""
    from napari_pancluster.core.export.transforms import write_itk

    _make(folder)
    files = []
    for name in cases or [c.name for c in project.state.cases]:
        stack = open_stack(project, project.case(name))
        for stain, transform in stack.transforms.items():
            yield Progress(f"Writing {stain}")
            path = folder / f"{name}_{stain}.h5"
            files += [str(path), str(write_itk(transform, path))]
    return files


def warp_slides(
    project: Project,
    folder: Path,
    *,
    cases: Sequence[str] = (),
    stains: Sequence[str] = (),
    format: Literal["ome-tiff", "ome-zarr"] = "ome-tiff",
    mpp: float | None = None,
) -> Task[list[str]]:
    """Write registered slides in the frame of their reference, tile by tile; return the files.

    Parameters
    ----------
    stains
        Only these; empty: every registered moving stain.
    mpp
        Pixel size, µm/px. Default: the coarser of the two slides'.
    """
    from napari_pancluster.core.export.warped import Compression, export_warped

    _make(folder)
    files = []
    for name in cases or [c.name for c in project.state.cases]:
        yield from make_overviews(project, project.case(name))
        stack = open_stack(project, project.case(name))
        for stain in stains or [n for n in stack.registered if n != stack.reference]:
            path = folder / f"{name}_{stain}{_SUFFIX[format]}"
            # JPEG halves the resolution of hue: of a shining dye, that is the dye itself.
            shines = stack.stain(stain).modality == "fluorescence"
            compression: Compression = "deflate" if shines else "jpeg"
            yield from export_warped(
                stack, stain, path, format=format, mpp=mpp, compression=compression
            )
            files.append(str(path))
    return files


def transfer_file(
    project: Project, *, case: str, from_: str, to: str, source: Path, target: Path
) -> Task[dict[str, Any]]:
    """Carry a GeoJSON file or a label image from one stain's own slide to another's.

    Raises
    ------
    InputError
        If the file is neither, or broken.
    """
    from napari_pancluster.core.transfer import Transfer, map_geojson

    way = Transfer.between(open_stack(project, project.case(case)), from_, to)
    if source.suffix.lower() in _GEOJSON:
        yield Progress(f"Mapping {source.name}")
        return dict(map_geojson(way, source, target))
    if source.suffix.lower() in _TIFF:
        return (yield from _transfer_labels(way, source, target))
    raise InputError(
        f"{source} is neither GeoJSON nor a TIFF of labels. For a CSV of points use: "
        "pancluster points"
    )


def _transfer_labels(way: Any, source: Path, target: Path) -> Task[dict[str, Any]]:
    from napari_pancluster.core.export.images import write_label_image
    from napari_pancluster.core.slide import open_slide
    from napari_pancluster.core.transfer import map_labels

    slide = open_slide(source)
    rows, cols = slide.shape
    if slide.channels != 1 or slide.mpp is None:
        raise InputError(
            f"{source} is no label image with a pixel size. Export it as a one-channel OME-TIFF."
        )
    labels = slide.data[0][..., 0]
    carried = yield from map_labels(way, labels, slide.um_per_px_yx.tolist())
    try:
        write_label_image(target, carried, float(slide.um_per_px_yx.min()))
    except OSError as error:
        raise InputError(f"{target} cannot be written ({error.strerror or error}).") from error
    return {"rows": carried.shape[0], "cols": carried.shape[1], "from": [rows, cols]}


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(
            f"{folder} cannot be made ({error.strerror or error}). Choose another folder."
        ) from error
