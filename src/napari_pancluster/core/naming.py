"""Names proposed for stains and cases: from file names first, then from colours.

A proposal is shown before it is used and can be typed over; where a name says nothing, none is
made up.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from napari_pancluster.core.stain import measure_background, optical_density
from napari_pancluster.core.stain_words import (
    AS_WRITTEN,
    FAMILIES,
    GENES,
    MARKERS,
    NUMBER_PAIRS,
    PLAIN_WORDS,
    ROUTINE,
    SCAN_WORDS,
    SPELT_FAMILIES,
    SUFFIXES,
    WEAK,
)

_LONGEST = 5  # words of one alias

_NOISE = re.compile(
    r"""
    (?<!\d)(?:19|20)\d\d[-_. /]?[01]\d[-_. /]?[0-3]\d(?!\d)      # 2021-03-04, 20210304
      (?:[ T_-]+[0-2]\d[.:_-]?[0-5]\d(?:[.:_-]?[0-5]\d)?(?!\d))? # 10.22.33
    | (?<!\d)[0-3]?\d\.[01]?\d\.(?:19|20)\d\d(?!\d)              # 04.03.2021
    | (?<![^\W_])(?:\d{1,3}(?:[.,]\d+)?x|x\d{1,3})(?![^\W_])     # 20x, x40
    | (?<![^\W_])\d+(?:[.,]\d+)?\s?(?:um|µm|μm|mpp|nm)(?:px)?(?![^\W_])
    | [0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}
    """,
    re.VERBOSE | re.IGNORECASE,
)
# Of a barcode, "DX1" says that it is a diagnostic slide; no marker is called that.
_BARCODE = re.compile(r"(TCGA-\w\w-\w{4})-\w{3}-\w\w-(?:DX|TS|BS|MS)\w+", re.IGNORECASE)
_GREEK = str.maketrans({"α": "a", "β": "b", "γ": "g", "δ": "d"})
_WORD = re.compile(r"[^\W_]+")
_ASCII = r"A-Za-z0-9α-ω"
# Between the words of "liverHE", "KPC12HE" and "肝HE染色".
_INNER = re.compile(
    rf"(?<=[a-z])(?=[A-Z])|(?<=\d)(?=[A-Z])|(?<=[α-ω])(?=[A-Z])"
    rf"|(?<=[{_ASCII}])(?=[^{_ASCII}])|(?<=[^{_ASCII}])(?=[{_ASCII}])"
)
_STAINING = re.compile(r"(stain|stains|stained|staining|färbung|染色|免疫染色)$", re.IGNORECASE)
_NOT_IN_NAMES = re.compile(r"[^\w .+&()-]+")

# Shares of stained pixels: below the first, brown is dirt and pigment.
_LEAST_BROWN, _LEAST_HUE = 0.02, 0.5
_STAINED_OD = 0.15
# Of the slide; where less is stained, dirt weighs as much as tissue.
_LEAST_STAINED = 0.01


@dataclass(frozen=True)
class _Word:
    """A piece of a file name from `start` to `stop`."""

    text: str
    start: int
    stop: int

    @property
    def key(self) -> str:
        return self.text.lower().translate(_GREEK)


@dataclass(frozen=True)
class _Hit:
    """A stain known by name, at the words `first` … `last` - 1."""

    first: int
    last: int
    name: str
    routine: bool
    weak: bool


@dataclass(frozen=True)
class _FileName:
    """A file name taken apart; dates, magnifications and extensions are left out."""

    text: str
    words: tuple[_Word, ...]
    hits: tuple[_Hit, ...]

    @classmethod
    def of(cls, path: Path) -> _FileName:
        text = _BARCODE.sub(r"\1", unicodedata.normalize("NFKC", _stem(path)))
        text = _NOISE.sub(lambda m: " " * len(m[0]), text)
        words = tuple(_words(text))
        return cls(text, words, tuple(_find_known(words, text)))

    def whole_words(self) -> list[_Word]:
        """Return the words between separators, without what is in brackets."""
        bare = re.sub(r"\([^()]*\)|\[[^\[\]]*\]", lambda m: " " * len(m[0]), self.text)
        return [_Word(m[0], *m.span()) for m in _WORD.finditer(bare)]


def propose_stain(
    path: Path, thumbnail: NDArray[np.floating] | None = None, taken: Collection[str] = ()
) -> str:
    """Return a name for the stain of one slide.

    Parameters
    ----------
    thumbnail
        (rows, cols, 3), 0 to 255; asked where the file name says nothing.
    taken
        Names in use in the case; the proposal is another one.
    """
    return _unused(_of_files([path], [thumbnail])[0], taken)


def propose_stains(
    paths: Sequence[Path],
    thumbnails: Sequence[NDArray[np.floating] | None] | None = None,
    taken: Collection[str] = (),
) -> list[str]:
    """Return a name for the stain of every slide of a case, each once.

    What all file names share cannot be the stain, so with several files a word that differs
    between them counts, even where it is no stain known here.

    Parameters
    ----------
    thumbnails
        As in `propose_stain`, one a path.
    """
    names: list[str] = []
    for name in _of_files(paths, thumbnails or [None] * len(paths)):
        names.append(_unused(name, [*taken, *names]))
    return names


def propose_case(paths: Sequence[Path]) -> str:
    """Return a name for the case that these slides belong to.

    What the file names share before (else after) their stains; else the name of their folder.
    """
    files = [_FileName.of(p) for p in paths]
    chosen = [_without_stain(f) for f in files]
    for end in (0, -1):
        name = _shared(files, chosen, end)
        if name:
            return name
    folders = [p.absolute().parent.name for p in paths]
    return next((_cleaned(f) for f in folders if _cleaned(f)), "case")


def _of_files(
    paths: Sequence[Path], thumbnails: Sequence[NDArray[np.floating] | None]
) -> list[str]:
    files = [_FileName.of(p) for p in paths]
    shared = _shared_keys(files)
    own = [[h for h in f.hits if not _is_shared(f, h, shared)] for f in files]
    # Some file names a stain where they differ, so the others do so as well.
    differs = any(not h.weak for hits in own for h in hits)
    found = []
    for file, hits, path, thumbnail in zip(files, own, paths, thumbnails, strict=True):
        name = _known(file, hits)
        if not name and len(files) > 1 and differs:
            name = _differing(file, files)
        name = name or _known(file, list(file.hits))
        if not name:
            name = _differing(file, files) if len(files) > 1 else _marker_like(file)
        if not name and thumbnail is not None:
            name = stain_of_colours(thumbnail)
        found.append(name or _cleaned(_stem(path)) or "stain")
    return found


def stain_of_colours(thumbnail: NDArray[np.floating]) -> str:
    """Return "IHC", "PAS" or "HE" where the colours are those, else "".

    Brown beside blue is a DAB immunostain, clear magenta is PAS, and pink to purple is HE.
    Blue alone may be anything, a negative immunostain among it, and gets no name.

    Parameters
    ----------
    thumbnail
        (rows, cols, 3), 0 to 255.
    """
    od = optical_density(thumbnail[..., :3], measure_background(thumbnail[..., :3])).reshape(-1, 3)
    length = np.linalg.norm(od, axis=1)
    stained = length > _STAINED_OD
    # A slide on black is fluorescence.
    if stained.mean() < _LEAST_STAINED or np.median(thumbnail) < 40:
        return ""
    red, green, blue = (od[stained] / length[stained, None]).T
    brown = (blue > red + 0.1) & (green < 0.75)
    bluish = (red > 0.5) & (green < red + 0.15)
    magenta = (green > 0.85) & (blue < 0.25)
    pink_to_purple = green > np.maximum(red, blue) + 0.15
    if brown.mean() > _LEAST_BROWN and (brown | bluish).mean() > _LEAST_HUE:
        return "IHC"
    if magenta.mean() > _LEAST_HUE:
        return "PAS"
    return "HE" if pink_to_purple.mean() > _LEAST_HUE else ""


def _stem(path: Path) -> str:
    name = path.name
    while "." in name.lstrip(".") and name[name.rindex(".") :].lower() in SUFFIXES:
        name = name[: name.rindex(".")]
    return name


def _words(text: str) -> Iterator[_Word]:
    for found in _WORD.finditer(text):
        cuts = [0, *(m.start() for m in _INNER.finditer(found[0])), len(found[0])]
        for a, b in pairwise(cuts):
            yield _Word(found[0][a:b], found.start() + a, found.start() + b)


def _find_known(words: Sequence[_Word], text: str) -> Iterator[_Hit]:
    first = 0
    while first < len(words):
        for last in range(min(len(words), first + _LONGEST), first, -1):
            hit = _known_at(words, first, last, text)
            if hit is not None:
                yield hit
                break
        first = last


def _known_at(words: Sequence[_Word], first: int, last: int, text: str) -> _Hit | None:
    parts = words[first:last]
    key = "".join(w.key for w in parts)
    joints = [text[a.stop : b.start] for a, b in pairwise(parts)]
    if not all(_may_join(*w, j, key) for w, j in zip(pairwise(parts), joints, strict=True)):
        return None
    written = text[parts[0].start : parts[-1].stop]
    # "HE2" and "HE染色" are HE.
    plain = _STAINING.sub("", key)
    routine = _ALIASES.get(re.sub(r"\d$", "", plain), "")
    name = _ALIASES.get(plain) or (routine if routine in ROUTINE else _family(key, written))
    if name:
        # "P16" is a patient as often as a protein.
        weak = key in GENES or bool(re.fullmatch(r"P-?\d+", written))
        return _Hit(first, last, name, name in ROUTINE, weak)
    if key in WEAK and written.isupper():
        return _Hit(first, last, WEAK[key], WEAK[key] in ROUTINE, True)
    return None


def _may_join(a: _Word, b: _Word, joint: str, key: str) -> bool:
    """Return whether two words may be parts of one stain's name."""
    tight = joint.strip(" ") in ("", "-", "+", "&", "・") and "  " not in joint
    if a.text[-1].isdigit() and b.text[0].isdigit():
        return key in NUMBER_PAIRS
    # "block D PAS" is no PAS-D, "section p 53" no p53.
    lone = len(a.text) == 1 and key != "he"
    if lone and (b.text[0].isdigit() or b.key == "pas"):
        return joint in ("", "-")
    return tight or joint == "_"


