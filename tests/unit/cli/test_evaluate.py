"""``reg2rg evaluate`` as it is typed: what it prints and writes; mistakes end in one message and exit code 2."""

import csv
import json
import re
import sys
from importlib.metadata import version

import pytest

from reg2rg.cli.main import main
from reg2rg.core.labels import FINDINGS
from reg2rg.evaluation.protocols import PROTOCOLS

HEADER = "AccNum,GT_combined_report,Pred_combined_report"
ROWS = (
    ("valid_1_a_1", "A nodule of 6 mm is seen in the left lung.", "A nodule of 4 mm is seen in the left lung."),
    ("valid_1_b_1", "Pericardial effusion. Clear lungs.", "Clear lungs."),
    ("valid_2_a_1", "Clear lungs.", "Emphysema in both lungs."),
    ("valid_3_a_1", "Emphysema in both lungs.", ""),
)


def table(path, rows=ROWS, header=HEADER):
    lines = [header, *(",".join(f'"{cell}"' for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def reports(tmp_path):
    return table(tmp_path / "reports.csv")


@pytest.fixture
def undrawn(monkeypatch):
    """Writes everything but plots, which take their time."""
    monkeypatch.setattr("reg2rg.show.evaluation_files.draw_plot", lambda *_: None)


def run(*words):
    return main(["evaluate", *map(str, words)])


def failed(capsys, *words):
    """The message of a run that must fail at once: one paragraph, no traceback, exit code 2."""
    assert run(*words) == 2
    out, err = capsys.readouterr()
    message = err.strip().splitlines()[-1]
    assert "Traceback" not in err
    assert not out
    return message


def test_help_names_every_protocol(capsys):
    assert run("--help") == 0
    said = capsys.readouterr().out
    assert " | ".join(PROTOCOLS) in said
    assert "Needs no model and no network" in said


def test_numbers_files_and_what_they_hold(reports, tmp_path, capsys):
    assert run(reports, "--out", tmp_path / "out", "--resamples", 50, "--export", tmp_path / "texts.json") == 0
    said = capsys.readouterr().out
    headline = "protocol strict; 4 studies of 3 patients; 95 % intervals from 50 bootstrap resamples"
    assert headline in " ".join(said.split())
    written = re.findall(r"^written: (.*)$", said, re.MULTILINE)
    for name in ("metrics.json", "per_study.csv", "report.html", "plots/numbers.png", "plots/numbers.svg"):
        assert str(tmp_path / "out" / name) in written
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert found["protocol"]["name"] == "strict"
    assert found["inputs"] == {"predictions": reports}
    assert found["software"]["nltk"] == version("nltk")
    for number in found["numbers"]:
        assert number["protocol"] == "strict"
        assert number["definition"]
        assert number["n"] > 0
        assert {"low", "high", "std", "floors"} <= number.keys()
    bleu = next(number for number in found["numbers"] if number["name"] == "BLEU-1")
    assert bleu["low"] <= bleu["value"] <= bleu["high"]
    assert set(bleu["floors"]) == {
        "empty report", "most common report", "shuffled between studies", "every finding in every study"
    }  # fmt: skip
    with open(tmp_path / "out" / "per_study.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["study"] for row in rows] == [row[0] for row in ROWS]
    assert rows[0]["findings_predicted"] == "Lung nodule"
    texts = json.loads((tmp_path / "texts.json").read_text())
    assert texts["refs"] == [row[1] for row in ROWS]
    assert texts["hyps"] == [row[2] for row in ROWS]
    assert texts["studies"] == [row[0] for row in ROWS]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_runs(reports, protocol, capsys):
    assert run(reports, "--protocol", protocol, "--resamples", 0, "--no-floors", "--name", "ours") == 0
    said = capsys.readouterr().out
    assert said.startswith("Evaluation of ours")
    assert f"protocol {protocol}; 4 studies of 3 patients; no intervals" in said


def test_two_files_are_compared_study_by_study(reports, undrawn, tmp_path, capsys):
    other = table(tmp_path / "other.csv", [(study, truth, truth) for study, truth, _ in reversed(ROWS)])
    assert run(reports, "--against", other, "--resamples", 50, "--out", tmp_path / "out", "--no-floors") == 0
    said = capsys.readouterr().out
    assert "Differences, to other.csv" in said
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())
    bleu = next(one for one in found["differences"] if one["name"] == "BLEU-1" and one["scope"] == "report")
    assert bleu["other"] == 1
    assert bleu["difference"] < 0
    assert bleu["low"] <= bleu["difference"] <= bleu["high"]
    assert 0 < bleu["p"] <= 1


def test_intersection_reduces_all_files(reports, tmp_path, capsys):
    other = table(tmp_path / "other.csv", ROWS[1:])
    assert "1 studies are in one of the two" in failed(capsys, reports, "--against", other)
    assert run(reports, "--against", other, "--intersection", "--resamples", 10, "--no-floors") == 0
    assert "3 studies of 3 patients" in capsys.readouterr().out


def test_labels_from_tables(undrawn, tmp_path, capsys):
    labels = [[int((i + k) % 3 == 0) for k in range(18)] for i in range(4)]
    header = ",".join([HEADER, *(f"GT_{label}" for label in FINDINGS), *(f"Pred_{label}" for label in FINDINGS)])
    path = table(tmp_path / "all.csv", [(*row, *one, *one) for row, one in zip(ROWS, labels, strict=True)], header)
    assert run(path, "--resamples", 0) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "score by them with --reference-labels" in said
    both = ("--reference-labels", path, "--predicted-labels", path, "--labeler", "none")
    assert run(path, *both, "--resamples", 0, "--protocol", "paper", "--out", tmp_path / "out") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "score by them" not in said
    assert "those of the given table" in said
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())["numbers"]
    assert next(n["value"] for n in numbers if n["name"] == "CE F1 (micro)") == 1
    own = table(tmp_path / "labels.csv", [(f"{row[0]}.nii.gz", *one) for row, one in zip(ROWS, labels, strict=True)],
                ",".join(["VolumeName", *FINDINGS]))  # fmt: skip
    assert run(path, "--reference-labels", own, "--resamples", 0, "--no-floors") == 0
    assert "given table for references, rules for predictions" in " ".join(capsys.readouterr().out.split())


def test_floors_may_come_from_training_references(reports, undrawn, tmp_path, capsys):
    train = table(
        tmp_path / "train.csv", [("t1", "Nothing."), ("t2", "Nothing."), ("t3", "A.")], "VolumeName,Findings_EN"
    )
    assert run(reports, "--train-references", train, "--resamples", 0, "--out", tmp_path / "out") == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "picked from the given training references" in said


def test_words_net_none_names_another_metric(reports, capsys):
    assert run(reports, "--wordnet", "none", "--resamples", 0, "--no-floors") == 0
    said = capsys.readouterr().out
    assert "METEOR-es" in said
    assert not re.search(r"^METEOR ", said, re.MULTILINE)


def test_a_labeler_by_its_class_name(reports, capsys):
    said = []
    for name in ("rules", "RuleLabeler"):
        assert run(reports, "--labeler", name, "--resamples", 0, "--no-floors") == 0
        said.append(capsys.readouterr().out)
    assert said[0] == said[1]
    from reg2rg.evaluation.labelers.radbert import RadBertLabeler

    assert "the folder of RadBERT's" in failed(capsys, reports, "--labeler", RadBertLabeler.__name__)


@pytest.fixture
def judge(tmp_path, monkeypatch):
    """Installs a package with judges, as pip would lay it out."""
    site = tmp_path / "site"
    info = site / "acme_judges-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-judges\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[reg2rg.judges]\nsame = acme_judges:same\nshort = acme_judges:short\nbroken = acme_broken:score\n"
        "number = acme_judges:NUMBER\n"
    )
    (site / "acme_judges.py").write_text(
        "NUMBER = 3\n\n\ndef same(references, predictions):\n"
        "    return [float(a == b) for a, b in zip(references, predictions, strict=True)]\n\n\n"
        "def short(references, predictions):\n    return [1.0]\n"
    )
    (site / "acme_broken.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.syspath_prepend(str(site))
    yield site
    for name in ("acme_judges", "acme_broken"):
        sys.modules.pop(name, None)


def test_a_judge_of_an_installed_package(judge, undrawn, tmp_path, capsys):
    path = table(
        tmp_path / "a.csv", [("1", "one", "one"), ("2", "two", "three"), ("3", "four", "four"), ("4", "x", "x")]
    )
    words = ("--judge", "same", "--judge-floors", "--resamples", 20, "--out", tmp_path / "out")
    assert run(path, *words) == 0
    assert re.search(r"^same +0\.750 \[", capsys.readouterr().out, re.MULTILINE)
    numbers = json.loads((tmp_path / "out" / "metrics.json").read_text())["numbers"]
    found = next(number for number in numbers if number["name"] == "same")
    assert found["definition"] == "mean over reports of the judge 'same'"
    assert found["floors"]["empty report"] == 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sane", "there is no judge 'sane'. Did you mean 'same'?"),
        ("broken", "judge 'broken' (acme_broken:score) cannot be loaded: ModuleNotFoundError"),
        ("number", "judge 'number' is a int (expected a function"),
        ("short", "judge 'short' gave scores of the shape (1,) (expected one number for each of 4 reports)"),
    ],
)
def test_judges_that_cannot_be_used(judge, reports, name, message, capsys):
    assert message in failed(capsys, reports, "--judge", name, "--resamples", 0, "--no-floors")


