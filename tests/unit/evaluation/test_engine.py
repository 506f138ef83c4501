"""The engine as a whole: what each protocol promises, held against oracles and against attempts to game it."""

from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from reg2rg.errors import ConfigError
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.floors import EMPTY, EVERYTHING, floors_of, shuffled
from reg2rg.evaluation.protocols import PROTOCOLS
from reg2rg.evaluation.reading import Reports, pair_texts
from reg2rg.regions import load_region_set
from reg2rg.report import write_report

SET = load_region_set("radgenome")
WORDS = ("nodule", "effusion", "calcification")
REGIONS = ("heart", "lung", "pleura")
SENTENCES = (
    "A nodule of 8 mm is seen.",
    "Effusion on both sides.",
    "Calcification of the wall.",
    "Everything is normal here.",
    "A nodule beside an effusion.",
)


class Words:
    """Labels by substring: enough to test counting."""

    name, definition, labels = "words", "a label is present if its word is", WORDS

    def label(self, texts):
        return np.asarray([[word in text.lower() for word in WORDS] for text in texts], dtype=bool).reshape(
            -1, len(WORDS)
        )


def study(name, order, references, predictions, named=None):
    reference = write_report(order, references)
    keep = [(named or order)[i] for i, text in enumerate(predictions) if text is not None]
    slots = [i for i, text in enumerate(predictions) if text is not None]
    told = " ".join(
        f"The region {slot} is {region}: {predictions[slot]}" for slot, region in zip(slots, keep, strict=True)
    )
    return pair_texts(name, name.rpartition("_")[0], reference, told, SET)


def cohort(seed=0, studies=12, quality=0.6):
    generator = np.random.default_rng(seed)
    pairs = []
    for i in range(studies):
        order = tuple(generator.permutation(REGIONS))
        references = [str(text) for text in generator.choice(SENTENCES, 3)]
        predictions = [
            text if generator.random() < quality else str(generator.choice(SENTENCES)) for text in references
        ]
        pairs.append(study(f"p{i // 2}_{i}", order, references, predictions))
    return Reports(pairs, REGIONS, ())


def scores(reports, protocol="strict", **options):
    chosen = {"labeler": Words(), "resamples": 0, "floors": False} | options
    return evaluate("x", reports, Settings(protocol=PROTOCOLS[protocol], **chosen))


def protected(evaluation):
    """Scores that the strict protocol promises not to reward silence with."""
    return {
        n.key: n.value for n in evaluation.numbers if n.score and (n.group != "regions" or "precision" not in n.name)
    }


def drop(pair, slot):
    """The pair without the prediction's paragraph at a slot."""
    parts = [part for part in pair.prediction.split("The region ") if part and not part.startswith(f"{slot} ")]
    text = "".join(f"The region {part}" for part in parts)
    return pair_texts(pair.study, pair.patient, pair.reference, text, SET)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 11), st.integers(0, 2))
def test_dropping_a_region_never_raises_a_strict_score(seed, row, slot):
    reports = cohort(seed, quality=0.4)
    before = protected(scores(reports))
    pairs = list(reports.pairs)
    pairs[row] = drop(pairs[row], slot)
    after = protected(scores(replace(reports, pairs=pairs)))
    raised = {key: (before[key], value) for key, value in after.items() if value > before[key] + 1e-12}
    assert not raised


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sets(st.integers(0, 11), min_size=1))
def test_emptying_predictions_never_raises_a_strict_score(seed, rows):
    reports = cohort(seed, quality=0.4)
    before = protected(scores(reports))
    pairs = [
        pair_texts(p.study, p.patient, p.reference, "", SET) if row in rows else p
        for row, p in enumerate(reports.pairs)
    ]
    after = protected(scores(replace(reports, pairs=pairs)))
    raised = {key: (before[key], value) for key, value in after.items() if value > before[key] + 1e-12}
    assert not raised


@pytest.mark.parametrize("seed", range(5))
def test_shuffling_a_better_than_chance_model_never_raises_a_strict_score(seed):
    reports = cohort(seed, studies=40, quality=0.9)
    before = protected(scores(reports))
    after = protected(scores(replace(reports, pairs=shuffled(reports.pairs, seed))))
    raised = {key for key, value in after.items() if value > before[key] + 1e-12}
    assert not raised


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


