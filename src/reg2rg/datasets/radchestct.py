"""Labels of RAD-ChestCT: one 0/1 column for each abnormality at each location, brought to other findings by a table.

The tables ``img{train,valid,test}_Abnormality_and_Location_Labels.csv`` have the column ``NoteAcc_DEID`` and 84 x 52
columns ``abnormality*location``. The volumes are public, their reports are not: predictions can be scored against these
labels, and no text metric can be computed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from reg2rg.core.documents import parse_yaml, read_text
from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.registry import did_you_mean
from reg2rg.datasets.labels import truth
from reg2rg.datasets.names import study_id
from reg2rg.datasets.tables import broken_rows, read_rows

ID_COLUMN, AT = "NoteAcc_DEID", "*"


@dataclass(frozen=True, slots=True)
class LabelMapping:
    """Findings as any of some abnormalities.

    Attributes:
        name: of the mapping.
        source: where it comes from.
        findings: finding -> abnormalities; none where it cannot be told, which leaves it out.
    """

    name: str
    source: str
    findings: Mapping[str, tuple[str, ...]]


def packaged_mappings() -> tuple[str, ...]:
    """Names of the mappings that come with the package."""
    return tuple(sorted(entry.name[:-5] for entry in _folder().iterdir() if entry.name.endswith(".yaml")))


def load_mapping(name_or_path: str) -> LabelMapping:
    """A packaged mapping by its name, or one's own: YAML with ``findings`` (finding -> abnormalities) and ``source``.

    Raises:
        ConfigError: no such mapping, or a file with a mistake.
    """
    known = packaged_mappings()
    if name_or_path in known:
        where = f"label mapping '{name_or_path}'"
        text = _folder().joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
    elif Path(name_or_path).is_file():
        where, text = name_or_path, read_text(name_or_path, fix="give the path of a YAML file")
    else:
        raise ConfigError(
            f"Unknown label mapping '{name_or_path}'.{did_you_mean(name_or_path, known)} Known: {', '.join(known)}. "
            "Fix: use one of these names, or the path of a .yaml file."
        )
    data = parse_yaml(text, where)
    findings = data.get("findings") if isinstance(data, dict) else None
    if not isinstance(findings, dict) or not all(_texts(names) for names in findings.values()):
        raise ConfigError(f"{where}: 'findings' is missing or no mapping of lists. Fix: finding: [abnormality, ...].")
    return LabelMapping(name_or_path, str(data.get("source", "")), {str(k): tuple(v) for k, v in findings.items()})


def is_radchestct(header: Sequence[str]) -> bool:
    """Whether a table has RAD-ChestCT's columns."""
    return ID_COLUMN in header and any(AT in name for name in header)


def read_radchestct(path: Path, mapping: LabelMapping) -> dict[str, dict[str, bool]]:
    """Study id -> finding -> present at any location; findings that the mapping leaves out are absent.

    Names are compared whole: ``stent`` is not in ``distention``, nor ``nodule`` in ``nodulegr1cm``.

    Raises:
        DataFault: ``TABLE_COLUMNS``: an abnormality that the mapping names has no column. ``TABLE_ROWS``: cells that
            are not 0 or 1, studies that stand there twice with other labels; by line.
    """
    found: dict[str, dict[str, bool]] = {}
    wrong: list[str] = []
    columns: dict[str, list[str]] = {}
    for row in read_rows(path, (ID_COLUMN,)):
        columns = columns or _columns(path, list(row.values), mapping)
        bad = [name for names in columns.values() for name in names if truth(row.values[name]) is None]
        if bad:
            wrong.append(f"line {row.line}: {bad[0]} is {row.values[bad[0]][:20]!r}")
            continue
        labels = {
            finding: any(truth(row.values[name]) for one in names for name in columns[one])
            for finding, names in mapping.findings.items()
            if names
        }
        try:
            study = study_id(row.values[ID_COLUMN])
        except DataFault as fault:
            wrong.append(f"line {row.line}: {fault}")
            continue
        if found.setdefault(study, labels) != labels:
            wrong.append(f"line {row.line}: {study} stands there twice with other labels")
    if wrong:
        raise broken_rows(path, wrong, "0 or 1 in every column, one row a study", "correct these rows")
    return found


def _columns(path: Path, header: Sequence[str], mapping: LabelMapping) -> dict[str, list[str]]:
    """Abnormality -> its columns."""
    found: dict[str, list[str]] = {one: [] for names in mapping.findings.values() for one in names}
    for name in header:
        abnormality, star, _ = name.partition(AT)
        if star and abnormality in found:
            found[abnormality].append(name)
    if missing := [one for one, names in found.items() if not names]:
        known = sorted({name.partition(AT)[0] for name in header if AT in name})
        hints = "".join(did_you_mean(one, known) for one in missing)
        raise DataFault.of(
            "TABLE_COLUMNS",
            path=path,
            found=f"no column of {', '.join(f'{one}{AT}<location>' for one in missing)}",
            expected=f"at least one for each abnormality of the mapping {mapping.name}",
            fix=f"rename the columns, or use another mapping.{hints}",
        )
    return found


def _folder() -> Any:
    return files("reg2rg.datasets").joinpath("label_maps")


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
