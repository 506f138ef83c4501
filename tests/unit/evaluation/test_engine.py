"""The engine as a whole: what each protocol promises, held against oracles."""

from dataclasses import replace

import numpy as np
import pytest
import sklearn.metrics

from cohorts import REGIONS, SET, WORDS, Words, cohort, scores, study
from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import load_region_set
from reg2rg.core.report import write_report
from reg2rg.evaluation.baselines import COMMONEST_REPORT, EMPTY, EVERYTHING, SHUFFLED, baselines_of, shuffled
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.metrics.base import usual_metrics
from reg2rg.evaluation.metrics.external import Judge
from reg2rg.evaluation.protocols import PROTOCOLS
from reg2rg.evaluation.reading import Reports, pair_texts


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
    for name, pairs in baselines_of(reports.pairs, reports.pairs, REGIONS, 0).items():
        if "shuffled" not in name:
            again = baselines_of(changed, reports.pairs, REGIONS, 0)[name]
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
    length = Judge("length", lambda references, predictions: [float(len(text)) for text in predictions])
    assert scores(reports, metrics=(length,)).number("length").value > 0
    with pytest.raises(ConfigError, match=r"judge 'one' gave scores of the shape \(1,\).*one number for each of 12"):
        scores(reports, metrics=(Judge("one", lambda references, predictions: [1.0]),))
    with pytest.raises(ConfigError, match=r"judge 'none' gave NoneType.*a list of numbers"):
        scores(reports, metrics=(Judge("none", lambda references, predictions: None),))


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


# ---- recognition


def test_surplus_names_cost_precision_and_nothing_else():
    order = ("heart", "lung")
    reference = write_report(order, ["a.", "b."])
    clean = "The region 0 is heart: a. The region 1 is lung: b."
    odd = f"{clean} The region 2 is bone: c. The region 1 is heart: d."
    regions = ("bone", "heart", "lung")
    plain, more = (scores(Reports([pair_texts("a", "a", reference, text, SET)], regions, ())) for text in (clean, odd))
    for name in ("Recognition accuracy", "Recognition (mean over regions)", "ROUGE-L"):
        assert more.number(name).value == plain.number(name).value == 1
    assert more.number("Recognition precision", "heart").value == 0.5
    assert more.number("Surplus names per report").value == 2
    assert plain.number("Surplus names per report").value == 0


def test_a_repeated_name_is_wrong_and_seen_in_the_matrix():
    reference = write_report(("heart", "lung"), ["a.", "b."])
    pair = pair_texts("a", "a", reference, "The region 0 is lung: a. The region 1 is lung: b.", SET)
    found = scores(Reports([pair], ("heart", "lung"), ()))
    assert found.number("Recognition accuracy").value == 0
    assert found.confusion is not None
    table = {row: dict(zip(found.confusion.columns, counts, strict=True)) for row, counts in
             zip(found.confusion.rows, found.confusion.counts, strict=True)}  # fmt: skip
    assert table["lung"]["(repeated name)"] == 1
    assert table["heart"]["lung"] == 1


def test_a_slot_without_a_valid_paragraph_is_wrong():
    given_ = ("heart", "lung", "bone")
    told = (
        "The region 0 is heart: a. The region 1 is lung: b. The region 2 is bone: c.",
        "The region 1 is lung: b. The region 0 is lung: a.",
        "The region 0 is spleen: a. The region 0 is heart: b. The region 2 is bone: c.",
        "nothing",
    )
    reference = write_report(given_, ["x"] * 3)
    pairs = [pair_texts(str(i), str(i), reference, text, SET) for i, text in enumerate(told)]
    found = scores(Reports(pairs, ("bone", "heart", "lung"), ()))
    shares = {region: found.number("Recognition recall", region).value for region in given_}
    assert shares == pytest.approx({"heart": 2 / 4, "lung": 2 / 4, "bone": 2 / 4})
    assert found.number("Recognition (mean over regions)").value == pytest.approx(1 / 2)
    assert found.number("Recognition accuracy").value == pytest.approx((1 + 1 / 3 + 2 / 3 + 0) / 4)


def test_reports_that_were_not_asked_for_names_are_not_recognised_either_way():
    pairs = [
        pair_texts(name, name, write_report(REGIONS, ["a", "b", "c"]), "The region 0: a The region 1: b", SET)
        for name in "xy"
    ]
    for protocol in ("strict", "paper"):
        found = scores(Reports(pairs, REGIONS, ()), protocol)
        assert not [number for number in found.numbers if number.group == "regions"]
    assert scores(Reports(pairs, REGIONS, ())).number("ROUGE-L").value == pytest.approx(2 / 3)


