"""Larger and smaller than normal, as they are read and counted."""

import pytest

from cohorts import scores, study
from reg2rg.evaluation.labelers.keywords import KeywordReader
from reg2rg.evaluation.metrics.size_words import SIZE_WORDS, SizeWords
from reg2rg.evaluation.reading import Reports


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("The heart is enlarged.", {"larger"}),
        ("Cardiomegaly is observed.", {"larger"}),
        ("Increased heart size is observed.", {"larger"}),
        ("Ascending aorta measures 44 mm and is wider than normal.", {"larger"}),
        ("Loss of height was observed in a thoracic vertebral corpus.", {"smaller"}),
        ("Both kidneys are atrophic. The spleen is larger than normal.", {"larger", "smaller"}),
        ("The heart is not enlarged.", set()),
        ("No enlarged lymph nodes are seen; heart size is normal.", set()),
        ("Density is increased in both lungs.", set()),
        ("A nodule of 6 mm in the left lung.", set()),
        ("Emphysema with increased density.", set()),
    ],
)
def test_what_a_text_says_of_size(text, said):
    assert {direction for direction, there in KeywordReader(SIZE_WORDS).read(text).items() if there} == said


def test_they_are_counted_paragraph_by_paragraph():
    large, small, normal = "The heart is enlarged.", "The spleen is smaller than normal.", "Nothing abnormal."
    pairs = [
        study("a_0", ("heart", "abdomen"), (large, small), (large, normal)),  # one hit, one miss
        study("b_0", ("heart", "abdomen"), (normal, small), (normal, large)),  # the other direction: miss, false alarm
        study("c_0", ("heart", "abdomen"), (normal, normal), (large, normal)),  # false alarm
        study("d_0", ("heart", "abdomen"), (large, normal), (normal, large)),  # in the other paragraph: both
    ]
    found = scores(Reports(pairs, ("heart", "abdomen"), ()), metrics=(SizeWords(),), resamples=50)
    assert found.number("Size words precision").value == pytest.approx(1 / 4)
    assert found.number("Size words recall").value == pytest.approx(1 / 4)
    assert found.number("Size words F1").value == pytest.approx(1 / 4)
    assert found.number("Size words F1").low is not None


def test_there_is_no_number_where_no_text_speaks_of_size():
    pairs = [study("a_0", ("heart",), ("Nothing abnormal.",), ("Nothing abnormal.",))]
    assert not scores(Reports(pairs, ("heart",), ()), metrics=(SizeWords(),)).numbers
