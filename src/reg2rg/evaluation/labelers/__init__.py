"""Who reads findings from texts: keyword rules, RadBERT (`.radbert`, which brings torch along), or a table."""

from reg2rg.evaluation.labelers.base import LABELERS, Labeler
from reg2rg.evaluation.labelers.rules import RuleLabeler
from reg2rg.evaluation.labelers.table import read_label_table

__all__ = ["LABELERS", "Labeler", "RuleLabeler", "read_label_table"]
