"""The result files that Reg2RG published beside its code, read as figures to be held against ours.

A file is known by its name or its columns; what stands in it is known to no code here.
"""

from __future__ import annotations

import ast
import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

REPORTS = "_reports.csv"
FULL = 7
"""More decimals than this are a number as Python prints it, not one that was rounded for a table."""
EQUAL = 1e-12
FIGURES = ("precision", "recall", "F1")


@dataclass(frozen=True, slots=True)
class Figure:
    """One published figure beside ours.

    Attributes:
        source: file that it stands in.
        row: region, label or average.
        name: which figure of the row.
        published: as printed.
        ours: with as many decimals.
        differences: ours minus published at the printed decimals: one number, or mean and deviation.
    """

    source: str
    row: str
    name: str
    published: str
    ours: str
    differences: tuple[float, ...]

    @property
    def equal(self) -> bool:
        """No printed digit differs."""
        return not any(self.differences)

    @property
    def difference(self) -> str:
        """The differences in words."""
        return "0" if self.equal else " / ".join(f"{one:+.2g}" for one in self.differences)


@dataclass(frozen=True, slots=True)
class Missing:
    """Figures that cannot be made from the files at hand, and why."""

    source: str
    what: str
    reason: str


@dataclass(slots=True)
class Found:
    """What a comparison found."""

    figures: list[Figure] = field(default_factory=list)
    missing: list[Missing] = field(default_factory=list)

    def add(self, source: str, row: str, name: str, published: str, *ours: float) -> None:
        """Compare ``0.1234``, ``0.1234±0.0567`` or a number in full with one value or two."""
        parts = published.split("±")
        if len(parts) != len(ours):
            raise ValueError(f"{source}: {row}: {name} is {published!r}; expected {len(ours)} numbers")
        texts, differences = [], []
        for part, value in zip(parts, ours, strict=True):
            decimals = len(part.partition(".")[2])
            if decimals > FULL:
                difference = value - float(part)
                texts.append(part if abs(difference) < EQUAL else repr(float(value)))
                differences.append(0.0 if abs(difference) < EQUAL else difference)
            else:
                # A tie falls as the last bit of a sum has it, which depends on the order of adding.
                near = (f"{value + shift:.{decimals}f}" for shift in (-EQUAL, EQUAL))
                texts.append(part if part in near else f"{value:.{decimals}f}")
                differences.append(round(float(texts[-1]) - float(part), decimals))
        self.figures.append(Figure(source, row, name, published, "±".join(texts), tuple(differences)))


def table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV as texts; none if there is no such file."""
    if not path.is_file():
        return []
    csv.field_size_limit(2**24)
    with path.open(newline="", encoding="utf-8-sig") as stream:
        return list(csv.DictReader(stream))


@dataclass(frozen=True, slots=True)
class TextReport:
    """A table that scikit-learn's ``classification_report`` printed.

    Attributes:
        labels: label -> precision, recall, F1 as printed.
        averages: micro, macro, weighted, samples -> the same.
    """

    labels: Mapping[str, tuple[str, ...]]
    averages: Mapping[str, tuple[str, ...]]


_LINE = re.compile(r"\s*(\S.*?)\s+(\d\.\d+)\s+(\d\.\d+)\s+(\d\.\d+)\s+(\d+)\s*")


def text_report(path: Path) -> TextReport | None:
    """The table in a file; ``None`` if there is none."""
    rows = [match.groups() for line in path.read_text("utf-8").splitlines() if (match := _LINE.fullmatch(line))]
    averages = {name.removesuffix(" avg"): tuple(cells[:3]) for name, *cells in rows if name.endswith(" avg")}
    labels = {name: tuple(cells[:3]) for name, *cells in rows if not name.endswith(" avg")}
    return TextReport(labels, averages) if averages else None


@dataclass(frozen=True, slots=True)
class Recognition:
    """A published report on region recognition.

    Attributes:
        accuracy: mean and deviation as printed.
        regions: first word of the region -> precision, recall, F1 as printed.
        averages: the three ``m±s`` over regions as printed.
        wrong: first word of the region -> studies that name it where it does not stand, as often as they do.
        missed: the same for studies that do not name it where it stands.
    """

    accuracy: str
    regions: Mapping[str, tuple[str, ...]]
    averages: tuple[str, ...]
    wrong: Mapping[str, Sequence[str]]
    missed: Mapping[str, Sequence[str]]

    def standing(self, region: str) -> int:
        """How often the region stands somewhere, solved from what was missed or said wrongly of it.

        Raises:
            ValueError: it cannot be solved.
        """
        precision, recall, _ = map(float, self.regions[region])
        missed, wrong = len(self.missed.get(region, ())), len(self.wrong.get(region, ()))
        if missed:
            return round(missed / (1 - recall))
        if wrong:
            return round(precision * wrong / (1 - precision))
        raise ValueError(f"without a mistake, nothing says how often the region {region} stands somewhere")


def recognition_report(path: Path) -> Recognition | None:
    """The report in a file; ``None`` if it is something else."""
    text = path.read_text("utf-8")
    accuracy = re.search(r"^Mean accuracy: (\S+)\nStandard deviation: (\S+)", text, re.MULTILINE)
    if accuracy is None:
        return None
    pattern = r"^(\w+):\nPrecision: (\S+)\nRecall: (\S+)\nF1 score: (\S+)"
    regions = {name: tuple(cells) for name, *cells in re.findall(pattern, text, re.MULTILINE)}
    averages = re.findall(r"^(?:Precision|Recall|F1 score) of all regions: (\S+)", text, re.MULTILINE)
    lists = re.findall(r"^Region: (\w+)\nFalse (positive|negative) accnums: (\[.*\])", text, re.MULTILINE)
    wrong, missed = (
        {name: [str(study) for study in ast.literal_eval(found)] for name, kind, found in lists if kind == side}
        for side in ("positive", "negative")
    )
    return Recognition("±".join(accuracy.groups()), regions, tuple(averages), wrong, missed)


def whole_reports(folder: Path) -> Iterator[Path]:
    """Tables of whole reports, with region prefixes or without."""
    yield from sorted(folder.glob("*combined_reports*.csv"))


def label_tables(folder: Path) -> Iterator[Path]:
    """Tables with labels of both sides."""
    for path in sorted(folder.glob("*.csv")):
        with path.open(newline="", encoding="utf-8-sig") as stream:
            header = next(csv.reader(stream), [])
        if any(name.startswith("GT_") for name in header) and sum(name.startswith("Pred_") for name in header) > 1:
            yield path


# tables for a page

BEGIN, END = "<!-- reproduced -->", "<!-- /reproduced -->"


def replaced(page: str, tables: str) -> str:
    """The page with these tables between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN} ... {END} to put the tables between")
    return f"{before}{BEGIN}\n\n{tables}\n{END}{after}"


