"""`pancluster`: one subcommand a verb of the pipeline."""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from types import FrameType
from typing import Annotated, Any, Literal, NoReturn, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from napari_pancluster import __version__, _commands
from napari_pancluster._terminal import Reporter
from napari_pancluster.core.config import (
    EmbedConfig,
    MapConfig,
    SelectConfig,
    SynthConfig,
    TissueConfig,
    TrainConfig,
)
from napari_pancluster.core.errors import InputError, PanclusterError

_USAGE, _INTERRUPTED = 2, 130


class _Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, like all others."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}. See: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    try:
        options = _parser().parse_args(argv)
    except InputError as error:
        print(f"pancluster: {error}", file=sys.stderr)
        return _USAGE
    reporter = Reporter(quiet=options.quiet)
    warnings.showwarning = lambda message, *_args, **_kwargs: reporter.warn(str(message))
    try:
        with _interruptible():
            result = options.command(options, reporter)
    except KeyboardInterrupt:
        reporter.fail("Interrupted. The project is as it was.")
        return _INTERRUPTED
    except PanclusterError as error:
        reporter.fail(str(error))
        return _USAGE
    except OSError as error:
        what = error.filename or "A file"
        reporter.fail(
            f"{what}: {error.strerror or error}. Check the path, its permissions and the disk."
        )
        return _USAGE
    reporter.close()
    if options.json:
        print(json.dumps(result))
    else:
        reporter.show(result)
    return 0


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C and a polite kill raise KeyboardInterrupt, also where a shell ignores SIGINT."""

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    try:
        kept = {s: signal.signal(s, interrupt) for s in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: its owner decides about signals
        kept = {}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="pancluster",
        description="Tissue clusters from serial, differently stained sections, "
        "without annotation. Research use only.",
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    def command(
        name: str, function: Callable[..., dict[str, Any]], help_: str, *, project: bool = True
    ) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=help_, description=help_)
        sub.set_defaults(command=function)
        if project:
            sub.add_argument("project", metavar="PROJECT", help="a folder NAME.pancluster")
        sub.add_argument("--json", action="store_true", help="print one JSON object, nothing else")
        sub.add_argument("--quiet", action="store_true", help="no progress")
        return sub

    sub = command(
        "demo", _commands.demo, "the whole job on the packaged liver sample", project=False
    )
    sub.add_argument("--out", default="pancluster-demo", help="folder to work in")

    sub = command(
        "synth", _commands.synth, "draw a synthetic section with known truth", project=False
    )
    sub.add_argument("target", metavar="OUT", help="folder to write")
    _add_fields(sub, SynthConfig, skip=("deform",))
    sub.add_argument(
        "--no-deform",
        dest="deform",
        action="store_false",
        default=argparse.SUPPRESS,
        help="leave the moving stains in the frame of the reference",
    )

    sub = command("info", _commands.info, "what a slide or a project is", project=False)
    sub.add_argument("path", metavar="PATH", help="a slide or a project")

    sub = command("new", _commands.new, "make a project; the slides stay where they are")
    sub.add_argument(
        "--slide", action="append", default=[], metavar="STAIN=PATH", help="one a stain"
    )
    sub.add_argument(
        "--sheet",
        help="CSV with columns case,stain,path,mpp,reference,channels instead of --slide; others "
        "(group, age, …) are kept",
    )
    sub.add_argument("--case", default="case", help="name of the case")
    sub.add_argument("--reference", metavar="STAIN", help="the fixed stain (default: the first)")
    sub.add_argument(
        "--mpp",
        action="append",
        default=[],
        metavar="STAIN=MPP",
        help="pixel size in µm/px, or an objective as 20x; ? lets register estimate that of a "
        "moving stain",
    )
    sub.add_argument(
        "--channels",
        action="append",
        default=[],
        metavar="STAIN=1,3",
        help="up to three channels of a fluorescence slide, by number or name (default: the first)",
    )
    sub.add_argument("--uncalibrated", action="store_true", help="count 1 px as 1 unit")
    sub.add_argument("--icc", action="store_true", help="apply the colour profiles in the files")

    sub = command("tissue", _commands.tissue, "find the tissue of every case, and keep it")
    sub.add_argument("--case", help="only this case")
    sub.add_argument(
        "--annotations", metavar="GEOJSON", help="keep to these areas of the reference"
    )
    _add_fields(sub, TissueConfig, skip=("leave_out_marks",))
    sub.add_argument(
        "--keep-marks",
        dest="leave_out_marks",
        action="store_false",
        default=argparse.SUPPRESS,
        help="do not look for pen marks and coverslip edges",
    )

    sub = command("relocate", _commands.relocate, "find slides that were moved")
    sub.add_argument("folder", metavar="FOLDER", help="where to look, with all folders in it")

    sub = command(
        "register", _commands.register, "bring every stain into the frame of the reference"
    )
    sub.add_argument("--case", help="only this case")
    sub.add_argument("--stain", action="append", default=[], help="only this stain; repeatable")
    sub.add_argument(
        "--landmarks",
        action="append",
        default=[],
        metavar="STAIN=CSV",
        help="matched points: fixed_x,fixed_y,moving_x,moving_y in level-0 px",
    )
    sub.add_argument("--config", help="JSON file of registration options")

    sub = command(
        "versions", _commands.versions, "earlier registrations: keep, go back to, rename, lock"
    )
    sub.add_argument("--case", help="only this case")
    sub.add_argument("--stain", help="only this stain")
    action = sub.add_mutually_exclusive_group()
    action.add_argument("--keep", metavar="NAME", help="give the one in use a name")
    action.add_argument("--revert", metavar="NAME", help="go back to this one")
    action.add_argument("--rename", nargs=2, metavar=("OLD", "NEW"), help="give it another name")
    action.add_argument(
        "--lock",
        dest="locked",
        action="store_const",
        const=True,
        help="let nothing replace the one in use",
    )
    action.add_argument(
        "--unlock", dest="locked", action="store_const", const=False, help="let it be replaced"
    )

    sub = command("points", _commands.points, "map points of one stain's slide into another's")
    _add_between(sub)
    sub.add_argument("source", metavar="IN.csv", help="columns x,y in level-0 px")
    sub.add_argument("target", metavar="OUT.csv")

    sub = command(
        "transfer",
        _commands.transfer,
        "carry annotations or labels from one stain's slide to another's",
    )
    _add_between(sub)
    sub.add_argument("source", metavar="IN", help="GeoJSON as QuPath writes it, or a label image")
    sub.add_argument("target", metavar="OUT")

    sub = command("transforms", _commands.transforms, "write the registrations for ITK")
    sub.add_argument("out", metavar="OUT", help="folder for the .h5 files, a .json beside each")
    sub.add_argument("--case", help="only this case")

    sub = command("warp", _commands.warp, "write registered slides in the frame of the reference")
    sub.add_argument("out", metavar="OUT", help="folder for the slides")
    sub.add_argument("--case", help="only this case")
    sub.add_argument("--stain", action="append", default=[], help="only this stain; repeatable")
    sub.add_argument("--format", choices=["ome-tiff", "ome-zarr"], default="ome-tiff")
    sub.add_argument("--mpp", type=float, help="µm/px (default: the coarser of the two slides')")

    sub = command("train", _commands.train, "train the autoencoder and the clustering together")
    _add_fields(sub, TrainConfig)
    sub.add_argument("--resume", action="store_true", help="go on with the newest interrupted run")

    sub = command(
        "select-k", _commands.select_k, "validation indices for every k, and a suggestion"
    )
    sub.add_argument("--run", help="a training run (default: the newest)")
    sub.add_argument("--k", metavar="2-20", help="only these numbers of clusters")
    _add_fields(sub, SelectConfig)
    _add_fields(sub, MapConfig, skip=("smooth",))

    sub = command("map", _commands.map, "assign every patch of every case to a cluster")
    sub.add_argument("--run", help="a training run (default: the newest)")
    sub.add_argument(
        "--k", type=int, help="number of clusters (default: as trained, or as suggested)"
    )
    sub.add_argument(
        "--model",
        metavar="MODEL",
        help="a network trained elsewhere: a folder made by 'pancluster model', PROJECT or "
        "PROJECT:RUN",
    )
    sub.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="spread the cases over a dask.distributed cluster, such as tcp://127.0.0.1:8786",
    )
    _add_map_fields(sub)

    sub = command("model", _commands.model, "write a trained network with its model card")
    sub.add_argument("target", metavar="OUT", help="folder to write into")
    sub.add_argument("--run", help="a training run (default: the newest)")

    sub = command("embed", _commands.embed, "UMAP of the latents")
    sub.add_argument("--run", help="a training run (default: the newest)")
    _add_fields(sub, EmbedConfig)

    sub = command("export", _commands.export, "cluster maps, tables and pictures")
    sub.add_argument("target", metavar="OUT", help="folder to write into")
    sub.add_argument(
        "--to",
        default="ome-tiff,csv,png",
        metavar="FORMATS",
        help="some of ome-tiff,ome-zarr,geojson,csv,png,h5ad (default: ome-tiff,csv,png)",
    )
    sub.add_argument(
        "--geojson-for",
        action="append",
        default=[],
        metavar="STAIN",
        help="the areas of geojson on this stain's own slide, too; repeatable",
    )
    sub.add_argument("--run", help="a training run (default: the newest)")

    sub = command(
        "describe", _commands.describe, "what the clusters are: stains, neighbours, areas, classes"
    )
    sub.add_argument("--run", help="a training run (default: the newest)")
    sub.add_argument("--k", type=int, help="number of clusters (default: that of the map)")
    sub.add_argument(
        "--group", metavar="COLUMN", help="a column of the sample sheet: areas by group of cases"
    )
    sub.add_argument(
        "--annotations", metavar="GEOJSON", help="areas with classes, as QuPath writes them"
    )
    sub.add_argument("--case", help="whose slide is annotated (default: the only case)")
    sub.add_argument("--stain", help="the slide that is annotated (default: the reference)")
    sub.add_argument("--out", metavar="DIR", help="folder for the tables and the heat map")

    command("open", _commands.open_window, "napari with the project loaded and the panels docked")

    sub = command("run", _commands.run, "every step that is missing or stale")
    _add_fields(sub, TrainConfig)
    _add_map_fields(sub)
    sub.add_argument("--strict", action="store_true", help="fail when only the reference is left")
    return parser


def _add_fields(
    parser: argparse.ArgumentParser, model: type[BaseModel], *, skip: tuple[str, ...] = ()
) -> None:
    """Add an option for every field of a config; what is not named stays out of the options."""
    for name, info in model.model_fields.items():
        if name in skip:
            continue
        description = (info.description or info.title or name).rstrip(".")
        default = "" if info.default is None else f" (default: {info.default})"
        parser.add_argument(
            "--" + name.replace("_", "-"),
            dest=name,
            default=argparse.SUPPRESS,
            type=_converter(info),
            metavar=_metavar(info),
            help=f"{description}{default}".replace("%", "%%"),
        )


def _add_map_fields(parser: argparse.ArgumentParser) -> None:
    """Add the options of a map."""
    _add_fields(parser, MapConfig, skip=("smooth",))
    parser.add_argument(
        "--smooth",
        action="store_true",
        default=argparse.SUPPRESS,
        help=MapConfig.model_fields["smooth"].description,
    )


def _add_between(parser: argparse.ArgumentParser) -> None:
    """Add the options that say from which stain's slide to which something is carried."""
    parser.add_argument("--case", required=True)
    parser.add_argument("--from", dest="from_", required=True, metavar="STAIN")
    parser.add_argument("--to", required=True, metavar="STAIN")


def _types(info: FieldInfo) -> tuple[list[type], list[object]]:
    """Return the plain types and the literal choices that a field takes."""
    annotation: Any = info.annotation
    members = (
        [annotation]
        if isinstance(annotation, type) or get_origin(annotation) is Literal
        else get_args(annotation)
    )
    members = [get_args(m)[0] if get_origin(m) is Annotated else m for m in members]
    choices = [c for m in members if get_origin(m) is Literal for c in get_args(m)]
    return [m for m in members if m in (int, float, str)], choices


def _metavar(info: FieldInfo) -> str:
    plain, choices = _types(info)
    return "|".join([t.__name__.upper() for t in plain] + [str(c) for c in choices])


def _converter(info: FieldInfo) -> Callable[[str], object]:
    """Return the function that reads a field's value; bounds are the config's business."""
    plain, choices = _types(info)

    def convert(text: str) -> object:
        for choice in choices:
            if text == str(choice):
                return choice
        for kind in plain:
            try:
                value: object = kind(text)
            except ValueError:
                continue
            return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {_metavar(info)}")

    return convert
