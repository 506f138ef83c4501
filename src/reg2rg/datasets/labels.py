"""Clinical labels in CT-RATE's form: ``VolumeName`` and one 0/1 column a label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from reg2rg.core.errors import DataFault
from reg2rg.core.text import TextGate
from reg2rg.datasets.base import join_faults
from reg2rg.datasets.columns import any_rows
from reg2rg.datasets.names import study_id
from reg2rg.datasets.tables import broken_rows

NAME_COLUMN = "VolumeName"
_VALUES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def truth(text: str) -> bool | None:
    """``1``, ``1.0``, ``true`` -> True; ``0``, ``0.0``, ``false`` -> False; anything else -> None."""
    return _VALUES.get(text.strip().lower())


def find_label_tables(root: Path, labels: str) -> list[Path]:
    """The tables that the option `labels` names: a file, or all CSVs of a folder.

    Raises:
        DataFault: ``TABLE_MISSING``.
    """
    path = root / labels
    tables = sorted(path.glob("*.csv")) if path.is_dir() else [path]
    if tables and tables[0].is_file():
        return tables
    raise DataFault.of(
        "TABLE_MISSING",
        path=path,
        found="no CSV there",
        expected="a CSV, or a folder of CSVs",
        fix="correct the option labels, or set it to null",
    )


def read_labels(tables: Sequence[Path], encoding: str = "utf-8-sig") -> dict[str, dict[str, bool]]:
    """Study id -> label -> present.

    Raises:
        DataFault: a table that cannot be read, cells that are not 0 or 1, a study listed twice with other values;
            all of them in one message, by line.
    """
    labels: dict[str, dict[str, bool]] = {}
    faults: list[DataFault] = []
    for table in tables:
        wrong: list[str] = []
        try:
            for row in any_rows(table, (NAME_COLUMN,), encoding, TextGate()):
                _add(labels, row.values, row.line, wrong)
        except DataFault as fault:
            faults.append(fault)
        if wrong:
            expected = "0 or 1 in every label column, one row a study"
            faults.append(broken_rows(table, wrong, expected, "correct these rows"))
    if faults:
        raise join_faults(faults)
    return labels


def _add(labels: dict[str, dict[str, bool]], values: Mapping[str, str], line: int, wrong: list[str]) -> None:
    try:
        study = study_id(values[NAME_COLUMN])
    except DataFault as fault:
        wrong.append(f"line {line}: {fault}")
        return
    found = {name: truth(text) for name, text in values.items() if name and name != NAME_COLUMN}
    bad = [f"{name} is {values[name][:20]!r}" for name, value in found.items() if value is None]
    known = {name: value for name, value in found.items() if value is not None}
    if bad:
        wrong.append(f"line {line}: {', '.join(bad[:3])}")
    elif labels.setdefault(study, known) != known:
        wrong.append(f"line {line}: {study} stands there twice with other values")
