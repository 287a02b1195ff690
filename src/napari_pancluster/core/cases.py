"""Cases as the user names them: options or a sample sheet, checked slide by slide."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from napari_pancluster.core.errors import InputError, SlideError
from napari_pancluster.core.profile import can_apply_profile, with_profile
from napari_pancluster.core.readers.base import PLAUSIBLE_MPP
from napari_pancluster.core.records import CaseRecord, StainRecord
from napari_pancluster.core.separation import slide_gain
from napari_pancluster.core.slide import Slide, open_slide
from napari_pancluster.core.stain import Stain

_NAME = re.compile(r"[^\W][\w .+&()-]*")
_COLUMNS = ("case", "stain", "path")
_OPTIONAL = ("mpp", "reference", "channels", "icc")
_MAGNIFICATION = re.compile(r"(\d+(?:\.\d+)?)\s*[x×]", re.IGNORECASE)
# Of nearly every scanner: 0.25 µm/px at 40x, 0.5 at 20x.
_UM_TIMES_POWER = 10.0
_YES = {"1", "true", "yes", "y", "x"}
ESTIMATE = "?"


@dataclass(frozen=True)
class SlideEntry:
    """One slide as asked for.

    Attributes
    ----------
    mpp
        µm/px as text, or an objective's power (``20x``); empty: the file's own; ``?``: left to
        registration.
    reference
        Whether the user marked it as the fixed one.
    channels
        One to three of a multi-channel slide's, by number from 1 or by name, with commas between;
        empty: the first three.
    profiled
        Whether the colour profile in the file is applied.
    extra
        What else a sample sheet says of the slide.
    """

    case: str
    stain: str
    path: Path
    mpp: str = ""
    reference: bool = False
    channels: str = ""
    profiled: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)


def entries_of_options(
    slides: Iterable[str],
    mpps: Iterable[str],
    *,
    case: str,
    reference: str | None,
    channels: Iterable[str] = (),
    profiled: bool = False,
) -> list[SlideEntry]:
    """Return the slides of one case from ``STAIN=PATH``, ``STAIN=MPP`` … options."""
    paths = option_pairs(slides, "--slide", "HE=HE.svs")
    sizes = option_pairs(mpps, "--mpp", "HE=0.5")
    chosen = option_pairs(channels, "--channels", "IF=1,3")
    for flag, given in (("--mpp", sizes), ("--channels", chosen)):
        unknown = sorted(set(given) - set(paths))
        if unknown:
            raise InputError(
                f"{flag} names {unknown[0]!r}, which is no --slide. "
                f"Name one of: {', '.join(paths)}."
            )
    if reference is not None and reference not in paths:
        raise InputError(
            f"--reference {reference!r} is no --slide. Name one of: {', '.join(paths)}."
        )
    return [
        SlideEntry(
            case,
            name,
            Path(path),
            sizes.get(name, ""),
            name == reference,
            chosen.get(name, ""),
            profiled,
        )
        for name, path in paths.items()
    ]


def entries_of_sheet(sheet: Path) -> list[SlideEntry]:
    """Return the slides of a CSV sample sheet; relative paths start at the sheet's folder.

    Columns with other names (group, age, …) are kept with the slide.

    Raises
    ------
    InputError
        If the sheet is missing, or lacks a column or a value.
    """
    try:
        with sheet.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(
            f"{sheet} cannot be read ({error}). Give a CSV file as sample sheet."
        ) from error
    if not rows:
        raise InputError(f"{sheet} lists no slide. Add one line a slide below the header.")
    entries = []
    for number, row in enumerate(rows, start=2):
        missing = [c for c in _COLUMNS if not (row.get(c) or "").strip()]
        if missing:
            raise InputError(
                f"{sheet}, line {number}: no {missing[0]}. Fill the column {missing[0]!r}."
            )
        text = {c: (row.get(c) or "").strip() for c in (*_COLUMNS, *_OPTIONAL)}
        # A cell beyond the last column is filed under None.
        others = {c: v for c, v in row.items() if c and c not in text and isinstance(v, str)}
        entries.append(
            SlideEntry(
                text["case"],
                text["stain"],
                sheet.absolute().parent / Path(text["path"]).expanduser(),
                text["mpp"],
                text["reference"].lower() in _YES,
                text["channels"],
                text["icc"].lower() in _YES,
                {c.strip(): v.strip() for c, v in others.items() if v.strip()},
            )
        )
    return entries


def make_cases(
    entries: Iterable[SlideEntry], *, uncalibrated: bool = False, nominal: bool = False
) -> tuple[CaseRecord, ...]:
    """Open every slide once and return the records of the cases.

    Parameters
    ----------
    entries
        The slides; the first of a case is its reference unless one is marked.
    uncalibrated
        Count one pixel as one unit, whatever the files say.
    nominal
        The pixel sizes given are plausible, not measured, and shown as such.

    Raises
    ------
    InputError, SlideError
        On the first slide, name or pixel size that cannot be used.
    """
    by_case: dict[str, list[SlideEntry]] = {}
    for entry in entries:
        by_case.setdefault(entry.case, []).append(entry)
    if not by_case:
        raise InputError("No slide was given. Pass --slide STAIN=PATH or --sheet slides.csv.")
    cases = [_make_case(name, group, uncalibrated, nominal) for name, group in by_case.items()]
    return _with_relative_gains(cases)


def _with_relative_gains(cases: list[CaseRecord]) -> tuple[CaseRecord, ...]:
    """Return the cases with gains that bring the slides of a stain to their own common strength.

    Not to a strength for all: densities are stored up to a limit, and a strong stain must not be
    driven over it. A stain that only one case has is left as it is.
    """
    logs: dict[str, list[float]] = {}
    for stain in (s for case in cases for s in case.stains):
        logs.setdefault(stain.name, []).append(float(np.log(stain.gain)))
    common = {name: float(np.exp(np.mean(found))) for name, found in logs.items()}
    changed = []
    for case in cases:
        stains = tuple(
            s.model_copy(update={"gain": s.gain / common[s.name] if len(logs[s.name]) > 1 else 1.0})
            for s in case.stains
        )
        changed.append(case.model_copy(update={"stains": stains}))
    return tuple(changed)


def _make_case(name: str, group: list[SlideEntry], uncalibrated: bool, nominal: bool) -> CaseRecord:
    for kind, text in [("case", name), *(("stain", e.stain) for e in group)]:
        if not _NAME.fullmatch(text):
            raise InputError(
                f"{text!r} cannot name a {kind}. Use letters, digits, spaces and . _ + & - ( )."
            )
    names = [e.stain for e in group]
    twice = next((n for n in names if names.count(n) > 1), None)
    if twice is not None:
        raise InputError(
            f"Case {name} has stain {twice!r} twice. Give every slide of a case its own stain name."
        )
    marked = [e.stain for e in group if e.reference]
    if len(marked) > 1:
        raise InputError(
            f"Case {name} has {len(marked)} references ({', '.join(marked)}). Mark one."
        )
    reference = marked[0] if marked else names[0]
    if uncalibrated:
        group = [replace(e, mpp="") for e in group]
    records = tuple(_make_stain(e, e.stain == reference, uncalibrated, nominal) for e in group)
    return CaseRecord(name=name, reference=reference, stains=records)


def _make_stain(
    entry: SlideEntry, is_reference: bool, uncalibrated: bool, nominal: bool
) -> StainRecord:
    slide = open_slide(entry.path)
    if entry.profiled:
        slide = with_profile(slide)
    stain = Stain.of(entry.stain, slide, _channels(entry, slide))
    gain = slide_gain(stain)
    slide.close()
    mpp: float | None
    if uncalibrated:
        mpp, source = 1.0, "uncalibrated"
    elif entry.mpp == ESTIMATE or (not entry.mpp and slide.mpp is None and not is_reference):
        mpp, source = None, "unknown"
    elif entry.mpp:
        mpp, source = _parse_mpp(entry), "nominal" if nominal else "user"
    else:
        mpp, source = slide.mpp, "file"
    if is_reference and mpp is None:
        raise SlideError(
            f"{entry.path.name} (stain {entry.stain}) is the reference and has no pixel size. "
            f"Pass --mpp {entry.stain}=0.5 (µm/px) or {entry.stain}=20x, or --uncalibrated."
        )
    return StainRecord(
        name=entry.stain,
        path=str(slide.path),
        mpp=mpp,
        mpp_source=source,
        fingerprint=slide.fingerprint,
        background=stain.background,
        # A pixel size that was typed is of a square pixel, unless the file knows its shape.
        oblong=1.0 if uncalibrated else slide.oblong,
        modality=stain.modality,
        picked=stain.picked,
        bright=stain.bright,
        full_scale=None if slide.dtype == np.uint8 else stain.slide.full_scale,
        gain=gain,
        profiled=entry.profiled and can_apply_profile(slide),
        extra=dict(entry.extra),
    )


def _channels(entry: SlideEntry, slide: Slide) -> list[int]:
    """Return the channels asked for, numbered from 0."""
    found = []
    names = [n.lower() for n in slide.facts.channel_names]
    for text in filter(None, (t.strip() for t in entry.channels.split(","))):
        if text.isdigit():
            found.append(int(text) - 1)
        elif text.lower() in names:
            found.append(names.index(text.lower()))
        else:
            known = ", ".join(slide.facts.channel_names) or f"1 to {slide.channels}"
            raise InputError(
                f"{entry.path.name} (stain {entry.stain}) has no channel {text!r}. It has: {known}."
            )
    return found


def _parse_mpp(entry: SlideEntry) -> float:
    power = _MAGNIFICATION.fullmatch(entry.mpp.strip())
    try:
        mpp = _UM_TIMES_POWER / float(power.group(1)) if power else float(entry.mpp)
    except (ValueError, ZeroDivisionError):
        mpp = float("nan")
    low, high = PLAUSIBLE_MPP
    if not low <= mpp <= high:
        raise InputError(
            f"Pixel size {entry.mpp!r} of stain {entry.stain} is not between {low} and {high} "
            "µm/px. Give µm/px, an objective's power as 20x, or ? for a moving slide whose scale "
            "is unknown."
        )
    return mpp


def option_pairs(options: Iterable[str], flag: str, example: str) -> Mapping[str, str]:
    """Return ``STAIN=VALUE`` options as a mapping, or say which one is wrong."""
    found: dict[str, str] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name or not value:
            raise InputError(
                f"{flag} {option!r} is not STAIN=VALUE. Write for example {flag} {example}."
            )
        if name in found:
            raise InputError(
                f"{flag} names stain {name!r} twice. Give every slide its own stain name."
            )
        found[name] = value
    return found
