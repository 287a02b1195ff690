"""The whole job on a packaged sample."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from napari_pancluster.core.cases import SlideEntry, make_cases
from napari_pancluster.core.pipeline.everything import run_all
from napari_pancluster.core.pipeline.exporting import FORMATS, export
from napari_pancluster.core.progress import Task
from napari_pancluster.core.project import Project, project_path
from napari_pancluster.samples import Sample, liver

# Half of the usual: enough for this tissue, and a demonstration should take minutes.
_EPOCHS = 20


def demo(
    out: Path, *, sample: Sample | None = None, warn: Callable[[str], object] = lambda _: None
) -> Task[dict[str, Any]]:
    """Register, train, map and export a packaged sample; goes on with what is there already.

    Parameters
    ----------
    out
        Folder for the project and its exports.
    sample
        Default: the liver.
    warn
        Told, in a sentence, what the user should know.
    """
    sample = sample or liver()
    path = project_path(out / sample.name)
    if path.exists():
        project = Project.open(path)
    else:
        entries = [
            SlideEntry(sample.name, stain, file, mpp=str(sample.mpp))
            for stain, file in sample.slides.items()
        ]
        project = Project.create(path, make_cases(entries, nominal=True))
    results = yield from run_all(project, train={"epochs": _EPOCHS}, warn=warn)
    results["export"] = yield from export(project, out / "pictures", list(FORMATS))
    return results
