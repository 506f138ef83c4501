"""Ids, slots and labels against the published rules, for tokenizers of LLaMA's form."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from parity import reference
from parity.llama import AREAS, VOCABULARY, WORDS, rebuilt, shipped, write_sentencepiece
from reg2rg.core.errors import DataFault
from reg2rg.core.task import INSTRUCTION
from reg2rg.data.prompt import IGNORED, PromptEncoder, TokenCounts

PUBLISHED = TokenCounts(texture=32, geometry=1, global_=32)
LENGTH = 2048
TOKENIZERS = {"shipped": shipped(), "legacy": rebuilt(legacy=True), "not legacy": rebuilt(legacy=False)}

texts = st.lists(st.sampled_from(WORDS), min_size=1, max_size=12).map(lambda words: " ".join(words) + ".")
areas = st.lists(st.sampled_from(AREAS), min_size=1, max_size=10, unique=True)


def grown(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """A copy with the published special tokens behind its vocabulary."""
    more = copy.deepcopy(tokenizer)
    more.add_special_tokens({"additional_special_tokens": reference.special_tokens(32, 330)})
    return more


GROWN = grown(TOKENIZERS["shipped"])


def tokenise(text: str) -> list[int]:
    return list(GROWN(text)["input_ids"])


def published(names: list[str], reports: list[str]) -> reference.TrainingSample:
    question, answer = reference.prompt(len(names), 32, 33), reference.target(names, reports)
    return reference.training_sample(tokenise, question, answer, LENGTH, eos=2, vocabulary=VOCABULARY)


def test_the_published_vocabulary() -> None:
    """The ids that the weights were trained with."""
    assert len(TOKENIZERS["shipped"]) == VOCABULARY
    assert len(GROWN) == 32366
    named = ["<image>", "</image>", "<region>", "</region>", "<image0>", "<image31>", "<region0>", "<region329>"]
    assert GROWN.convert_tokens_to_ids(named) == [32000, 32001, 32002, 32003, 32004, 32035, 32036, 32365]
    assert GROWN.convert_tokens_to_ids([f"<region{33 * j}>" for j in range(10)]) == [32036 + 33 * j for j in range(10)]


def test_the_reference_says_what_the_package_says() -> None:
    """Two spellings of the same strings; a typing error in one of them shows here, not as a difference of ids."""
    assert reference.INSTRUCTION == INSTRUCTION
    spelt = PromptEncoder(TOKENIZERS["shipped"], TokenCounts(0, 0, 1)).prompt_text(2)
    assert reference.prompt(2, 0, 0).replace("</image>", "").replace("</region>", "") == spelt


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=12, deadline=None, derandomize=True)
@given(names=areas, data=st.data())
def test_ids_slots_and_labels(kind: str, names: list[str], data: st.DataObject) -> None:
    """Tags and slots stand where the published ids stand and point at the same rows; words and labels are equal."""
    reports = [data.draw(texts) for _ in names]
    theirs = published(names, reports)
    ours = PromptEncoder(TOKENIZERS[kind], PUBLISHED, max_length=LENGTH).encode_sample(names, reports)
    length = len(ours.ids)
    ids = np.array(theirs.ids)
    assert sum(theirs.attention) == length - 1  # the published mask leaves the EOS out
    assert (ids[length:] == 0).all()
    ids = ids[:length]
    slots = np.flatnonzero(ids >= VOCABULARY)
    assert np.array_equal(ours.visual_positions, slots)
    assert np.array_equal(ours.visual_sources, ids[slots] - VOCABULARY)
    assert (ours.ids[slots] == 0).all()
    words = ids < VOCABULARY
    assert np.array_equal(ours.ids[words], ids[words])
    assert ours.labels.tolist() == theirs.labels[:length]
    assert set(theirs.labels[length:]) == {IGNORED}


@pytest.mark.parametrize("regions", range(1, 11))
def test_each_number_of_regions(regions: int) -> None:
    names, reports = list(AREAS[:regions]), ["Normal."] * regions
    theirs = published(names, reports)
    ours = PromptEncoder(TOKENIZERS["not legacy"], PUBLISHED, max_length=LENGTH).encode_sample(names, reports)
    assert len(ours.visual_positions) == 34 + 35 * regions
    assert ours.labels.tolist() == theirs.labels[: len(ours.ids)]
    slots = np.array([i for i, word in enumerate(theirs.ids) if word >= VOCABULARY])
    assert np.array_equal(ours.visual_positions, slots)


def test_one_call_for_the_whole_text_would_give_other_ids() -> None:
    """Why pieces are tokenised one by one: transformers 5 gives the first piece alone its leading mark."""
    question = reference.prompt(2, 32, 33)
    whole = {kind: list(grown(tokenizer)(question)["input_ids"]) for kind, tokenizer in TOKENIZERS.items()}
    assert whole["legacy"] == whole["shipped"]
    assert whole["not legacy"] != whole["shipped"]
    pieces = PromptEncoder(TOKENIZERS["not legacy"], PUBLISHED).encode(2).ids
    assert len(pieces) == len(whole["shipped"])
    other = [a != b for a, b in zip(whole["shipped"], whole["not legacy"], strict=True)]
    assert sum(other) == 3  # "▁." or "." behind the image and behind each of two regions


def test_sentencepiece_itself(tmp_path: Path) -> None:
    """LLaMA's own tokenizer, piece by piece, is what legacy behaviour means."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="the oracle of this test; pip install sentencepiece")
    write_sentencepiece(tmp_path / "tokenizer.model")
    slow = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    fast = LlamaTokenizer.from_pretrained(tmp_path, add_bos_token=True)
    names, reports = ["lung", "trachea and bronchie", "heart"], ["A nodule of 5 mm.", "Airways are open.", "é, µ: 10."]
    ours = PromptEncoder(fast, PUBLISHED, max_length=LENGTH).encode_sample(names, reports)
    pieces = [reference.CONTEXT]
    pieces += [f". The region {slot} is " for slot in range(3)]
    pieces += [". " + INSTRUCTION + " " + reference.target(names, reports)]
    expected = [word for piece in pieces for word in slow.encode(piece)]
    text = np.delete(ours.ids, ours.visual_positions)
    assert text.tolist() == [1, *expected, 2]


def test_too_long_for_the_published_code_is_cut_by_ours() -> None:
    """The published code writes its EOS behind the last id, past the end of the list."""
    names, reports = list(AREAS), ["a nodule of 5 mm in the right upper lobe. " * 40] * 10
    with pytest.raises(IndexError):
        published(names, reports)
    ours = PromptEncoder(TOKENIZERS["shipped"], PUBLISHED, max_length=LENGTH).encode_sample(names, reports)
    assert len(ours.ids) <= LENGTH
    assert ours.sentences_cut > 0
    assert ours.labels[-1] == 2
    prompt = len(PromptEncoder(TOKENIZERS["shipped"], PUBLISHED, max_length=LENGTH).encode(10).ids)
    with pytest.raises(DataFault, match="REPORT_TOO_LONG"):
        PromptEncoder(TOKENIZERS["shipped"], PUBLISHED, max_length=prompt + 4).encode_sample(names, reports)


def test_an_unknown_word_is_labelled_by_ours_alone() -> None:
    """The published code has no label where the id is the pad's, which is also that of an unknown word.

    LLaMA spells every word in bytes, so it never happens to it.
    """
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, ".": 3, "normal": 4}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>")
    ours = PromptEncoder(fast, TokenCounts(0, 0, 0)).encode_sample(["lung"], ["normal é."])
    assert (ours.labels == 0).any()
