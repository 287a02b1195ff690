"""How long the window takes to pan over five registered stains, beside the reference alone.

``python benchmarks/bench_pan.py [DATA]``; DATA holds ``landmarks/lung_lesion3`` (default:
../shared/data beside the repository). The peer, in the same run, is the same slide unwarped.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

from bench_registration import CASES, DATA, open_case_stain
from tables import show

from napari_pancluster import _layers
from napari_pancluster.core.config import RegisterConfig
from napari_pancluster.core.progress import run
from napari_pancluster.core.registration import register_pair
from napari_pancluster.core.stack import SlideStack

STEPS = 24
# Screen pixels of a step, and screen pixels a pixel of the slide takes at each zoom.
STEP_PX, ZOOMS = 60, (0.5, 1.0)
CACHE_MB = 64


def registered(data: Path, case: str) -> SlideStack:
    """Return a case with every stain registered onto its first."""
    names = CASES[case][3]
    stains = tuple(open_case_stain(data, case, name) for name in names)
    stack = SlideStack(case, names[0], stains)
    for stain in stains[1:]:
        found = run(register_pair(stains[0], stain, RegisterConfig()))
        if found.transform is not None:
            stack = stack.with_transform(found.transform)
    return stack


def pan(viewer: Any, layers: list[Any], zoom: float) -> dict[str, object]:
    """Return milliseconds a step with these layers visible, drawn in the window."""
    from qtpy.QtWidgets import QApplication

    for layer in viewer.layers:
        layer.visible = layer in layers
    camera = viewer.scene.camera
    world = float(viewer.layers[0].extent.world[1].mean())
    camera.center, camera.zoom = (world * 0.7, world * 0.7), zoom
    viewer.screenshot(canvas_only=True, flash=False)
    spent = []
    for _ in range(STEPS):
        row, col = camera.center[-2:]
        began = time.perf_counter()
        camera.center = (row, col + STEP_PX / zoom / 2)
        viewer.screenshot(canvas_only=True, flash=False)
        QApplication.processEvents()
        spent.append(1000 * (time.perf_counter() - began))
    spent.sort()
    return {
        "visible": len(layers),
        "zoom": zoom,
        "median ms": statistics.median(spent),
        "p90 ms": spent[int(0.9 * len(spent))],
    }


def main() -> int:
    """Run what the data allow and print it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", type=Path, default=DATA)
    options = parser.parse_args()
    if not (options.data / "landmarks" / "lung_lesion3").is_dir():
        print(f"Skipped: {options.data} has no landmarks/lung_lesion3.", file=sys.stderr)
        return 0
    import napari
    from napari.layers import Layer

    stack = registered(options.data, "lung3")
    viewer = napari.Viewer(show=True)
    viewer.window.resize(1600, 1000)
    for data in _layers.stack_layers(stack, unit="um", cache_mb=CACHE_MB):
        layer = viewer.add_layer(Layer.create(*data))
        layer.opacity = 0.5
    layers = list(viewer.layers)
    rows = [pan(viewer, shown, zoom) for zoom in ZOOMS for shown in (layers[-1:], layers)]
    show(rows)
    viewer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