def _family(key: str, written: str) -> str:
    for pattern, name in FAMILIES:
        found = pattern.fullmatch(key)
        if found:
            return name.format(found[1].upper() if "45" in name else found[1])
    if key in AS_WRITTEN or key in GENES or SPELT_FAMILIES.fullmatch(key):
        return re.sub(r"[\s_]+", "", written)
    return ""


def _known(file: _FileName, hits: list[_Hit]) -> str:
    """Return the name of the last stain, or of the last double stain."""
    hits = [h for h in hits if not h.weak] or hits
    if not hits:
        return ""
    group = [hits[-1]]
    # Antibodies side by side are a double stain; no section is both HE and CD3.
    for hit in reversed(hits[:-1]):
        if hit.last != group[0].first or hit.routine or group[0].routine or hit.weak:
            break
        group.insert(0, hit)
    return "-".join(dict.fromkeys(h.name for h in group))


def _shared_keys(files: Sequence[_FileName]) -> Counter[str]:
    counts = [Counter(w.key for w in f.words) for f in files]
    shared = counts[0] if len(files) > 1 else Counter[str]()
    for count in counts[1:]:
        shared = shared & count
    return shared


def _is_shared(file: _FileName, hit: _Hit, shared: Counter[str]) -> bool:
    return all(w.key in shared for w in file.words[hit.first : hit.last])


