import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pandas as pd
import pytest

from reg2rg.show.evaluation_page import evaluation_page
from reg2rg.show.plots import PLOTS, draw_plot, svg

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Elements(HTMLParser):
    """Every start tag with its attributes."""

    def __init__(self, html):
        super().__init__()
        self.tags = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


@pytest.fixture(scope="module")
def drawn():
    """Stands for drawings where a test is about something else."""
    return {"numbers": '<svg id="figure_1"><use href="#m1"/><g clip-path="url(#p1)"/></svg>', "words": "<svg ></svg>"}


def page(evaluation, drawings=None, **options):
    if drawings is None:
        drawings = {name: svg(figure) for name in PLOTS if (figure := draw_plot(evaluation, name)) is not None}
    return evaluation_page(evaluation, drawings, **options)


@pytest.fixture(scope="module")
def html(evaluation):
    return page(evaluation)


def test_text_from_files_is_escaped(evaluation, hostile, drawn):
    everywhere = replace(
        evaluation,
        name=hostile,
        protocol=hostile,
        protocol_text=hostile,
        notes=[hostile],
        labeler=hostile,
        against=hostile,
        numbers=[replace(evaluation.numbers[0], name=hostile, definition=hostile)],
        floors={hostile: [replace(evaluation.numbers[0], name=hostile)]},
        labels=[replace(evaluation.labels[0], label=hostile)],
        software={hostile: hostile},
        inputs={hostile: hostile},
        per_study=evaluation.per_study.rename(columns={"words": hostile}),
    )
    html = page(everywhere, drawn)
    assert "&lt;/script&gt;&lt;script&gt;" in html
    assert [tag for tag, _ in Elements(html).tags].count("script") == 1
    assert "<b>bold" not in html


def test_drawn_text_is_escaped(evaluation, hostile):
    labels = [replace(evaluation.labels[0], label=hostile)]
    few = replace(evaluation, labels=labels, numbers=evaluation.numbers[:3], confusion=None, differences=[])
    html = page(few)
    assert [tag for tag, _ in Elements(html).tags].count("script") == 1


def test_page_asks_for_nothing_from_outside(html):
    assert "default-src 'none'" in html
    for _, attributes in Elements(html).tags:
        for name in ("href", "src", "xlink:href", "action", "data"):
            assert (attributes.get(name) or "#").startswith("#"), attributes
    # Names of XML dialects in the drawings; nothing is fetched from them.
    assert set(re.findall(r"(?:https?:)?//[\w.-]+", html)) <= {"http://www.w3.org"}
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)


def test_ids_are_unique_and_every_reference_is_met(html):
    tags = Elements(html).tags
    ids = [attributes["id"] for _, attributes in tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    wanted = {a[name][1:] for _, a in tags for name in ("href", "xlink:href") if name in a}
    wanted |= set(re.findall(r"url\(#([^)]+)\)", html))
    wanted |= {a["aria-labelledby"] for _, a in tags if "aria-labelledby" in a}
    assert wanted <= set(ids)


def test_page_is_named_for_those_who_hear_it(html):
    tags = Elements(html).tags
    assert ("html", {"lang": "en"}) in tags
    drawings = [attributes for tag, attributes in tags if tag == "svg"]
    assert len(drawings) == 6
    assert all(a["role"] == "img" and a["aria-labelledby"].startswith("caption-") for a in drawings)
    assert all("scope" in attributes for tag, attributes in tags if tag == "th")


def test_drawings_take_the_colours_of_the_page(html):
    body = html.split("</style>", 1)[1]
    assert "#111827" not in body
    assert "currentColor" in body
    assert "var(--blue)" in body
    assert "prefers-color-scheme:dark" in html
    assert "@media print" in html


def test_headline_stands_beside_its_floor(html):
    cards = html.split('<ul class="cards"', 1)[1].split("</ul>", 1)[0]
    assert "CE F1 (micro)<b>0.295</b><small>95 %: [0.275, 0.315]</small>" in cards
    assert "! does not exceed floor 0.325 (every finding)" in cards
    assert "BLEU-4<b>0.241</b><small>95 %: [0.227, 0.255]</small><small>best floor 0.212 (" in cards
    assert "4 of 12 scores of whole reports do not exceed" in html


def test_studies_are_cut_and_counted(evaluation, drawn):
    def rows(html):
        return html.split('class="sortable"')[1].split("</table>")[0].count("<tr>") - 1

    html = page(evaluation, drawn, max_studies=10)
    assert rows(html) == 10
    assert "The first 10 of 60 studies" in html
    assert rows(page(evaluation, drawn)) == 50
    assert "All 60 studies." in page(evaluation, drawn, max_studies=100)
    assert 'class="sortable"' not in page(evaluation, drawn, max_studies=0)


def test_cells_of_studies_sort_as_what_they_are(evaluation, drawn):
    frame = pd.DataFrame(
        {
            "study": ["a", "b"],
            "score": [0.5, float("nan")],
            "flag": [True, False],
            "n": [1200, 3],
            "text": ["x" * 99, None],
        }
    )
    html = page(replace(evaluation, per_study=frame), drawn)
    assert '<td data-v="0.5">0.500</td><td data-v="1.0">yes</td><td data-v="1200.0">1,200</td>' in html
    assert "<td>–</td>" in html
    assert f'<td class="prose"><div class="clip">{"x" * 99}</div></td>' in html


def test_empty_parts_leave_no_empty_sections(bare):
    html = page(bare)
    assert "Numbers of whole reports" in html
    assert 'id="labels"' not in html
    assert 'class="sortable"' not in html
    assert '<p class="verdict' not in html
    html = page(replace(bare, numbers=[], words={"predicted": [3, 4]}))
    assert 'id="plot-words"' in html
    assert "<table" not in html


def test_page_is_the_same_every_time(bare):
    assert page(bare) == page(bare)


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_click_sorts_numbers_by_size_and_keeps_what_is_missing_last(evaluation, tmp_path, drawn):
    frame = pd.DataFrame({"study": ["s1", "s2", "s3"], "score": [float("nan"), 10.0, 9.0]})
    path = tmp_path / "report.html"
    path.write_text(page(replace(evaluation, per_study=frame), drawn), encoding="utf-8")
    click = """<script>addEventListener("load", () => { const order = [];
      for (let i = 0; i < 2; i++) { document.querySelectorAll("table.sortable button")[1].click();
        order.push([...document.querySelectorAll("table.sortable tbody th")].map(c => c.textContent).join("")); }
      document.title = order.join(" "); });</script></body>"""
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", click), encoding="utf-8")
    done = subprocess.run(
        [
            CHROMIUM,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--virtual-time-budget=2000",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            path.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "<title>s3s2s1 s2s3s1</title>" in done.stdout
