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


def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Spelling used -> ways to write it: lower case, without separators.
_ROUTINE = {
    "HE": "he hne hande heosin hematoxylineosin haematoxylineosin hematoxylinandeosin hes "
    "ヘマトキシリンエオジン ヘマトキシリンエオシン",
    "PAS": "pas periodicacidschiff パス",
    "PASD": "pasd dpas pasdiastase pasdiast diastasepas 消化pas pas消化",
    "AB-PAS": "abpas pasab alcianbluepas",
    "Giemsa": "giemsa maygiemsa maygruenwaldgiemsa ギムザ",
    "Masson": "masson massons massontrichrome massonstrichrome trichromemasson trichrome "
    "trichrom マッソン マッソントリクローム トリクローム",
    "Azan": "azan アザン",
    "EVG": "evg elasticavangieson elastica vvg elasticamasson エラスチカワンギーソン",
    "Sirius red": "siriusred picrosirius picrosiriusred psr sirius シリウスレッド",
    "Alcian blue": "alcianblue alcian アルシアンブルー",
    "Toluidine blue": "toluidineblue toluidin",
    "Iron": "iron perls prussianblue berlinblue berlinerblau perlsprussianblue 鉄 ベルリンブルー",
    "Reticulin": "reticulin retic gomori silver 渡銀 鍍銀",
    "Congo red": "congored congo kongorot コンゴーレッド",
    "GMS": "gms grocott グロコット",
    "Oil red O": "oilredo oro",
    "LFB": "lfb luxolfastblue",
    "Nissl": "nissl cresylviolet",
    "Ziehl-Neelsen": "ziehlneelsen ziehl",
    "Movat": "movat",
    "Safranin O": "safranino",
}
_MARKERS = {
    "Ki67": "ki67 mib1",
    "aSMA": "asma alphasma acta2",
    "SMA": "sma",
    "p40": "p40",
    "F4-80": "f480",
    "CK5-6": "ck56",
    "CK8-18": "ck818",
    "D2-40": "d240",
    "panCK": "panck pancytokeratin ae1ae3 ckae1ae3 panckae1ae3 aecae3",
    "CAM5.2": "cam52",
    "proSPC": "prospc prospcc",
    "E-cadherin": "ecadherin ecad cdh1",
    "N-cadherin": "ncadherin ncad",
    "b-catenin": "bcatenin betacatenin bcat",
    "gH2AX": "gh2ax gammah2ax",
    "cCasp3": "ccasp3 cleavedcaspase3 cc3",
    "HER2": "her2 her2neu cerbb2",
    "PD-L1": "pdl1",
    "PD-1": "pd1",
    "TTF1": "ttf1",
    "S100": "s100",
    "DAPI": "dapi",
    "Hoechst": "hoechst",
}
# Spelt as in the file: mouse and human genes differ in it.
_AS_WRITTEN = _words_of(
    "cc10 ccsp scgb1a1 spc sftpc spa spb spd aqp5 hopx pdpn podoplanin lyve1 erg fli1 foxp3 "
    "foxa1 foxa2 foxj1 gata3 gata4 gata6 sox2 sox9 sox10 pax2 pax5 pax6 pax8 cdx2 pdx1 ptf1a "
    "nkx21 nkx22 nkx61 hnf1b hnf4a mist1 wt1 oct4 nanog napsin napsina amylase insulin glucagon "
    "somatostatin synaptophysin syp chromogranin chga ncam vimentin vim desmin caldesmon calponin "
    "gfap neun iba1 olig2 nestin map2 tau abeta tuj1 ttyh1 mpo b220 ly6g ly6c gr1 lysozyme "
    "granzyme granzymeb gzmb tia1 tryptase arg1 nos2 inos ido1 ctla4 lag3 tim3 bcl2 bcl6 mum1 "
    "cyclind1 ccnd1 msh2 msh6 mlh1 pms2 alk ros1 yap1 taz perk erk pakt akt "
    "ps6 pstat3 phh3 ph3 hh3 edu brdu tunel col1 col1a1 col3 col4 collagen "
    "fibronectin laminin periostin postn pdgfra pdgfrb thy1 rfp egfp yfp mcherry  "
    "afp glypican3 gpc3 heppar1 hepar1 arginase1 glutaminesynthetase "
    "epcam berep4 cea psa psma amacr ca125 ca199 mesothelin msln calretinin claudin18 cldn18 "
    "villin lgr5 olfm4 ccnb1 p21waf1 cdkn2a atrx factor8 fviii vwf "
    "endomucin emcn tff1 tff2 dclk1 krt cytokeratin inhibin melan melana hmb45 mitf prame "
    "nfkb hif1a ca9 glut1 ctnnb1 lamp2 lc3 p62 sqstm1 vegf vegfr2 tgfb tgfb1 fgf10 cgrp"
)
_FAMILIES = (
    (re.compile(r"(?:ck|cytokeratin)(\d{1,2})"), "CK{}"),
    (re.compile(r"cd(\d{1,3}[a-f]?)"), "CD{}"),
    (re.compile(r"cd45(ro|ra)"), "CD45{}"),
    (re.compile(r"p(16|21|27|53|57|63|73)"), "p{}"),
)
_SPELT_FAMILIES = re.compile(r"(krt|muc|il|sox|claudin|cxcl|cxcr|ccr|ccl)\d{1,2}(ac|b)?")
# May also be an animal's, a patient's or a block's; believed only where nothing better is found.
_WEAK = {"er": "ER", "pr": "PR", "ar": "AR", "mt": "Masson"}
# As often in a genotype or a diagnosis as on the glass.
_GENES = _words_of(
    "p53 trp53 tp53 kras braf egfr pten smad4 arid1a nf1 rb1 yap idh1 stat3 myc gfp tdtomato fap"
)
# The only spellings in which a number may follow a number across a separator.
_NUMBER_PAIRS = frozenset({"f480", "ck56", "ck818", "d240", "cam52"})
_LONGEST = 5  # words of one alias

