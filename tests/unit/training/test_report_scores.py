"""Scores inside validation and test: those of the engine, whoever generated which report."""

import pytest

from reg2rg.core.regions import load_region_set
from reg2rg.core.report import write_report
from reg2rg.training.report_scores import ReportScores

SET = load_region_set("radgenome")
GIVEN = ("lung", "heart")
STUDIES = {
    "p_1_a_1": (("A nodule of 6 mm is seen.", "Cardiomegaly is seen."), ("A nodule of 6 mm is seen.", "Normal heart.")),
    "p_1_b_1": (("Emphysema in both lungs.", ""), ("Emphysema in the left lung.", "Normal heart.")),
    "p_2_a_1": (("Clear lungs.", "Pericardial effusion."), ("A nodule of 6 mm is seen.", "Pericardial effusion.")),
}


def filled(studies, **options):
    metric = ReportScores(SET, **options)
    for study in studies:
        references, told = STUDIES[study]
        metric.update(study, GIVEN, references, write_report(GIVEN, told))
    return metric


def test_recognition_is_logged_over_regions_studies_and_by_region():
    metric = filled(STUDIES)
    metric.update(
        "p_3_a_1", ("lung", "bone"), ("Clear lungs.", "Normal."), "The region 0 is lung: a. The region 1 is spleen:"
    )
    logged = metric.compute()
    names = ("recognition", "recognition_study", "recognition_lung", "recognition_heart", "recognition_bone")
    assert [logged[name] for name in names] == pytest.approx([2 / 3, 3.5 / 4, 1, 1, 0])
    assert {"bleu4", "cider", "meteor", "rouge_l", "findings_f1", "crg", "called_abnormal", "distinct"} <= set(logged)
    assert "recognition_thyroid" not in logged


def test_names_that_were_asked_for_and_not_given_are_not_recognised():
    for identity, expected in ((True, 0), (False, None)):
        metric = ReportScores(SET, identity)
        metric.update("a", GIVEN, ("Clear.", "Large."), "The region 0: Clear. The region 1: Large.")
        metric.update("b", GIVEN, ("Clear.", "Large."), "")
        assert metric.compute().get("recognition") == expected


def test_order_and_repetition_do_not_matter():
    names = list(STUDIES)
    assert filled(names).compute() == filled([names[2], names[0], names[1], names[0], names[2]]).compute()


def test_a_report_depends_on_the_others_so_that_parts_are_no_substitute():
    names = list(STUDIES)
    whole = filled(names).compute()["cider"]
    parts = [filled(names[:2]).compute()["cider"], filled(names[2:]).compute()["cider"]]
    assert whole != pytest.approx((2 * parts[0] + parts[1]) / 3)


def test_reset_forgets_and_nothing_gives_nothing():
    metric = filled(STUDIES)
    metric.reset()
    assert metric.compute() == {}
    metric.update("x", GIVEN, ("", ""), "The region 0 is lung: a.")
    assert metric.compute() == {}


def test_reports_without_identities_or_without_regions():
    metric = ReportScores(SET, identity=False)
    metric.update("a", GIVEN, ("Clear.", "Large."), "The region 0: Clear. The region 1: Large. ")
    assert metric.compute()["rouge_l"] == 1
    metric = ReportScores(SET)
    metric.update("a", (), ("Clear lungs. Large heart.",), "Clear lungs. Large heart.")
    assert metric.compute()["rouge_l"] == 1


def test_text_of_any_kind_survives_the_way():
    metric = ReportScores(SET)
    odd = '\u00e4 \u4e2d\n\x0b\x1c\u2028 "quoted" \ud800 end'
    metric.update("a", ("lung",), (odd,), f"The region 0 is lung: {odd}")
    assert metric.compute()["rouge_l"] == 1
