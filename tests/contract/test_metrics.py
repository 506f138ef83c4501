"""Every metric and labeler keeps its contract, and what breaks one is named."""

import subprocess
import sys

import numpy as np
import pytest

from cohorts import Words
from reg2rg.evaluation.bootstrap import Statistic, mean_statistic
from reg2rg.evaluation.labelers import LABELERS, Labeler, RuleLabeler
from reg2rg.evaluation.metrics.base import METRICS, Metric, Scores, metric_classes, metrics_giving, usual_metrics
from reg2rg.evaluation.metrics.external import Judge, load_judge
from reg2rg.evaluation.results import REPORT
from reg2rg.testing import ContractError, check_labeler, check_metric


@pytest.mark.parametrize("metric", metric_classes(), ids=lambda metric: metric.__name__)
def test_metric(metric):
    check_metric(metric)
    assert metric.__doc__
    asked_for = ("MisplacedFindings", "ReportQuestions", "SizeWords", "TemplateCollapse")
    assert metric.always or metric.__name__ in asked_for  # by `reg2rg audit`, sweeps and `--judge`


def test_no_number_belongs_to_two_metrics():
    names = [name for metric in metric_classes() for name in (*metric.logged, *metric.tabled, *metric.plotted)]
    assert all(len(metrics_giving([name])) == 1 for name in names)
    assert metrics_giving(["Truth F1 (Cardiomegaly)", "nothing"])[0].keys == ("Truth *",)
    assert {type(metric).__name__ for metric in usual_metrics()} <= set(METRICS)


def test_a_judge_is_a_metric():
    check_metric(lambda: Judge("length", lambda references, predictions: [float(len(text)) for text in predictions]))


def test_what_the_audit_asks_for_is_a_judge_in_a_fresh_process():
    code = "from reg2rg.evaluation.metrics.external import load_judge; print(load_judge('TemplateCollapse').keys)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "Normal bias" in told


def test_a_registered_metric_is_a_judge_by_its_name(monkeypatch):
    monkeypatch.setitem(METRICS._classes, "Broken", Broken)
    assert isinstance(load_judge("Broken"), Broken)
    assert not any(isinstance(metric, Broken) for metric in usual_metrics())
    assert isinstance(metrics_giving(["words"])[0], Broken)


class Broken(Metric):
    """A metric whose parts a test replaces."""

    group, keys = "language", ("words",)

    def score(self, cohort):
        return Scores([self.number(cohort)])

    def number(self, cohort):
        values = np.array([float(len(pair.reference_text)) for pair in cohort.pairs])
        rows = np.arange(len(values))
        return mean_statistic("language", REPORT, "words", "", rows=rows, values=values, studies=len(values))


def one(units, value=lambda sums: sums[..., 0], name="words", group="language", scope=REPORT):
    return Statistic(group, scope, name, "", units, value, 1)


@pytest.mark.parametrize(
    ("number", "message"),
    [
        (lambda self, c: one(np.ones((len(c.pairs), 1)), name="other"), "a number 'other' that no key fits"),
        (lambda self, c: one(np.ones((len(c.pairs), 1)), group="regions"), "group of words"),
        (lambda self, c: one(np.ones((len(c.pairs), 1)), scope="spleen"), "scope of words: found spleen"),
        (lambda self, c: one(np.ones((2, 1))), r"units of words: found \(2, 1\)"),
        (lambda self, c: one(np.full((len(c.pairs), 1), np.nan)), "words: found nan"),
        (lambda self, c: one(np.ones((len(c.pairs), 1)), lambda sums: sums.sum(keepdims=True)[0, 0]
                             if sums.ndim > 1 else sums[0]), "bootstrap of words"),
        (lambda self, c: one(np.arange(len(c.pairs))[:, None] * (c.pairs[0].study == "p0_0")), "order of studies"),
        (lambda self, c: one(np.full((len(c.pairs), 1), len(c.pairs))), "units that depend on the other studies"),
    ],
)  # fmt: skip
def test_what_breaks_the_contract_is_named(monkeypatch, number, message):
    check_metric(Broken)
    monkeypatch.setattr(Broken, "number", number)
    with pytest.raises(ContractError, match=message):
        check_metric(Broken)


def test_labelers():
    check_labeler(RuleLabeler)
    check_labeler(Words)
    assert "RuleLabeler" in LABELERS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"definition": ""}, "definition"),
        ({"labels": ("a", "a")}, "without repetition"),
        ({"label": lambda self, texts: np.zeros((len(texts), 2), dtype=bool)}, r"booleans of the shape \(3, 3\)"),
        ({"label": lambda self, texts: np.zeros((len(texts), 3))}, "booleans"),
        ({"label": lambda self, texts: np.zeros((max(len(texts), 1), 3), dtype=bool)}, "no row for no text"),
        ({"label": lambda self, texts: np.full((len(texts), 3), len(texts) > 1)}, "depend on other texts"),
    ],
)
def test_what_breaks_a_labelers_contract_is_named(change, message):
    with pytest.raises(ContractError, match=message):
        check_labeler(type("Odd", (Words,), change))
    with pytest.raises(ContractError, match="no subclass of Labeler"):
        check_labeler(lambda: object())
    assert issubclass(Words, Labeler)
