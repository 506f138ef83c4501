"""Reports in scripts that English tokens and rules do not cover: said, and never a score of 0."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from reg2rg.core.regions import load_region_set
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.labelers import RuleLabeler
from reg2rg.evaluation.pairs import pair_texts
from reg2rg.evaluation.protocols import PROTOCOLS
from reg2rg.evaluation.reading import Reports
from reg2rg.show.evaluation_files import as_json
from reg2rg.show.evaluation_page import evaluation_page
from reg2rg.show.evaluation_tables import build_tables
from reg2rg.show.evaluation_terminal import print_evaluation
from reg2rg.show.render import to_csv, to_latex, to_markdown

REGIONS = load_region_set("radgenome")
CHINESE = ["双肺纹理清晰，右肺上叶见结节影，直径约8mm。", "双侧胸腔积液，心影增大。", "左肺下叶见斑片状高密度影。"]


def scored(texts, protocol):
    pairs = [pair_texts(str(i), str(i), text, text, REGIONS) for i, text in enumerate(texts)]
    settings = Settings(protocol=PROTOCOLS[protocol], labeler=RuleLabeler(), resamples=20)
    return evaluate("a.csv", Reports(pairs, (), ()), settings)


def test_characters_score_chinese_reports_against_themselves_with_1():
    found = scored(CHINESE, "characters")
    assert found.number("ROUGE-L").value == 1
    assert found.number("BLEU-4 (corpus)").value == 1
    assert found.number("CIDEr").value == pytest.approx(10, abs=1e-9)


@pytest.mark.parametrize("protocol", ["strict", "corpus", "characters"])
def test_what_knows_english_alone_is_not_available_in_any_form(protocol):
    found = scored(CHINESE, protocol)
    meteor = next(n for n in found.numbers if n.name.startswith("METEOR"))
    assert not meteor.available
    assert not found.number("CE F1 (micro)").available
    assert found.labels == []
    assert any("of the letters of the references are none of a-z" in note for note in found.notes)
    stream = StringIO()
    print_evaluation(found, Console(file=stream, width=200))
    table = next(table for table in build_tables(found) if table.key == "numbers")
    forms = [stream.getvalue(), to_markdown(table), to_csv(table), to_latex(table), evaluation_page(found, {})]
    for form in forms:
        assert "not available" in form
    values = {n["name"]: n["value"] for n in json.loads(json.dumps(as_json(found)))["numbers"]}
    assert values[meteor.name] is None
    assert values["CE F1 (micro)"] is None


def test_a_few_letters_of_another_language_are_said_and_scored():
    found = scored(["Größe normal.", "Übrige Lunge ohne Befund."], "corpus")
    assert found.number("ROUGE-L").available
    assert any("letters of the references are none of a-z" in note for note in found.notes)
    assert not any("a-z" in note for note in scored(["Clear lungs."], "corpus").notes)


def test_penn_treebank_protocol_scores_its_tokens():
    pairs = [
        pair_texts("a", "a", "A nodule (6 mm) on CT. Heart, normal.", "a nodule 6 mm on CT; heart normal", REGIONS)
    ]
    settings = Settings(protocol=PROTOCOLS["ptb"], labeler=None, resamples=0, floors=False)
    found = evaluate("a", Reports(pairs, (), ()), settings)
    # reference: a nodule -lrb- 6 mm -rrb- on ct. heart normal; prediction: a nodule 6 mm on ct heart normal
    brevity = 2.718281828459045 ** (1 - 10 / 8)
    assert found.number("BLEU-1 (corpus)").value == pytest.approx(7 / 8 * brevity)
    assert "Penn Treebank tokens" in found.number("ROUGE-L").definition


def test_packaged_protocols_are_documented():
    page = (Path(__file__).parents[3] / "docs" / "how-to" / "evaluation.md").read_text("utf-8")
    assert all(f"`{name}`" in page for name in PROTOCOLS)
