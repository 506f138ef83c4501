"""Labels of studies that stand in place of references: in CT-RATE's form, or in RAD-ChestCT's through a mapping."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from reg2rg.core.errors import ConfigError
from reg2rg.datasets.labels import NAME_COLUMN, read_labels
from reg2rg.datasets.radchestct import ID_COLUMN, is_radchestct, load_mapping, read_radchestct
from reg2rg.datasets.tables import read_rows
from reg2rg.evaluation.labelers.base import some


def read_truth(path: Path, mapping: str) -> tuple[dict[str, dict[str, bool]], tuple[str, ...]]:
    """Study -> finding -> present, and notes on what was made of the table.

    Args:
        path: the table; its columns tell which form it has.
        mapping: of RAD-ChestCT's abnormalities, by name or file.

    Raises:
        ConfigError: a table of neither form, or no such mapping.
        DataFault: a table that cannot be read, with the line.
    """
    header = next((list(row.values) for row in read_rows(path)), [])
    if not is_radchestct(header):
        if NAME_COLUMN not in header:
            raise ConfigError(
                f"{path}: neither {NAME_COLUMN} with a 0/1 column a finding, nor {ID_COLUMN} with columns "
                f"abnormality*location; the header has: {some(header)}. Fix: rename the column of ids"
            )
        return read_labels([path]), ()
    told = load_mapping(mapping)
    once = Counter(told.findings.values())
    notes = [f"{path.name}: RAD-ChestCT's abnormalities at any location, by the mapping {told.name} ({told.source})."]
    if missing := [finding for finding, names in told.findings.items() if not names]:
        notes.append(f"Not scored, since RAD-ChestCT has no such label: {', '.join(missing)}.")
    if twins := [finding for finding, names in told.findings.items() if names and once[names] > 1]:
        notes.append(f"The same label of RAD-ChestCT stands for {' and '.join(twins)}: it counts for each.")
    return read_radchestct(path, told), tuple(notes)