def test_mistakes_end_in_one_message(reports, tmp_path, capsys):
    (tmp_path / "folder").mkdir()
    other = table(tmp_path / "other.csv", ROWS[1:])
    changed = table(tmp_path / "changed.csv", [(study, f"{truth} More.", told) for study, truth, told in ROWS])
    for words, message in (
        ((tmp_path / "none.csv",), "none.csv: not found"),
        ((tmp_path / "folder",), "no reports in this folder"),
        ((reports, "--protocol", "papr"), "no protocol 'papr'. Did you mean 'paper'?"),
        ((reports, "--confidence", 95), "--confidence 95.0: expected a number between 0 and 1"),
        ((reports, "--resamples", -1), "expected a whole number, 0 or more, found '-1'"),
        ((reports, "--resamples", 10**9), "expected at most 100000"),
        ((reports, "--resamples", "many"), "expected a whole number, 0 or more, found 'many'"),
        ((reports, "--references", other), "hold different studies"),
        ((reports, "--against", reports, "--resamples", 0), "expected --resamples above 0"),
        ((reports, "--against", changed), "have another reference than in"),
        ((reports, "--against-labels", reports), "expected --against"),
        ((reports, "--against", reports, "--predicted-labels", reports), "give both tables"),
        ((reports, "--labeler", "radbert"), "hf download Trusure/Reg2RG RadBertClassifier.pth"),
        ((reports, "--labeler", "RuleLabler"), "Did you mean 'RuleLabeler'?"),
        ((reports, "--reference-labels", reports), "label table"),
        ((reports, "--wordnet", tmp_path / "folder"), "no folder with WordNet's files"),
        ((reports, "--regions", "lobse"), "Did you mean 'lobes'?"),
        ((reports, "--id-column", "acc"), "no column 'acc' (--id-column)"),
        ((reports, "--encoding", "utf-9"), "not a text encoding"),
        ((reports, "--export", tmp_path / "a.xlsx"), "expected .json, which radeval takes, or .csv"),
        ((reports, "--out", reports), "is no folder"),
        ((reports, "--out", f"{reports}/deeper"), "is no folder"),
        ((reports, "--train-references", tmp_path / "none.csv"), "not found"),
        ((reports, "--floors"), "unrecognized arguments: --floors"),
    ):
        assert message in failed(capsys, *words), words


