"""The subcommands of `pancluster`: parsed options in, a JSON object out.

The science is imported inside each function, so that help and errors come at once.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from napari_pancluster._terminal import Reporter
from napari_pancluster.core.config import (
    EmbedConfig,
    MapConfig,
    RegisterConfig,
    SelectConfig,
    SynthConfig,
    TrainConfig,
)
from napari_pancluster.core.errors import InputError

Options = argparse.Namespace
Result = dict[str, Any]


def demo(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.demo import demo as demo_task

    return reporter.drive(demo_task(Path(options.out), warn=reporter.warn))


def synth(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.synth import synthesise

    given = _given(options, SynthConfig)
    made = reporter.drive(synthesise(Path(options.target), _config(SynthConfig, given)))
    return {
        "slides": {name: str(path) for name, path in made.slides.items()},
        "sheet": str(made.sheet),
        "truth_labels": str(made.truth_labels),
        "truth_points": str(made.truth_points),
        "tissues": made.tissues,
    }


def info(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.project import Project, project_path

    path = Path(options.path).expanduser()
    # An OME-Zarr is a folder too.
    if project_path(path).is_dir():
        from napari_pancluster.core.pipeline.describe import describe_project

        return describe_project(Project.open(path))
    from napari_pancluster.core.pipeline.slide_info import describe_slide

    return describe_slide(path)


def new(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.cases import entries_of_options, entries_of_sheet
    from napari_pancluster.core.pipeline.creating import create_project
    from napari_pancluster.core.project import Project

    if options.sheet and options.slide:
        raise InputError("Both --sheet and --slide were given. Use one of them.")
    if options.sheet:
        entries = entries_of_sheet(Path(options.sheet))
    else:
        entries = entries_of_options(
            options.slide,
            options.mpp,
            case=options.case,
            reference=options.reference,
            channels=options.channels,
            profiled=options.icc,
        )
    task = create_project(Path(options.project), entries, uncalibrated=options.uncalibrated)
    project = Project.open(reporter.drive(task))
    for stain in (s for case in project.state.cases for s in case.stains if s.mpp is None):
        reporter.warn(f"{stain.name} has no pixel size; register will estimate its scale.")
    return {"project": str(project.root), "cases": [c.name for c in project.state.cases]}


def tissue(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.config import TissueConfig
    from napari_pancluster.core.pipeline.opening import open_stack
    from napari_pancluster.core.pipeline.tissue import annotated, keep_tissue, propose_tissue
    from napari_pancluster.core.project import Project

    project = Project.open(Path(options.project))
    config = _config(TissueConfig, _given(options, TissueConfig))
    names = [options.case] if options.case else [c.name for c in project.state.cases]
    if options.annotations and len(names) > 1:
        raise InputError("Annotations belong to one slide. Name its case with --case.")
    found = []
    for name in names:
        stack = open_stack(project, project.case(name))
        mask = propose_tissue(stack, config)
        if options.annotations:
            slide = stack.stain(stack.reference).slide
            mask = annotated(Path(options.annotations), slide, mask)
        keep_tissue(project, name, mask)
        found.append({"case": name, "area_mm2": mask.area_mm2})
    return {"cases": found}


def relocate(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.project import Project
    from napari_pancluster.core.relocating import missing_slides, relocate

    project = Project.open(Path(options.project))
    found = reporter.drive(relocate(project, Path(options.folder).expanduser()))
    missing = [s.path for s in missing_slides(project)]
    return {"project": str(project.root), "found": found, "missing": missing}


def open_window(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.project import Project

    project = Project.open(Path(options.project))
    try:
        import napari

        from napari_pancluster._widgets.main import dock
    except ImportError as error:
        raise InputError(
            f"napari cannot open a window here ({error}). Install a Qt binding: "
            'pip install "napari-pancluster[all]"'
        ) from error
    viewer = napari.Viewer()
    dock(viewer).open_project(project.root)
    napari.run()
    return {"project": str(project.root)}


def register(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.cases import option_pairs
    from napari_pancluster.core.pipeline.registering import register

    landmarks = option_pairs(options.landmarks, "--landmarks", "PAS=pairs.csv")
    task = register(
        _open(options),
        _config(RegisterConfig, _config_file(options.config)),
        cases=[options.case] if options.case else [],
        stains=options.stain,
        landmarks={stain: Path(path) for stain, path in landmarks.items()},
    )
    return reporter.drive(task)


def versions(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.versions import choose_versions, version_lines

    project = _open(options)
    chosen = choose_versions(project, case=options.case, stain=options.stain)
    # All of them or none: a name that one stain lacks changes nothing.
    with project.batch():
        for found in chosen:
            if options.keep is not None:
                found.keep(options.keep)
            elif options.revert is not None:
                found.revert(options.revert)
            elif options.rename is not None:
                found.rename(*options.rename)
            elif options.locked is not None:
                found.lock(locked=options.locked)
    told = [found.describe() for found in chosen]
    return {"versions": told if options.json else version_lines(told)}


def points(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.registering import map_points

    return map_points(_open(options), **_between(options))


def _between(options: Options) -> dict[str, Any]:
    """Return what is carried, and from which stain's slide to which."""
    return {
        "case": options.case,
        "from_": options.from_,
        "to": options.to,
        "source": Path(options.source),
        "target": Path(options.target),
    }


