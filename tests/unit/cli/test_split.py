"""``reg2rg data split``: the table, the sentences with their reasons, the exchange with another program."""

import csv
import json
from pathlib import Path
from typing import ClassVar

import pytest

from reg2rg.cli.main import main
from reg2rg.datasets import Manifest
from reg2rg.datasets.splitters import SPLITTERS, Placement, Splitter

ROWS = (
    ("007", "a.nii.gz", "The heart is normal. A nodule of 1.5 cm in the right lung.\nIt grew. Helical CT.", "x"),
    ("8", "b.nii.gz", "肝脏正常。=SUM(A1)。", "y"),
    ("9", "c.nii.gz", "None", "z"),
)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    with open(path, "w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([("AccNum", "image", "Befund", "ward"), *ROWS])
    for _, image, _, _ in ROWS:
        (tmp_path / image).touch()
    return path


def split(table: Path, *words: str) -> int:
    return main(["data", "split", str(table), "--id-column", "AccNum", "--report-column", "Befund", *words])


def rows(path: Path) -> list[dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


def test_table_and_sentences(table, capsys) -> None:
    assert split(table) == 0
    out = table.with_name("t_split.csv")
    first, second, third = rows(out)
    assert list(first)[:5] == ["AccNum", "image", "Befund", "ward", "report:abdomen"]
    assert list(first)[-1] == "other"
    assert first["Befund"] == ROWS[0][2]
    assert {name: text for name, text in first.items() if name.startswith("report:") and text} == {
        "report:heart": "The heart is normal.",
        "report:lung": "A nodule of 1.5 cm in the right lung. It grew. Helical CT.",
    }
    assert (second["report:abdomen"], third["report:lung"], third["ward"]) == ("肝脏正常。 =SUM(A1)。", "", "z")
    told = rows(table.with_name("t_split_sentences.csv"))
    assert [(row["id"], row["number"], row["regions"], row["reason"]) for row in told[:3]] == [
        ("007", "1", "heart", "anatomy: heart"),
        ("007", "2", "lung", "anatomy: lung"),
        ("007", "3", "lung", "inherited from: anatomy: lung"),
    ]
    assert told[-1]["sentence"] == "'=SUM(A1)。", "no spreadsheet runs it"
    said = " ".join(capsys.readouterr().out.split())
    assert "6 sentences of 2 reports in 3 rows" in said
    assert "Reasons: anatomy 50.0%, inherited 50.0%." in said
    found = Manifest(str(out), columns={"id": "AccNum", "report": "Befund"}, val_fraction=0.0, max_skip=1.0)
    assert {study.id: sorted(study.reports) for study in found.studies()} == {
        "007": ["heart", "lung"],
        "8": ["abdomen"],
    }


def test_a_splitter_in_the_config_gives_the_same_texts(table) -> None:
    columns = {"id": "AccNum", "report": "Befund"}
    options = {"columns": columns, "val_fraction": 0.0, "max_skip": 1.0}
    assert split(table) == 0
    written = Manifest(str(table.with_name("t_split.csv")), **options).studies()
    split_now = Manifest(str(table), splitter=SPLITTERS.get("RuleSplitter")(), **options).studies()
    assert [study.reports for study in split_now] == [study.reports for study in written]


def test_questions_and_answers(table, capsys) -> None:
    asked, answers = table.with_name("asked.jsonl"), table.with_name("answers.jsonl")
    assert split(table, "--ask", str(asked)) == 0
    questions = [json.loads(line) for line in asked.read_text(encoding="utf-8").splitlines()]
    assert [(one["id"], len(one["sentences"]), one["regions"]) for one in questions] == [
        ("007", 4, None),
        ("8", 2, None),
    ]
    answered = questions[0] | {"regions": [["heart"], ["lung"], ["lung"], []], "reasons": ["a", "b", "c", "d"]}
    answers.write_text(json.dumps(answered) + "\n")
    assert split(table, "--answers", str(answers), "--ask", str(asked)) == 0
    assert [json.loads(line)["id"] for line in asked.read_text(encoding="utf-8").splitlines()] == ["8"]
    capsys.readouterr()
    assert split(table, "--answers", str(answers)) == 3
    assert "not split: SPLIT_MISSING 8" in capsys.readouterr().out
    first, second, _ = rows(table.with_name("t_split.csv"))
    assert (first["report:heart"], first["other"], second["report:abdomen"]) == (
        "The heart is normal.",
        "Helical CT.",
        "",
    )
    altered = answered | {"sentences": ["The heart is big.", *answered["sentences"][1:]]}
    answers.write_text(json.dumps(altered) + "\n")
    assert split(table, "--answers", str(answers)) == 3, "an altered sentence is no answer"
    assert not rows(table.with_name("t_split_sentences.csv"))


class SlowSplitter(Splitter):
    """Stops at the second report."""

    slow = True
    asked: ClassVar[list[str]] = []

    def place(self, sentences, regions):
        self.asked.append(sentences[0])
        if len(self.asked) == 2:
            raise KeyboardInterrupt
        return [Placement(("heart",), "slowly")] * len(sentences)


@pytest.fixture
def slow():
    SPLITTERS.register(SlowSplitter)
    yield SlowSplitter
    del SPLITTERS._classes["SlowSplitter"]


def test_a_slow_splitter_goes_on_where_it_was_stopped(table, slow, capsys) -> None:
    assert (
        split(table, "--splitter", "SlowSplitter", "--allow-import", SlowSplitter.__module__.partition(".")[0]) == 130
    )
    assert not table.with_name("t_split.csv").exists()
    journal = table.with_name("t_split_answers.jsonl")
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 1
    with open(journal, "a") as stream:
        stream.write('{"id": "8", "sent')  # what a kill leaves
    assert split(table, "--splitter", "SlowSplitter", "--allow-import", SlowSplitter.__module__.partition(".")[0]) == 0
    assert slow.asked == ["The heart is normal.", "肝脏正常。", "肝脏正常。"]
    assert "1 reports were placed before" in capsys.readouterr().out
    assert len(journal.read_text(encoding="utf-8").splitlines()) == 2
    assert [row["report:heart"] != "" for row in rows(table.with_name("t_split.csv"))] == [True, True, False]


def test_mistakes_end_in_one_message(table, tmp_path, capsys) -> None:
    def said(*words: str) -> str:
        assert main(["data", "split", *words]) == 2
        return capsys.readouterr().err

    assert "a TABLE, or a --config whose data.dataset is a Manifest" in said()
    assert "no such file (expected a table)" in said(str(tmp_path / "absent.csv"))
    assert "column report missing; the header has: AccNum" in said(str(table), "--id-column", "AccNum")
    assert "both --splitter and --answers" in said(str(table), "--splitter", "A", "--answers", "b")
    columns = ("--id-column", "AccNum", "--report-column", "Befund")
    assert "this is the table itself" in said(str(table), *columns, "-o", str(table))
    config = tmp_path / "c.yaml"
    config.write_text(f"data: {{dataset: {{class_path: ScanFolder, init_args: {{root: {tmp_path}}}}}}}")
    assert "data.dataset is a ScanFolder: only the table of a Manifest is split" in said("--config", str(config))
    config.write_text(
        f"data: {{dataset: {{class_path: Manifest, init_args: {{path: {table}, splitter: RulSplitter}}}}}}"
    )
    assert "Did you mean 'RuleSplitter'" in said("--config", str(config))
