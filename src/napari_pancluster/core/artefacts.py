"""What is inside an artefact folder: arrays as zarr, the rest as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

from napari_pancluster.core.confidence import Confidence
from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.embedding import Embedding
from napari_pancluster.core.errors import PanclusterError, ProjectError
from napari_pancluster.core.latents import Clustering, Latents
from napari_pancluster.core.patches import PatchGrid, PatchTable
from napari_pancluster.core.tissue_mask import TissueMask
from napari_pancluster.core.transform import Transform
from napari_pancluster.core.validation import ValidationScores

_ARRAYS, _FACTS, _EDITS = "arrays.zarr", "facts.json", "edits.json"
_CONFIDENCE = "confidence"


def write_transform(folder: Path, transform: Transform) -> None:
    """Write a registration."""
    arrays: dict[str, NDArray[Any]] = {
        "affine": transform.affine,
        "displacement": transform.displacement,
        "inverse_displacement": transform.inverse_displacement,
    }
    facts = {
        "fixed": transform.fixed,
        "moving": transform.moving,
        "spacing": transform.spacing,
        "origin": list(transform.origin),
    }
    _write(folder, arrays, facts)


def read_transform(folder: Path) -> Transform:
    """Read a registration."""
    arrays, facts = _read(folder)
    return Transform(
        facts["fixed"],
        facts["moving"],
        arrays["affine"],
        arrays["displacement"],
        arrays["inverse_displacement"],
        facts["spacing"],
        tuple(facts["origin"]),
    )


def write_confidence(folder: Path, confidence: Confidence) -> None:
    """Write the confidence of a registration, beside its transform."""
    path = folder / _CONFIDENCE
    path.mkdir()
    _write(path, {"values": confidence.values}, {"spacing": confidence.spacing})


def read_confidence(folder: Path) -> Confidence | None:
    """Read the confidence of a registration; None where it was made without one."""
    if not (folder / _CONFIDENCE).is_dir():
        return None
    arrays, facts = _read(folder / _CONFIDENCE)
    return Confidence(arrays["values"], facts["spacing"])


def write_tissue(folder: Path, tissue: TissueMask) -> None:
    """Write a tissue mask."""
    _write(folder, {"mask": tissue.mask}, {"mpp": tissue.mpp})


def read_tissue(folder: Path) -> TissueMask:
    """Read a tissue mask."""
    arrays, facts = _read(folder)
    return TissueMask(arrays["mask"], facts["mpp"])


def write_landmarks(
    folder: Path, fixed_px: NDArray[np.float64], moving_px: NDArray[np.float64]
) -> None:
    """Write landmarks, (N, 2) row and col in level-0 px of either slide."""
    _write(folder, {"fixed_px": fixed_px, "moving_px": moving_px}, {})


def read_landmarks(folder: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Read landmarks, (N, 2) row and col in level-0 px of the fixed and of the moving slide."""
    arrays, _ = _read(folder)
    return arrays["fixed_px"], arrays["moving_px"]


def write_latents(folder: Path, table: PatchTable, latents: Latents) -> None:
    """Write the latents of all patches, with the table they belong to."""
    arrays: dict[str, NDArray[Any]] = {
        f"index_{n}": grid.index for n, grid in enumerate(table.grids)
    }
    grids = [
        {
            "case": g.case,
            "mpp": g.mpp,
            "patch_px": g.patch_px,
            "stride_px": g.stride_px,
            "shape": list(g.shape),
        }
        for g in table.grids
    ]
    arrays["latents"] = latents.values
    # An array without a column cannot be written.
    if latents.present.size:
        arrays["present"] = latents.present
    _write(folder, arrays, {"grids": grids})


def read_latents(folder: Path) -> tuple[PatchTable, Latents]:
    """Read the latents of all patches, with the table they belong to."""
    arrays, facts = _read(folder)
    grids = [
        PatchGrid(**{**g, "shape": tuple(g["shape"])}, index=arrays[f"index_{n}"])
        for n, g in enumerate(facts["grids"])
    ]
    # An earlier version did not keep which stains a patch has.
    known = {"present": arrays["present"]} if "present" in arrays else {}
    return PatchTable(tuple(grids)), Latents(arrays["latents"], **known)


def write_clustering(folder: Path, clustering: Clustering) -> None:
    """Write the clusters of all patches."""
    arrays: dict[str, NDArray[Any]] = {
        "assignments": clustering.assignments,
        "probabilities": clustering.probabilities,
    }
    _write(folder, arrays, {"k": clustering.k})


def read_clustering(folder: Path) -> Clustering:
    """Read the clusters of all patches."""
    arrays, facts = _read(folder)
    return Clustering(facts["k"], arrays["assignments"], arrays["probabilities"])


def write_scores(folder: Path, scores: ValidationScores) -> None:
    """Write the validation indices."""
    arrays: dict[str, NDArray[Any]] = {"k": scores.k}
    arrays |= {f"mean_{n}": v for n, v in scores.mean.items()}
    arrays |= {f"std_{n}": v for n, v in scores.std.items()}
    _write(folder, arrays, {"suggested_k": scores.suggested_k, "why": scores.why})


def read_scores(folder: Path) -> ValidationScores:
    """Read the validation indices."""
    arrays, facts = _read(folder)
    return ValidationScores(
        k=arrays["k"],
        mean={n.removeprefix("mean_"): v for n, v in arrays.items() if n.startswith("mean_")},
        std={n.removeprefix("std_"): v for n, v in arrays.items() if n.startswith("std_")},
        suggested_k=facts["suggested_k"],
        why=facts["why"],
    )


def write_embedding(folder: Path, embedding: Embedding) -> None:
    """Write the UMAP."""
    _write(folder, {"coords": embedding.coords, "rows": embedding.rows}, {})


def read_embedding(folder: Path) -> Embedding:
    """Read the UMAP."""
    arrays, _ = _read(folder)
    return Embedding(arrays["coords"], arrays["rows"])


def write_edits(folder: Path, edits: ClusterEdits) -> None:
    """Write what the user made of a clustering."""
    text = json.dumps({"k": edits.k, "operations": json.loads(edits.to_json())}, indent=1)
    (folder / _EDITS).write_text(text)


def read_edits(folder: Path) -> ClusterEdits:
    """Read what the user made of a clustering."""
    try:
        kept = json.loads((folder / _EDITS).read_text())
        return ClusterEdits.from_json(kept["k"], json.dumps(kept["operations"]))
    except (OSError, ValueError, KeyError, PanclusterError) as error:
        raise ProjectError(
            f"{folder} cannot be read ({error}). Names and colours of these clusters are lost; "
            "delete the folder to start anew."
        ) from error


def _write(folder: Path, arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
    group = zarr.open_group(folder / _ARRAYS, mode="w")
    for name, array in arrays.items():
        group.create_array(name, data=np.ascontiguousarray(array))
    (folder / _FACTS).write_text(json.dumps(facts, indent=1))


def _read(folder: Path) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    try:
        group = zarr.open_group(folder / _ARRAYS, mode="r")
        arrays = {name: np.asarray(array[...]) for name, array in group.arrays()}
        return arrays, json.loads((folder / _FACTS).read_text())
    # zarr raises its own, the codecs' and the system's errors; all of them mean a damaged folder.
    except Exception as error:
        raise ProjectError(
            f"{folder} cannot be read ({error}). Run the step again to replace it."
        ) from error
