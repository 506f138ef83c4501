"""Findings that are stated under another region than the reference's."""

import pytest

from cohorts import scores, study
from reg2rg.evaluation.metrics.misplaced import MisplacedFindings
from reg2rg.evaluation.reading import Reports

NAME = "Findings under another region"


def _found(*pairs, **options):
    regions = ("heart", "lung", "pleura")
    return scores(Reports(list(pairs), regions, ()), metrics=(MisplacedFindings(),), **options)


def test_what_another_region_has_counts_once_for_each_paragraph_that_states_it():
    order, texts = ("lung", "pleura", "heart"), ("A nodule.", "An effusion.", "Normal.")
    found = _found(
        study("a_0", order, texts, ("A nodule.", "An effusion.", "Normal.")),  # 2 stated, none misplaced
        study("b_0", order, texts, ("An effusion.", "A nodule.", "Normal.")),  # 2 stated, both misplaced
        study("c_0", order, texts, ("A nodule.", "A nodule and an effusion.", "Calcification.")),  # 4 stated, 1
        resamples=50,
    )
    number = found.number(NAME)
    assert number.value == pytest.approx(3 / 8)
    assert number.n == 8
    assert not number.score
    assert number.low is not None


def test_what_no_region_has_is_wrong_and_not_misplaced():
    found = _found(study("a_0", ("lung", "heart"), ("Normal.", "Normal."), ("A nodule.", "Normal.")))
    assert found.number(NAME).value == 0


def test_what_two_regions_have_is_in_its_place_in_both():
    found = _found(study("a_0", ("lung", "heart"), ("A nodule.", "A nodule."), ("A nodule.", "A nodule.")))
    assert found.number(NAME).value == 0


def test_there_is_no_number_without_findings_or_a_labeler():
    assert not _found(study("a_0", ("lung",), ("A nodule.",), ("Normal.",))).numbers
    assert not _found(study("a_0", ("lung",), ("A nodule.",), ("A nodule.",)), labeler=None).numbers