def test_perfect_reports():
    reports = cohort(quality=1.0)
    found = scores(reports)
    for name in ("BLEU-4", "ROUGE-L", "CE F1 (micro)", "CE F1 (weighted)", "CRG", "Recognition accuracy"):
        assert found.number(name).value == pytest.approx(1), name
    assert found.confusion is not None
    assert all(row[i] == sum(row) for i, row in enumerate(found.confusion.counts))


@pytest.mark.parametrize("protocol", ["paper", "corpus", "vlm3d"])
def test_findings_are_those_of_scikit_learn(protocol):
    reports = cohort(3, studies=30, quality=0.5)
    found = scores(reports, protocol)
    truth = Words().label([pair.reference_text for pair in reports.pairs])
    said = Words().label([pair.prediction_text for pair in reports.pairs])
    for average in ("micro", "macro", "weighted", "samples"):
        oracle = sklearn.metrics.precision_recall_fscore_support(truth, said, average=average, zero_division=0)[:3]
        ours = [found.number(f"CE {figure} ({average})").value for figure in ("precision", "recall", "F1")]
        np.testing.assert_allclose(ours, oracle, atol=1e-12)
    for row, (p, r, f, s) in zip(
        found.labels,
        zip(*sklearn.metrics.precision_recall_fscore_support(truth, said, zero_division=0), strict=True),
        strict=True,
    ):
        assert (row.precision, row.recall, row.f1, row.support) == pytest.approx((p, r, f, s))


@pytest.mark.parametrize("protocol", ["strict", "paper", "corpus"])
def test_silence_and_saying_everything_get_a_third_of_crg(protocol):
    reports = cohort(1, studies=20)
    found = scores(reports, protocol, floors=True)
    floors = {name: {n.name: n.value for n in numbers if n.scope == "report"} for name, numbers in found.floors.items()}
    assert floors[EVERYTHING]["CRG"] == pytest.approx(1 / 3)
    if protocol == "strict":  # silence is wrong on every label there
        assert floors[EMPTY]["CRG"] < 1 / 3
    else:
        assert floors[EMPTY]["CRG"] == pytest.approx(1 / 3)
    assert floors[EMPTY].get("BLEU-4", 0) == 0
    assert floors[EMPTY]["Recognition accuracy"] == 0


def test_recognition_in_both_protocols():
    order = ("heart", "trachea and bronchie", "lung")
    pairs = [
        study("a_0", order, ["x"] * 3, ["x"] * 3, named=("heart", "trachea", "pleura")),
        study("b_0", order, ["x"] * 3, ["x", None, "x"], named=("lung", "", "cerebellum")),
    ]
    reports = Reports(pairs, ("heart", "lung", "pleura", "trachea and bronchie"), ())
    ours, published = scores(reports), scores(reports, "paper")
    assert ours.number("Recognition accuracy").value == pytest.approx((2 / 3 + 0) / 2)
    assert published.number("Recognition accuracy").value == pytest.approx((2 / 3 + 0) / 2)
    assert published.number("Recognition accuracy, lung and pleura merged").value == pytest.approx((1 + 0) / 2)
    assert ours.confusion is not None
    table = {row: dict(zip(ours.confusion.columns, counts, strict=True)) for row, counts in
             zip(ours.confusion.rows, ours.confusion.counts, strict=True)}  # fmt: skip
    assert table["heart"]["lung"] == 1
    assert table["lung"]["(unknown name)"] == 1
    assert table["trachea and bronchie"]["(none)"] == 1
    given = ["heart", "trachea and bronchie", "lung"] * 2
    named = ["heart", "trachea and bronchie", "pleura", "lung", "-", "-"]
    oracle = sklearn.metrics.precision_recall_fscore_support(
        given, named, labels=["heart", "lung", "trachea and bronchie"], zero_division=0
    )
    for i, region in enumerate(("heart", "lung", "trachea and bronchie")):
        for j, figure in enumerate(("precision", "recall", "F1")):
            assert published.number(f"Recognition {figure}", region).value == pytest.approx(oracle[j][i])


def test_a_repeated_region_counts_once_in_ours_and_last_in_the_published_one():
    reference = write_report(("heart", "lung"), ["a", "b"])
    pair = pair_texts(
        "a", "a", reference, "The region 0 is heart: a The region 0 is lung: c The region 1 is heart: d", SET
    )
    reports = Reports([pair], ("heart", "lung"), ())
    assert scores(reports).number("Recognition accuracy").value == 0.5
    assert scores(reports, "paper").number("Recognition accuracy").value == 0


