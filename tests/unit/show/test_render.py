"""One table in every form: its numbers, marks and notes are in each, and no text of it leaves its place."""

import csv
import html
import io
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown import markdown
from rich.console import Console

from reg2rg.evaluation.records import from_cell
from reg2rg.show.render import print_tables, to_csv, to_figure, to_html, to_latex, to_markdown, write_files
from reg2rg.show.table import Cell, Column, cell, make_row, make_table

TABLE = make_table(
    "toy",
    "Scores & floors",
    ("", "value [interval]", "best floor", Column("remark", "prose")),
    [
        make_row(("BLEU-4", cell(0.2412, "", "[0.227, 0.255]"), cell(0.2, "strong"), "fine"), "Language"),
        make_row(("F1", cell(0.295, "marked", "[0.275, 0.315]"), cell(0.325, "strong"), "50 % off*"), "Findings"),
        make_row(("=noise", "±2.0", None, ""), "Findings", style="noise", rule=True),
    ],
    ["! marks a score that does not exceed its floor.", "n = 1,304."],
)
# Of printable characters, as names and reports have them, with all that any of the forms reads as its own.
TEXT = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S"), include_characters=" "), max_size=12)
OWN = st.text(st.sampled_from("\\`*_{}[]()#+-.!|<>&~$%^=@'\" a1\t"), max_size=12)


def printed(width):
    console = Console(file=io.StringIO(), width=width)
    print_tables([TABLE], console)
    return console.file.getvalue()


FORMS = {
    "terminal": lambda: printed(100),
    "narrow terminal": lambda: printed(40),
    "markdown": lambda: html.unescape(to_markdown(TABLE)).replace("\\", ""),
    "csv": lambda: to_csv(TABLE),
    "latex": lambda: to_latex(TABLE).replace("{[}", "[").replace("\\", "").replace("$pm$", "±").replace("--", "–"),
    "html": lambda: html.unescape(to_html(TABLE)),
}


@pytest.mark.parametrize("form", FORMS)
def test_numbers_and_marks_are_in_every_form(form):
    text = FORMS[form]()
    for wanted in ("BLEU-4", "0.241 [0.227, 0.255]", "0.200", "! 0.295 [0.275, 0.315]", "0.325", "±2.0", "–"):
        assert wanted in text, wanted


@pytest.mark.parametrize("form", sorted(set(FORMS) - {"csv"}))
def test_title_groups_and_notes_are_in_every_form_for_people(form):
    text = " ".join(FORMS[form]().split())
    for wanted in ("Scores & floors", "Language", "Findings", "n = 1,304."):
        assert wanted in text, wanted
    assert re.sub(r"\W+", "", "! marks a score that does not exceed its floor.") in re.sub(r"\W+", "", text)


def test_what_is_bold_is_bold_on_paper_too():
    assert "| **0.325** |" in to_markdown(TABLE)
    assert "& \\textbf{0.325} &" in to_latex(TABLE)
    assert '<td class="strong">0.325</td>' in to_html(TABLE)
    assert '<td class="marked" title="does not exceed its best floor">! 0.295' in to_html(TABLE)


def test_rules_and_groups_of_latex():
    lines = to_latex(TABLE).splitlines()
    assert lines[:4] == [
        "% Scores & floors",
        "% ! marks a score that does not exceed its floor.",
        "% n = 1,304.",
        "% needs \\usepackage{booktabs}",
    ]
    assert "\\begin{tabular}{lrrl}" in lines
    assert "\\multicolumn{4}{l}{\\emph{Language}} \\\\" in lines
    assert lines[lines.index("=noise & $\\pm$2.0 & -- &  \\\\") - 1] == "\\midrule"


def test_csv_keeps_whole_numbers_whole_beside_what_is_missing():
    frame = pd.DataFrame([["=1", 2, 0.1], ["b", None, None]], columns=["@head", "n", "x"], dtype=object)
    assert to_csv(frame) == "'@head,n,x\n'=1,2,0.1\nb,,\n"


