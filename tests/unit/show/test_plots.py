import io
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from reg2rg.show.plots import PLOTS, draw_plot, png, svg, word_bins


@pytest.fixture
def small(make):
    """Few floors and labels: drawing is what these tests spend their time on."""
    full = make()
    return replace(
        full,
        numbers=[n for n in full.numbers if n.scope in ("report", "heart", "lung")],
        floors={"shuffled": full.floors["shuffled"]},
        labels=full.labels[:3],
    )


def test_all_plots_are_drawn_in_order(evaluation):
    assert all(draw_plot(evaluation, name) is not None for name in PLOTS)


def test_nothing_is_drawn_without_data(bare):
    assert all(draw_plot(replace(bare, numbers=[]), name) is None for name in PLOTS)
    assert [name for name in PLOTS if draw_plot(bare, name) is not None] == ["numbers"]


@pytest.mark.parametrize("name", PLOTS)
def test_drawing_is_the_same_every_time_and_names_no_other_place(small, name):
    first, second = svg(draw_plot(small, name)), svg(draw_plot(small, name))
    assert first == second
    ElementTree.fromstring(first)
    assert set(re.findall(r"https?://[^\"'<\s]+", first)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }


def test_png_is_the_same_every_time_and_opaque(small):
    first = png(draw_plot(small, "words"))
    assert first == png(draw_plot(small, "words"))
    image = np.asarray(Image.open(io.BytesIO(first)).convert("RGBA"))
    assert image[0, 0].tolist() == [255, 255, 255, 255]
    assert image.shape[1] > 1000


def test_names_from_files_are_text(small):
    hostile = "a <b> & $\\frac{$"
    drawing = svg(draw_plot(replace(small, labels=[replace(small.labels[0], label=hostile)]), "labels"))
    texts = ["".join(node.itertext()) for node in ElementTree.fromstring(drawing).iter() if node.tag.endswith("text")]
    assert hostile in texts


def test_values_that_are_no_numbers_are_left_out(small):
    own = small.number("BLEU-1")
    numbers = [replace(own, value=math.nan), replace(own, name="BLEU-2", low=math.nan, high=math.nan)]
    drawing = svg(draw_plot(replace(small, numbers=numbers), "numbers"))
    assert ">BLEU-2<" in drawing
    assert ">BLEU-1<" not in drawing
    assert "nan" not in drawing.lower()
    differences = [replace(d, low=math.nan) for d in small.differences]
    assert draw_plot(replace(small, differences=differences), "differences") is None


def test_score_below_its_floor_is_marked(small):
    floor = replace(small.number("BLEU-1"), value=0.9)
    drawing = svg(draw_plot(replace(small, floors={"shuffled": [floor]}), "numbers"))
    assert ">! BLEU-1<" in drawing
    assert ">BLEU-2<" in drawing


def test_scores_beyond_one_get_an_axis_of_their_own(small):
    names = [[label.get_text() for label in axes.get_yticklabels()] for axes in draw_plot(small, "numbers").axes]
    assert names[1] == ["CIDEr"]


def test_every_count_of_the_confusion_is_written(small):
    texts = {text.get_text() for text in draw_plot(small, "confusion").axes[0].texts}
    assert {"1,200", "61", "15", "9", "1"} <= texts
    assert "0" not in texts


def test_only_whole_reports_are_compared_where_rows_are_many(small):
    own = small.differences[0]
    regions = [replace(own, number=replace(own.number, scope=f"region {i}")) for i in range(40)]
    axes = draw_plot(replace(small, differences=[own, *regions]), "differences").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["BLEU-1"]
    axes = draw_plot(replace(small, differences=[own, regions[0]]), "differences").axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["report: BLEU-1", "region 0: BLEU-1"]


def test_bins_hold_every_report():
    words = {"reference": [0, 7, 250], "predicted": [3, 3]}
    edges = word_bins(words)
    assert len(edges) - 1 <= 36
    assert sum(np.histogram(words["reference"], edges)[0]) == 3
    assert word_bins({"reference": [5, 5]}).tolist() == [4.5, 5.5]
    assert word_bins({}).tolist() == [0.0, 1.0]