_SUFFIXES = _words_of(
    ".ome .tif .tiff .btf .tf8 .tf2 .svs .ndpi .ndpis .scn .mrxs .vms .vmu .bif .czi .vsi .qptiff "
    ".svslide .jpg .jpeg .png .bmp .jp2 .zarr .zip .dcm .isyntax"
)
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
_SCAN_WORDS = _words_of(
    "scan scans scanned slide slides image images img wsi export exported region roi crop level "
    "layer overview macro label copy kopie final new old small large whole full section sections "
    "serial series sec stain stained staining ihc if rgb bf qc ok test registered aligned page "
    "file original raw tif tiff 染色 標本 スライド コピー"
)
_PLAIN_WORDS = _SCAN_WORDS | _words_of(
    "block case patient pat sample samples tumor tumour normal cancer control ctrl ko wt het mut "
    "pos neg positive negative treated untreated mouse rat human animal liver lung kidney pancreas "
    "spleen colon stomach brain heart skin breast prostate bladder intestine duodenum lymph node "
    "bone ffpe cryo frozen tma core biopsy resection left right top bottom anterior posterior "
    "proximal distal male female week weeks day days demo data 症例"
)
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
    while "." in name.lstrip(".") and name[name.rindex(".") :].lower() in _SUFFIXES:
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
    name = _ALIASES.get(plain) or (routine if routine in _ROUTINE else _family(key, written))
    if name:
        # "P16" is a patient as often as a protein.
        weak = key in _GENES or bool(re.fullmatch(r"P-?\d+", written))
        return _Hit(first, last, name, name in _ROUTINE, weak)
    if key in _WEAK and written.isupper():
        return _Hit(first, last, _WEAK[key], _WEAK[key] in _ROUTINE, True)
    return None


def _may_join(a: _Word, b: _Word, joint: str, key: str) -> bool:
    """Return whether two words may be parts of one stain's name."""
    tight = joint.strip(" ") in ("", "-", "+", "&", "・") and "  " not in joint
    if a.text[-1].isdigit() and b.text[0].isdigit():
        return key in _NUMBER_PAIRS
    # "block D PAS" is no PAS-D, "section p 53" no p53.
    lone = len(a.text) == 1 and key != "he"
    if lone and (b.text[0].isdigit() or b.key == "pas"):
        return joint in ("", "-")
    return tight or joint == "_"


def _family(key: str, written: str) -> str:
    for pattern, name in _FAMILIES:
        found = pattern.fullmatch(key)
        if found:
            return name.format(found[1].upper() if "45" in name else found[1])
    if key in _AS_WRITTEN or key in _GENES or _SPELT_FAMILIES.fullmatch(key):
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
        and w.key not in _PLAIN_WORDS
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
        if after_id and capitals >= 2 and digits <= 2 and word.key not in _PLAIN_WORDS:
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
    return word.casefold() not in _SCAN_WORDS and (end == 0 or any(c.isalpha() for c in word))


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
    alias: name for table in (_ROUTINE, _MARKERS) for name, way in table.items()
    for alias in way.split()
}  # fmt: skip