def test_values_as_cells():
    values = ("text", None, float("nan"), True, 1200, 0.5, pd.NA, float("inf"))
    assert [(made.text, made.value) for made in map(cell, values)] == [
        ("text", None), ("–", None), ("–", None), ("yes", 1.0), ("1,200", 1200.0), ("0.500", 0.5), ("–", None),
        ("–", None),
    ]  # fmt: skip


class Texts(HTMLParser):
    """What a reader sees, and the tags around it."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.cells, self._inside = [], [], False
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self._inside = tag in ("th", "td")
        if self._inside:
            self.cells.append("")

    def handle_data(self, data):
        if self._inside:
            self.cells[-1] += data

    def handle_endtag(self, tag):
        self._inside = self._inside and tag not in ("th", "td")


def of(text):
    return make_table("key", text, ("", "x"), [(text, Cell(text)), ("last", 1)], [text])


@settings(max_examples=150, deadline=None)
@given(TEXT | OWN)
def test_any_text_comes_back_from_a_spreadsheet_and_none_is_run(text):
    table = of(text)
    rows = list(csv.reader(io.StringIO(to_csv(table))))
    assert [from_cell(found) for found in rows[1]] == [text, text]
    assert not any(found.startswith(("=", "+", "-", "@", "\t", "\r")) for row in rows for found in row)


@settings(max_examples=150, deadline=None)
@given(TEXT | OWN)
def test_any_text_comes_back_from_html(text):
    found = Texts(to_html(of(text)))
    assert found.cells == ["", "x", text, text, "last", "1"]
    assert found.tags == Texts(to_html(of("plain"))).tags


@settings(max_examples=150, deadline=None)
@given(TEXT | OWN)
def test_any_text_comes_back_from_markdown(text):
    drawn = to_markdown(of(f"a{text}a"))
    found = Texts(markdown(drawn, extensions=["tables"]))
    assert [" ".join(f.split()) for f in found.cells] == ["", "x", *[" ".join(f"a{text}a".split())] * 2, "last", "1"]


ESCAPED = re.compile(
    r"\\(?:textbackslash|textasciicircum|dots)\{\}|\\[&%$#_{}]|\$(?:\^\\sim|\^\*|\\pm|[-<>|])\$|\{\[\}"
)


@settings(max_examples=150, deadline=None)
@given(TEXT | OWN)
def test_no_text_is_a_command_of_latex(text):
    lines = to_latex(of(text)).splitlines()
    body = [line for line in lines if not line.startswith("%")]
    assert len(body) == len(to_latex(of("plain")).splitlines()) - lines.index("% needs \\usepackage{booktabs}") - 1
    row = body[4]
    assert row.endswith(" \\\\")
    assert not row.startswith("["), "an argument of the break before it"
    bare = ESCAPED.sub("", row[:-3])
    assert bare.count("&") == 1
    assert not re.search(r"[\\%$#_{}~^]", bare)


def test_a_figure_takes_the_colours_of_the_page_and_ids_of_its_own():
    drawn = to_figure("runs", '<svg id="figure_1"><path id="p" fill="#111827"/><use href="#p"/></svg>', "A & b")
    assert drawn == (
        '<figure id="plot-runs"><svg role="img" aria-labelledby="caption-runs" id="runs-figure_1"><path id="runs-p" '
        'fill="currentColor"/><use href="#runs-p"/></svg><figcaption id="caption-runs">A &amp; b</figcaption></figure>'
    )


def test_files_without_content_go(tmp_path):
    (tmp_path / "old.svg").write_text("old")
    written = write_files(tmp_path, {"a/new.md": "ä", "old.svg": None, "b.png": b"1"})
    assert [path.relative_to(tmp_path).as_posix() for path in written] == ["a/new.md", "b.png"]
    assert (tmp_path / "a/new.md").read_bytes() == "ä".encode()
    assert not (tmp_path / "old.svg").exists()
