"""What the strict protocol promises, held against attempts to game it; and what it cannot promise."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cohorts import REGIONS, SENTENCES, SET, cohort, scores, study
from reg2rg.evaluation.baselines import shuffled
from reg2rg.evaluation.metrics.meteor import meteor
from reg2rg.evaluation.reading import Reports, pair_texts


def protected(evaluation):
    """Everything that is called a score."""
    return {number.key: number.value for number in evaluation.numbers if number.score}


def raised(before, after):
    before, after = protected(before), protected(after)
    assert after.keys() == before.keys()
    return {key: (before[key], value) for key, value in after.items() if value > before[key] + 1e-12}


def drop(pair, slots):
    """The pair without the prediction's paragraphs at some slots."""
    parts = [part for part in pair.prediction.split("The region ") if part and int(part.split()[0]) not in slots]
    text = "".join(f"The region {part}" for part in parts)
    return pair_texts(pair.study, pair.patient, pair.reference, text, SET)


def change(reports, rows, function):
    return replace(reports, pairs=[function(p) if row in rows else p for row, p in enumerate(reports.pairs)])


ROWS = st.sets(st.integers(0, 5), min_size=1)
SEEDS = st.integers(0, 10_000)


@settings(max_examples=20, deadline=None)
@given(SEEDS, ROWS, st.sets(st.integers(0, 2), min_size=1), st.floats(0, 1))
def test_dropping_regions_never_raises_a_strict_score(seed, rows, slots, quality):
    reports = cohort(seed, studies=6, quality=quality)
    assert not raised(scores(reports), scores(change(reports, rows, lambda pair: drop(pair, slots))))


@settings(max_examples=15, deadline=None)
@given(SEEDS, ROWS, st.booleans())
def test_emptying_predictions_never_raises_a_strict_score(seed, rows, by_region):
    reports = cohort(seed, studies=6, quality=0.4)
    if not by_region:
        pairs = [pair_texts(p.study, p.patient, p.reference_text, p.prediction_text, SET) for p in reports.pairs]
        reports = Reports(pairs, (), ())
    empty = change(reports, rows, lambda p: pair_texts(p.study, p.patient, p.reference, "", SET))
    assert not raised(scores(reports), scores(empty))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.permutations(range(6)))
def test_shuffling_perfect_reports_never_raises_a_strict_score(seed, order):
    """Also with regions that stand at other slots, which a report of another study names wrongly."""
    reports = cohort(seed, studies=6, quality=1.0)
    mixed = [
        pair_texts(p.study, p.patient, p.reference, reports.pairs[giver].prediction, SET)
        for p, giver in zip(reports.pairs, order, strict=True)
    ]
    assert not raised(scores(reports), scores(replace(reports, pairs=mixed)))


@settings(max_examples=15, deadline=None)
@given(SEEDS, st.permutations(range(5)))
def test_shuffling_never_raises_a_mean_where_no_study_has_a_better_report_than_its_own(seed, order):
    generator = np.random.default_rng(seed)
    references = [str(text) for text in generator.choice(SENTENCES, 5)]
    pool = [" ".join(generator.choice(" ".join(SENTENCES).split(), 6)) for _ in range(5)]
    best = [int(np.argmax(meteor([reference] * 5, pool))) for reference in references]

    def reports(given_to):
        told = [pool[best[giver]] for giver in given_to]
        return Reports([pair_texts(f"s{i}", f"s{i}", references[i], told[i], SET) for i in range(5)], (), ())

    own, mixed = (scores(reports(given_to)).number("METEOR").value for given_to in (range(5), order))
    assert mixed <= own + 1e-12


def test_shuffling_may_raise_a_score_where_reports_fit_other_studies_better():
    """Why the promise has a condition, and why the floor of a shuffle stands beside every number."""
    texts = ("A nodule of 8 mm is seen.", "Effusion on both sides.")
    crossed = [pair_texts(str(i), str(i), texts[i], texts[1 - i], SET) for i in range(2)]
    right = [pair_texts(str(i), str(i), texts[i], texts[i], SET) for i in range(2)]
    assert raised(scores(Reports(crossed, (), ())), scores(Reports(right, (), ())))


@pytest.mark.parametrize("seed", range(3))
def test_shuffling_a_better_than_chance_model_never_raises_a_strict_score(seed):
    reports = cohort(seed, studies=40, quality=0.9)
    assert not raised(scores(reports), scores(replace(reports, pairs=shuffled(reports.pairs, seed))))


def test_the_same_attempts_do_raise_the_scores_of_the_other_protocols():
    """What the strict protocol is for: silence about a false finding raises precision elsewhere."""
    pairs = [
        study("a_0", REGIONS, ["normal"] * 3, ["A nodule."] * 3),
        study("b_0", REGIONS, ["A nodule."] * 3, ["A nodule."] * 3),
    ]
    silent = [pair_texts("a_0", "a", pairs[0].reference, "", SET), pairs[1]]
    for protocol, better in (("corpus", True), ("strict", False)):
        before = scores(Reports(pairs, REGIONS, ()), protocol).number("CE F1 (micro)").value
        after = scores(Reports(silent, REGIONS, ()), protocol).number("CE F1 (micro)").value
        assert (after > before) is better
