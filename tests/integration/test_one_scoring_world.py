"""Validation, `evaluate`, the page and ablations give the same numbers for the same predictions."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from reg2rg.ablation.scoring import Scorer
from reg2rg.core.documents import write_record
from reg2rg.core.regions import load_region_set
from reg2rg.core.report import parse_report, write_report
from reg2rg.evaluation.baselines import COMMONEST_PARAGRAPHS, EVERYTHING, SHUFFLED
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.evaluation.metrics.base import metric_classes, metrics_giving, tabled_names
from reg2rg.evaluation.protocols import PROTOCOLS
from reg2rg.evaluation.reading import read_reports
from reg2rg.evaluation.results import REPORT
from reg2rg.show.case_tables import NUMBERS, as_json, build_tables, summary_rows
from reg2rg.training.report_scores import ReportScores

SET = load_region_set("radgenome")
TEXTS = {
    "lung": ("There is a nodule in the right lung.", "The lungs are clear.", "Lung nodule", "Emphysema of both lungs."),
    "heart": ("The heart is enlarged, cardiomegaly.", "The heart is of normal size.", "Cardiomegaly", "Stent."),
    "pleura": ("There is a pleural effusion.", "No pleural effusion.", "Pleural effusion", "Thin pleura."),
}


def cohort(studies=10, regions=("lung", "heart", "pleura"), present=0.5, seed=0):
    """Study -> (regions in slot order, reference texts, generated text, labels of the data set)."""
    random, made = np.random.default_rng(seed), {}
    for i in range(studies):
        order = [str(name) for name in random.permutation(regions)]
        labels = {TEXTS[region][2]: bool(random.random() < present) for region in regions}
        references = [TEXTS[region][0 if labels[TEXTS[region][2]] else 1] for region in order]
        told = [TEXTS[region][random.integers(4)] for region in order]
        names = order[::-1] if i % 5 == 0 else [order[0]] * len(order) if i % 5 == 1 else order
        text = write_report(names, told) if i % 7 else "The region 0 is lung. Nothing else; The region 9 is heart: x"
        made[f"valid_{i // 2}_{'ab'[i % 2]}_1"] = (order, references, text, labels)
    return made


def folder_of(made, out):
    for study, (order, references, text, _) in made.items():
        report = parse_report(text, order)
        record = {
            "study": study, "regions": order, "text": text, "truncated": False, "question": "?",
            "paragraphs": [{"slot": p.slot, "region": p.region, "text": p.text} for p in report.paragraphs],
            "invalid": list(report.invalid), "duplicate": list(report.duplicate), "missing": list(report.missing),
            "reference": dict(zip(order, references, strict=True)),
        }  # fmt: skip
        write_record(out / "studies" / f"{study}.json", record)
    return out


def known(numbers):
    """(scope, name) -> value of numbers that have one."""
    return {(n.scope, n.name): n.value for n in numbers if math.isfinite(n.value)}


COHORTS = {
    "all": {},
    "no label occurs": {"present": 0.0},
    "every label occurs": {"present": 1.0},
    "one study": {"studies": 1},
    "a region is absent": {"regions": ("heart", "pleura")},
    "one region": {"regions": ("lung",), "studies": 5},
}


@pytest.mark.parametrize(("name", "protocol"), [*((name, "strict") for name in COHORTS), ("all", "paper")])
def test_every_way_in_gives_the_same_numbers(name, protocol, tmp_path):
    made = cohort(**COHORTS[name])
    truth = {study: labels for study, (*_, labels) in made.items()}
    folder = folder_of(made, tmp_path / "predictions")
    reports = read_reports(folder, None, SET)
    settings = Settings(PROTOCOLS[protocol], RuleLabeler(), truth=truth, resamples=20)
    evaluation = evaluate("ours", reports, settings)
    theirs = known(evaluation.numbers)

    # validation and test, which know no labels of the data set
    validation = ReportScores(SET, protocol=protocol)
    for study, (order, references, text, _) in reversed(made.items()):
        validation.update(study, order, references, text)
    logged = {
        key.format(scope=scope): value
        for metric in metric_classes()
        for number, key in metric.logged.items()
        for (scope, own), value in theirs.items()
        if own == number and ("{scope}" in key) == (scope != REPORT)
    }
    assert validation.compute() == pytest.approx(logged, abs=1e-12)
    assert {"recognition", "findings_f1", "findings_f1_macro", "rouge_l"} <= logged.keys()

    # ablations, with their floors
    metrics = (*tabled_names(), "Truth F1 (macro)", "CE F1 (macro)", "Truth F1 (Lung nodule)")
    scorer = Scorer(protocol, RuleLabeler(), SET, metrics, truth)
    scores = scorer.score(folder)
    ours = {metric: scores.value(metric) for metric in metrics}
    assert ours == pytest.approx({metric: theirs.get((REPORT, metric)) for metric in metrics}, abs=1e-12)
    assert ours["Truth F1 (micro)"] is not None
    floors = scorer.floors(folder, None)
    assert floors.keys() <= {COMMONEST_PARAGRAPHS, SHUFFLED, EVERYTHING}
    for floor, values in floors.items():
        expected = {n.name: n.value for n in evaluation.floors[floor] if n.scope == REPORT and n.name in metrics}
        assert values == pytest.approx(expected, abs=1e-12, nan_ok=True)
        assert "Truth F1 (micro)" in values

    # the page
    page = evaluate("ours", reports, Settings(PROTOCOLS[protocol], RuleLabeler(), truth=truth, resamples=20,
                                              metrics=metrics_giving(NUMBERS), by_region=False))  # fmt: skip
    by_key = {number.key: number for number in evaluation.numbers}
    for number in page.numbers:
        assert number == by_key[number.key] or math.isnan(number.value)
    assert page.truth_labels == evaluation.truth_labels
    f1 = page.number("Truth F1 (micro)")
    assert f1.low is not None
    assert build_tables(page, [])[0].rows[0].cells[4].text == f"{f1.value:.3f} [{f1.low:.3f}, {f1.high:.3f}]"
    rows = json.loads(json.dumps(as_json(summary_rows(page, []))))
    assert rows[0]["f1"] == pytest.approx(theirs[REPORT, "Truth F1 (micro)"])
    assert rows[0]["recognition"] == pytest.approx(theirs[REPORT, "Recognition (mean over regions)"])
    shown = {row["name"].removeprefix("floor: "): row["f1"] for row in rows[1:]}
    assert {floor: shown[floor] for floor in floors} == pytest.approx(
        {floor: values["Truth F1 (micro)"] for floor, values in floors.items()}
    )

    # the table that predict writes beside the records
    table = [(s, write_report(order, refs), text) for s, (order, refs, text, _) in sorted(made.items())]
    columns = ["AccNum", "GT_combined_report", "Pred_combined_report"]
    pd.DataFrame(table, columns=columns).to_csv(tmp_path / "predictions.csv", index=False)
    again = evaluate("ours", read_reports(tmp_path / "predictions.csv", None, SET), settings)
    assert known(again.numbers) == pytest.approx(theirs, abs=1e-12)


def test_macro_f1_is_the_mean_over_all_labels(tmp_path):
    made = cohort(present=0.0)
    truth = {study: labels for study, (*_, labels) in made.items()}
    settings = Settings(labeler=RuleLabeler(), truth=truth, resamples=0, floors=False)
    found = evaluate("x", read_reports(folder_of(made, tmp_path), None, SET), settings)
    assert len(found.labels) == 18
    assert len(found.truth_labels) == 3
    assert found.number("CE F1 (macro)").value == np.mean([row.f1 for row in found.labels]) == 0
    assert found.number("Truth F1 (macro)").value == np.mean([row.f1 for row in found.truth_labels]) == 0
