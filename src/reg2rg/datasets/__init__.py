"""Where studies come from: one class a data-set layout."""

from reg2rg.core.errors import TooManySkippedError
from reg2rg.datasets.base import DATASETS, Dataset, Listing, Note, Skip
from reg2rg.datasets.ct_rate import CTRate
from reg2rg.datasets.ctrg import CTRG
from reg2rg.datasets.feature_grid import FeatureGrid
from reg2rg.datasets.manifest import Manifest
from reg2rg.datasets.radgenome import RadGenome
from reg2rg.datasets.scan_folder import ScanFolder
from reg2rg.datasets.splitters import SPLITTERS, RuleSplitter, Splitter, split_report

__all__ = [
    "CTRG",
    "DATASETS",
    "SPLITTERS",
    "CTRate",
    "Dataset",
    "FeatureGrid",
    "Listing",
    "Manifest",
    "Note",
    "RadGenome",
    "RuleSplitter",
    "ScanFolder",
    "Skip",
    "Splitter",
    "TooManySkippedError",
    "split_report",
]
