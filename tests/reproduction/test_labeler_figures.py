"""docs/concepts/labeler.md says what benchmarks/labeler_agreement.py prints."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def printed(shared_reports):
    """Everything that the script prints, without the marks of bold cells."""
    spec = importlib.util.spec_from_file_location("labeler_agreement", ROOT / "benchmarks" / "labeler_agreement.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    said = []
    with pytest.MonkeyPatch.context() as patch:
        labels = shared_reports / "radbert_labels" / "labels_first_180.csv"
        patch.setattr(sys, "argv", ["agreement", str(labels), "--reports", str(shared_reports / "radgenome")])
        patch.setattr(module, "print", lambda *texts: said.append(" ".join(map(str, texts))), raising=False)
        module.main()
    return "\n".join(said)


def test_tables_of_the_page_are_these(printed):
    page = (ROOT / "docs" / "concepts" / "labeler.md").read_text("utf-8")
    tables = [line for line in printed.splitlines() if line.startswith("|")]
    assert len(tables) == 2 + 6 + 2 + 18 + 2 + 9 + 2 + 9
    assert [line for line in tables if line not in page] == []


@pytest.mark.parametrize(
    ("said", "figures"),
    [
        ("held-out references: 95 % interval", "0.774 to 0.863"),
        ("held-out generated: 95 % interval", "0.935 to 1.000"),
        ("held-out both: 95 % interval", "0.827 to 0.890"),
        ("held-out both, without the 22 texts", "0.861"),
        ("Lung nodule and Lung opacity", "70%"),
        ("held-out both, without Lung opacity", "0.925"),
        ("tuning both, uncertain mentions absent", "0.904"),
        ("held-out both, uncertain mentions absent", "0.861"),
        ("uncertain mentions decide", "24 of 4,971"),
        ("generated reports with Medical material", "42"),
    ],
)
def test_figures_of_the_text_are_these(printed, said, figures):
    (line,) = [line for line in printed.splitlines() if line.startswith(said)]
    assert figures in line
    page = (ROOT / "docs" / "concepts" / "labeler.md").read_text("utf-8")
    for figure in figures.replace("%", " %").split(" to "):
        assert figure.replace("\n", " ") in page.replace("\n", " ")
