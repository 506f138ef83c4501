"""What a prediction is worth that has seen no image."""

import numpy as np
import pytest

from cohorts import SET, study
from reg2rg.evaluation.baselines import COMMONEST_PARAGRAPHS, EVERYTHING, SHUFFLED, baselines_of, commonest, givers
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.reading import Reports, reference_pairs

TEXTS = {"nodule": "A nodule of 8 mm is seen.", "effusion": "Pleural effusion on both sides."}
TRUTH = {
    "a_0": {"Lung nodule": True, "Pleural effusion": False},
    "b_0": {"Lung nodule": False, "Pleural effusion": True},
}


def figures(numbers):
    return {number.name: number.value for number in numbers if number.scope == "report"}


def test_ties_go_to_the_first_in_alphabetical_order():
    assert commonest(["b", "a", "b", "a", "c"]) == "a"
    assert commonest([]) == ""


def test_everybody_gets_a_report_of_another_patient_by_the_seed_alone():
    studies = [f"p{i // 2}_{i}" for i in range(10)]
    patients = [name.partition("_")[0] for name in studies]
    places = givers(studies, patients, 0)
    assert sorted(places) == list(range(10))
    assert all(patients[place] != own for place, own in zip(places, patients, strict=True))
    order = np.random.default_rng(1).permutation(10)
    again = givers([studies[i] for i in order], [patients[i] for i in order], 0)
    assert [studies[order[place]] for place in again] == [studies[places[i]] for i in order]
    assert givers(studies, patients, 1) != places


def test_truth_labels_have_the_same_baselines():
    pairs = [study(name, ("lung",), ["x"], [text]) for name, text in zip(TRUTH, TEXTS.values(), strict=True)]
    found = evaluate("x", Reports(pairs, ("lung",), ()), Settings(truth=TRUTH, resamples=0))
    assert found.number("Truth F1 (micro)").value == 1
    assert figures(found.floors[SHUFFLED])["Truth F1 (micro)"] == 0
    everything = figures(found.floors[EVERYTHING])
    assert (everything["Truth precision (micro)"], everything["Truth recall (micro)"]) == (0.5, 1)
    assert [(row.label, row.f1, row.support, row.floor_name) for row in found.truth_labels] == [
        ("Lung nodule", 1, 1, EVERYTHING),
        ("Pleural effusion", 1, 1, EVERYTHING),
    ]


def test_a_finding_that_is_not_known_does_not_count():
    truth = {"a_0": {"Lung nodule": True}, "b_0": {"Pleural effusion": True}}
    texts = ("A nodule of 8 mm is seen. Pleural effusion.", "No effusion.")
    pairs = [study(name, ("lung",), ["x"], [text]) for name, text in zip(truth, texts, strict=True)]
    found = evaluate("x", Reports(pairs, ("lung",), ()), Settings(truth=truth, resamples=0, floors=False))
    assert (found.number("Truth precision (micro)").value, found.number("Truth recall (micro)").value) == (1, 0.5)
    none = evaluate("x", Reports(pairs, ("lung",), ()), Settings(truth={"c": {}}, resamples=0, floors=False))
    assert "Truth F1 (micro)" not in figures(none.numbers)


def test_commonest_paragraphs_do_not_know_the_order():
    train = {"x": {"lung": "clear"}, "y": {"lung": "clear", "heart": "big"}, "z": {"heart": "a"}, "w": {"": "whole"}}
    source = reference_pairs(train, SET)
    assert [pair.reference_text for pair in source] == ["clear", "clear big", "a", "whole"]
    pairs = [study(name, order, ["x", "x"], ["y", "y"]) for name, order in
             (("a_0", ("lung", "heart")), ("b_0", ("heart", "lung")))]  # fmt: skip
    told = baselines_of(pairs, source, ("heart", "lung"), 0)[COMMONEST_PARAGRAPHS]
    assert [pair.prediction_text for pair in told] == ["a clear", "a clear"]
    found = evaluate("x", Reports(told, ("heart", "lung"), ()), Settings(resamples=0, floors=False))
    assert found.number("Recognition (mean over regions)").value == pytest.approx(0.5)
