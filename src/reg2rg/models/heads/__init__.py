"""What is told of each region beside its paragraph. Importing this package registers every built-in head."""

from reg2rg.models.heads.base import HEADS, Head, HeadInputs
from reg2rg.models.heads.findings import FindingsHead

__all__ = ["HEADS", "FindingsHead", "Head", "HeadInputs"]
