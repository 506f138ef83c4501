"""Segmenters: a scan's path goes in, where the masks of its regions are comes out, with what made them."""

from reg2rg.scans.segmenters.base import SEGMENTERS, MadeBy, Segmentation, Segmenter, segmenter_named
from reg2rg.scans.segmenters.kept import KeptSegmenter, Made
from reg2rg.scans.segmenters.lungmask import LungMask
from reg2rg.scans.segmenters.sat_folder import SATFolder
from reg2rg.scans.segmenters.thresholds import Thresholds
from reg2rg.scans.segmenters.totalsegmentator import TotalSegmentator

__all__ = [
    "SEGMENTERS",
    "KeptSegmenter",
    "LungMask",
    "Made",
    "MadeBy",
    "SATFolder",
    "Segmentation",
    "Segmenter",
    "Thresholds",
    "TotalSegmentator",
    "segmenter_named",
]