def _differing(file: _FileName, files: Sequence[_FileName]) -> str:
    """Return the word by which a file name differs from the others, unless it only counts."""
    everywhere = set.intersection(*({w.key for w in f.whole_words()} for f in files))
    own = [w for w in file.whole_words() if w.key not in everywhere]
    others = [w.key for f in files if f is not file for w in f.whole_words()]
    counted = {re.sub(r"\d+", "#", k) for k in others}
    kept = [
        w.text
        for w in own
        if sum(c.isalpha() for c in w.text) >= 2
        and w.key not in PLAIN_WORDS
        # "KPC12" beside "KPC13" numbers the animals; "TOM20" beside "COX4" is a marker.
        and not (any(c.isdigit() for c in w.text) and re.sub(r"\d+", "#", w.key) in counted)
    ]
    letters = [k for k in kept if k.isalpha()]
    return _cleaned(" ".join(letters or kept[-1:]))


def _marker_like(file: _FileName) -> str:
    """Return a word that looks like a marker, in capitals after a word with a number (the id)."""
    after_id = False
    found = ""
    for word in file.whole_words():
        capitals = sum(c.isupper() for c in word.text)
        digits = sum(c.isdigit() for c in word.text)
        if after_id and capitals >= 2 and digits <= 2 and word.key not in PLAIN_WORDS:
            found = word.text if len(word.text) <= 8 and word.text[0].isalpha() else found
        elif digits > 2:
            found = ""
        after_id = after_id or digits > 0
    return found


