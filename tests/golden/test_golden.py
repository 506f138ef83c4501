"""Numbers and texts are today's what they were when the golden files were recorded."""

import json

import pytest
import torch
from tests.golden.compare import changes
from tests.golden.recording import FILES, LEAST_MARGIN, STEPS, ablation, config, evaluation, of_run, train

dropout_of_mkl = pytest.mark.skipif(
    not torch.backends.mkl.is_available(), reason="torch without MKL draws other numbers for dropout"
)


def held(found):
    told = [changes(file, (FILES / file).read_text(encoding="utf-8"), text) for file, text in found.items()]
    if any(told):
        pytest.fail("".join(told) + "The golden files say otherwise. If the new is right: make golden", pytrace=False)


@pytest.fixture(scope="module")
def run(toy):
    return of_run(train(toy))


@dropout_of_mkl
def test_losses(run):
    assert len(json.loads(run["losses.json"])) == STEPS
    held({"losses.json": run["losses.json"]})


@dropout_of_mkl
def test_reports(run):
    assert len(json.loads(run["reports.json"])) == 8
    held({"reports.json": run["reports.json"]})


def test_reports_were_no_close_call():
    assert json.loads((FILES / "recorded.json").read_text())["smallest_margin"] >= LEAST_MARGIN


def test_config(tmp_path):
    held({"config.yaml": config(tmp_path)})


def test_evaluation(tmp_path):
    held(evaluation(tmp_path))


def test_ablation_table(tmp_path):
    held(ablation(tmp_path))


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("losses.json", "[1.00000,\n2.0]\n", "[1.000009,\n2.0]\n", True),
        ("losses.json", "[1.00000,\n2.0]\n", "[1.00002,\n2.0]\n", False),
        ("metrics.json", '{"a": 0.1}\n', '{"a": 0.10000000000000001}\n', True),
        ("metrics.json", '{"a": 0.1}\n', '{"a": 0.10001}\n', False),
        ("metrics.json", '{"a": 0.1}\n', '{"b": 0.1}\n', False),
        ("metrics.json", '{"a": 1e-05}\n', '{"a": 1e-04}\n', False),
        ("tables/a.md", "| 1 |\n| 2 |\n", "| 1 |\n", False),
        ("tables/a.md", "| 1 |\n", "| 1 |\n| 2 |\n", False),
        ("tables/a.md", "| 1 | nan |\n", "| 1 | 2 |\n", False),
    ],
)
def test_what_counts_as_the_same(file, old, new, same):
    assert (changes(file, old, new) == "") == same
