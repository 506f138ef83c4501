"""Segmenters: a scan's path goes in, where the masks of its regions are comes out, with what made them."""

from reg2rg.scans.segmenters.base import SEGMENTERS, MadeBy, Segmentation, Segmenter, segmenter_named
from reg2rg.scans.segmenters.kept import KeptSegmenter, Made
from reg2rg.scans.segmenters.sat_folder import SATFolder
from reg2rg.scans.segmenters.thresholds import Thresholds

__all__ = [
    "SEGMENTERS",
    "KeptSegmenter",
    "Made",
    "MadeBy",
    "SATFolder",
    "Segmentation",
    "Segmenter",
    "Thresholds",
    "segmenter_named",
]
