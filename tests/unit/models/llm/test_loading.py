"""Tokenizers of language models: what stands before a text, and whether words come through."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from families import tokenizer
from reg2rg.core.errors import ConfigError
from reg2rg.data.prompt import PromptEncoder, TokenCounts
from reg2rg.extras.tiny_llm.build import train_tokenizer
from reg2rg.models.llm.loading import load_tokenizer

BOS, EOS = ("<s>", 1), ("</s>", 2)


@pytest.fixture
def folder(tmp_path):
    """Writes a tokenizer with a template around a text, and settings beside it."""

    def write(template: str, **settings: object) -> str:
        made: PreTrainedTokenizerFast = tokenizer()
        made.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=template, special_tokens=[token for token in (BOS, EOS) if token[0] in template]
        )
        made.save_pretrained(tmp_path)
        file = tmp_path / "tokenizer_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **settings}))
        return str(tmp_path)

    return write


@pytest.mark.parametrize("flag", [None, True, False])
@pytest.mark.parametrize(
    ("template", "first"),
    [("$A", []), ("<s> $A", [1]), ("<s> $A </s>", [1]), ("$A </s>", []), ("</s> <s> $A", [2, 1])],
)
def test_prompts_begin_as_the_post_processor_says_whatever_a_flag_says(folder, caplog, template, first, flag):
    loaded = load_tokenizer(folder(template, **({} if flag is None else {"add_bos_token": flag})))
    encoder = PromptEncoder(loaded, TokenCounts(1, 1, 1))
    ids = encoder.encode_sample(["heart"], ["ba be."]).ids.tolist()
    words = loaded("The global information is provided as the context: ", add_special_tokens=False)["input_ids"]
    assert ids[: len(first) + len(words)] == first + words
    assert ids.count(2) - first.count(2) == 1 == (ids[-1] == 2)
    told = "add_bos_token" in caplog.text
    assert told == (flag is not None and flag != (1 in first))
    assert not told or f"add_bos_token: {str(flag).lower()}, but the tokenizer puts" in caplog.text


@pytest.mark.parametrize("family", ["qwen2", "gpt_neox", "cohere2"])
def test_a_class_that_drops_words_gives_way_to_the_file(folder, tmp_path, caplog, family):
    """transformers makes some classes anew from the vocabulary, without the rest of tokenizer.json."""
    path = folder("<s> $A", tokenizer_class={"gpt_neox": "GPTNeoXTokenizer", "cohere2": "CohereTokenizer"}.get(family))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    loaded = load_tokenizer(path)
    assert loaded("ba be")["input_ids"] == [1, 4, 5]
    assert loaded.eos_token_id == 2
    assert "drops parts of its tokenizer.json, which is taken as it is" in caplog.text


def test_a_tokenizer_that_makes_nothing_of_words_is_refused(tmp_path):
    empty = Tokenizer(models.BPE({"<s>": 0, "</s>": 1}, []))
    made = PreTrainedTokenizerFast(tokenizer_object=empty, bos_token="<s>", eos_token="</s>")
    made.save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"its tokenizer \(\w+\) makes no tokens of 'the heart is large"):
        load_tokenizer(str(tmp_path))


def test_words_that_come_back_otherwise_are_told(gpt2_folder, tmp_path, caplog):
    train_tokenizer(["the heart is large no nodule of 5 mm."]).save_pretrained(tmp_path)
    load_tokenizer(str(tmp_path))
    assert not caplog.text
    load_tokenizer(gpt2_folder)
    assert "reads 'the heart is large no nodule of 5 mm' back as" in caplog.text  # saved without a decoder


@pytest.mark.parametrize("text", ["{", "{}", '{"model": 1}'])
def test_a_damaged_file_is_one_message(folder, tmp_path, text):
    path = folder("$A")
    (tmp_path / "tokenizer.json").write_text(text)
    with pytest.raises(ConfigError, match="save the model and its tokenizer again"):
        load_tokenizer(path)
