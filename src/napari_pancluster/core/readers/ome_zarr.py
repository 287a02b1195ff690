"""OME-Zarr 0.4 and 0.5 (NGFF), sharded or not, in a folder or in a zip, through zarr.

A zip is read in place by name and never unpacked.
"""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.errors import SlideError
from napari_pancluster.core.readers.base import Facts, checked_mpp, in_um, pyramid_levels
from napari_pancluster.core.readers.chunks import Chunks

if TYPE_CHECKING:
    import zarr

_MARKS = ("zarr.json", ".zattrs")
_ZIP = b"PK\x03\x04"
_LARGEST_CHUNK = 1 << 30
# Of a block, beside the rim of what was scanned, where a pixel of the overview mixes both.
_EDGE_SHARE = 0.05


class OmeZarrReader:
    """The first multiscale image of an OME-Zarr."""

    def __init__(
        self, path: Path, files: _Folder | _Zip, folder: str, meta: dict[str, Any]
    ) -> None:
        import zarr

        store = files.store()
        multiscale = _first(meta, path)
        axes = [str(a["name"] if isinstance(a, dict) else a).lower() for a in multiscale["axes"]]
        # A scale without a unit is a number, not a pixel size.
        units = [
            str(a.get("unit", "unknown")) if isinstance(a, dict) else "unknown"
            for a in multiscale["axes"]
        ]
        self._path = path
        self._arrays: list[zarr.Array[Any]] = []
        for dataset in multiscale["datasets"]:
            name = str(PurePosixPath(folder) / _inside(str(dataset["path"]), path))
            self._arrays.append(zarr.open_array(store, path=name, mode="r"))
        self._chunks = [Chunks(array, files.fetch) for array in self._arrays]
        first = self._arrays[0]
        self._axes = _used_axes(axes, first.shape, path)
        y, x = (axes.index(a) for a in "yx")
        if int(np.prod(first.chunks)) * first.dtype.itemsize > _LARGEST_CHUNK:
            raise SlideError(
                f"{path} keeps {first.chunks} values in one chunk, which can only be read whole. "
                "Save it with chunks of 256 to 1024 px."
            )
        channels = int(first.shape[axes.index("c")]) if "c" in axes else 1
        size = _scale(multiscale, axes)
        names = tuple(
            str(c.get("label", "")) for c in _omero(meta).get("channels", ()) if isinstance(c, dict)
        )
        rgb = channels in (3, 4) and first.dtype == np.uint8 and _looks_rgb(names, meta)
        self._opaque = channels == 4 and rgb
        self.facts = Facts(
            format="ome-zarr",
            levels=pyramid_levels([(int(a.shape[y]), int(a.shape[x])) for a in self._arrays]),
            dtype=np.dtype(first.dtype).newbyteorder("="),
            channels=3 if self._opaque else channels,
            rgb=rgb,
            channel_names=names if len(names) == channels and all(names) and not rgb else (),
            bits=8 * first.dtype.itemsize,
            **(checked_mpp(in_um(size[y], units[y]), in_um(size[x], units[x])) if size else {}),
        )
        self._store, self._files = store, files

    def read(self, level: int, top: int, left: int, rows: int, cols: int) -> NDArray[np.generic]:
        """Return a block of a level, shape (rows, cols, channels)."""
        box = (top, left, rows, cols)
        block, whole = self._values(level, box)
        if self.facts.rgb and not whole:
            empty = (block == self._arrays[0].fill_value).all(axis=-1)
            self._check_unscanned(level, box, empty)
            # Never scanned: glass.
            block = np.where(empty[..., None], np.iinfo(block.dtype).max, block)
        return block[..., :3] if self._opaque else block

    def _values(self, level: int, box: tuple[int, int, int, int]) -> tuple[NDArray[Any], bool]:
        """Return a block (rows, cols, channels), and whether all of it was ever written."""
        top, left, rows, cols = box
        spans = {"y": slice(top, top + rows), "x": slice(left, left + cols)}
        array, chunks = self._arrays[level], self._chunks[level]
        sizes = zip(self._axes, array.shape, strict=True)
        index = tuple(spans.get(a, slice(0, n if a == "c" else 1)) for a, n in sizes)
        if chunks.understood:
            block, whole = chunks.read(index)
        else:
            block, whole = np.asarray(array[index]), True
        order = [self._axes.index(a) for a in "yx"]
        order += [i for i in range(block.ndim) if i not in order]
        return block.transpose(order).reshape(rows, cols, -1), whole

    def _check_unscanned(
        self, level: int, box: tuple[int, int, int, int], empty: NDArray[np.bool_]
    ) -> None:
        """Refuse a block with missing chunks where the overview shows something."""
        last = len(self._arrays) - 1
        if level == last:
            return
        fine, coarse = self.facts.levels[level].shape, self.facts.levels[last].shape
        rows = (box[0] + np.arange(box[2])) * coarse[0] // fine[0]
        cols = (box[1] + np.arange(box[3])) * coarse[1] // fine[1]
        r0, c0 = int(rows[0]), int(cols[0])
        overview, _ = self._values(last, (r0, c0, int(rows[-1]) - r0 + 1, int(cols[-1]) - c0 + 1))
        seen = (overview != self._arrays[0].fill_value).all(axis=-1)[np.ix_(rows - r0, cols - c0)]
        if (seen & empty).mean() > _EDGE_SHARE:
            raise SlideError(
                f"{self._path} lacks pixels of level {level} near row {box[0]}, column {box[1]} "
                "that its overview shows. Some of its files are missing; copy it again."
            )

    def close(self) -> None:
        """Release the file."""
        self._store.close()
        self._files.close()


