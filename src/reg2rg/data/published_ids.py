"""The token ids of the published code, and whether a tokenizer would give them.

The published data set adds ``<image>``, its other tags and one token a slot behind the vocabulary, and the model looks
them up at 32,000 and above, fixed numbers. This package fills slots by position and gives them no ids, so its own
results do not depend on any of this; but weights that were trained by the published code mean what they say only under
a vocabulary of exactly 32,000 words.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reg2rg.core.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IMAGE_ID = 32000
"""Id of ``<image>`` in the published code; the other special tokens follow it."""
_FIXED = {"pad": 0, "BOS": 1, "EOS": 2}
"""What the published data set sets on its tokenizer."""


def published_image_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that the published data set would give ``<image>``: the one that it has, or the first free one."""
    return int(tokenizer.get_vocab().get("<image>", len(tokenizer)))


def check_published_ids(tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer under which the published ids would mean something else.

    The first revision of Llama-2-chat is one: it brings a token ``<pad>`` with the id 32,000, and every special token
    moves by one. So are tokenizers of other language models, and those that put no BOS before a text.

    Raises:
        ConfigError: names all that is wrong, and the tokens that stand where ``<image>`` should.
    """
    name = getattr(tokenizer, "name_or_path", "") or type(tokenizer).__name__
    faults = []
    image = published_image_id(tokenizer)
    if image != IMAGE_ID:
        moved = sorted((i, token) for token, i in tokenizer.get_vocab().items() if IMAGE_ID <= i < IMAGE_ID + 3)
        because = f", because it has {', '.join(f'{token!r} = {i}' for i, token in moved)}" if moved else ""
        faults.append(f"<image> would get the id {image} (expected {IMAGE_ID}){because}")
    pad = tokenizer.unk_token_id  # whose id the published code makes the pad id
    for kind, found in (("pad", pad), ("BOS", tokenizer.bos_token_id), ("EOS", tokenizer.eos_token_id)):
        if found != _FIXED[kind]:
            faults.append(f"{kind} has the id {found} (expected {_FIXED[kind]})")
    if list(tokenizer("a")["input_ids"])[:1] != [_FIXED["BOS"]]:
        faults.append("no BOS is put before a text (expected one, from post_processor in tokenizer.json)")
    if faults:
        raise ConfigError(
            f"tokenizer {name} does not give the token ids of the published code: {'; '.join(faults)}. The published "
            "weights were trained with Llama-2-7b-chat of a revision without <pad>. Fix: that tokenizer "
            "(model.llm.revision, or another folder); or, for other weights, data.published_ids: false"
        )
