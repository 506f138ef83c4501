"""Attention of one token a row, against PyTorch's."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reg2rg.models.llm.base import Decoding
from reg2rg.models.llm.cache import ReservedLayer
from reg2rg.models.llm.causal_lm import CausalLM
from reg2rg.models.llm.decode_attention import attend_rows, reads_rows, row_attention


def tensors(heads: int, groups: int, length: int, turned: bool) -> list[torch.Tensor]:
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, n, t, 4) for n, t in ((heads, 1), (groups, length), (groups, length)))
    if turned:
        key, value = (one.transpose(2, 3).contiguous().transpose(2, 3) for one in (key, value))
    return [query, key, value]


@pytest.mark.parametrize("turned", [True, False])
@pytest.mark.parametrize(("heads", "groups"), [(4, 4), (4, 2), (6, 1)])
@pytest.mark.parametrize("mask", [None, "bool", "float"])
def test_equals_pytorchs(heads, groups, mask, turned):
    query, key, value = tensors(heads, groups, 7, turned)
    given = None
    if mask is not None:
        given = torch.arange(7) >= torch.tensor([0, 3, 5])[:, None, None, None]
        given = given if mask == "bool" else torch.zeros(given.shape).masked_fill(~given, -1e30)
    wide = [one.repeat_interleave(heads // groups, dim=1) for one in (key, value)]
    expected = F.scaled_dot_product_attention(query, *wide, attn_mask=given, scale=0.3)
    found, weights = attend_rows(nn.Identity(), query, key, value, given, scaling=0.3)
    assert weights is None
    torch.testing.assert_close(found, expected.transpose(1, 2))
    torch.testing.assert_close(
        attend_rows(nn.Identity(), query, key, value, None)[0],
        F.scaled_dot_product_attention(query, *wide).transpose(1, 2),
    )


def test_more_queries_and_extras_go_to_pytorchs(monkeypatch):
    query, key, value = tensors(2, 2, 5, turned=False)
    module = nn.Identity()
    module.is_causal = True
    prompt = torch.randn(3, 2, 5, 4)
    expected = F.scaled_dot_product_attention(prompt, key, value, is_causal=True)
    torch.testing.assert_close(attend_rows(module, prompt, key, value, None)[0], expected.transpose(1, 2))
    by_head = torch.zeros(3, 2, 1, 5).masked_fill(torch.rand(3, 2, 1, 5) > 0.5, -1e30)
    expected = F.scaled_dot_product_attention(query, key, value, attn_mask=by_head)
    torch.testing.assert_close(attend_rows(module, query, key, value, by_head)[0], expected.transpose(1, 2))
    seen = []  # what becomes of a softcap there depends on the release: older ones take no notice, newer ones refuse
    monkeypatch.setattr(
        "transformers.integrations.sdpa_attention.sdpa_attention_forward",
        lambda *tensors, **options: seen.append(options["softcap"]),
    )
    attend_rows(module, query, key, value, None, softcap=30.0)
    assert seen == [30.0]


def test_is_for_single_precision_on_a_cpu(llama_folder):
    model = CausalLM(llama_folder).model
    assert reads_rows(model, torch.zeros(1))
    assert not reads_rows(model, torch.zeros(1, dtype=torch.bfloat16))
    assert not reads_rows(model, torch.zeros(1, device="meta"))
    model.config._attn_implementation = "eager"
    assert not reads_rows(model, torch.zeros(1))


def test_decoding_uses_it_and_leaves_the_model_as_it_was(llama_folder, monkeypatch):
    lm = CausalLM(llama_folder).eval()
    seen = []

    def look(module, query, key, *args, **kwargs):
        seen.append((query.shape[2], key.stride(2), key.stride(3)))
        return attend_rows(module, query, key, *args, **kwargs)

    monkeypatch.setattr("reg2rg.models.llm.decode_attention.attend_rows", look)
    ids = torch.tensor([[5, 6, 7, 8]])
    lm.eos_ids = frozenset()
    lm.decode(lm.embed(ids), torch.ones_like(ids), Decoding(max_new_tokens=3))
    assert seen == [(1, 1, 4 + 3)] * 2 * 2  # two layers, two steps behind the prompt; memory runs along positions
    assert lm.model.config._attn_implementation == "sdpa"
    with pytest.raises(KeyError), row_attention(lm.model):
        {}[lm.model.config._attn_implementation == "sdpa"]
    assert lm.model.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("turned", [True, False])
def test_cache_holds_prompts_and_tokens_in_either_layout(turned):
    torch.manual_seed(0)
    layer, twice = ReservedLayer(2, turned), torch.randn(2, 2, 3, 4)
    layer.place([1], 2, 3, twice[:1, :, :2], -twice[:1, :, :2])
    layer.place([0], 2, 3, twice[1:], -twice[1:])
    token = torch.randn(2, 2, 1, 4)
    keys, values = layer.update(token, -token)
    expected = torch.zeros(2, 2, 4, 4)
    expected[1, :, 1:3], expected[0, :, :3], expected[:, :, 3:] = twice[0, :, :2], twice[1], token
    assert torch.equal(keys, expected)
    assert torch.equal(values, -expected)
    layer.reorder_cache(torch.tensor([1]))
    assert torch.equal(layer.keys, expected[1:])
    longer = torch.randn(1, 2, 5, 4)  # more than was reserved
    keys, values = layer.update(longer, longer)
    assert torch.equal(keys, torch.cat([expected[1:], longer], dim=2))