def open_ome_zarr(path: Path) -> OmeZarrReader | None:
    """Open `path` when it is a folder, or a zip, with zarr metadata in it."""
    if path.is_dir():
        if not any((path / mark).is_file() for mark in _MARKS):
            return None
        documents: _Folder | _Zip = _Folder(path)
    elif _starts_as_zip(path):
        documents = _Zip(path)
    else:
        return None
    try:
        folder, meta = _find_image(documents, path)
        return OmeZarrReader(path, documents, folder, meta)
    except BaseException:
        documents.close()
        raise


class _Folder:
    """Metadata documents in a folder."""

    # bioformats2raw puts its images into numbered folders; the first is the slide.
    folders = ("", "0")

    def __init__(self, path: Path) -> None:
        self._path = path

    def text(self, name: str) -> str | None:
        file = self._path / name
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def fetch(self, name: str, start: int = 0, count: int | None = None) -> bytes | None:
        """Return bytes of a file of the store; see `chunks.Fetch`."""
        # By numbers and not by file objects: called for every chunk.
        try:
            file = os.open(f"{self._path}/{name}", os.O_RDONLY | getattr(os, "O_BINARY", 0))
        except FileNotFoundError:
            return None
        try:
            size = os.fstat(file).st_size
            if start:
                os.lseek(file, start, os.SEEK_END if start < 0 else os.SEEK_SET)
            return os.read(file, size if count is None else count)
        finally:
            os.close(file)

    def close(self) -> None:
        """Nothing is kept open."""

    def store(self) -> Any:
        from zarr.storage import LocalStore

        return LocalStore(self._path, read_only=True)