def test_the_papers_first_words_must_tell_regions_apart():
    lobes = load_region_set("lobes")
    names = lobes.names[:2]
    pair = pair_texts("a", "a", write_report(names, ["x", "y"]), write_report(names, ["x", "y"]), lobes)
    assert names[0].split()[0] == names[1].split()[0]
    with pytest.raises(ConfigError, match=r"by the first word.*--protocol strict"):
        scores(Reports([pair], names, ()), "paper")
    assert scores(Reports([pair], names, ())).number("Recognition accuracy").value == 1


# ---- text


def test_meteor_without_synonyms_has_another_name():
    found = scores(cohort(), synonyms=None)
    assert "no synonyms" in found.number("METEOR-es").definition
    assert "METEOR-es" in found.per_study.columns
    with pytest.raises(KeyError, match="METEOR-es"):
        found.number("METEOR")
    assert "WordNet 3.0" in scores(cohort()).number("METEOR").definition


def test_the_vlm3d_protocol_gives_the_figures_of_pycocoevalcap():
    """Frozen from pycocoevalcap 1.2 after the challenge's cleaning of texts."""
    references = (
        "No pleural effusion. The heart is of normal size.",
        "A nodule of 8 mm is seen in the left lung.",
        "Atelectasis in both lungs . No mass.",
    )
    predictions = (
        "No effusion is seen. The heart is of normal size .",
        "A nodule of 5 mm is seen in both lungs.",
        'Both lungs are clear. No mass was found in both lungs. ""',
    )
    pairs = [
        pair_texts(str(i), str(i), *texts, SET) for i, texts in enumerate(zip(references, predictions, strict=True))
    ]
    found = scores(Reports(pairs, (), ()), "vlm3d")
    bleu = [found.number(f"BLEU-{n} (corpus)").value for n in range(1, 5)]
    assert bleu == pytest.approx([0.5161290322, 0.4502943226, 0.3843412438, 0.3187477084], abs=2e-9)
    assert found.number("BLEU mean (corpus)").value == pytest.approx(0.4173780768, abs=2e-9)
    assert found.number("ROUGE-L").value == pytest.approx(0.5530199393, abs=1e-9)
    assert found.per_study["ROUGE-L"].tolist() == pytest.approx([0.743902439, 0.6609907121, 0.2541666667])
    assert found.number("CIDEr").value == pytest.approx(3.3449555287, abs=1e-9)
    truth, said = (Words().label(texts) for texts in (references, predictions))
    assert found.number("CE accuracy (macro)").value == pytest.approx((truth == said).mean())
    assert "METEOR (NLTK)" in {number.name for number in found.numbers}


def test_cider_d_is_named_so_in_the_own_protocol():
    names = {protocol: {n.name for n in scores(cohort(), protocol).numbers} for protocol in PROTOCOLS}
    assert "CIDEr-D" in names["strict"]
    assert "CIDEr" not in names["strict"]
    assert all("CIDEr" in names[protocol] for protocol in ("paper", "corpus", "vlm3d"))


def test_a_reference_without_regions_among_others_counts_as_one_paragraph():
    pairs = [
        study("a_0", ("lung",), ["A nodule."], ["A nodule."]),
        pair_texts("b", "b", "Clear lungs.", "Clear heart.", SET),
    ]
    number = scores(Reports(pairs, ("lung",), ())).number("ROUGE-1")
    assert (number.value, number.n) == (pytest.approx(0.75), 2)


# ---- findings


@pytest.mark.parametrize("protocol", ["strict", "corpus"])
def test_all_averages_of_a_region_are_printed_together(protocol):
    reports = cohort(3, studies=20, quality=0.5)
    found = scores(reports, protocol)
    texts = [(p.reference_regions["lung"], p.predicted_regions["lung"]) for p in reports.pairs]
    truth, said = (Words().label(side) for side in zip(*texts, strict=True))
    for average in ("micro", "macro", "weighted", "samples"):
        oracle = sklearn.metrics.precision_recall_fscore_support(truth, said, average=average, zero_division=0)[:3]
        ours = [found.number(f"CE {figure} ({average})", "lung").value for figure in ("precision", "recall", "F1")]
        np.testing.assert_allclose(ours, oracle, atol=1e-12)
    assert found.number("CE support", "lung").value == truth.sum()


def test_recall_is_no_score_since_saying_everything_has_it():
    found = scores(cohort(), floors=True)
    assert not [n.name for n in found.numbers if n.group == "findings" and "recall" in n.name and n.score]
    everything = {(n.scope, n.name): n.value for n in found.floors[EVERYTHING]}
    assert everything["report", "CE recall (micro)"] == everything["lung", "CE recall (micro)"] == 1


