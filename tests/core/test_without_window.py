"""core knows neither Qt nor napari: it imports and works where neither is installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

BLOCKED = """
import importlib.abc, sys
WINDOWS = {"napari", "qtpy", "PySide6", "PyQt6", "PyQt5", "magicgui", "vispy", "superqt"}
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in WINDOWS:
            raise ModuleNotFoundError(f"{name} is blocked")
sys.meta_path.insert(0, Blocker())
"""

IMPORT_ALL = """
import importlib, pkgutil
import napari_pancluster.core as core
names = [m.name for m in pkgutil.walk_packages(core.__path__, core.__name__ + ".")]
for name in names:
    importlib.import_module(name)
assert len(names) > 30, names
"""

HEADLESS = """
from pathlib import Path
sys.path.insert(0, {examples!r})
import headless
from napari_pancluster.core.cases import SlideEntry
results = headless.analyse(
    Path({out!r}),
    [SlideEntry("case", "HE", Path({he!r})), SlideEntry("case", "PAS", Path({pas!r}))],
    epochs=2, patches=128, batch=32, width=8, latent=16, k=3, k_min=2, k_max=4,
)
assert results["register"]["results"][0]["status"] in ("ok", "doubtful", "failed")
assert results["embed"]["points"] == results["map"]["cases"][0]["patches"] > 50
assert all(Path(f).stat().st_size > 0 for f in results["export"]["files"])
print("done", sorted(Path(f).name for f in results["export"]["files"]))
"""


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", BLOCKED + code], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_module_of_core_imports_without_qt_and_napari() -> None:
    python(IMPORT_ALL)


def test_the_headless_example_runs_without_qt_and_napari(islands: Path, tmp_path: Path) -> None:
    code = HEADLESS.format(
        examples=str(ROOT / "examples"), out=str(tmp_path), he=str(islands), pas=str(islands)
    )
    out = python(code)
    for name in ("case_clusters.ome.tif", "patches.csv", "clusters.csv", "umap.png", "gallery.png"):
        assert name in out
