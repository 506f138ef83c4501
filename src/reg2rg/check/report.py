"""The result of a check as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from reg2rg.check.result import CheckResult, Coverage, Finding

if TYPE_CHECKING:
    from rich.console import Console

SHOWN = 200
_SEVERITY_STYLE = {"error": "bold red", "note": "yellow"}


def print_check(result: CheckResult, console: Console | None = None, shown: int = SHOWN) -> None:
    """Print counts by reason, coverage by region and split, and every error.

    Args:
        result: what `check_dataset` found.
        console: where to print; standard output by default.
        shown: most errors to print in words; ``check.json`` always has them all.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = console or Console()
    table = Table("", *(f"{split}" for split in result.listed), title="Studies", title_justify="left")
    table.add_row("listed", *(str(count) for count in result.listed.values()))
    table.add_row("usable", *(str(result.usable.get(split, 0)) for split in result.listed))
    console.print(table)
    console.print(f"Volumes and masks read: {result.read}", highlight=False)
    if result.coverage:
        console.print(_coverage_table(result.coverage))
    if result.findings:
        counts = Table("severity", "code", "count", "for example", title="Counts by reason", title_justify="left")
        for (severity, code), count in result.counts().items():
            style = _SEVERITY_STYLE[severity]
            example = _example(result.findings, severity, code)
            counts.add_row(f"[{style}]{severity}[/]", code, str(count), escape(example))
        console.print(counts)
    for finding in result.faults[:shown]:
        console.print(f"[bold red]error[/] {escape(finding.message)}", highlight=False, soft_wrap=True)
    if len(result.faults) > shown:
        console.print(f"... and {len(result.faults) - shown} more errors: see check.json", highlight=False)
    if not result.faults:
        console.print("[bold green]No error found.[/]")


def _example(findings: tuple[Finding, ...], severity: str, code: str) -> str:
    finding = next(finding for finding in findings if (finding.severity, finding.code) == (severity, code))
    where = f"{finding.study}: " if finding.study and finding.study not in finding.message else ""
    text = where + finding.message.splitlines()[0]
    return text if len(text) <= 160 else text[:157] + "..."


def _coverage_table(coverage: tuple[Coverage, ...]) -> object:
    """Rows are regions; a column a split: share of studies with mask / with text / with both."""
    from rich.table import Table

    splits = list(dict.fromkeys(line.split for line in coverage))
    table = Table("region", title="Usable studies: % with mask / text / both", title_justify="left")
    for split in splits:
        total = next(line.studies for line in coverage if line.split == split)
        table.add_column(f"{split} ({total})", justify="right")
    by_place = {(line.region, line.split): line for line in coverage}
    for region in dict.fromkeys(line.region for line in coverage):
        lines = (by_place[region, split] for split in splits)
        table.add_row(region, *(" / ".join(_percent(n, line.studies) for n in _numbers(line)) for line in lines))
    return table


def _numbers(line: Coverage) -> tuple[int, int, int]:
    return line.mask, line.text, line.both


def _percent(count: int, total: int) -> str:
    return f"{100 * count / total:.0f}" if total else "-"
