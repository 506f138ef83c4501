"""The notebook runs as it is written, cell after cell, and is committed without what a run leaves in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import pytest

NOTEBOOK = Path(__file__).resolve().parents[2] / "docs" / "tutorials" / "phantoms.ipynb"


@pytest.fixture
def code() -> list[dict[str, Any]]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_the_notebook_has_no_outputs(code: list[dict[str, Any]]) -> None:
    left = [cell["id"] for cell in code if cell["outputs"] or cell["execution_count"] is not None]
    assert not left, f"{NOTEBOOK.name}: clear all outputs"


def test_the_notebook_runs(
    code: list[dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    components: None,
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    try:
        for number, cell in enumerate(code):
            exec(compile("".join(cell["source"]), f"{NOTEBOOK.name}, code cell {number}", "exec"), namespace)
    finally:
        plt.close("all")
    assert "faults: 0" in capsys.readouterr().out
    scores = json.loads((tmp_path / "notebook/scores/metrics.json").read_text(encoding="utf-8"))
    assert scores["studies"] == len(namespace["answers"]) > 1
