"""Reports that are not split by region -> sentences, each with its regions."""

from reg2rg.datasets.splitters.answers import AnsweredSplitter
from reg2rg.datasets.splitters.base import OTHER, SPLITTERS, Placement, Sentence, Splitter, by_region, split_report
from reg2rg.datasets.splitters.rules import RuleSplitter

__all__ = [
    "OTHER",
    "SPLITTERS",
    "AnsweredSplitter",
    "Placement",
    "RuleSplitter",
    "Sentence",
    "Splitter",
    "by_region",
    "split_report",
]
