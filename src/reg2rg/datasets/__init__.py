"""Where studies come from: one class a data-set layout."""

from reg2rg.core.errors import TooManySkippedError
from reg2rg.datasets.base import DATASETS, Dataset, Listing, Note, Skip
from reg2rg.datasets.ct_rate import CTRate
from reg2rg.datasets.ctrg import CTRG
from reg2rg.datasets.feature_grid import FeatureGrid
from reg2rg.datasets.manifest import Manifest
from reg2rg.datasets.radgenome import RadGenome
from reg2rg.datasets.scan_folder import ScanFolder

__all__ = [
    "CTRG",
    "DATASETS",
    "CTRate",
    "Dataset",
    "FeatureGrid",
    "Listing",
    "Manifest",
    "Note",
    "RadGenome",
    "ScanFolder",
    "Skip",
    "TooManySkippedError",
]
