"""Tokenizers under which the published ids would mean something else are refused, with the reason."""

import pytest
from transformers import LlamaTokenizer

from parity.llama import rebuilt, shipped, vocabulary_and_merges
from reg2rg.core.errors import ConfigError
from reg2rg.data.published_ids import check_published_ids, published_image_id


@pytest.mark.parametrize("tokenizer", [shipped(), rebuilt(legacy=True), rebuilt(legacy=False)])
def test_llamas_own_is_taken(tokenizer):
    check_published_ids(tokenizer)
    assert published_image_id(tokenizer) == 32000


def test_a_tokenizer_that_has_the_published_tokens_is_taken():
    tokenizer = shipped(more=("<image>", "</image>"))
    check_published_ids(tokenizer)
    assert published_image_id(tokenizer) == 32000


def test_an_added_pad_token_moves_every_id():
    """The first revision of Llama-2-chat."""
    tokenizer = shipped(more=("<pad>",))
    tokenizer.pad_token = "<pad>"
    assert published_image_id(tokenizer) == 32001
    message = r"<image> would get the id 32001 \(expected 32000\), because it has '<pad>' = 32000.*without <pad>.*false"
    with pytest.raises(ConfigError, match=message):
        check_published_ids(tokenizer)


@pytest.mark.parametrize("size", [31000, 32768])
def test_another_vocabulary(size):
    with pytest.raises(ConfigError, match=rf"<image> would get the id {size} \(expected 32000\)"):
        check_published_ids(shipped(size))


def test_all_that_is_wrong_is_said_at_once():
    vocabulary, merges = vocabulary_and_merges(31999)
    tokenizer = LlamaTokenizer(vocab=vocabulary, merges=merges, add_bos_token=False, bos_token="</s>", eos_token="<s>")
    with pytest.raises(ConfigError, match=r"the id 31999 .*; BOS has the id 2 .*; EOS has the id 1 .*; no BOS is put"):
        check_published_ids(tokenizer)
