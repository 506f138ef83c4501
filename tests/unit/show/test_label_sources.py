"""Labels that are shipped beside labels that are read: counts, agreement and scores by hand."""

import csv

import numpy as np
import pandas as pd
import pytest

from reg2rg.cli.main import main
from reg2rg.core.errors import ConfigError
from reg2rg.core.labels import FINDINGS
from reg2rg.show.label_sources import label_sources

LABELS = ("Cardiomegaly", "Lung nodule")
READ = pd.DataFrame({
    "study": ["a", "b", "c", "d"],
    "findings_reference": ["Cardiomegaly; Lung nodule", "Cardiomegaly", "", ""],
    "findings_predicted": ["Cardiomegaly", "", "", "Lung nodule"],
})  # fmt: skip


def test_figures_by_hand():
    shipped = dict(zip("abcd", np.array([[1, 1], [0, 0], [0, 1], [1, 0]], dtype=bool), strict=True))
    table = label_sources(READ, shipped, LABELS, "Read by hand.")
    rows = {row.cells[0].text: [cell.text for cell in row.cells[1:]] for row in table.rows}
    assert rows["Cardiomegaly"] == ["2", "2", "0.500", "0.000", "0.667", "0.667"]
    assert rows["Lung nodule"] == ["2", "1", "0.750", "0.500", "0.000", "0.000"]
    assert rows["all (micro)"] == ["4", "3", "0.625", "0.250", "0.333", "0.400"]
    assert "of 4 studies" in table.notes[0]
    assert "Read by hand." in table.notes[0]


def test_nothing_was_read():
    with pytest.raises(ConfigError, match="name a --labeler"):
        label_sources(READ[["study"]], {}, LABELS, "")


def test_the_command_prints_both_sources(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    rows = [("valid_1_a_1", "The heart is enlarged.", "The heart is enlarged."), ("valid_2_a_1", "Normal.", "Normal.")]
    for name, header, lines in (
        ("reports.csv", ("id", "reference", "prediction"), rows),
        ("labels.csv", ("VolumeName", *FINDINGS),
         [(f"{row[0]}.nii.gz", *(int(label == "Cardiomegaly") for label in FINDINGS)) for row in rows]),
    ):  # fmt: skip
        with open(tmp_path / name, "w", newline="") as stream:
            csv.writer(stream).writerows([header, *lines])
    words = ["evaluate", str(tmp_path / "reports.csv"), "--resamples", "0", "--no-floors"]
    assert main([*words, "--shipped-labels", str(tmp_path / "labels.csv")]) == 0
    out = capsys.readouterr().out
    assert "Two sources of labels" in out
    [row] = [line.split() for line in out.splitlines() if line.startswith("Cardiomegaly") and "0.500" in line]
    assert row == ["Cardiomegaly", "2", "1", "0.500", "0.000", "0.667", "1.000"]
