"""An audit as tables for the terminal, as one self-contained page with swaps side by side, and as files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console
from rich.text import Text

from reg2rg.audit.measures import (
    APART,
    CHANGED,
    CHANGED_FINDINGS,
    DEFINITIONS,
    F1,
    F1_AFTER,
    F1_BEFORE,
    F1_BLIND,
    F1_CHANGE,
    FOLLOW,
    FOLLOW_WORDS,
    LEAK,
    LEAK_FINDINGS,
    PRIOR,
)
from reg2rg.audit.plan import INTERVENTIONS
from reg2rg.audit.results import AuditResult, Swap
from reg2rg.core.files import Content, Outputs, json_text
from reg2rg.evaluation.metrics.collapse import TemplateCollapse
from reg2rg.evaluation.metrics.questions import ReportQuestions
from reg2rg.evaluation.results import REPORT, Difference, Number
from reg2rg.show.evaluation_files import as_json as evaluation_json
from reg2rg.show.evaluation_files import differences_json, intervals_json, plain_json
from reg2rg.show.evaluation_tables import COMPARED, difference_row
from reg2rg.show.phrases import format_interval, percent, size_and_intervals
from reg2rg.show.render import print_items, print_tables, to_csv, to_page, write_files
from reg2rg.show.table import Cell, Table, cell, make_row, make_table

RESULT, NUMBERS, SWAPS, PAGE = "audit.json", "numbers.csv", "swaps.csv", "audit.html"
FORMAT = 1
"""Version of ``audit.json``: raised when a key changes its meaning or goes, not when one is added."""
_CARDS = (FOLLOW, LEAK, LEAK_FINDINGS, APART, PRIOR)
_BY_SCOPE = (FOLLOW, FOLLOW_WORDS, APART, LEAK, LEAK_FINDINGS, F1, F1_BLIND, PRIOR)
_BY_INTERVENTION = (CHANGED, CHANGED_FINDINGS, FOLLOW, LEAK, LEAK_FINDINGS, F1_BEFORE, F1_AFTER, F1_CHANGE)


def audit_tables(result: AuditResult) -> list[Table]:
    """The tables, in the order of reading; those without a row are left out."""
    tables = [
        _numbers_table("numbers", "The report", result.numbers, _BY_SCOPE, (REPORT,)),
        _scopes("regions", "By region", result.regions, _BY_SCOPE),
        _scopes("findings", "By finding", result.findings, (FOLLOW, APART, LEAK_FINDINGS, F1, F1_BLIND, PRIOR)),
        _interventions(result),
        _text(result),
        _differences(result.differences),
    ]
    return [table for table in tables if table.rows]


def audit_page(result: AuditResult, most_swaps: int = 24) -> str:
    """The page as HTML. It asks for nothing from outside.

    Args:
        result: what to show.
        most_swaps: shown side by side.
    """
    telling = [swap for swap in result.swaps if swap.findings]
    by_name = {number.name: number for number in result.numbers if number.scope == REPORT}
    return to_page(
        "audit.html.j2",
        {
            "title": f"Region audit of {result.name}",
            "lead": _lead(result),
            "notes": result.notes,
            "cards": [by_name[name] for name in _CARDS if name in by_name],
            "confidence": percent(result.confidence),
            "tables": audit_tables(result),
            "swaps": _evenly(telling, most_swaps),
            "swaps_told": f"{len(telling):,}",
            "facts": _facts(result),
        },
    )


def print_audit(result: AuditResult, console: Console) -> None:
    """Print an audit: what was audited, then its tables."""
    console.print(Text(f"Region audit of {result.name}", style="bold"))
    console.print(Text(_lead(result)))
    print_items(result.notes, console)
    print_tables(audit_tables(result), console)


def write_audit(result: AuditResult, out: str | Path, outputs: Outputs | None = None) -> list[Path]:
    """Write ``audit.json``, tables of numbers and of swaps, and the page; each whole or absent.

    Returns:
        the files written.

    Raises:
        OutputsFailedError: some could not be written, and `outputs` is ``None``.
    """
    contents: dict[str, Content | Callable[[], Content]] = {
        NUMBERS: partial(_numbers_csv, result),
        SWAPS: lambda: to_csv(pd.DataFrame([_swap(swap) for swap in result.swaps])) if result.swaps else None,
        PAGE: partial(audit_page, result),
        RESULT: lambda: json_text(as_json(result)),
    }
    return write_files(Path(out), contents, outputs)


def as_json(result: AuditResult) -> dict[str, Any]:
    """Everything but the swaps, as JSON has it: NaN is null."""
    found = {
        "format": FORMAT,
        "name": result.name,
        "studies": result.studies,
        "patients": result.patients,
        "interventions": dict(result.interventions),
        "intervals": intervals_json(result),
        "labeler": result.labeler,
        "notes": list(result.notes),
        "numbers": [asdict(number) for number in (*result.numbers, *result.regions, *result.findings)],
        "differences": differences_json(result.differences),
        "text": evaluation_json(result.text),
        "made by": dict(result.facts),
    }
    return plain_json(found)


def _lead(result: AuditResult) -> str:
    trials = sum(result.interventions.values())
    size, intervals = size_and_intervals(result)
    return f"{size}; {trials:,} reports under interventions; {intervals}"


def _facts(result: AuditResult) -> dict[str, str]:
    told = {name: value for name, value in result.facts.items() if name != "task"}
    texts = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else str(value) for name, value in told.items()
    }
    return texts | {"labels": result.labeler}


def _cell(number: Number | None) -> Cell:
    if number is None:
        return cell(None)
    return cell(number.value, after=format_interval(number.low, number.high))


def _numbers_table(
    key: str, title: str, numbers: Sequence[Number], names: Sequence[str], scopes: Sequence[str]
) -> Table:
    found = [n for name in names for n in numbers if n.name == name and n.scope in scopes]
    rows = [make_row([n.name, _cell(n), n.n]) for n in found]
    return make_table(key, title, ["", "value", "n"], rows, [f"{n.name}: {n.definition}." for n in found])


def _scopes(key: str, title: str, numbers: Sequence[Number], names: Sequence[str]) -> Table:
    by_key = {(n.scope, n.name): n for n in numbers}
    scopes = list(dict.fromkeys(n.scope for n in numbers))
    there = [name for name in names if any((scope, name) in by_key for scope in scopes)]
    rows = [make_row([scope, *(_cell(by_key.get((scope, name))) for name in there)]) for scope in scopes]
    return make_table(key, title, ["", *there], rows)


def _interventions(result: AuditResult) -> Table:
    by_key = {(n.scope, n.name): n for n in result.numbers}
    rows = [
        make_row([name, trials, *(_cell(by_key.get((name, key))) for key in _BY_INTERVENTION)])
        for name, trials in sorted(result.interventions.items(), key=lambda one: list(INTERVENTIONS).index(one[0]))
    ]
    notes = [f"{name}: {INTERVENTIONS[name]}." for name in INTERVENTIONS if name in result.interventions]
    notes += [f"{key}: {DEFINITIONS[key]}." for key in (CHANGED, CHANGED_FINDINGS, F1_BEFORE, F1_AFTER, F1_CHANGE)]
    return make_table("interventions", "By intervention", ["", "trials", *_BY_INTERVENTION], rows, notes)


def _text(result: AuditResult) -> Table:
    """What the reports are worth as text, beside the floors."""
    numbers = [n for n in result.text.numbers if n.scope == REPORT and _is_told(n)]
    values = {name: {n.key: n.value for n in floor} for name, floor in result.text.floors.items()}
    shown = [name for name in values if any(number.key in values[name] for number in numbers)]
    rows = [make_row([n.name, _cell(n), *(values[name].get(n.key) for name in shown)]) for n in numbers]
    notes = [f"{n.name}: {n.definition}." for n in numbers]
    return make_table("text", "The reports as text", ["", "value", *shown], rows, notes)


def _is_told(number: Number) -> bool:
    told = ("CE F1 (micro)", "CE F1 (macro)")
    return number.name in told or any(one().gives(number.name) for one in (ReportQuestions, TemplateCollapse))


def _differences(differences: Sequence[Difference]) -> Table:
    rows = [difference_row(one) for one in differences if one.number.scope == REPORT]
    heads = ["", "this", "other", *COMPARED]
    notes = ["Paired: the same resamples of the same studies."]
    return make_table("differences", "Against the other audit", heads, rows, notes)


def _numbers_csv(result: AuditResult) -> str:
    numbers = (*result.numbers, *result.regions, *result.findings)
    columns = ("group", "scope", "name", "value", "low", "high", "n")
    return to_csv(pd.DataFrame([{key: getattr(n, key) for key in columns} for n in numbers]))


def _swap(swap: Swap) -> dict[str, Any]:
    return {name: "; ".join(value) if isinstance(value, tuple) else value for name, value in asdict(swap).items()}


def _evenly(swaps: Sequence[Swap], most: int) -> list[Swap]:
    """So many of them, each region and outcome in turn."""
    groups: dict[tuple[str, bool], list[Swap]] = {}
    for swap in swaps:
        groups.setdefault((swap.region, swap.findings == swap.followed), []).append(swap)
    return list(_in_turn([groups[key] for key in sorted(groups)]))[:most]


def _in_turn(groups: Sequence[Sequence[Swap]]) -> Iterator[Swap]:
    for place in range(max(map(len, groups), default=0)):
        yield from (group[place] for group in groups if place < len(group))
