"""Words of file names: stains and markers in their spellings, and what is neither."""

from __future__ import annotations

import re


def _words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Spelling used -> ways to write it: lower case, without separators.
ROUTINE = {
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
MARKERS = {
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
AS_WRITTEN = _words_of(
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
FAMILIES = (
    (re.compile(r"(?:ck|cytokeratin)(\d{1,2})"), "CK{}"),
    (re.compile(r"cd(\d{1,3}[a-f]?)"), "CD{}"),
    (re.compile(r"cd45(ro|ra)"), "CD45{}"),
    (re.compile(r"p(16|21|27|53|57|63|73)"), "p{}"),
)
SPELT_FAMILIES = re.compile(r"(krt|muc|il|sox|claudin|cxcl|cxcr|ccr|ccl)\d{1,2}(ac|b)?")
# May also be an animal's, a patient's or a block's; believed only where nothing better is found.
WEAK = {"er": "ER", "pr": "PR", "ar": "AR", "mt": "Masson"}
# As often in a genotype or a diagnosis as on the glass.
GENES = _words_of(
    "p53 trp53 tp53 kras braf egfr pten smad4 arid1a nf1 rb1 yap idh1 stat3 myc gfp tdtomato fap"
)
# The only spellings in which a number may follow a number across a separator.
NUMBER_PAIRS = frozenset({"f480", "ck56", "ck818", "d240", "cam52"})

SUFFIXES = _words_of(
    ".ome .tif .tiff .btf .tf8 .tf2 .svs .ndpi .ndpis .scn .mrxs .vms .vmu .bif .czi .vsi .qptiff "
    ".svslide .jpg .jpeg .png .bmp .jp2 .zarr .zip .dcm .isyntax"
)
SCAN_WORDS = _words_of(
    "scan scans scanned slide slides image images img wsi export exported region roi crop level "
    "layer overview macro label copy kopie final new old small large whole full section sections "
    "serial series sec stain stained staining ihc if rgb bf qc ok test registered aligned page "
    "file original raw tif tiff 染色 標本 スライド コピー"
)
PLAIN_WORDS = SCAN_WORDS | _words_of(
    "block case patient pat sample samples tumor tumour normal cancer control ctrl ko wt het mut "
    "pos neg positive negative treated untreated mouse rat human animal liver lung kidney pancreas "
    "spleen colon stomach brain heart skin breast prostate bladder intestine duodenum lymph node "
    "bone ffpe cryo frozen tma core biopsy resection left right top bottom anterior posterior "
    "proximal distal male female week weeks day days demo data 症例"
)
