"""The four measures of template collapse, by hand and on reports that are collapsed by construction."""

from dataclasses import replace

import numpy as np
import pytest

from cohorts import SENTENCES, cohort, scores, study
from reg2rg.evaluation.metrics.collapse import TemplateCollapse
from reg2rg.evaluation.reading import Reports

NODULE, EFFUSION, WALL, NORMAL, _ = SENTENCES


def reports(*told):
    pairs = [study(f"p{i}_0", ("heart", "lung"), *texts) for i, texts in enumerate(told)]
    return Reports(pairs, ("heart", "lung"), ())


def number(found, name):
    return found.number(name).value


def test_by_hand():
    found = scores(
        reports(
            ((NORMAL, NODULE), (NORMAL, NORMAL)),
            ((EFFUSION, NODULE), (NORMAL, NODULE)),
            ((NORMAL, NORMAL), (NORMAL, NORMAL)),
        ),
        metrics=(TemplateCollapse(),),
    )
    # hearts: predicted all alike; references 2 of 3 pairs differ. Lungs: the same of both sides, 2 of 3 pairs.
    assert number(found, "Diversity, predicted") == pytest.approx((0 + 2 / 3) / 2)
    assert number(found, "Diversity, reference") == pytest.approx(2 / 3)
    assert number(found, "Normal bias") == pytest.approx((5 - 3) / 6)
    assert number(found, "Survival of rare findings") == 0.0  # the one effusion
    assert number(found, "Survival of common findings") == 0.5  # one of two nodules
    assert number(found, "Template sentences, predicted") == 1.0  # two sentences in all


def test_templates_are_the_ten_commonest():
    many = [f"Sentence number {i} is here." for i in range(30)]
    found = scores(reports(*(((a, NORMAL), (a, NORMAL)) for a in many)), metrics=(TemplateCollapse(),))
    assert number(found, "Template sentences, reference") == pytest.approx((30 + 9) / 60)


def test_the_commonest_paragraph_is_collapsed():
    found = scores(cohort(studies=60), metrics=(TemplateCollapse(),), floors=True, resamples=100)
    floor = {one.name: one.value for one in found.floors["most common paragraph of each region"]}
    assert floor["Diversity, predicted"] == 0.0
    assert floor["Diversity, predicted"] < found.number("Diversity, predicted").low
    assert floor["Survival of rare findings"] < found.number("Survival of rare findings").low


def test_whole_reports_and_no_findings():
    pairs = [study(f"p{i}_0", (), (), ()) for i in range(3)]
    pairs = [
        replace(p, reference=NORMAL, reference_text=NORMAL, prediction=NORMAL, prediction_text=NORMAL) for p in pairs
    ]
    found = scores(Reports(pairs, (), ()), metrics=(TemplateCollapse(),))
    assert number(found, "Diversity, predicted") == number(found, "Normal bias") == 0.0
    assert not any(one.name.startswith("Survival") for one in found.numbers)
    assert np.isfinite(number(found, "Template sentences, predicted"))
