"""Answers that have a prompt in common, and prompts that have their beginning in common."""

import pytest
import torch
import torch.nn.functional as F
from transformers.cache_utils import DynamicLayer

from families import save_tiny
from reg2rg.core.errors import ConfigError
from reg2rg.models.llm.base import Decoding
from reg2rg.models.llm.blocks import block_mask, block_positions, predicted_from
from reg2rg.models.llm.cache import ReservedLayer
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.llm.reading import Beginning, beginnings
from reg2rg.models.llm.shared_prompts import SharedLayer

LIMITS = Decoding(max_new_tokens=8, stop_on_loop=0)


def model_of(family, folder):
    model = CausalLM(str(save_tiny(family, folder))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    model.eos_ids = frozenset()
    return model


class Start:
    """A free answer that begins with one token and has a length of its own."""

    def __init__(self, first):
        self.ids, self.truncated, self.first, self.most = [], False, first, 3 + first % 5

    def allows(self, token):
        return bool(self.ids) or token == self.first

    def allowed(self):
        return None if self.ids else [self.first]

    def look(self, token, logits, branches):
        if len(self.ids) == 1:
            self.beside = branches()([0, 0], [token, 7])[0].argmax()

    def take(self, token):
        self.ids.append(token)
        return len(self.ids) < self.most


def prompts(model, rows=2):
    torch.manual_seed(1)
    inputs = torch.randn(rows, 50, model.hidden_size) * model.embed(torch.arange(50)[None]).std()
    mask = torch.ones(rows, 50, dtype=torch.long)
    mask[1, :7] = 0
    return inputs, mask


@pytest.mark.parametrize(
    ("family", "shares"),
    [
        ("llama", True),
        ("gpt2", True),
        ("falcon", False),
        ("mistral", False),
        ("bloom", False),
        ("recurrent_gemma", None),
    ],
)
def test_answers_to_one_prompt_are_what_each_is_alone(family, shares, tmp_path):
    model = model_of(family, tmp_path)
    inputs, mask = prompts(model)
    rows, starts = [0, 1, 0, 1, 1, 0], [5, 6, 7, 8, 9, 10]

    def decoded(rows, starts):
        guides = [Start(first) for first in starts]
        found = model.decode(inputs, mask, LIMITS, guides, prompts=rows)
        return [(answer.ids, int(guide.beside)) for answer, guide in zip(found, guides, strict=True)]

    together = decoded(rows, starts)
    assert together == [decoded([row], [first])[0] for row, first in zip(rows, starts, strict=True)]
    assert model._shares is shares
    assert model._causal.config._attn_implementation != "reg2rg_shared_prompts"


def test_the_prompt_is_there_once(llama_folder, monkeypatch):
    model = CausalLM(llama_folder).eval()
    inputs, mask = prompts(model)
    seen = []
    init = SharedLayer.__init__

    def look(self, prompts, rows, reserve):
        init(self, prompts, rows, reserve)
        if len(rows) == 10:
            seen.append((len(prompts), prompts[0][0].shape[0], self._buffers[0].shape[0], self.keys.shape[-2]))

    monkeypatch.setattr(SharedLayer, "__init__", look)
    model.decode(inputs, mask, LIMITS, [Start(5 + n) for n in range(10)], prompts=[0] * 10)
    assert set(seen) == {(1, 1, 10, 0)}


def counted(model):
    read = []
    model._causal.model.register_forward_pre_hook(
        lambda module, args, options: (
            read.append(tuple(options["inputs_embeds"].shape[:2])) if options.get("inputs_embeds") is not None else None
        ),
        with_kwargs=True,
    )
    return read


def test_equal_prompts_are_read_once_and_what_begins_alike_from_there(llama_folder):
    model = CausalLM(llama_folder).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2)
    inputs, mask = prompts(model, 5)
    inputs[2] = inputs[0]
    inputs[3, :40] = inputs[0, :40]
    inputs[4] = inputs[3]
    inputs[4, 45:] = inputs[0, 45:]
    alone = [model.decode(inputs[row : row + 1], mask[row : row + 1], LIMITS)[0].ids for row in range(5)]
    assert model._shares is None, "nothing was there to share"
    assert model._may_share()
    read = counted(model)
    assert [answer.ids for answer in model.decode(inputs, mask, LIMITS)] == alone
    assert sorted(count for rows, count in read) == [5, 10, 43, 50]
    assert beginnings(inputs, mask) == [
        Beginning(0), Beginning(1), Beginning(0), Beginning(3, 0, 40), Beginning(4, 3, 45),
    ]  # fmt: skip


def test_short_beginnings_are_read_anew():
    inputs, mask = torch.rand(2, 300, 3), torch.ones(2, 300, dtype=torch.long)
    inputs[1, :36] = inputs[0, :36]
    assert beginnings(inputs, mask)[1] == Beginning(1), "an eighth is more"
    inputs[1, :38] = inputs[0, :38]
    assert beginnings(inputs, mask)[1] == Beginning(1, 0, 38)