def counted(figures: Sequence[Figure]) -> str:
    """How many numbers there are and how many are equal."""
    each = [difference for figure in figures for difference in figure.differences]
    return f"{len(each)} figures, {each.count(0)} equal"


def markdown(found: Found) -> str:
    """All figures as tables, and what cannot be made."""
    parts = []
    for source in dict.fromkeys(figure.source for figure in found.figures):
        figures = [figure for figure in found.figures if figure.source == source]
        parts.append(f"**`{source}`**: {counted(figures)}.\n")
        means = [figure for figure in figures if not figure.name.startswith("Overall_")]
        overall = [figure for figure in figures if figure.name.startswith("Overall_")]
        parts += [_stacked(means), _stacked(overall)] if overall else [_side_by_side(figures)]
    if found.missing:
        parts.append("Cannot be made from the files at hand:\n")
        parts.append("".join(f"- `{one.source}`, {one.what}: {one.reason}.\n" for one in found.missing))
    return "\n".join(parts)


def _stacked(figures: Sequence[Figure]) -> str:
    """Three lines a row: many figures of one kind."""
    names = list(dict.fromkeys(figure.name for figure in figures))
    lines = [f"| | | {' | '.join(name.removeprefix('Overall_') for name in names)} |", "|---" * (len(names) + 2) + "|"]
    if figures[0].name.startswith("Overall_"):
        lines[0] = lines[0].replace("| | |", "| Overall | |", 1)
    for row in dict.fromkeys(figure.row for figure in figures):
        cells = {figure.name: figure for figure in figures if figure.row == row}
        for title, what, text in (
            (row, "ours", lambda one: one.ours),
            ("", "published", lambda one: one.published),
            ("", "difference", lambda one: one.difference),
        ):
            lines.append(f"| {title} | {what} | {' | '.join(text(cells[name]) for name in names)} |")
    return "\n".join(lines) + "\n"


def _side_by_side(figures: Sequence[Figure]) -> str:
    """One line a row: ours and published of each figure, then the largest difference in full."""
    names = list(dict.fromkeys(figure.name for figure in figures))
    in_full = any(len(part.partition(".")[2]) > FULL for one in figures for part in one.published.split("±"))
    head = " | ".join(f"{name}: ours | published" for name in names)
    lines = [f"| | {head} | difference |", "|---" * (2 * len(names) + 2) + "|"]
    for row in dict.fromkeys(figure.row for figure in figures):
        cells = {figure.name: figure for figure in figures if figure.row == row}
        texts = [text for name in names for text in _both(cells.get(name))]
        worst = max(cells.values(), key=lambda one: max(map(abs, one.differences)))
        lines.append(f"| {row} | {' | '.join(map(_short, texts) if in_full else texts)} | {worst.difference} |")
    return "\n".join(lines) + "\n"


def _both(figure: Figure | None) -> tuple[str, str]:
    return (figure.ours, figure.published) if figure else ("", "")


def _short(text: str) -> str:
    return "±".join(f"{float(part):.4f}" for part in text.split("±") if part)