def transfer(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.carrying import transfer_file

    task = transfer_file(_open(options), **_between(options))
    return reporter.drive(task)


def transforms(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.carrying import export_transforms

    cases = [options.case] if options.case else []
    task = export_transforms(_open(options), Path(options.out), cases)
    return {"files": reporter.drive(task)}


def warp(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.carrying import warp_slides

    task = warp_slides(
        _open(options),
        Path(options.out),
        cases=[options.case] if options.case else [],
        stains=options.stain,
        format=options.format,
        mpp=options.mpp,
    )
    return {"files": reporter.drive(task)}


def train(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.training import help_to_train, train_network
    from napari_pancluster.core.ranks import join, started_by_torchrun

    given = _given(options, TrainConfig)
    config = _config(TrainConfig, given)

    def lead() -> Result:
        return reporter.drive(train_network(_open(options), given, resume=options.resume))

    def follow() -> Result:
        help_to_train()
        # One of torchrun's processes speaks for all.
        raise SystemExit(0)

    return join(lead, follow, device=config.device) if started_by_torchrun() else lead()


def select_k(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.mapping import select_clusters

    config = _config(SelectConfig, _given(options, SelectConfig))
    stride = _config(MapConfig, _given(options, MapConfig))
    return reporter.drive(
        select_clusters(_open(options), config, stride, run=options.run, ks=_parse_ks(options.k))
    )


def map(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.mapping import map_clusters
    from napari_pancluster.core.pipeline.naming_over import name_map

    project, config = _open(options), _config(MapConfig, _given(options, MapConfig))
    task = map_clusters(
        project,
        config,
        run=options.run,
        k=options.k,
        model=options.model,
        scheduler=options.scheduler,
    )
    result = reporter.drive(task)
    # The first map of a run has taken them over already.
    names = result.get("names") or name_map(project, result["run"])
    return {**result, "names": names}


def model(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.models import export_model

    return reporter.drive(export_model(_open(options), Path(options.target), run=options.run))


def embed(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.mapping import embed_patches

    config = _config(EmbedConfig, _given(options, EmbedConfig))
    return reporter.drive(embed_patches(_open(options), config, run=options.run))


def export(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.exporting import export

    formats = [name.strip() for name in options.to.split(",") if name.strip()]
    task = export(
        _open(options),
        Path(options.target),
        formats,
        run=options.run,
        geojson_for=options.geojson_for,
    )
    return reporter.drive(task)


def describe(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.describing import Annotated, describe_clusters

    annotated = None
    if options.annotations:
        annotated = Annotated(Path(options.annotations), options.case, options.stain)
    elif options.case or options.stain:
        raise InputError("--case and --stain say whose slide --annotations belong to. Give them.")
    task = describe_clusters(
        _open(options),
        run=options.run,
        k=options.k,
        group=options.group,
        annotated=annotated,
        out=Path(options.out) if options.out else None,
    )
    return reporter.drive(task)


def run(options: Options, reporter: Reporter) -> Result:
    from napari_pancluster.core.pipeline.everything import run_all

    given = _given(options, TrainConfig)
    _config(TrainConfig, given)
    task = run_all(
        _open(options),
        train=given,
        map_config=_config(MapConfig, _given(options, MapConfig)),
        strict=options.strict,
        warn=reporter.warn,
    )
    return reporter.drive(task)


def _open(options: Options) -> Any:
    from napari_pancluster.core.project import Project

    return Project.open(Path(options.project))


def _config(model: type[BaseModel], given: dict[str, Any]) -> Any:
    """Return the config, or say in one line which value is wrong."""
    try:
        return model(**given)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise InputError(f"{first['msg'].removeprefix('Value error, ')}. See --help.") from None
        flag = "--" + str(first["loc"][0]).replace("_", "-")
        raise InputError(
            f"{flag} {first['input']!r}: {first['msg']}. See --help for what it takes."
        ) from None


def _config_file(path: str | None) -> dict[str, Any]:
    if path is None:
        return {}
    try:
        values = json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"--config {path} cannot be read ({error}). Give a JSON file.") from error
    if not isinstance(values, dict):
        raise InputError(f"--config {path} is not a JSON object of options.")
    return values


def _given(options: Options, model: type[BaseModel]) -> dict[str, Any]:
    """Return the fields of a config that were named on the command line."""
    return {name: getattr(options, name) for name in model.model_fields if hasattr(options, name)}


def _parse_ks(text: str | None) -> list[int]:
    """Return the numbers of ``2-20``, ``5,8,13`` or both mixed."""
    if text is None:
        return []
    ks: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        try:
            low = int(first)
            ks |= set(range(low, int(last) + 1)) if dash else {low}
        except ValueError:
            raise InputError(
                f"--k {text!r} is not a range. Write for example --k 2-20 or --k 5,8,13."
            ) from None
    if not ks or min(ks) < 2:
        raise InputError(
            f"--k {text!r}: a clustering has at least 2 clusters. Write for example --k 2-20."
        )
    return sorted(ks)