def test_progress_goes_to_standard_error_and_only_now_and_then(reports, monkeypatch, capsys):
    from reg2rg.cli import evaluate

    monkeypatch.setattr(evaluate, "_SAY_EVERY_S", 0.0)
    assert run(reports, "--resamples", 0) == 0
    lines = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\d+ s: reading", lines[0])
    assert any("ROUGE: 16 texts, those of floors among them" in line for line in lines)
    monkeypatch.setattr(evaluate, "_SAY_EVERY_S", 60.0)
    assert run(reports, "--resamples", 0) == 0
    assert not capsys.readouterr().err


def test_labels_stand_in_place_of_references(tmp_path, capsys) -> None:
    predictions, labels, out = tmp_path / "p.csv", tmp_path / "l.csv", tmp_path / "out"
    predictions.write_text("id,prediction\ntst1,There is a nodule in the left lung.\ntst2,Clear lungs.\ntst3,Clear.\n")
    findings = json.dumps(
        {"findings": {"Lung nodule": ["nodule", "nodulegr1cm"], "Cardiomegaly": ["big"], "Other": []}}
    )
    mapping = tmp_path / "map.yaml"
    mapping.write_text(findings)
    labels.write_text(
        "NoteAcc_DEID,nodule*lung,nodulegr1cm*lung,big*heart,stent*heart\n"
        "tst1,1.0,0.0,0.0,1.0\ntst2,0.0,1.0,1.0,0.0\ntst3,0.0,0.0,0.0,0.0\ntst4,0,0,0,0\n"
    )
    words = ["evaluate", str(predictions), "--truth", str(labels), "--truth-map", str(mapping), "--resamples", "0"]
    assert main([*words, "--out", str(out)]) == 0
    found = json.loads((out / "metrics.json").read_text())
    numbers = {number["name"]: number["value"] for number in found["numbers"] if number["group"] != "statistics"}
    assert (numbers["Truth precision (micro)"], numbers["Truth recall (micro)"]) == (1.0, pytest.approx(1 / 3))
    assert all(name.startswith("Truth") for name in numbers), "no text is compared"
    said = " ".join(capsys.readouterr().out.split())
    assert "Not scored, since RAD-ChestCT has no such label: Other." in said
    assert "1 labelled studies without a prediction are not scored." in said
    labels.write_text("VolumeName,Lung nodule\ntst1.nii.gz,1\ntst2,0\n")
    assert main(words) == 2
    assert "no labels of 1 of 3 predicted studies, such as tst3" in capsys.readouterr().err
    assert main([*words, "--intersection"]) == 0
    assert main([*words, "--references", str(predictions)]) == 2
    assert "--truth with --references: labels stand in place of references" in capsys.readouterr().err
    labels.write_text("name,Lung nodule\ntst1,1\n")
    assert main(words) == 2
    assert "neither VolumeName with a 0/1 column a finding, nor NoteAcc_DEID" in capsys.readouterr().err
