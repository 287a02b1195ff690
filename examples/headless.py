"""The whole path without a window: slides in, cluster maps, a UMAP and tables out.

Run it with no argument on the packaged pancreas, or on your own slides::

    python examples/headless.py out HE=he.svs CK19=ck19.svs
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.pipeline.everything import run_all
from napari_pancluster.core.pipeline.exporting import export
from napari_pancluster.core.progress import run
from napari_pancluster.core.project import Project
from napari_pancluster.samples import pancreas


def analyse(out: Path, entries: list[SlideEntry], **train: Any) -> dict[str, Any]:
    """Register the slides of a case, learn its tissues, map them, and export all of it."""
    project = Project.create(out / "analysis", make_cases(entries))
    results = run(run_all(project, train=train, warn=print), lambda p: print(p.stage, p.done))
    results["export"] = run(export(project, out, ["ome-tiff", "csv", "png"]))
    return results


def main(arguments: list[str]) -> None:
    """Analyse the slides named as STAIN=PATH, or the packaged pancreas."""
    out = Path(arguments[0] if arguments else "headless-out")
    named = [argument.split("=", 1) for argument in arguments[1:]]
    entries = [SlideEntry("case", stain, Path(path)) for stain, path in named]
    if not entries:
        sample = pancreas()
        entries = [
            SlideEntry(sample.name, stain, path, mpp=str(sample.mpp))
            for stain, path in sample.slides.items()
        ]
    results = analyse(out, entries)
    print(results["select-k"]["why"], *results["export"]["files"], sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
