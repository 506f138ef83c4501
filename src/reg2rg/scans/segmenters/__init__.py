"""Segmenters: a scan's path goes in, where the masks of its regions are comes out, with what made them."""

from reg2rg.scans.segmenters.base import SEGMENTERS, MadeBy, Segmentation, Segmenter
from reg2rg.scans.segmenters.sat_folder import SATFolder

__all__ = ["SEGMENTERS", "MadeBy", "SATFolder", "Segmentation", "Segmenter"]