def test_missing_regions_are_dropped_by_the_paper_and_empty_in_ours():
    pairs = [study("a_0", ("lung",), ["A nodule of 8 mm is seen."], ["A nodule of 8 mm is seen."]),
             study("b_0", ("lung",), ["Effusion on both sides."], [None])]  # fmt: skip
    reports = Reports(pairs, ("lung",), ())
    ours, published = scores(reports), scores(reports, "paper")
    assert (ours.number("ROUGE-L", "lung").value, ours.number("ROUGE-L", "lung").n) == (pytest.approx(0.5), 2)
    assert (published.number("ROUGE-L", "lung").value, published.number("ROUGE-L", "lung").n) == (pytest.approx(1), 1)
    assert any("drops 1 pairs" in note and "lung 1" in note for note in published.notes)


def test_floors_are_blind_and_shuffles_cross_patients():
    reports = cohort(2, studies=20)
    for row, pair in enumerate(shuffled(reports.pairs, 5)):
        giver = next(p for p in reports.pairs if p.prediction == pair.prediction)
        assert giver.patient != reports.pairs[row].patient or pair.prediction in [
            p.prediction for p in reports.pairs if p.patient != pair.patient
        ]
    changed = [replace(p, prediction="x", prediction_text="x", predicted_regions={}) for p in reports.pairs]
    for name, pairs in floors_of(reports.pairs, reports.pairs, REGIONS, 0).items():
        if "shuffled" not in name:
            again = floors_of(changed, reports.pairs, REGIONS, 0)[name]
            assert [p.prediction_text for p in pairs] == [p.prediction_text for p in again], name


def test_intervals_hold_the_number_and_comparison_is_paired():
    reports, worse = cohort(4, studies=40, quality=0.9), cohort(4, studies=40, quality=0.2)
    same = replace(
        worse, pairs=[replace(a, reference=b.reference) for a, b in zip(worse.pairs, reports.pairs, strict=True)]
    )
    assert [p.study for p in same.pairs] == [p.study for p in reports.pairs]
    found = scores(reports, resamples=300)
    for number in found.numbers:
        if number.low is not None and number.n > 10:
            assert number.low - 1e-9 <= number.value <= number.high + 1e-9, number
    settings_ = Settings(labeler=Words(), resamples=300, floors=False)
    itself = evaluate("x", reports, settings_, against=("x", reports))
    assert {(d.low, d.high, d.p) for d in itself.differences} == {(0.0, 0.0, 1.0)}
    apart = evaluate("x", reports, settings_, against=("y", worse))
    bleu = next(d for d in apart.differences if d.number.key == ("language", "report", "BLEU-4"))
    assert bleu.low > 0
    assert bleu.p < 0.02


def test_a_judge_that_gives_another_number_of_scores_is_refused():
    reports = cohort()
    given_judges = {"length": lambda references, predictions: [float(len(text)) for text in predictions]}
    assert scores(reports, judges=given_judges).number("length").value > 0
    with pytest.raises(ConfigError, match=r"judge 'one' gave scores of the shape \(1,\).*one number for each of 12"):
        scores(reports, judges={"one": lambda references, predictions: [1.0]})
    with pytest.raises(ConfigError, match=r"judge 'none' gave NoneType.*a list of numbers"):
        scores(reports, judges={"none": lambda references, predictions: None})


def test_label_tables_stand_in_for_the_labeler():
    reports = cohort(6)
    truth = dict(
        zip([p.study for p in reports.pairs], Words().label([p.reference_text for p in reports.pairs]), strict=True)
    )
    said = dict(
        zip([p.study for p in reports.pairs], Words().label([p.prediction_text for p in reports.pairs]), strict=True)
    )
    options = {"reference_labels": truth, "predicted_labels": said, "labels": WORDS}
    tables = scores(reports, labeler=None, floors=True, **options)
    read = scores(reports, floors=True)
    for average in ("micro", "macro", "samples"):
        name = f"CE F1 ({average})"
        assert tables.number(name).value == read.number(name).value
    assert "given table" in tables.labeler
