"""Model cards say what is known, say that the rest is not, and are read by the hub."""

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from reg2rg.core.task import ReportTask, Views
from reg2rg.pretrained.card import CardFacts, model_card
from reg2rg.pretrained.contract import InputContract
from reg2rg.pretrained.folder import LanguageModelRef

MODEL = {
    "texture": {"class_path": "reg2rg.models.encoders.PerceiverResampler", "init_args": {
        "encoder": {"class_path": "Frozen", "init_args": {"encoder": {"class_path": "ViT3D", "init_args": {}}}}}},
    "geometry": None,
    "global_": "texture",
    "projector": {"class_path": "LinearProjector"},
    "llm": {"class_path": "CausalLM", "init_args": {"path": "x", "lora": {"rank": 8}}},
}  # fmt: skip
LLAMA = LanguageModelRef("meta-llama/Llama-2-7b-chat-hf")
METRICS = {
    "studies": 20, "patients": 18, "protocol": {"name": "strict"}, "labeler": "By rules.",
    "intervals": {"method": "bootstrap over patients", "confidence": 0.95},
    "numbers": [
        {"group": "language", "scope": "report", "name": "BLEU-4", "value": 0.2512, "low": 0.24, "high": 0.26,
         "score": True, "best_floor": "most common | report", "exceeds_best_floor": False,
         "floors": {"most common | report": 0.3}},
        {"group": "findings", "scope": "report", "name": "CE F1 (macro)", "value": 0.5, "low": None, "high": None,
         "score": True, "best_floor": None, "exceeds_best_floor": None, "floors": {}},
        {"group": "statistics", "scope": "report", "name": "Abnormal studies, predicted", "value": 0.4, "score": False},
        {"group": "language", "scope": "lung", "name": "BLEU-1", "value": 0.9, "score": True},
        {"group": "language", "scope": "report", "name": "CIDEr", "value": None, "score": True},
    ],
}  # fmt: skip


def card(ref=LLAMA, facts=None, **task):
    return model_card({"model": MODEL, "data": {}}, InputContract(ReportTask(**task)), ref, facts)


def test_the_hub_reads_its_header():
    data = ModelCard(card()).data
    assert (data.library_name, data.license, data.base_model) == ("reg2rg", "llama2", "meta-llama/Llama-2-7b-chat-hf")
    assert "radiology" in data.tags
    assert ModelCard(card(facts=CardFacts(licence="cc-by-nc-4.0"))).data.license == "cc-by-nc-4.0"
    assert ModelCard(card(LanguageModelRef("lab/own"))).data.license is None


def test_what_every_card_says():
    text = card()
    for said in (
        "For research. It is no medical device",
        "window | -1000 to 200 HU",
        "voxel size | any",
        "abdomen, bone, breast",
        "texture | `PerceiverResampler` of `Frozen` of `ViT3D`",
        "geometry | none",
        "global | the texture encoder",
        "`CausalLM` with LoRA of rank 8",
        "licence: Llama 2 Community License",
        'Reg2RG.from_pretrained("path/of/this/folder")',
        "is not in this folder",
        "Not stated by whoever wrote this folder.",
        "None are given.",
    ):
        assert said in text, said


def test_what_is_given_stands_in_it():
    facts = CardFacts(
        "Ours", "A fine model.", "1,000 scans of one clinic", "mit", "apache-2.0", METRICS, ["Mind the gap."]
    )
    text = card(
        LanguageModelRef("/home/me/models/tiny", copy=None), facts, views=Views(spacing=(1.0, 1.0, 3.0), coupled=True)
    )
    for said in (
        "# Ours\n",
        "A fine model.",
        "Mind the gap.",
        "1,000 scans of one clinic",
        "1 x 1 x 3 mm",
        "uncropped",
    ):
        assert said in text, said
    assert "Weights in this folder: mit. The base language model is under: apache-2.0" in text
    assert "20 studies of 18 patients, protocol `strict`" in text
    assert "intervals of 95%" in text
    assert "| BLEU-4 | 0.251 [0.240, 0.260] | most common \\| report: 0.300 (not exceeded) |" in text
    assert "| CE F1 (macro) | 0.500 |  |" in text
    assert "Abnormal studies, predicted | 0.400" in text
    assert "BLEU-1" not in text
    assert "CIDEr" not in text
    assert "/home/me" not in text
    assert 'language_model="path/of/the/language/model"' in text


@pytest.mark.parametrize(("target", "said"), [("whole", "writes a report"), ("regions", "a paragraph for each region")])
def test_targets(target, said):
    assert said in card(target=target)


def test_tables_and_fences_are_whole():
    text = card(facts=CardFacts(metrics=METRICS))
    assert text.count("```") % 2 == 0
    body = text.split("---\n", 2)[2]
    for block in body.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.replace("\\|", "").count("|") for line in rows}) <= 1, block


def test_the_licence_of_a_local_language_model_is_read_from_its_card(tmp_path):
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# LM\n")
    text = card(LanguageModelRef("lm", copy=tmp_path))
    assert "licence: apache-2.0" in text
    assert "license" not in yaml.safe_load(text.split("---")[1])  # a free base says nothing about these weights
    for broken in ("---\n{oops\n---\n", "---", "no header", "---\n- list\n---\n"):
        (tmp_path / "README.md").write_text(broken)
        assert "licence: not stated" in card(LanguageModelRef("lm", copy=tmp_path))


MARKS = ("", "# ", "- # ", "12. # ", "```\n", "~~~\n", "<h2>Figures</h2>", "x\n---\n", "a | b\n|---|\n", "--- ", "---",
         "***", "_ _ _", "**Figures** ", "__Figures__ ", "![x](https://a/b.png) ", "[Figures](https://a) ",
         "[a]: https://b ", "\u202e", "\x1b[1m")  # fmt: skip


@pytest.mark.parametrize("mark", MARKS)
def test_no_text_forges_a_section_or_a_tag(mark):
    def parts(text):
        tokens = MarkdownIt("commonmark").parse(ModelCard(text).text)
        inner = [child for token in tokens for child in token.children or []]
        titles = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
        links = [token for token in inner if token.type == "link_open" and "meta-llama" not in token.attrGet("href")]
        assert not links
        return titles[1:], {token.type for token in (*tokens, *inner)}

    forged = (
        f"{mark}Ours\n\n## Figures\n\n| score | value |\n|---|---|\n| <b>F1</b> | 1.000 |\n\n<script>alert(1)</script>"
    )
    numbers = [{**METRICS["numbers"][0], "name": forged, "best_floor": forged}]
    metrics = {**METRICS, "labeler": forged, "protocol": {"name": forged}, "numbers": numbers}
    titles, kinds = parts(card(facts=CardFacts(forged, forged, forged, forged, forged, metrics, [forged])))
    assert titles == ["Use", "How to use", "Input", "Inside", "Training data", "Figures", "Licence"]
    assert not kinds & {"html_block", "html_inline", "hr", "table_open", "bullet_list_open", "ordered_list_open"}
    assert not kinds & {"image", "strong_open", "em_open"}
    text = card(facts=CardFacts(mark, mark, mark, notes=[mark]))
    titles, kinds = parts(text)
    assert titles == ["Use", "How to use", "Input", "Inside", "Training data", "Figures", "Licence"]
    assert not kinds & {"hr", "image", "strong_open", "em_open", "html_block"}
    assert not any(sign in text for sign in "\u202e\x1b")


def test_only_what_the_hub_takes_for_an_id_is_linked_there():
    text = card(LanguageModelRef("my models/tiny](x)"))
    assert ModelCard(text).data.base_model is None
    assert "huggingface.co" not in text
