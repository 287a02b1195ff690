"""Slide backends; a new one is a file here and a line in `OPENERS`."""

from __future__ import annotations

from pathlib import Path

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.readers.base import Facts, Level, Opener, Reader, check_facts
from napari_pancluster.core.readers.image import open_image
from napari_pancluster.core.readers.ome_zarr import open_ome_zarr
from napari_pancluster.core.readers.openslide import open_openslide
from napari_pancluster.core.readers.tiff import open_tiff

__all__ = ["OPENERS", "Facts", "Level", "Opener", "Reader", "open_reader"]

# OpenSlide before plain images: the file of a MIRAX slide looks like a JPEG.
OPENERS: tuple[Opener, ...] = (open_tiff, open_ome_zarr, open_openslide, open_image)


def open_reader(path: Path) -> Reader:
    """Open a slide with the first backend that knows its content; the extension is not asked.

    Raises
    ------
    SlideError
        If the file is missing, empty, damaged, or in no known format.
    """
    if not path.exists():
        raise SlideError(f"{path} does not exist. Check the path of the slide.")
    if path.is_file() and path.stat().st_size == 0:
        raise SlideError(f"{path} is empty. Copy or export it again.")
    for opener in OPENERS:
        try:
            reader = opener(path)
        except SlideError:
            raise
        # The decoders raise whatever their C code felt like; here all of it means one thing.
        except Exception as error:
            raise SlideError(
                f"{path} cannot be read: {_first_line(error)}. "
                "The file may be damaged; copy or export it again."
            ) from error
        if reader is not None:
            try:
                check_facts(reader.facts, path)
            except SlideError:
                reader.close()
                raise
            return reader
    if path.is_dir():
        raise SlideError(f"{path} is a folder and no OME-Zarr. Choose the slide inside it.")
    raise SlideError(
        f"{path} is not a slide or image this program knows. "
        "Export it as OME-TIFF or pyramidal TIFF."
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
