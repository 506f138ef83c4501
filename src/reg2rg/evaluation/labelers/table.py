"""Labels of studies from a table, where somebody has labelled them already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.errors import ConfigError
from reg2rg.core.labels import FINDINGS
from reg2rg.datasets.labels import truth
from reg2rg.evaluation.labelers.base import some, stack
from reg2rg.evaluation.rows import Rows, table_rows

ID_COLUMNS = ("VolumeName", "Volumename", "AccessionNo", "AccNum", "study", "study_id", "id")
"""Names under which label tables hold the study, the first that is there counts."""

_SUFFIXES = (".nii.gz", ".nii")


def read_label_table(
    path: str | Path,
    ids: Sequence[str],
    id_column: str | None = None,
    *,
    prefix: str | Sequence[str] = "",
    labels: Sequence[str] = FINDINGS,
) -> NDArray[np.bool_]:
    """Labels of studies from a table, ``(ids, labels)``.

    Args:
        path: the table, in any form of `reg2rg.evaluation.rows.table_rows`: one column of ids and one column of 0 and 1
            a label, as CT-RATE publishes it.
        ids: studies, in the order of the result; with or without ``.nii.gz``.
        id_column: the column of ids; ``None`` takes the first of `ID_COLUMNS` that the table has.
        prefix: what stands before the label in the names of its columns: ``GT_`` or ``Pred_`` in published inferences.
            Of several, the first one counts that all labels have.
        labels: the labels, in the order of the result.

    Raises:
        ConfigError: columns that are missing, cells that are neither 0 nor 1, studies that stand there twice with other
            labels, and ids without a row: all of them in one message.
        DataFault: a table that cannot be read, with the line.
    """
    table = table_rows(Path(path), None)
    if not table:
        raise ConfigError(f"label table {path} cannot be read: it has no rows. Fix: check the path, export it again")
    header, wrong = list(table[0][1]), []
    name = id_column if id_column is not None else next((c for c in ID_COLUMNS if c in header), None)
    if name is None or name not in header:
        wrong.append(f"no column of ids, expected {id_column or ' or '.join(ID_COLUMNS)}; set id_column")
    tried = (prefix,) if isinstance(prefix, str) else tuple(prefix)
    lacking = {one: [one + label for label in labels if one + label not in header] for one in tried}
    chosen = min(tried, key=lambda one: len(lacking[one]))
    missing = lacking[chosen]
    if missing:
        others = sorted({column[: -len(label)] for column in header for label in labels if column.endswith(label)})
        hint = f"; columns with the prefix {' or '.join(map(repr, others))} are there, set prefix" if others else ""
        wrong.append(f"columns missing: {', '.join(missing)}{hint}")
    if name is not None and name in header:
        rows, faults = _rows(table, name, [chosen + label for label in labels if chosen + label not in missing])
        listed = {_study(str(row[name])) for _, row in table}
        absent = [study for study in ids if _study(study) not in listed]
        wrong += faults + ([f"{len(absent)} ids without a row: {some(absent)}"] if absent else [])
        if not wrong:
            return stack([rows[_study(study)] for study in ids], len(labels))
    raise ConfigError(
        f"label table {path}: {'; '.join(wrong)}. The table has the columns {some(header)} and {len(table)} rows. "
        "Expected one row a study with 0 or 1 for every label. Fix: correct the table or options"
    )


def _study(name: str) -> str:
    text = name.strip()
    ending = next((one for one in _SUFFIXES if text.lower().endswith(one)), "")
    return text[: len(text) - len(ending)]


def _rows(table: Rows, name: str, columns: Sequence[str]) -> tuple[dict[str, NDArray[np.bool_]], list[str]]:
    """Study -> labels, and what is wrong in the rows, by line."""
    rows: dict[str, NDArray[np.bool_]] = {}
    bad: list[str] = []
    twice: list[str] = []
    for line, cells in table:
        study = _study(str(cells[name]))
        values = [truth(str(cells[column])) for column in columns]
        unknown = [f"{c} is {str(cells[c])[:20]!r}" for c, value in zip(columns, values, strict=True) if value is None]
        if unknown:
            bad.append(f"row {line} ({study}): {', '.join(unknown[:3])}")
            continue
        row = np.array(values, dtype=np.bool_)
        if not np.array_equal(rows.setdefault(study, row), row):
            twice.append(study)
    wrong = [f"{len(bad)} rows with cells that are neither 0 nor 1: {some(bad)}"] if bad else []
    if twice:
        wrong.append(f"{len(twice)} studies twice with other labels: {some(twice)}")
    return rows, wrong