class _Zip:
    """Metadata documents in a zip, at its top or one folder down."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._archive = zipfile.ZipFile(path)
        try:
            self._texts = self._read_texts()
        except BaseException:
            self._archive.close()
            raise
        self.folders = tuple(dict.fromkeys(n.rpartition("/")[0] for n in self._texts))

    def _read_texts(self) -> dict[str, str]:
        names = self._archive.namelist()
        bad = next((n for n in names if n.startswith("/") or ".." in n.split("/")), None)
        if bad is not None:
            raise SlideError(
                f"{self._path} holds {bad!r}, which lies outside itself. It is refused."
            )
        marks = [n for n in names if n.rsplit("/", 1)[-1] in _MARKS]
        highest = min((n.count("/") for n in marks), default=None)
        if highest is None:
            raise SlideError(f"{self._path} is a zip without an OME-Zarr. Unpack it first.")
        found = sorted((n for n in marks if n.count("/") <= highest + 1), key=_by_depth)
        return {n: self._archive.read(n).decode("utf-8") for n in found}

    def text(self, name: str) -> str | None:
        return self._texts.get(name)

    def fetch(self, name: str, start: int = 0, count: int | None = None) -> bytes | None:
        """Return bytes of a file of the store; see `chunks.Fetch`."""
        try:
            with self._archive.open(name) as file:
                if start:
                    file.seek(start, os.SEEK_END if start < 0 else os.SEEK_SET)
                return file.read(-1 if count is None else count)
        except KeyError:
            return None

    def close(self) -> None:
        """Release the archive."""
        self._archive.close()

    def store(self) -> Any:
        from zarr.storage import ZipStore

        return ZipStore(self._path, mode="r", read_only=True)


def _by_depth(name: str) -> tuple[int, str]:
    return name.count("/"), name


def _starts_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == _ZIP


def _find_image(documents: _Folder | _Zip, path: Path) -> tuple[str, dict[str, Any]]:
    """Return the folder of the image inside the store and its metadata."""
    for folder in documents.folders:
        meta = _attributes(documents, folder, path)
        if meta.get("multiscales"):
            return folder, meta
    raise SlideError(f"{path} is a zarr without OME-Zarr multiscales. Export it as OME-Zarr.")


def _attributes(documents: _Folder | _Zip, folder: str, path: Path) -> dict[str, Any]:
    prefix = f"{folder}/" if folder else ""
    try:
        new, old = documents.text(f"{prefix}zarr.json"), documents.text(f"{prefix}.zattrs")
        if new is not None:
            attributes = json.loads(new).get("attributes", {})
            return dict(attributes.get("ome", attributes))
        return dict(json.loads(old)) if old is not None else {}
    except (ValueError, AttributeError, TypeError) as error:
        raise SlideError(f"{path} has broken metadata ({error}). Export it again.") from error


def _first(meta: dict[str, Any], path: Path) -> dict[str, Any]:
    found = meta["multiscales"][0]
    if not found.get("datasets"):
        raise SlideError(f"{path} lists no resolution level. Export it again.")
    # Versions before 0.3 had no axes: always five.
    return {"axes": list("tczyx"), **found}


def _inside(name: str, path: Path) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise SlideError(f"{path} points to {name!r} outside itself. It is refused.")
    return name


def _used_axes(axes: list[str], shape: tuple[int, ...], path: Path) -> list[str]:
    deep = [a for a, n in zip(axes, shape, strict=True) if a not in "cyx" and n != 1]
    if deep or not {"y", "x"} <= set(axes):
        raise SlideError(
            f"{path} holds a stack with the axes {''.join(axes)}, not one image. Export one plane."
        )
    return axes


def _scale(multiscale: dict[str, Any], axes: list[str]) -> list[float] | None:
    """Return the size of a level-0 pixel along every axis, in the axis' unit."""
    total = [1.0] * len(axes)
    found = False
    first = multiscale["datasets"][0].get("coordinateTransformations", ())
    for transform in (*first, *multiscale.get("coordinateTransformations", ())):
        if transform.get("type") == "scale":
            total = [a * float(b) for a, b in zip(total, transform["scale"], strict=True)]
            found = True
    return total if found else None


def _omero(meta: dict[str, Any]) -> dict[str, Any]:
    omero = meta.get("omero", {})
    return omero if isinstance(omero, dict) else {}


def _looks_rgb(names: tuple[str, ...], meta: dict[str, Any]) -> bool:
    """Tell three stained channels from red, green and blue by what the writer named them."""
    plain = [n.strip().lower() for n in names]
    if not any(plain):
        return not _omero(meta).get("channels")
    if plain[:3] in (["red", "green", "blue"], ["r", "g", "b"], ["0", "1", "2"]):
        return True
    colours = [str(c.get("color", "")).upper() for c in _omero(meta)["channels"]][:3]
    return colours == ["FF0000", "00FF00", "0000FF"] and not any(
        n for n in plain if not n.startswith(("channel", "ch"))
    )
