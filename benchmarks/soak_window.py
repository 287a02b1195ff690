"""A long session in the window: panning, brushing, editing and re-running, and the memory it takes.

Works on a copy of the packaged pancreas sample in a temporary folder. Prints a line a minute with
the least and the most memory in it (training takes some and gives it back, so a single look says
little); a flat least and no error is the aim. Not a part of `make bench`: it takes as long as it is
told to.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

# Small enough to be trained anew every few minutes.
TRAINING = {"epochs": 2, "patches": 512, "width": 16, "latent": 32, "k_max": 12}
RERUN_S = 40


def main() -> None:
    """Run the session and print the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak(Path(folder), options.minutes * 60, options.seed)


def soak(folder: Path, seconds: float, seed: int) -> None:
    """Act at random for some seconds."""
    import napari
    from qtpy.QtWidgets import QApplication

    from napari_pancluster._widgets.main import dock
    from napari_pancluster.core.config import MapConfig

    errors: list[str] = []
    viewer = napari.Viewer(show=True)
    main_widget = dock(viewer)
    main_widget.jobs.failed.connect(errors.append)
    viewer.open_sample("napari-pancluster", "pancreas")
    slides = main_widget.slides
    slides.create(folder / "soak.pancluster", slides.entries(), nominal=True)
    wait(lambda: main_widget.session.stack is not None, QApplication)
    main_widget.work.everything({**TRAINING, "k": 8})
    wait(lambda: main_widget.session.results is not None, QApplication)
    rng = np.random.default_rng(seed)
    began = shown = rerun = time.monotonic()
    actions, runs, memory = 0, 0, []
    print("minute  least MB  most MB  actions  re-runs  worst stall ms")
    worst, seen = 0.0, []
    while time.monotonic() - began < seconds:
        start = time.monotonic()
        act(main_widget, rng)
        QApplication.processEvents()
        actions += 1
        worst = max(worst, time.monotonic() - start)
        if actions % 10 == 0:
            seen.append(psutil.Process().memory_info().rss / 2**20)
        if time.monotonic() - rerun > RERUN_S and main_widget.jobs.current is None:
            if runs % 2:
                main_widget.work.map(MapConfig(stride_px=int(rng.choice([24, 32, 48]))), None)
            else:
                main_widget.work.train({**TRAINING, "k": 8, "seed": runs}, MapConfig())
            runs, rerun = runs + 1, time.monotonic()
        if time.monotonic() - shown > 60:
            gc.collect()
            memory.append(min(seen))
            minute = round((time.monotonic() - began) / 60)
            print(
                f"{minute:6}{min(seen):10.0f}{max(seen):9.0f}{actions:9}{runs:9}"
                f"{1000 * worst:14.0f}",
                flush=True,
            )
            shown, worst, seen = time.monotonic(), 0.0, []
        time.sleep(0.02)
    main_widget.close_session()
    viewer.close()
    half = len(memory) // 2
    if half:
        first, second = np.median(memory[:half]), np.median(memory[half:])
        print(f"median of the least MB: first half {first:.0f}, second half {second:.0f}")
    print(f"errors: {errors or 'none'}")


def wait(true: Any, application: Any) -> None:
    """Let the window live until something is true."""
    while not true():
        application.processEvents()
        time.sleep(0.02)


def act(widget: Any, rng: np.random.Generator) -> None:
    """Do one thing a user does."""
    session, canvas, camera = widget.session, widget.scatter.canvas, widget.viewer.scene.camera
    width, height = canvas.scene.size
    match int(rng.integers(9)):
        case 0:
            turns = np.linspace(0, 2 * np.pi, 40)
            radius = rng.uniform(5, height / 2)
            centre = rng.uniform([0, 0], [width, height])
            path = centre + radius * np.stack([np.cos(turns), np.sin(turns)], 1)
            canvas.scene.events.mouse_press(pos=path[0], button=1)
            for place in path[1:]:
                canvas.scene.events.mouse_move(pos=place, button=1)
            canvas.scene.events.mouse_release(pos=path[-1], button=1)
        case 1:
            camera.center = tuple(np.add(camera.center, (0, *rng.normal(0, 300, 2))))
        case 2:
            camera.zoom = float(np.exp(rng.uniform(-4, 0)))
        case 3:
            session.point_at(int(rng.integers(len(session.labels))))
        case 4:
            session.choose_k(int(rng.choice(session.results.ks)))
        case 5:
            session.select_labels([int(rng.choice(session.edits.labels))])
        case 6:
            session.undo()
        case 7:
            widget.tissue.fly_to(int(rng.integers(len(session.labels))))
        case _:
            layers = widget.viewer.layers
            layer = layers[int(rng.integers(len(layers)))]
            layer.visible = not layer.visible


if __name__ == "__main__":
    main()
