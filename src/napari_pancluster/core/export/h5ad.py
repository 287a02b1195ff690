"""AnnData: the patches with their latents, for scanpy and squidpy."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from napari_pancluster.core.export.content import Content
from napari_pancluster.core.replacing import replacing


def write_h5ad(folder: Path, content: Content) -> list[Path]:
    """Write ``patches.h5ad``: a row a patch, its latents as X.

    Raises
    ------
    InputError
        If it cannot be written.
    """
    import h5py
    from anndata.io import write_elem

    path = folder / "patches.h5ad"
    # On a full disk HDF5 complains once more about everything it still holds: it writes to memory.
    memory = BytesIO()
    with h5py.File(memory, "w") as file:
        write_elem(file, "/", annotated(content))
    with replacing(path) as partial:
        partial.write_bytes(memory.getbuffer())
    return [path]


def annotated(content: Content) -> Any:
    """Return the patches as AnnData.

    ``obs`` has the columns of ``patches.csv`` and those of the sample sheet, ``obsm`` the latents,
    the UMAP where there is one, and the centres (x, y) as ``spatial``.
    """
    import pandas as pd
    from anndata import AnnData

    latents = content.latents.values
    obs = _patches(content)
    spatial = obs[["x_um", "y_um"]].to_numpy()
    return AnnData(
        X=latents,
        obs=obs,
        var=pd.DataFrame(index=[f"latent_{n}" for n in range(latents.shape[1])]),
        obsm={
            "latents": latents,
            "spatial": spatial,
            **({"X_umap": content.umap} if content.embedding is not None else {}),
        },
        uns=_facts(content),
    )


def _patches(content: Content) -> Any:
    """Return one row a patch, named CASE_ROW_COL, as a data frame."""
    import pandas as pd

    table = content.table
    cases = [grid.case for grid in table.grids]
    row, col = np.concatenate([grid.index for grid in table.grids]).T
    y, x = np.concatenate([grid.centres for grid in table.grids]).T
    # Two clusters may have one name without being merged.
    names = list(dict.fromkeys(content.name(n) for n in content.labels))
    number = np.zeros(256, np.int64)
    number[list(content.labels)] = [names.index(content.name(n)) for n in content.labels]
    columns = {
        "case": pd.Categorical.from_codes(table.grid_id, pd.Index(cases)),
        "row": row,
        "col": col,
        "x_um": x,
        "y_um": y,
        "label": content.row_labels,
        "name": pd.Categorical.from_codes(number[content.row_labels], pd.Index(names)),
        "probability": content.clustering.certainty,
        "umap_1": content.umap[:, 0],
        "umap_2": content.umap[:, 1],
        "confidence": content.agreement,
        "missing": pd.Categorical(content.missing),
    }
    for column in dict.fromkeys(c for case in cases for c in content.sheet.get(case, {})):
        values = [content.sheet.get(case, {}).get(column, "") for case in cases]
        # HDF5 takes a slash for a folder.
        key = column.replace("/", "_")
        columns[f"sheet_{key}" if key in columns else key] = pd.Categorical(
            np.array(values, object)[table.grid_id]
        )
    index = [f"{cases[g]}_{r}_{c}" for g, r, c in zip(table.grid_id, row, col, strict=True)]
    return pd.DataFrame(columns, index=index)


def _facts(content: Content) -> dict[str, Any]:
    """Return what holds for all patches."""
    grid = content.table.grids[0]
    names = {str(n): content.name(n) for n in content.labels}
    colours = {str(n): content.colour(n) for n in content.labels}
    of_name = {name: colours[n] for n, name in reversed(names.items())}
    return {
        "names": names,
        "colours": colours,
        # Where scanpy looks for the colours of obs["name"].
        "name_colors": [of_name[name] for name in dict.fromkeys(names.values())],
        "k": content.clustering.k,
        "run": content.run,
        "patch_px": grid.patch_px,
        "stride_px": grid.stride_px,
        "unit": content.unit,
        "nominal": content.nominal,
        **({"mpp": grid.mpp} if content.calibrated else {}),
    }
