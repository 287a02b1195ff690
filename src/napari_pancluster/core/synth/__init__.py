"""Synthetic sections with known truth: the ruler of registration and clustering."""

from napari_pancluster.core.config import SynthConfig
from napari_pancluster.core.synth.section import SynthResult, one_stain_pair, synthesise

__all__ = ["SynthConfig", "SynthResult", "one_stain_pair", "synthesise"]
