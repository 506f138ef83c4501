"""Predictions on disk as records: read back, scored, listed in one table. No torch: pages and scores need none."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from reg2rg.core.documents import DocumentError, read_record
from reg2rg.core.files import atomic_write
from reg2rg.core.report import Paragraph, Report, Written, write_report, write_tail
from reg2rg.core.text import TextGate
from reg2rg.datasets.json_tables import clean_value

STUDIES, TABLE = "studies", "predictions.csv"
COLUMNS = ("AccNum", "Question", "GT_combined_report", "Pred_combined_report")
DECODING, FORCED = "Decoding", "forced"
_FIX = "delete it and run `reg2rg predict` again: it is made anew"
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def read_records(
    out: str | Path, damaged: Callable[[Path, DocumentError], None] | None = None, gate: TextGate | None = None
) -> Iterator[dict[str, Any]]:
    """Records of all complete studies in a folder of predictions, sorted by study id.

    Args:
        out: the folder.
        damaged: told of a record that is not as it was written, which is then left out.
        gate: cleans every text, and counts; a new one if ``None``.

    Raises:
        DocumentError: such a record, where nobody is told.
    """
    gate = gate or TextGate()
    for path in sorted((Path(out) / STUDIES).glob("*.json")):
        if path.name.startswith("."):
            continue
        try:
            found = read_record(path, _FIX)
            if found.get("study") != path.stem:
                raise DocumentError(f"{path}: a record of study {found.get('study')!r}. Fix: {_FIX}")
        except DocumentError as error:
            if damaged is None:
                raise
            damaged(path, error)
        else:
            yield {key: clean_value(value, gate) for key, value in found.items()}


def read_report(record: Mapping[str, Any]) -> Report:
    """The generated report of a record."""
    if not record["regions"]:  # a report as a whole: one paragraph that belongs to no region
        return Report((Paragraph(0, "", " ".join(record["text"].split())),))
    return Report(
        tuple(Paragraph(p["slot"], p["region"], p["text"]) for p in record["paragraphs"]),
        tuple(record["invalid"]),
        tuple(record["duplicate"]),
        tuple(record["missing"]),
        record.get("others", {}),
    )


def as_facts(written: Written) -> dict[str, Any]:
    """What is known of a paragraph beside its text, as records and JSON files have it."""
    return {"referring": _in_thousandths(written.referring), "forced": written.forced, "truncated": written.truncated}


def _in_thousandths(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares that still sum to one. What a batch does to the last digits of a number is not seen in a file."""
    whole = {name: int(1000 * share) for name, share in shares.items()}
    first = sorted(shares, key=lambda name: whole[name] - 1000 * shares[name])
    for name in first[: 1000 - sum(whole.values())] if shares else ():
        whole[name] += 1
    return {name: count / 1000 for name, count in whole.items()}


def told_decoding(written: Sequence[Written]) -> str:
    """How a report was decoded: ``free``, ``constrained``, or ``forced``, if the names of its regions were given."""
    return "free" if not written else FORCED if any(one.forced for one in written) else "constrained"


def read_written(record: Mapping[str, Any]) -> tuple[Written, ...]:
    """What a record knows of its paragraphs; nothing of a report that was decoded freely."""
    return tuple(
        Written(p["slot"], p["region"], p["referring"], p["forced"], p["truncated"])
        for p in record["paragraphs"]
        if "referring" in p
    )


def write_table(out: str | Path) -> Path:
    """Write all complete studies of a folder as one CSV in the published column layout.

    Where the names of regions were given to the decoder, a column ``Decoding`` says so: they are no recognition.

    Returns:
        its path.
    """
    path = Path(out) / TABLE
    forced = any(found.get("decoding") == FORCED for found in read_records(out))
    with atomic_write(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow((*COLUMNS, DECODING) if forced else COLUMNS)
        for found in read_records(out):
            row = (found["study"], found["question"], _reference_text(found), found["text"])
            writer.writerow([as_cell(text) for text in (*row, found["decoding"])[: len(row) + forced]])
    return path


def reference_paragraphs(record: Mapping[str, Any]) -> Sequence[str]:
    """Reference texts in slot order, ``""`` for a region without one; without regions the whole report alone."""
    texts: Mapping[str, str] = record["reference"]
    return [texts.get(region, "") for region in record["regions"] or ("",)]


def _reference_text(record: Mapping[str, Any]) -> str:
    """The reference as one text: with region prefixes and a tail, or the whole report where there are no regions."""
    texts, others = reference_paragraphs(record), record.get("reference_others")
    if not record["regions"]:
        return texts[0]
    return write_report(record["regions"], texts) + ("" if others is None else write_tail(others))


def as_cell(text: str) -> str:
    """`text` as a spreadsheet shows it: one that would be run as a formula gets an apostrophe in front."""
    return f"'{text}" if text.lstrip("'").startswith(_FORMULA) else text


def from_cell(text: str) -> str:
    """What `as_cell` was given."""
    return text[1:] if text[:1] == "'" and text.lstrip("'").startswith(_FORMULA) else text
