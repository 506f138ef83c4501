import json
import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from reg2rg.core.files import OutputsFailedError
from reg2rg.evaluation.results import Number
from reg2rg.show.evaluation_files import as_json, write_evaluation


@pytest.fixture
def quick(make):
    """All files, few rows: most of the time goes into drawing."""
    full = make()
    return replace(full, numbers=[n for n in full.numbers if n.scope == "report"][:3], labels=[], confusion=None)


def test_all_files_are_written_and_named(quick, tmp_path):
    written = write_evaluation(quick, tmp_path / "new" / "folder")
    assert [str(path.relative_to(tmp_path / "new" / "folder")) for path in written] == [
        "per_study.csv",
        "per_region.csv",
        "plots/numbers.png",
        "plots/numbers.svg",
        "plots/words.png",
        "plots/words.svg",
        "plots/differences.png",
        "plots/differences.svg",
        "report.html",
        "metrics.json",
    ]
    found = {path for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert found == set(written)


def test_same_evaluation_gives_the_same_bytes(quick, tmp_path):
    first = [path.read_bytes() for path in write_evaluation(quick, tmp_path / "one")]
    assert first == [path.read_bytes() for path in write_evaluation(quick, tmp_path / "two")]


def test_files_of_an_earlier_evaluation_do_not_stay(quick, bare, tmp_path):
    write_evaluation(quick, tmp_path)
    (tmp_path / "plots" / "mine.png").write_bytes(b"not ours")
    written = write_evaluation(replace(bare, numbers=[]), tmp_path)
    found = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {*written, tmp_path / "plots" / "mine.png"}


def test_interrupted_writing_leaves_no_metrics(quick, bare, tmp_path, monkeypatch):
    write_evaluation(replace(bare, numbers=[]), tmp_path)

    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("reg2rg.show.evaluation_files.evaluation_page", stop)
    with pytest.raises(KeyboardInterrupt):
        write_evaluation(quick, tmp_path)
    assert not (tmp_path / "metrics.json").exists()


@pytest.mark.parametrize("part", ["to_csv", "draw_plot", "png", "svg", "evaluation_page"])
def test_one_output_that_fails_takes_no_other_with_it(quick, tmp_path, monkeypatch, part):
    whole = {path.name for path in write_evaluation(quick, tmp_path / "whole")}

    def fail(*_, **__):
        raise ValueError("no glyph")

    monkeypatch.setattr(f"reg2rg.show.evaluation_files.{part}", fail)
    with pytest.raises(
        OutputsFailedError, match=r"could not be written, the others are there:\n.*no glyph. Fix: "
    ) as caught:
        write_evaluation(quick, tmp_path / "part")
    there = {path.name for path in (tmp_path / "part").rglob("*") if path.is_file()}
    assert "metrics.json" in there
    assert there < whole
    assert all(name.partition(".")[0] in str(caught.value) for name in whole - there)


def test_a_file_that_cannot_be_written_is_named_with_a_remedy(quick, tmp_path):
    (tmp_path / "per_study.csv").mkdir()
    with pytest.raises(
        OutputsFailedError, match=r"(?s)1 of 10 files.*per_study.csv: .*Fix: correct the path"
    ) as caught:
        write_evaluation(quick, tmp_path)
    assert caught.value.exit_code == 1
    assert (tmp_path / "report.html").is_file()
    assert (tmp_path / "metrics.json").is_file()


def test_json_holds_numbers_beside_their_floors(evaluation):
    found = as_json(evaluation)
    assert found["format"] == 1
    number = next(n for n in found["numbers"] if n["name"] == "CE F1 (micro)" and n["scope"] == "report")
    assert number["value"] == 0.295
    assert (number["low"], number["high"], number["std"], number["n"]) == (0.275, 0.315, None, 1304)
    assert number["best_floor"] == "every finding"
    assert number["exceeds_best_floor"] is False
    assert number["floors"]["shuffled"] == pytest.approx(0.295 * 0.62)
    assert found["protocol"]["name"] == "radgenome"
    assert found["intervals"] == {
        "method": "bootstrap over patients", "resamples": 1000, "confidence": 0.95, "seed": 7,
    }  # fmt: skip
    assert found["labels"][0]["label"] == "Medical material"
    assert found["confusion"]["counts"][2][3] == 61
    assert found["differences"][0]["difference"] == pytest.approx(0.02)
    assert list(found["software"]) == ["matplotlib", "numpy", "reg2rg"]
    assert len(found["notes"]) == 2


def test_json_sums_words_up(make):
    words = as_json(make(words={"reference": [100, 110, 120], "predicted": []}))["words"]
    assert list(words["by_name"]) == ["reference"]
    assert words["by_name"]["reference"]["quantiles"]["0.5"] == 110
    assert sum(words["by_name"]["reference"]["histogram"]) == 3
    assert len(words["edges"]) == len(words["by_name"]["reference"]["histogram"]) + 1


def test_what_is_no_number_is_null(bare, tmp_path):
    number = Number("language", "report", "CIDEr", np.float64("nan"), np.int64(2), "", low=-math.inf, high=math.inf)
    write_evaluation(replace(bare, numbers=[number]), tmp_path)
    text = (tmp_path / "metrics.json").read_text(encoding="utf-8")
    (found,) = json.loads(text, parse_constant=pytest.fail)["numbers"]
    assert (found["value"], found["low"], found["high"], found["n"]) == (None, None, None, 2)


def test_spreadsheet_runs_no_text(quick, tmp_path, monkeypatch):
    monkeypatch.setattr("reg2rg.show.evaluation_files.draw_plot", lambda *_: None)
    frame = pd.DataFrame(
        {
            "study": ["=cmd()", "b"],
            "=head": ["+1", 'Fine, "quoted"\nline.'],
            "score": [-0.5, math.nan],
            "list": [[1], []],
        }
    )
    write_evaluation(replace(quick, per_study=frame, per_region=pd.DataFrame()), tmp_path)
    found = pd.read_csv(tmp_path / "per_study.csv")
    assert list(found.columns) == ["study", "'=head", "score", "list"]
    assert found["study"].tolist() == ["'=cmd()", "b"]
    assert found["'=head"].tolist() == ["'+1", 'Fine, "quoted"\nline.']
    assert found["score"].tolist()[0] == -0.5
    assert math.isnan(found["score"].tolist()[1])
    assert found["list"].tolist() == ["[1]", "[]"]
    assert not (tmp_path / "per_region.csv").exists()
