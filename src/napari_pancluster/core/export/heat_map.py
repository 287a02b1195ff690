"""PNG: how dark every stain is in every cluster."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from napari_pancluster.core.edits import ClusterEdits
from napari_pancluster.core.export.pictures import figure_file
from napari_pancluster.core.statistics.stain_profile import StainProfile

# Orange to purple: told apart with every kind of colour vision (ColorBrewer).
_MAP = "PuOr"
_MOST_Z = 2.0
_CELL_IN, _LINE_IN, _HEAD_IN = 0.95, 0.34, 1.1
_LETTER_IN = 0.075
# Of a colour whose text must be white.
_DARK = 0.5


def write_heat_map(path: Path, profile: StainProfile, edits: ClusterEdits) -> Path:
    """Write clusters by stains, over all cases.

    Colour is how far a cluster lies from the mean of all, in standard deviations over clusters,
    stain by stain; the density itself and its spread over patches stand in the cell.
    """
    pooled = profile.pooled
    mean, spread = pooled.mean[0], pooled.spread[0]
    names = [edits.name(label) for label in profile.labels]
    side = 0.6 + _LETTER_IN * max(map(len, names))
    cell = max(_CELL_IN, 0.2 + _LETTER_IN * max(map(len, profile.stains)))
    width = side + cell * max(len(profile.stains), 3) + 1.0
    with figure_file(path, width, _HEAD_IN + _LINE_IN * max(len(names), 4)) as figure:
        axes = figure.subplots()
        z = _z_scores(mean)
        shown = axes.imshow(z, cmap=_MAP, vmin=-_MOST_Z, vmax=_MOST_Z, aspect="auto")
        axes.set_xticks(range(len(profile.stains)), profile.stains, fontsize=9)
        axes.set_yticks(range(len(names)), names, fontsize=9)
        axes.tick_params(length=0, top=True, bottom=False, labeltop=True, labelbottom=False)
        axes.tick_params(axis="y", pad=22)
        for i, label in enumerate(profile.labels):
            _swatch(axes, i, edits.colour(label), len(profile.stains))
        for (i, j), value in np.ndenumerate(mean):
            _say(axes, i, j, value, float(spread[i, j]), float(z[i, j]))
        bar = figure.colorbar(shown, ax=axes, fraction=0.05, pad=0.03)
        bar.set_label("SD from the mean of all", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        axes.set_xlabel("mean optical density ± SD over patches", fontsize=9)
    return path


def _z_scores(mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (L, S) every stain's column centred and scaled; 0 where all clusters are alike."""
    out = np.full(mean.shape, np.nan)
    for j, column in enumerate(mean.T):
        known = column[np.isfinite(column)]
        if len(known):
            deviation = float(known.std())
            out[:, j] = (column - known.mean()) / (deviation if deviation > 0 else 1)
    return out


def _swatch(axes: Axes, line: int, colour: str, columns: int) -> None:
    """Draw a cluster's colour between its name and its line."""
    # In parts of a column, so that it is as wide whatever their number.
    unit = columns / max(columns, 3)
    at = (-0.5 - 0.19 * unit, line - 0.4)
    axes.add_patch(Rectangle(at, 0.13 * unit, 0.8, color=colour, clip_on=False, lw=0))


def _say(axes: Axes, i: int, j: int, value: float, spread: float, z: float) -> None:
    if not np.isfinite(value):
        axes.text(j, i, "–", ha="center", va="center", fontsize=8)
        return
    red, green, blue, _ = colormaps[_MAP]((np.clip(z, -_MOST_Z, _MOST_Z) / _MOST_Z + 1) / 2)
    dark = 0.3 * red + 0.59 * green + 0.11 * blue < _DARK
    more = f" ± {spread:.2f}" if np.isfinite(spread) else ""
    colour = "white" if dark else "black"
    axes.text(j, i, f"{value:.2f}{more}", ha="center", va="center", fontsize=8, color=colour)
