"""Labels of studies from a table, where somebody has labelled them already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from reg2rg.core.errors import ConfigError
from reg2rg.core.labels import FINDINGS
from reg2rg.evaluation.labelers.base import some, stack

if TYPE_CHECKING:
    import pandas as pd

ID_COLUMNS = ("VolumeName", "Volumename", "AccessionNo", "AccNum", "study", "study_id", "id")
"""Names under which label tables hold the study, the first that is there counts."""

_DELIMITERS = (",", ";", "\t")
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_SUFFIXES = (".nii.gz", ".nii")
_VALUES = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False}


def read_label_table(
    path: str | Path,
    ids: Sequence[str],
    id_column: str | None = None,
    *,
    prefix: str | Sequence[str] = "",
    labels: Sequence[str] = FINDINGS,
) -> NDArray[np.bool_]:
    """Labels of studies from a CSV, ``(ids, labels)``.

    Args:
        path: the table: one column of ids and one column of 0 and 1 a label, as CT-RATE publishes it.
        ids: studies, in the order of the result; with or without ``.nii.gz``.
        id_column: the column of ids; ``None`` takes the first of `ID_COLUMNS` that the table has.
        prefix: what stands before the label in the names of its columns: ``GT_`` or ``Pred_`` in published inferences.
            Of several, the first one counts that all labels have.
        labels: the labels, in the order of the result.

    Raises:
        ConfigError: columns that are missing, cells that are neither 0 nor 1, studies that stand there twice with other
            labels, and ids without a row: all of them in one message.
    """
    table = _read_table(Path(path))
    wrong: list[str] = []
    name = id_column if id_column is not None else next((c for c in ID_COLUMNS if c in table.columns), None)
    if name is None or name not in table.columns:
        wrong.append(f"no column of ids, expected {id_column or ' or '.join(ID_COLUMNS)}; set id_column")
    tried = (prefix,) if isinstance(prefix, str) else tuple(prefix)
    lacking = {one: [one + label for label in labels if one + label not in table.columns] for one in tried}
    chosen = min(tried, key=lambda one: len(lacking[one]))
    missing = lacking[chosen]
    if missing:
        others = sorted({str(c)[: -len(label)] for c in table.columns for label in labels if str(c).endswith(label)})
        hint = f"; columns with the prefix {' or '.join(map(repr, others))} are there, set prefix" if others else ""
        wrong.append(f"columns missing: {', '.join(missing)}{hint}")
    if name in table.columns:
        rows, faults = _rows(table, str(name), [chosen + label for label in labels if chosen + label not in missing])
        wrong += faults
        listed = {_study(str(cell)) for cell in table[name]}
        absent = [study for study in ids if _study(study) not in listed]
        if absent:
            wrong.append(f"{len(absent)} ids without a row: {some(absent)}")
        if not wrong:
            return stack([rows[_study(study)] for study in ids], len(labels))
    raise ConfigError(
        f"label table {path}: {'; '.join(wrong)}. The table has the columns {some(list(map(str, table.columns)))} and "
        f"{len(table)} rows. Expected one row a study with 0 or 1 for every label. Fix: correct the table or options"
    )


def _study(name: str) -> str:
    text = name.strip()
    for suffix in _SUFFIXES:
        if text.lower().endswith(suffix):
            return text[: -len(suffix)]
    return text


def _read_table(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        with open(path, "rb") as stream:
            encoding = _MARKS.get(stream.read(2), "utf-8-sig")
        with open(path, encoding=encoding) as stream:
            header = stream.readline()
            separator = max(_DELIMITERS, key=header.count)
        table = pd.read_csv(path, dtype=str, keep_default_na=False, encoding=encoding, sep=separator)
    except (OSError, ValueError) as error:  # a parser's error and a wrong encoding are ValueErrors
        raise ConfigError(
            f"label table {path} cannot be read: {error}. Expected a CSV in UTF-8 with a header. Fix: check the path, "
            "export the table again"
        ) from None
    return table.rename(columns=lambda column: str(column).strip())


def _rows(table: pd.DataFrame, name: str, columns: Sequence[str]) -> tuple[dict[str, NDArray[np.bool_]], list[str]]:
    """Study -> labels, and what is wrong in the rows, by line."""
    rows: dict[str, NDArray[np.bool_]] = {}
    bad: list[str] = []
    twice: list[str] = []
    studies = [_study(str(cell)) for cell in table[name]]
    for line, (study, cells) in enumerate(zip(studies, table[list(columns)].to_numpy(), strict=True), start=2):
        values = [_VALUES.get(str(cell).strip().lower()) for cell in cells]
        unknown = [f"{c} is {str(cell)[:20]!r}" for c, cell, v in zip(columns, cells, values, strict=True) if v is None]
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