def test_an_empty_report_has_no_finding_whatever_the_labeler_says():
    class Says(Words):
        def label(self, texts):
            return np.ones((len(texts), len(WORDS)), dtype=bool)

    pair = pair_texts("a", "a", "A nodule.", "", SET)
    found = scores(Reports([pair], (), ()), "corpus", labeler=Says())
    assert found.number("Findings per report, predicted").value == 0
    assert found.number("Findings per report, reference").value == 3


def test_labels_have_floors_too():
    found = scores(cohort(5, studies=20), floors=True)
    for row in found.labels:
        share = row.support / 20
        assert row.floor is not None
        assert row.floor >= 2 * share / (1 + share) - 1e-12  # that of every finding in every study
        assert row.floor_name in found.floors


def test_definitions_name_the_labeler_and_crg_its_floor():
    found, strict = scores(cohort(), "corpus"), scores(cohort())
    assert "labels: words" in found.number("CE F1 (macro)").definition
    assert "every finding gets 1/3, so does a silent one" in found.number("CRG").definition
    assert "a silent one less" in strict.number("CRG").definition
    assert "a missing paragraph has every label wrong" in strict.number("CE F1 (micro)", "lung").definition


# ---- tables of labels, comparison


def labels_of(reports, texts):
    return dict(zip([p.study for p in reports.pairs], Words().label(texts), strict=True))


def test_floors_of_labels_from_tables_are_those_that_the_tables_give():
    reports = cohort(6, studies=16)
    truth = labels_of(reports, [p.reference_text for p in reports.pairs])
    said = labels_of(reports, [p.prediction_text for p in reports.pairs])
    options = {"labeler": None, "reference_labels": truth, "predicted_labels": said, "labels": WORDS, "floors": True}
    tables, read = scores(reports, **options), scores(reports, floors=True)
    for floor in (EMPTY, COMMONEST_REPORT, SHUFFLED, EVERYTHING):
        by_name = [{n.name: n.value for n in one.floors[floor] if n.scope == "report"} for one in (tables, read)]
        assert by_name[0]["CE F1 (micro)"] == pytest.approx(by_name[1]["CE F1 (micro)"]), floor
    mixed = scores(reports, reference_labels=truth)
    assert "given table for references, words for predictions" in mixed.number("CE F1 (micro)").definition


def test_comparison_does_not_mind_the_order_and_wants_tables_for_both():
    reports = cohort(4, studies=20, quality=0.9)
    other = replace(reports, pairs=[replace(p, prediction=p.prediction) for p in reports.pairs[::-1]])
    options = Settings(labeler=Words(), resamples=50, floors=False)
    found = evaluate("x", reports, options, against=("y", other))
    assert {(d.low, d.high) for d in found.differences} == {(0.0, 0.0)}
    assert "CE F1 (micro)" in {d.number.name for d in found.differences}
    said = labels_of(reports, [p.prediction_text for p in reports.pairs])
    halves = replace(options, predicted_labels=said)
    names = {d.number.name for d in evaluate("x", reports, halves, against=("y", other)).differences
             if d.number.scope == "report"}  # fmt: skip
    assert "CE F1 (micro)" not in names
    both = replace(halves, against_labels=said)
    found = evaluate("x", reports, both, against=("y", other))
    assert next(d for d in found.differences if d.number.name == "CE F1 (micro)").p == 1
    with pytest.raises(ValueError, match="other studies"):
        evaluate("x", reports, options, against=("y", replace(other, pairs=other.pairs[1:])))


def test_judges_may_score_the_floors():
    length = Judge("length", lambda references, predictions: [float(len(text)) for text in predictions])
    silent = scores(cohort(), metrics=(*usual_metrics(), length), floors=True)
    assert not any(number.name == "length" for floor in silent.floors.values() for number in floor)
    assert any("--judge-floors" in note for note in silent.notes)
    found = scores(cohort(), metrics=(*usual_metrics(), length), costly_floors=True, floors=True)
    assert {n.name: n.value for n in found.floors[EMPTY]}["length"] == 0
    assert found.per_study["length"].mean() == pytest.approx(found.number("length").value)


def test_statistics_of_repetition():
    texts = ["Clear lungs. A nodule.", "Clear lungs.", "Clear lungs."]
    pairs = [pair_texts(str(i), str(i), f"Reference {i}.", text, SET) for i, text in enumerate(texts)]
    found = scores(Reports(pairs, (), ()))
    assert found.number("Commonest report, predicted").value == pytest.approx(2 / 3)
    assert found.number("Commonest sentence, predicted").value == 1
    assert found.number("Distinct reports, predicted").value == pytest.approx(2 / 3)
    assert found.number("Commonest report, reference").value == pytest.approx(1 / 3)
