"""How long a brush takes until tissue and scatter show it, beside the limits and a peer.

Our own work (selection, table, both layers' pixels, the scatter's picture) is timed until it is
handed to Qt; painting it is timed apart. The peer is napari-clusters-plotter 0.11 in an environment
of its own: pass its Python with ``--peer``, or leave it out.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

LIMITS_MS = {
    "lasso_ms_100k": 60,
    "lasso_ms_1m": 350,
    "recolour_ms_100k": 60,
    "pan_ms_1m": 100,
    "hover_ms": 250,
    "k_change_ms": 100,
    "dock_ms": 1500,
}
REPEATS = 7
VERTICES = 500
K = 14


def main() -> None:
    """Measure, and print a table or one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--peer", help="Python that has napari-clusters-plotter and a Qt binding")
    options = parser.parse_args()
    found: dict[str, float | None] = measure()
    found["peer_lasso_ms_100k"] = peer(options.peer) if options.peer else None
    if options.json:
        print(json.dumps(found))
        return
    print(f"{'':22}{'ms':>9}{'limit':>8}")
    for name, value in found.items():
        shown = "not run" if value is None else f"{value:.1f}"
        print(f"{name:22}{shown:>9}{LIMITS_MS.get(name, ''):>8}")


def measure() -> dict[str, float]:
    """Return the milliseconds of everything, in a window that is shown."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_pancluster.core.edits import Recolour

    viewer = napari.Viewer(show=True)
    viewer.window.resize(1600, 1000)
    began = time.perf_counter()
    from napari_pancluster._widgets.main import dock

    widget = dock(viewer)
    QApplication.processEvents()
    found = {"dock_ms": 1000 * (time.perf_counter() - began)}
    session = widget.session

    def show(rows: int, cols: int) -> None:
        results = drawn_results(rows, cols)
        session.case = "case"
        session.show_stack(results.stacks["case"])
        session.show_results(results)
        for _ in range(20):
            QApplication.processEvents()
            time.sleep(0.02)

    show(320, 320)
    colours = [f"#{40 * n % 256:02X}8060" for n in range(1, 40)]
    found["lasso_ms_100k"] = lasso(widget)
    found["recolour_ms_100k"] = median_ms(
        lambda n: session.edit(Recolour(label=1, colour=colours[n]))
    )
    found["repaint_ms_100k"] = repaint(widget, QApplication)
    found["hover_ms"] = hover()
    show(1000, 1000)
    found["lasso_ms_1m"] = lasso(widget)
    found["pan_ms_1m"] = pan(widget)
    show(1500, 1500)
    ks = [n for n in session.results.ks if n != session.k]
    found["k_change_ms"] = median_ms(lambda n: session.choose_k(ks[n % len(ks)]))
    widget.close_session()
    viewer.close()
    return found


def drawn_results(rows: int, cols: int) -> Any:
    """Return results of one case of rows x cols cells over the liver sample, drawn at random."""
    from napari_pancluster.core.edits import ClusterEdits
    from napari_pancluster.core.embedding import Embedding
    from napari_pancluster.core.patches import PatchGrid, PatchTable
    from napari_pancluster.core.results import Results
    from napari_pancluster.core.slide import open_slide
    from napari_pancluster.core.stack import SlideStack
    from napari_pancluster.core.stain import Stain
    from napari_pancluster.core.transform import Transform
    from napari_pancluster.samples import liver

    rng = np.random.default_rng(0)
    sample = liver()
    stains = tuple(
        Stain.of(n, open_slide(p).with_mpp(sample.mpp)) for n, p in sample.slides.items()
    )
    transforms = {}
    for stain in stains[1:]:
        bend = rng.normal(0, 20, (2, 40, 40)).astype(np.float32)
        transforms[stain.name] = Transform(
            "HE", stain.name, np.eye(3), bend, -bend, 200.0, (0.0, 0.0)
        )
    count = rows * cols
    index = np.stack(np.unravel_index(np.arange(count), (rows, cols)), 1).astype(np.int32)
    extent = stains[0].slide.extent
    # As many cells as asked for, over a slide of this size.
    grid = PatchGrid(
        "case", min(extent.height / rows, extent.width / cols), 64, 1, index, (rows, cols)
    )
    ks = range(2, 21)
    base = (index[:, 0] * 20 // rows + index[:, 1] * 20 // cols * 7) % 20
    centres = rng.normal(0, 6, (20, 2))
    coords = (centres[base] + rng.normal(0, 1, (count, 2))).astype(np.float32)
    return Results(
        run="run",
        stacks={"case": SlideStack("case", "HE", stains, transforms)},
        table=PatchTable((grid,)),
        latents=coords,
        assignments={k: (base % k).astype(np.uint8) for k in ks},
        certainty={k: np.full(count, 200, np.uint8) for k in ks},
        embedding=Embedding(coords, np.arange(count)),
        embedding_name="UMAP",
        scores=None,
        k=K,
        edits={k: ClusterEdits(k) for k in ks},
        cell_mm2=1e-4,
    )


def median_ms(call: Callable[[int], object]) -> float:
    """Return the median of some calls; the first, which warms up, is left out."""
    seconds = []
    for number in range(REPEATS + 1):
        began = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[1:])


def lasso(widget: Any) -> float:
    """Return the milliseconds from letting go of the mouse to both views being updated."""
    canvas = widget.scatter.canvas
    width, height = canvas.scene.size
    turns = np.linspace(0, 2 * np.pi, VERTICES)
    seconds = []
    for number in range(REPEATS + 1):
        # Never the same outline twice: an equal selection costs nothing.
        radius = height * (0.25 + 0.02 * number)
        path = np.stack(
            [width / 2 + radius * np.cos(turns), height / 2 + radius * np.sin(turns)], 1
        )
        canvas.scene.events.mouse_press(pos=path[0], button=1)
        canvas._corners = [tuple(p) for p in path]
        began = time.perf_counter()
        canvas.scene.events.mouse_release(pos=path[-1], button=1)
        seconds.append(time.perf_counter() - began)
        assert widget.session.selection.any()
    return 1000 * statistics.median(seconds[1:])


def pan(widget: Any) -> float:
    """Return the milliseconds of one step of a drag."""
    canvas = widget.scatter.canvas
    canvas.scene.events.mouse_press(pos=(100, 100), button=2)
    found = median_ms(lambda n: canvas.scene.events.mouse_move(pos=(100 + 3 * n, 100), button=2))
    canvas.scene.events.mouse_release(pos=(130, 100), button=2)
    return found


def repaint(widget: Any, application: Any) -> float:
    """Return the milliseconds that Qt and OpenGL take to paint both views after a selection."""
    seconds = []
    for number in range(REPEATS + 1):
        widget.session.select_labels([1 + number % K])
        began = time.perf_counter()
        widget.scatter.canvas.scene.native.repaint()
        application.processEvents()
        seconds.append(time.perf_counter() - began)
    return 1000 * statistics.median(seconds[1:])


def hover() -> float:
    """Return the milliseconds to read a patch in every stain of slides that were just opened."""
    from napari_pancluster.core.results import patches_of

    fresh = [drawn_results(320, 320) for _ in range(REPEATS + 1)]
    rng = np.random.default_rng(1)
    rows = [int(r) for r in rng.integers(len(fresh[0].table), size=REPEATS + 1)]
    return median_ms(lambda n: patches_of(fresh[n], [rows[n]]))


PEER = f"""
import statistics, sys, time
import napari, numpy as np, pandas as pd
from qtpy.QtWidgets import QApplication
from napari_clusters_plotter import PlotterWidget
rng = np.random.default_rng(0)
n = 102400
base = np.arange(n) % 20
xy = rng.normal(0, 6, (20, 2))[base] + rng.normal(0, 1, (n, 2))
viewer = napari.Viewer(show=True)
features = pd.DataFrame({{"umap_1": xy[:, 0], "umap_2": xy[:, 1]}})
layer = viewer.add_points(rng.uniform(0, 4000, (n, 2)), features=features, size=8)
viewer.layers.selection.active = layer
widget = PlotterWidget(viewer)
viewer.window.add_dock_widget(widget)
widget.plotting_type = "SCATTER"
widget.x_axis, widget.y_axis = "umap_1", "umap_2"
for _ in range(10):
    QApplication.processEvents()
selector = widget.plotting_widget.selectors["LASSO"]
turns = np.linspace(0, 2 * np.pi, {VERTICES})
seconds = []
for k in range(4):
    r = 5 + 0.4 * k
    outline = np.stack([r * np.cos(turns), r * np.sin(turns)], 1)
    widget.plotting_widget.class_spinbox.value = 1 + k
    began = time.perf_counter()
    selector.on_select(outline)
    seconds.append(time.perf_counter() - began)
    for _ in range(5):
        QApplication.processEvents()
print("MS", 1000 * statistics.median(seconds[1:]))
"""


def peer(python: str) -> float | None:
    """Return the same lasso's milliseconds in napari-clusters-plotter, or None if it fails."""
    done = subprocess.run(
        [python, "-c", PEER], capture_output=True, text=True, check=False, timeout=600
    )
    lines = [line for line in done.stdout.splitlines() if line.startswith("MS ")]
    if not lines:
        tail = done.stderr.strip().splitlines()[-1:] or ["no output"]
        print(f"The peer did not run: {tail[0]}", file=sys.stderr)
        return None
    return float(lines[-1].split()[1])


if __name__ == "__main__":
    main()