def _without_stain(file: _FileName) -> list[tuple[int, int]]:
    """Return the spans (start, stop) of the words of a name that are no stain."""
    strong = [h for h in file.hits if not h.weak] or list(file.hits)
    hidden = {i for h in strong for i in range(h.first, h.last)}
    stained = [(file.words[i].start, file.words[i].stop) for i in hidden]
    spans = []
    for word in file.whole_words():
        inside = [s for s in stained if s[0] >= word.start and s[1] <= word.stop]
        # "KPC12HE": what is left of the word before the stain.
        stop = min([word.stop, *(s[0] for s in inside)])
        if stop > word.start:
            spans.append((word.start, stop))
        elif inside:
            spans.append((word.start, word.start))
    return spans


def _shared(files: Sequence[_FileName], spans: Sequence[list[tuple[int, int]]], end: int) -> str:
    """Return the text that all names begin (`end` 0) or finish (-1) with, word by word."""
    runs = [_run(f, s, end) for f, s in zip(files, spans, strict=True)]
    count = 0
    for parts in zip(*(r[:: -1 if end else 1] for r in runs), strict=False):
        if len({files[i].text[a:b].casefold() for i, (a, b) in enumerate(parts)}) > 1:
            break
        count += 1
    kept = runs[0][len(runs[0]) - count :] if end else runs[0][:count]
    words = [files[0].text[a:b] for a, b in kept]
    if not any(_tells(w, end) for w in words):
        return ""
    return _cleaned(files[0].text[kept[0][0] : kept[-1][1]])


def _run(file: _FileName, spans: list[tuple[int, int]], end: int) -> list[tuple[int, int]]:
    """Return the words before the first stain, or those after the last one."""
    empty = [i for i, (a, b) in enumerate(spans) if a == b]
    if not empty:
        return spans
    return spans[empty[-1] + 1 :] if end else spans[: empty[0]]


def _tells(word: str, end: int) -> bool:
    # A number at the end counts sections; at the beginning it is the case's.
    return word.casefold() not in SCAN_WORDS and (end == 0 or any(c.isalpha() for c in word))


def _cleaned(text: str) -> str:
    text = _NOT_IN_NAMES.sub(" ", unicodedata.normalize("NFKC", text))
    text = re.sub(r"\s+", " ", text).strip()
    # A name begins with a letter or a digit and ends with no separator.
    return re.sub(r"^[\W_]+|[\s_.+&(-]+$", "", text)


def _unused(name: str, taken: Collection[str]) -> str:
    used = {t.casefold() for t in taken}
    number, proposal = 1, name
    while proposal.casefold() in used:
        number += 1
        proposal = f"{name} {number}"
    return proposal


_ALIASES = {
    alias: name for table in (ROUTINE, MARKERS) for name, way in table.items()
    for alias in way.split()
}  # fmt: skip