@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (6, 2)])
def test_attention_is_pytorchs_over_prompt_and_own_tokens(heads, groups):
    torch.manual_seed(0)
    kept = [tuple(torch.randn(1, groups, length, 8) for _ in range(2)) for length in (5, 9)]
    rows = [1, 0, 1]
    layer = SharedLayer(kept, rows, 2)
    for new in (1, 3, 2):
        states = torch.randn(2, 3, groups, new, 8)
        layer.update(*states)
        query = torch.randn(3, heads, new, 8)
        found = layer.attend(query, 0.3)
        for row, prompt in enumerate(rows):
            keys, values = (
                torch.cat([whole, own[row : row + 1]], dim=2).repeat_interleave(heads // groups, 1)
                for whole, own in zip(kept[prompt], (layer.keys, layer.values), strict=True)
            )
            own = layer.keys.shape[2]
            ahead = torch.ones(new, own, dtype=torch.bool).tril(own - new)
            seen = torch.cat([torch.ones(new, keys.shape[2] - own, dtype=torch.bool), ahead], 1)
            wanted = F.scaled_dot_product_attention(query[row : row + 1], keys, values, attn_mask=seen, scale=0.3)
            torch.testing.assert_close(found[row : row + 1], wanted)


def test_blocks_in_numbers():
    blocks = torch.tensor([[0, 0, 1, 1, 2, 2, 2, -1], [0, 0, 0, 1, 1, 1, 1, 1]])
    assert block_positions(blocks).tolist() == [[0, 1, 2, 3, 2, 3, 4, 0], [0, 1, 2, 3, 4, 5, 6, 7]]
    assert predicted_from(blocks)[0, 2:7].tolist() == [1, 2, 1, 4, 5]
    seen = block_mask(blocks)[0, 0]
    assert [row.nonzero().flatten().tolist() for row in seen[[1, 3, 5, 7]]] == [
        [0, 1], [0, 1, 2, 3], [0, 1, 4, 5], [0, 1, 7],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("mistral", "layers of it look at 8 positions of 40 .*Fix: a shorter prompt, a family"),
        ("bloom", "it takes no positions"),
        ("gpt_neo", "some layers of it look at a window of the row"),
        ("recurrent_gemma", "layers without full attention"),
    ],
)
def test_families_that_cannot_read_blocks_are_refused_by_name(family, said, tmp_path):
    with pytest.raises(
        ConfigError, match=f"(?i){family.replace('_', '')}.*{said}.*independent_paragraphs: false"
    ) as raised:
        (model := CausalLM(str(save_tiny(family, tmp_path)))).require_blocks(40)
    assert "Fix: " in str(raised.value)
    if family == "mistral":
        model.config.sliding_window = 40
        model.require_blocks(40)  # a window as wide makes no difference


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("family", ["llama", "gpt2", "falcon", "plain attention"])
def test_losses_of_blocks_are_those_of_each_text_alone(family, side, tmp_path):
    model = model_of("llama" if family == "plain attention" else family, tmp_path)
    if family == "plain attention":
        model.config._attn_implementation = "eager"
    model.require_blocks(40)
    torch.manual_seed(1)
    prompt, texts = torch.randint(5, 40, (9,)), [torch.randint(5, 40, (n,)) for n in (4, 3, 6)]

    def row(texts):
        ids = torch.cat([prompt, *texts])
        labels = torch.cat([torch.full_like(prompt, -100), *texts])
        numbers = [torch.full_like(text, place + 1) for place, text in enumerate(texts)]
        return model.embed(ids[None])[0], torch.ones_like(ids), labels, torch.cat([torch.zeros_like(prompt), *numbers])

    def losses(*rows):
        pads = (0, 0, -100, -1)
        stacked = [
            torch.nn.utils.rnn.pad_sequence(list(part), batch_first=True, padding_value=pad, padding_side=side)
            for part, pad in zip(zip(*rows, strict=True), pads, strict=True)
        ]
        with torch.no_grad():
            return model.answer_nll(*stacked)

    alone = [losses(row([text])) for text in texts]
    torch.testing.assert_close(losses(row(texts), row(texts[:1])), torch.cat([*alone, alone[0]]), atol=2e-5, rtol=0)
    torch.testing.assert_close(losses(row(texts[::-1])), torch.cat(alone[::-1]), atol=2e-5, rtol=0)
    plain = [model.answer_nll(*(part[None] for part in row([text])[:3])) for text in texts]
    torch.testing.assert_close(torch.cat(alone), torch.cat(plain), atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "orders", [[[0, 0], [1, 0]], [[0, 0, 0], [0, 0, 1]], [[0, 0, 0], [2, 0, 1], [1, 1]], [[0, 0, 0], [0, 2], [1]]]
)
def test_rows_are_reordered_as_in_a_plain_layer(orders):
    torch.manual_seed(0)
    prompt = torch.randn(1, 2, 5, 4)
    shared, reserved, plain = SharedLayer([(prompt, prompt)], [0], 2), ReservedLayer(2), DynamicLayer()
    for order in [[0], *orders]:
        states = torch.randn(len(order), 2, 1, 4)
        for layer in (shared, reserved, plain):
            if layer.keys is not None and layer.keys.numel():
                layer.reorder_cache(torch.tensor(order))
            layer.update(states, states + 1)
        for layer in (shared, reserved):
            assert torch.equal(layer.keys, plain.keys)
            assert torch.equal(layer.values, plain.values)
