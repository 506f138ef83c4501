"""Presence, side and lobe as a text answers them, and as they are counted."""

import pytest

from cohorts import scores, study
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.evaluation.metrics.questions import ReportQuestions, answers_of
from reg2rg.evaluation.reading import Reports


@pytest.mark.parametrize(
    ("text", "label", "sides", "lobes"),
    [
        ("A nodule in the right upper lobe.", "Lung nodule", {"right"}, {"upper"}),
        ("Nodules in the lower lobe of the left lung.", "Lung nodule", {"left"}, {"lower"}),
        ("Bilateral pleural effusion.", "Pleural effusion", {"right", "left"}, set()),
        ("Consolidation in both lower lobes.", "Consolidation", {"right", "left"}, {"lower"}),
        ("Atelectasis in the upper and lower lobes on the right.", "Atelectasis", {"right"}, {"upper", "lower"}),
        ("Atelectasis in the lingula.", "Atelectasis", set(), {"lingula"}),
        ("Emphysema in the upper zones.", "Emphysema", set(), set()),
        ("A nodule on the right, and a nodule in the left lower lobe.", "Lung nodule", {"right", "left"}, {"lower"}),
    ],
)
def test_what_a_text_answers(text, label, sides, lobes):
    own = answers_of(text)[label]
    assert (own.sides, own.lobes) == (sides, lobes)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("A nodule of 6 mm.", 6),
        ("A nodule measuring 6 x 4.5 mm.", 6),
        ("A nodule of 4x11 mm in the left lung.", 11),
        ("A nodule of 1,2 cm.", 12),
        ("A nodule of 12 mm x 9 mm.", 12),
        ("A nodule of 12 mm x 1 cm.", 12),
        ("A nodule of 3 cm x 8 x 9 mm.", 30),
        ("A nodule of 1 x 2 cm.", 20),
        ("Nodules, the largest of 8 mm, and a nodule of 3 mm.", 8),
        ("A nodule is seen.", 0),
        ("A nodule at 3 o'clock, series 4.", 0),
    ],
)
def test_the_largest_size_counts(text, size):
    assert answers_of(text)["Lung nodule"].size == pytest.approx(size)


def test_what_is_denied_is_not_stated():
    assert set(answers_of("No nodule in the right lung. Emphysema is seen.")) == {"Emphysema"}


def test_sizes_are_the_same_within_a_fifth():
    right = "A nodule of 10 mm is seen."
    told = (right, "A nodule of 12 mm is seen.", "A nodule of 1.3 cm is seen.", "A nodule is seen.", "Clear lungs.")
    pairs = [study(f"p{i}_0", ("lung",), (right,), (text,)) for i, text in enumerate(told)]
    found = scores(Reports(pairs, ("lung",), ()), metrics=(ReportQuestions(),))
    assert (found.number("Asked size").value, found.number("Asked size").n) == (0.4, 5)
    assert (found.number("Asked size, where found").value, found.number("Asked size, where found").n) == (0.5, 4)
    assert found.number("Asked size").definition.startswith("of the findings that the reference measures")


def test_they_are_counted_one_after_another():
    right = "A nodule is seen in the right upper lobe."
    told = (right, "A nodule is seen in the left upper lobe.", "A nodule is seen.", "The lungs are clear.")
    pairs = [study(f"p{i}_0", ("lung",), (right,), (text,)) for i, text in enumerate(told)]
    pairs.append(study("p9_0", ("lung",), ("The lungs are clear.",), ("Emphysema is seen.",)))
    found = scores(Reports(pairs, ("lung",), ()), labeler=RuleLabeler(), metrics=(ReportQuestions(),), resamples=50)
    for scope in ("report", "lung"):
        values = {one.name: (one.value, one.n) for one in found.numbers if one.scope == scope}
        assert values["Asked presence, stated"] == (0.75, 4)
        assert values["Asked side"] == (0.25, 4)
        assert values["Asked side, where found"] == (pytest.approx(1 / 3), 3)
        assert values["Asked lobe"] == (0.5, 4)
        assert values["Asked lobe, where found"] == (pytest.approx(2 / 3), 3)
        assert values["Asked presence, not stated"] == (pytest.approx((4 * 17 + 17) / (4 * 17 + 18)), 4 * 17 + 18)
    assert found.number("Asked side").low < 0.25 < found.number("Asked side").high
