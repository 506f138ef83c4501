"""Tables of CTRG-Chest-548K: reports as JSON by split or as a CSV a split, and the CheXbert labels."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reg2rg.core.errors import DataFault
from reg2rg.core.text import TextGate
from reg2rg.datasets.base import SPLITS, Skip
from reg2rg.datasets.columns import any_rows
from reg2rg.datasets.names import study_id
from reg2rg.datasets.tables import broken_rows, clean, is_empty

FINDING = ("finding", "findings")
"""Both spellings are about: Dia-LLaMA's and MvKeTR's."""
_CSV = re.compile(r"(?:.*_)?(train|val|test)\.csv", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Item:
    """A study as a table lists it.

    Attributes:
        study: its id, a number or a text there, a text here: ``0007`` is not ``7``.
        split: where the table puts it.
        text: the findings.
        image: the path that the table gives, ``""`` if it gives none.
        where: file and row.
    """

    study: str
    split: str
    text: str
    image: str
    where: str


def read_items(path: Path, encoding: str, skipped: list[Skip]) -> list[Item]:
    """The studies of a JSON file ``{split: [{id, finding}]}``, of a CSV of one split, or of a folder of them.

    Args:
        path: the file, or the folder that holds ``*_train.csv``, ``*_val.csv`` and ``*_test.csv``.
        encoding: of the bytes.
        skipped: gets rows that cannot be used, with the reason.

    Raises:
        DataFault: TABLE_MISSING, TABLE_JSON, TABLE_COLUMNS and what else the tables' reader raises.
    """
    tables = _tables(path)
    rows = [row for table in tables for row in (_of_csv(table, encoding) if _is_csv(table) else _of_json(table))]
    items: dict[str, Item] = {}
    for split, values, where in rows:
        try:
            item = _item(split, values, where)
            if (before := items.get(item.study)) is not None:
                raise _twice(item, before)
            items[item.study] = item
        except DataFault as fault:
            skipped.append(Skip.of(fault, where))
    return list(items.values())


def _twice(item: Item, before: Item) -> DataFault:
    across = item.split != before.split
    return DataFault.of(
        "PATIENT_LEAK" if across else "DUPLICATE_STUDY",
        study=item.study,
        path=item.where,
        found=f"the id stands in {before.where} too" + (f", in split {before.split}" if across else ""),
        expected="every study once, in one split",
        fix="keep one of the rows",
    )


def _tables(path: Path) -> list[Path]:
    if path.is_dir():
        found = [file for file in sorted(path.iterdir()) if _CSV.fullmatch(file.name)]
        if found:
            return found
    elif path.is_file():
        return [path]
    raise DataFault.of(
        "TABLE_MISSING",
        path=path,
        found="no such file" if not path.exists() else "no CSV of a split in it",
        expected="annotation.json, or a folder with CTRG_train.csv, CTRG_val.csv, CTRG_test.csv",
        fix="correct the option texts",
    )


def _is_csv(table: Path) -> bool:
    return table.suffix.lower() == ".csv"


def _of_csv(table: Path, encoding: str) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    match = _CSV.fullmatch(table.name)
    split = match[1].lower() if match else "train"
    for row in any_rows(table, ("id",), encoding, TextGate()):
        yield split, row.values, f"{table.name} line {row.line}"


def _of_json(table: Path) -> Iterator[tuple[str, Mapping[str, Any], str]]:
    try:
        value = json.loads(table.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise _not_json(table, f"cannot be read as JSON ({str(error)[:160]})") from None
    if not isinstance(value, dict) or not value or not all(isinstance(rows, list) for rows in value.values()):
        raise _not_json(table, "holds no lists by split")
    unknown = [str(split) for split in value if split not in SPLITS]
    if unknown:
        raise _not_json(table, f"has the splits {', '.join(unknown)}")
    gate = TextGate()
    for split, rows in value.items():
        for place, row in enumerate(rows, start=1):
            where = f"{table.name} {split} {place}"
            if not isinstance(row, dict):
                raise _not_json(table, f"{where} is a {type(row).__name__}")
            yield split, {key: gate(item) if isinstance(item, str) else item for key, item in row.items()}, where


def _not_json(table: Path, found: str) -> DataFault:
    return DataFault.of(
        "TABLE_JSON",
        path=table,
        found=found,
        expected='{"train": [{"id": 7, "finding": "..."}, ...], "val": [...], "test": [...]}',
        fix="take the file from its source again",
    )


def _item(split: str, values: Mapping[str, Any], where: str) -> Item:
    texts = {name: clean(values[name]) for name in FINDING if isinstance(values.get(name), str)}
    if not texts:
        raise DataFault.of("TABLE_COLUMNS", path=where, found=f"keys {', '.join(map(str, values))}",
                           expected="id, and finding or findings", fix="rename the key")  # fmt: skip
    if len(set(texts.values())) > 1:
        raise DataFault.of("DUPLICATE_ROWS", path=where, found="finding and findings differ", expected="one text",
                           fix="keep one of the two")  # fmt: skip
    text = next(iter(texts.values()))
    return Item(_id(values.get("id"), where), split, "" if is_empty(text) else text, _image(values, where), where)


def _id(value: Any, where: str) -> str:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise DataFault.of("BAD_ID", path=where, found=f"the id is {value!r}", expected="a whole number or a text",
                           fix="correct the id")  # fmt: skip
    return study_id(str(value))


def _image(values: Mapping[str, Any], where: str) -> str:
    """One path; MvKeTR's table has a list of one."""
    found = values.get("image_path", "")
    paths = found if isinstance(found, list) else [found]
    if all(isinstance(path, str) for path in paths) and len(set(paths)) <= 1:
        return str(paths[0]).strip() if paths else ""
    raise DataFault.of("BAD_PATH", path=where, found=f"image_path is {found!r}"[:200], expected="one path a study",
                       fix="one row a volume")  # fmt: skip


def read_chexbert(table: Path, encoding: str) -> dict[str, dict[str, bool]]:
    """Study -> label -> positive, from ``id`` and a column a label. 1 is positive, anything else is not.

    Raises:
        DataFault: the table cannot be read; TABLE_ROWS, a study that stands there twice.
    """
    labels: dict[str, dict[str, bool]] = {}
    wrong = []
    for row in any_rows(table, ("id",), encoding, TextGate()):
        study = row.values["id"].strip()
        if study in labels:
            wrong.append(f"line {row.line}: {study} stands there twice")
        labels[study] = {
            name: text.strip() in ("1", "1.0") for name, text in row.values.items() if name not in ("id", "")
        }
    if wrong:
        raise broken_rows(table, wrong, "one row a study", "correct these rows")
    return labels
