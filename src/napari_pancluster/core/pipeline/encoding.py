"""Every tissue cell of every case encoded once: case by case, here or on a cluster, resumable."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from napari_pancluster import __version__
from napari_pancluster.core import artefacts
from napari_pancluster.core.checkpoint import Checkpoint, read_checkpoint
from napari_pancluster.core.clustering import Encoded, encode
from napari_pancluster.core.cohort import Tell, each_case
from napari_pancluster.core.devices import choose_device
from napari_pancluster.core.errors import InputError, ProjectError
from napari_pancluster.core.geometry import Region
from napari_pancluster.core.latents import Latents
from napari_pancluster.core.patches import PatchGrid, PatchTable, make_grid
from napari_pancluster.core.pipeline.opening import (
    atomic,
    frame_inputs,
    open_stack,
    registration_key,
    tissue_key,
    tissue_of,
)
from napari_pancluster.core.progress import Task
from napari_pancluster.core.project import Project
from napari_pancluster.core.records import CaseRecord, ProjectState
from napari_pancluster.core.tissue_mask import TissueMask

Options = ParamSpec("Options")
R = TypeVar("R")

# Parts of a map that nobody went on with for as long are given up.
_KEPT_S = 7 * 24 * 3600.0
# Of the memory that is free, latents may take this share; they are put together at the end.
_MEMORY_SHARE = 0.4


@dataclass(frozen=True)
class EncodedCohort:
    """The latents of all cases, and where they come from.

    Attributes
    ----------
    table, latents
        Of all cases, end to end.
    id
        Of the artefact that holds them.
    patches_per_s
        Of encoding, the reading of the slides included.
    densities
        By case, ``mean`` and ``std`` of every channel's density; None for a stain that is not
        there. Empty where an earlier version encoded them.
    """

    table: PatchTable
    latents: Latents
    id: str
    patches_per_s: float | None
    densities: Mapping[str, Mapping[str, list[float | None]]]


class _Order(BaseModel):
    """What a worker needs to know to encode one case."""

    model_config = ConfigDict(frozen=True)

    version: str = __version__
    root: Path
    state: ProjectState
    run: str
    stride_px: int
    part: Path


def checkpoint_of(project: Project, run: str) -> Checkpoint:
    """Return the network of a run."""
    record = project.state.artefacts[f"train/{run}"]
    return read_checkpoint(project.folder(record))


def doubts_of(project: Project, run: str, k: int) -> tuple[str, ...]:
    """Return sentences about clusters of a run that may not be tissues."""
    summary = project.state.artefacts[f"train/{run}"].summary
    return tuple(summary.get("doubts", {}).get(str(k), ()))


def latents_of(
    project: Project, run: str, stride_px: int | None, *, scheduler: str | None = None
) -> Task[EncodedCohort]:
    """Return the latents of every tissue cell of every case, computed once for a stride.

    Each case is kept when it is done: a map that was cancelled, or failed, goes on with the others.

    Parameters
    ----------
    stride_px
        Side of a cell; None takes that of the latents there are, or half the patch.
    scheduler
        Address of a `dask.distributed` scheduler; None for this machine.

    Raises
    ------
    InputError
        If the stride does not fit the tissue or the memory, or the scheduler does not answer.
    """
    key = f"latents/{run}"
    found = project.artefact(key)
    if (
        found is not None
        and not project.is_stale(key)
        and stride_px in (None, found.summary["stride_px"])
    ):
        table, latents = artefacts.read_latents(project.folder(found))
        rate, densities = found.summary["patches_per_s"], found.summary.get("densities", {})
        return EncodedCohort(table, latents, found.id, rate, densities)
    checkpoint = checkpoint_of(project, run)
    stride = stride_px if stride_px is not None else checkpoint.patch_px // 2
    latent = checkpoint.network().latent
    grids = yield from _grids(project, checkpoint, stride, latent)
    orders = {case.name: _order(project, case, run, stride) for case in project.state.cases}
    _forget_old(project)
    yield from _encode_missing(project, orders, grids, latent, scheduler)
    table = PatchTable(tuple(grids.values()))
    latents, densities, seconds = _together(orders, grids, latent)
    rate = len(table) / max(seconds, 1e-9)
    summary = {
        "stride_px": stride,
        "patches": len(table),
        "patches_per_s": rate,
        "densities": densities,
    }
    with project.writing(key, (run, *frame_inputs(project)), summary) as folder:
        artefacts.write_latents(folder, table, latents)
    return EncodedCohort(table, latents, project.state.artefacts[key].id, rate, densities)


def encoding(
    step: Callable[Concatenate[Project, Options], Task[R]],
) -> Callable[Concatenate[Project, Options], Task[R]]:
    """Let a step that needs latents be `atomic`, and keep encoded cases only until it has ended."""

    def whole(project: Project, /, *args: Options.args, **kwargs: Options.kwargs) -> Task[R]:
        result = yield from atomic(step)(project, *args, **kwargs)
        _forget_committed(project)
        return result

    return wraps(step)(whole)


def _forget_committed(project: Project) -> None:
    """Delete the parts of latents that are now kept as a whole."""
    for run in project.runs():
        found = project.artefact(f"latents/{run}")
        if found is not None:
            for case in project.state.cases:
                part = _order(project, case, run, found.summary["stride_px"]).part
                part.unlink(missing_ok=True)


def encode_case(order_text: str, tell: Tell) -> dict[str, Any]:
    """Encode one case and keep it; on this machine or on a worker that sees the same folders.

    The project is only read, as it was when the order was given.
    """
    version = json.loads(order_text)["version"]
    if version != __version__:
        raise InputError(
            f"{socket.gethostname()} runs napari-pancluster {__version__}, the map was asked for "
            f"by {version}. Install the same version on both."
        )
    order = _Order.model_validate_json(order_text)
    if not order.root.is_dir():
        raise ProjectError(
            f"{order.root} is not there on {socket.gethostname()}. Keep project and slides where "
            "all workers find them under the same path."
        )
    project = Project(order.root, order.state)
    (case,) = project.state.cases
    checkpoint = checkpoint_of(project, order.run)
    network = checkpoint.network().to(choose_device(checkpoint.config["device"]))
    least = checkpoint.config.get("least_confidence", 0.0)
    stack = open_stack(project, case).select(checkpoint.stains).trusting(least)
    tissue = artefacts.read_tissue(project.folder(project.state.artefacts[tissue_key(case.name)]))
    grid = _grid(checkpoint, case.name, stack.extent, tissue, order.stride_px)
    began = time.perf_counter()
    encoding = encode(stack, grid, network)
    try:
        while True:
            try:
                progress = next(encoding)
            except StopIteration as stop:
                encoded: Encoded = stop.value
                break
            tell(progress.done, progress.total)
    finally:
        encoding.close()
    _write_part(order.part, _Part(encoded, time.perf_counter() - began))
    return {"patches": len(grid.index), "host": socket.gethostname()}


@dataclass(frozen=True)
class _Part:
    """One encoded case, and how long it took."""

    encoded: Encoded
    seconds: float


def _grids(
    project: Project, checkpoint: Checkpoint, stride: int, latent: int
) -> Task[dict[str, PatchGrid]]:
    """Return the grid of every case, and find the tissue that was not looked for yet."""
    grids, cells = {}, 0.0
    for case in project.state.cases:
        stack = open_stack(project, case)
        tissue = yield from tissue_of(project, stack)
        cells += _check_stride(tissue, case.name, stride, checkpoint.mpp)
        _check_memory(cells, stride, latent)
        grids[case.name] = _grid(checkpoint, case.name, stack.extent, tissue, stride)
    return grids


def _grid(
    checkpoint: Checkpoint, case: str, extent: Region, tissue: TissueMask, stride: int
) -> PatchGrid:
    return make_grid(
        case,
        extent,
        tissue,
        mpp=checkpoint.mpp,
        patch_px=checkpoint.patch_px,
        stride_px=stride,
    )


def _check_stride(tissue: TissueMask, case: str, stride: int, mpp: float) -> float:
    """Return about how many cells there will be, or say that a cell is larger than the tissue."""
    if stride < 1:
        raise InputError(f"--stride-px is {stride}; give at least 1 px.")
    cell_mm2 = (stride * mpp) ** 2 * 1e-6
    if cell_mm2 > tissue.area_mm2:
        raise InputError(
            f"A cell of --stride-px {stride} ({stride * mpp:.0f} µm) is larger than the tissue of "
            f"case {case} ({tissue.area_mm2:.3g} mm²). Use a smaller --stride-px."
        )
    return tissue.area_mm2 / cell_mm2


def _check_memory(cells: float, stride: int, latent: int) -> None:
    """Refuse a map whose latents would not fit into memory, before hours are spent on it."""
    import psutil

    # All of them, and those of one case once more while they are put together.
    needed = 2 * cells * latent * 4
    most = psutil.virtual_memory().available * _MEMORY_SHARE
    if needed > most:
        least = int(np.ceil(stride * np.sqrt(needed / most)))
        raise InputError(
            f"--stride-px {stride} makes {cells:,.0f} patches or more, whose latents need "
            f"{needed / 2**30:.1f} GiB; this machine has {most / 2**30:.1f} GiB to spare for them. "
            f"Use --stride-px {least} or more."
        )


def _order(project: Project, case: CaseRecord, run: str, stride: int) -> _Order:
    """Return what a worker needs to know, and nothing of the other cases."""
    keys = [f"train/{run}", tissue_key(case.name)]
    keys += [registration_key(case.name, stain.name) for stain in case.stains]
    named = {key: project.artefact(key) for key in keys}
    state = ProjectState(cases=(case,), artefacts={k: a for k, a in named.items() if a is not None})
    inputs = frame_inputs(Project(project.root, state))
    made_from = hashlib.sha256(json.dumps([run, stride, case.name, *inputs]).encode()).hexdigest()
    part = project.latents_folder() / f"{run}-{made_from[:16]}.npz"
    return _Order(root=project.root, state=state, run=run, stride_px=stride, part=part)


def _encode_missing(
    project: Project,
    orders: Mapping[str, _Order],
    grids: Mapping[str, PatchGrid],
    latent: int,
    scheduler: str | None,
) -> Task[None]:
    """Encode and keep all cases but those that were kept already."""
    missing = {
        case: order.model_dump_json()
        for case, order in orders.items()
        if _read_part(order.part, (len(grids[case].index), latent)) is None
    }
    if missing:
        yield from each_case(
            encode_case, missing, scheduler=scheduler, folder=project.latents_folder()
        )


def _together(
    orders: Mapping[str, _Order], grids: Mapping[str, PatchGrid], latent: int
) -> tuple[Latents, dict[str, dict[str, list[float | None]]], float]:
    """Return the latents of all cases, their densities, and the seconds that encoding took.

    One case is read after the other into its place: no more than one is in memory twice.
    """
    starts = np.cumsum([0, *(len(grids[case].index) for case in orders)])
    values = np.empty((starts[-1], latent), np.float32)
    present, densities, seconds = [], {}, 0.0
    for (case, order), start, end in zip(orders.items(), starts, starts[1:], strict=False):
        part = _read_part(order.part, (end - start, latent))
        if part is None:
            raise ProjectError(
                f"{order.part}, which holds case {case}, cannot be read here. Check the disk, and "
                "that all workers write to the same folder as this machine; then map again."
            )
        values[start:end] = part.encoded.values
        present.append(part.encoded.present)
        densities[case] = _densities(part.encoded)
        seconds += part.seconds
    return Latents(values, np.concatenate(present)), densities, seconds


def _write_part(path: Path, part: _Part) -> None:
    """Write an encoded case, so that it is there whole or not at all."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    arrays = {**vars(part.encoded), "seconds": np.float64(part.seconds)}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            np.savez(file, **arrays)
        os.replace(partial, path)
    except OSError as error:
        raise ProjectError(
            f"{path.parent} cannot be written ({error.strerror or error}). Free some disk space or "
            "check the folder's permissions, then map again: finished cases are kept."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _read_part(path: Path, shape: tuple[int, int]) -> _Part | None:
    """Return a case that was kept, or None where there is none that can be used."""
    names = ("values", "present", "od_mean", "od_std")
    try:
        with path.open("rb") as opened, np.load(opened) as file:
            encoded = Encoded(**{name: file[name] for name in names})
            part = _Part(encoded, float(file["seconds"]))
    # Damaged, say by a power cut: it is encoded again.
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None
    fits = encoded.values.shape == shape and encoded.values.dtype == np.float32
    return part if fits else None


def _forget_old(project: Project) -> None:
    """Delete what maps that nobody went on with left behind."""
    for file in project.latents_folder().glob("*"):
        try:
            if time.time() - file.stat().st_mtime > _KEPT_S:
                file.unlink()
        except OSError:
            continue


def _densities(encoded: Encoded) -> dict[str, list[float | None]]:
    return {"mean": _finite(encoded.od_mean), "std": _finite(encoded.od_std)}


def _finite(values: NDArray[np.float64]) -> list[float | None]:
    return [float(v) if np.isfinite(v) else None for v in values]
