"""``reg2rg audit`` as a user runs it: files, the page, texts alone, and what it refuses."""

import json
from contextlib import nullcontext
from types import SimpleNamespace

import pandas as pd
import pytest

from audit_cheats import Honest, Leaks, cases
from reg2rg.cli import audit as command
from reg2rg.cli.main import main
from reg2rg.core.report import write_report


@pytest.fixture
def stand_in(monkeypatch):
    """Puts a generator in place of the model that would be loaded."""

    def put(kind, studies=12):
        subject = kind(cases(studies))
        subject.model = SimpleNamespace(reporter=SimpleNamespace(llm=SimpleNamespace(merged=nullcontext)))
        monkeypatch.setattr(command, "_subject", lambda *_: subject)

    return put


def test_a_model_is_audited(stand_in, tmp_path, capsys):
    stand_in(Honest)
    out = tmp_path / "audit"
    assert main(["audit", "--model", "m", "--out", str(out), "--resamples", "100"]) == 0
    printed = capsys.readouterr().out
    assert "follow rate" in printed
    assert "Not made: stand-ins have no masks." in printed
    found = json.loads((out / "audit.json").read_text())
    values = {(one["scope"], one["name"]): one for one in found["numbers"]}
    assert values["report", "follow rate"]["value"] == 1.0
    assert values["report", "leak rate"]["high"] == 0.0
    assert found["made by"]["interventions"][:2] == ["same", "swap"]
    assert {one["name"] for one in found["text"]["numbers"]} >= {"Normal bias", "Asked side", "CE F1 (micro)"}
    swaps = pd.read_csv(out / "swaps.csv")
    assert len(swaps) == found["interventions"]["swap"] == 48
    assert (swaps["after"] == swaps["donor_own"]).all()
    html = (out / "audit.html").read_text()
    assert html.count('<article class="swap moved">') == 24
    assert "does not follow" not in html.partition("</style>")[2]
    assert "<script" not in html
    assert "Lung nodule" in html


def test_two_models_are_compared(stand_in, tmp_path, capsys):
    for kind in (Leaks, Honest):
        stand_in(kind)
        out = str(tmp_path / kind.__name__)
        against = ["--against", str(tmp_path / "Leaks")] if kind is Honest else []
        assert main(["audit", "--model", "m", "--out", out, "--resamples", "50", *against]) == 0
    assert "Against the other audit" in capsys.readouterr().out
    found = json.loads((tmp_path / "Honest" / "audit.json").read_text())
    [leak] = [one for one in found["differences"] if (one["scope"], one["name"]) == ("report", "leak rate")]
    assert leak["high"] < 0 < leak["other"]
    assert main(["audit", "--model", "m", "--out", out, "--against", str(tmp_path)]) == 2
    assert "no run.json" in capsys.readouterr().err


def test_texts_alone(tmp_path, capsys):
    rows = [(case.study, write_report(list(case.references), list(case.references.values()))) for case in cases(8)]
    table = pd.DataFrame({"AccNum": [s for s, _ in rows], "GT_combined_report": [t for _, t in rows]})
    table["Pred_combined_report"] = rows[0][1]
    table.to_csv(tmp_path / "p.csv", index=False)
    assert main(["audit", str(tmp_path / "p.csv"), "--resamples", "20", "--out", str(tmp_path / "out")]) == 0
    assert "Diversity, predicted" in capsys.readouterr().out
    found = {one["name"]: one["value"] for one in json.loads((tmp_path / "out" / "metrics.json").read_text())["numbers"]
             if one["scope"] == "report"}  # fmt: skip
    assert found["Diversity, predicted"] == 0.0
    assert found["Diversity, reference"] > 0.2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "expected either --model FOLDER"),
        (["--config", "phantom.yaml"], "expected either --model FOLDER"),
        (["--model", "m", "--out", "o", "--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--model", "m"], "--out is missing"),
        (["--model", "m", "--out", "o", "--references", "r.csv"], "goes with PREDICTIONS"),
        (["--model", "m", "--out", "o", "--labeler", "none"], "an audit counts findings"),
        (["p.csv", "--interventions", "swap"], "--interventions: goes with --model"),
        (["p.csv", "--data.store", "s"], "unexpected --data.store s"),
        (["p.csv", "--against", "q.csv", "--resamples", "0"], "expected --resamples above 0"),
        (["--model", "m", "--out", "o", "--against", "nowhere"], "nowhere: no run.json"),
    ],
)
def test_what_it_refuses(words, message, capsys):
    assert main(["audit", *words]) == 2
    assert message in capsys.readouterr().err
