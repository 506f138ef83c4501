"""The summary of a data set as tables for the terminal, and as one self-contained page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from matplotlib.figure import Figure

from reg2rg.check.scripts import LATIN
from reg2rg.check.summary import Share, Spread, Summary
from reg2rg.show.plots import BLUE, plot_style, svg
from reg2rg.show.render import to_figure, to_page
from reg2rg.show.table import Cell, Column, Table, cell, make_row, make_table

_QUANTILES = ("least", "5 %", "median", "95 %", "most")


def summary_tables(summary: Summary) -> list[Table]:
    """The tables, in the order of reading; those without a row are left out."""
    tables = [_studies(summary), _grids(summary), *_regions(summary), _labels(summary), _words(summary), _left(summary)]
    return [table for table in tables if table.rows]


def summary_page(summary: Summary, name: str, facts: Mapping[str, str]) -> str:
    """The page as HTML. It asks for nothing from outside.

    Args:
        summary: what to show.
        name: of the data set.
        facts: what it was made from: name -> value.
    """
    plots = {key: to_figure(key, drawing, caption) for key, drawing, caption in _drawings(summary)}
    values = {"title": f"What {name} holds", "lead": headline(summary), "tables": summary_tables(summary)}
    return to_page("summary.html.j2", {**values, "plots": plots, "facts": facts})


def headline(summary: Summary) -> str:
    """One sentence."""
    total, patients = sum(summary.studies.values()), sum(summary.patients.values())
    by_split = ", ".join(f"{split} {count:,}" for split, count in summary.studies.items())
    slices = summary.grids.get("spacing bottom-top (mm)")
    apart = f" Slices are {slices.quantiles[2]:g} mm apart in the median." if slices is not None else ""
    return f"{total:,} studies of {patients:,} patients ({by_split}).{apart}"


def _studies(summary: Summary) -> Table:
    rows = [make_row([split, count, summary.patients[split]]) for split, count in summary.studies.items()]
    notes = []
    if summary.skipped:
        listed = ", ".join(f"{code} {count:,}" for code, count in summary.skipped.items())
        notes.append(f"Left out: {listed}. `reg2rg data check` says why, study by study.")
    return make_table("studies", "Studies", ["split", "studies", "patients"], rows, notes)


def _grids(summary: Summary) -> Table:
    rows = [make_row([name, *_cells(spread)]) for name, spread in summary.grids.items()]
    notes = ["By headers alone: voxels were not read."]
    if summary.orientations:
        listed = ", ".join(f"{codes} {count:,}" for codes, count in summary.orientations.items())
        notes.append(f"Axes of the files run towards: {listed}.")
    if summary.unreadable:
        listed = ", ".join(f"{code} {count:,}" for code, count in summary.unreadable.items())
        notes.append(f"Scans whose header cannot be read, or does not tell: {listed}.")
    return make_table("grids", "Grids of the scans", ["", *_QUANTILES], rows, notes)


def _regions(summary: Summary) -> Iterator[Table]:
    splits = list(summary.studies)
    heads = ["region", *(f"{split}: {what} %" for split in splits for what in ("mask", "text"))]
    rows = [
        make_row([mask.name, *(_percent(one, split) for split in splits for one in (mask, text))])
        for mask, text in zip(summary.masks, summary.texts, strict=True)
    ]
    notes = ["Studies with a mask file, or a label, of the region. It may be empty: `reg2rg data check` reads it."]
    if any(sum(share.having.values()) for share in (*summary.masks, *summary.texts)):
        yield make_table("regions", "Regions", heads, rows, notes)


def _labels(summary: Summary) -> Table:
    splits = [split for split in summary.studies if any(label.of.get(split) for label in summary.labels)]
    rows = [make_row([label.name, *(_percent(label, split) for split in splits)]) for label in summary.labels]
    known = [f"{split} {max(label.of.get(split, 0) for label in summary.labels):,}" for split in splits]
    notes = [f"Studies with labels: {', '.join(known)}."] if known else []
    return make_table("labels", "Labels", ["label", *(f"{split} %" for split in splits)], rows, notes)


def _words(summary: Summary) -> Table:
    rows = [make_row([name, spread.count, *_cells(spread)]) for name, spread in summary.words.items()]
    notes = ["Words; of reports in Chinese or Japanese, signs."]
    if summary.scripts:
        listed = ", ".join(f"{script} {count:,}" for script, count in summary.scripts.items())
        notes.append(f"Reports by script: {listed}.")
    if LATIN in summary.scripts:
        notes.append("Latin letters may be English, German, Spanish, ...: letters do not tell, and it is not guessed.")
    if summary.repeated:
        notes.append(f"{summary.repeated:,} reports have the same text as another study's.")
    return make_table("words", "Length of reports", ["text of", "texts", *_QUANTILES], rows, notes)


def _left(summary: Summary) -> Table:
    rows = [make_row([note.code, note.count, "; ".join(note.examples[:3])]) for note in summary.notes]
    return make_table("notes", "Noted while listing", ["code", "count", Column("such as", "prose")], rows, lengthy=True)


def _cells(spread: Spread) -> Sequence[Cell]:
    return [cell(round(value, 3)) if value % 1 else cell(int(value)) for value in spread.quantiles]


def _percent(share: Share, split: str) -> Cell:
    if not (total := share.of.get(split, 0)):
        return cell(None)
    value = 100 * share.having.get(split, 0) / total
    return Cell(f"{value:.1f}", value)


def _drawings(summary: Summary) -> Iterator[tuple[str, str, str]]:
    """Key of the table that a drawing stands above, the drawing, and its caption."""
    shown = {
        name: spread
        for name, spread in summary.grids.items()
        if len(spread.bins) > 1 and not name.startswith("extent")  # what is the same in all needs no drawing
    }
    if shown:
        yield "grids", _histograms(shown, 3), "Scans by spacing and by number of voxels, along the patient's axes."
    words = {name: summary.words[name] for name in ("report",) if len(summary.words.get(name, Spread(0)).bins) > 1}
    if words:
        yield "words", _histograms(words, 1), "Reports by their length; what is much longer stands in the last bar."


def _histograms(spreads: Mapping[str, Spread], columns: int) -> str:
    with plot_style():
        rows = -(-len(spreads) // columns)
        figure = Figure(figsize=(3.2 * columns if columns > 1 else 7.6, 2.2 * rows), layout="constrained")
        panels = figure.subplots(rows, columns, squeeze=False).ravel()
        for panel, (name, spread) in zip(panels, spreads.items(), strict=False):
            widths = [high - low for low, high in zip(spread.edges, spread.edges[1:], strict=False)]
            panel.bar(spread.edges[:-1], spread.bins, width=widths, align="edge", color=BLUE)
            panel.set_title(name)
            panel.grid(axis="y")
        for panel in panels[len(spreads) :]:
            panel.set_visible(False)
    return svg(figure)
