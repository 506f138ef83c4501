import shutil

import pytest
import torch
import torch.nn.functional as F

from reg2rg.core.errors import ConfigError, MissingExtraError
from reg2rg.models.llm.base import LANGUAGE_MODELS, Decoding
from reg2rg.models.llm.causal_lm import CausalLM, LoRA


def batch(model: CausalLM, lengths=(17, 12, 9)):
    generator = torch.Generator().manual_seed(1)
    rows, longest = len(lengths), max(lengths)
    ids = torch.randint(5, len(model.tokenizer), (rows, longest), generator=generator)
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    labels = torch.where((torch.arange(longest) >= 5) & mask.bool(), ids, -100)
    return ids, mask, labels


@pytest.fixture(params=["llama", "gpt2"])
def folder(request):
    return request.getfixturevalue(f"{request.param}_folder")


def test_registered():
    assert LANGUAGE_MODELS.get("CausalLM") is CausalLM


def test_answer_nll_is_huggingface_loss(folder):
    model = CausalLM(folder).eval()
    ids, mask, labels = batch(model)
    nll = model.answer_nll(model.embed(ids), mask, labels)
    output = model.model(input_ids=ids, attention_mask=mask, labels=labels)
    assert nll.shape == (int((labels != -100).sum()),)
    assert nll.dtype == torch.float32
    assert torch.allclose(nll.mean(), output.loss, atol=1e-6)


def test_answer_nll_is_in_row_major_order(folder):
    model = CausalLM(folder).eval()
    ids, mask, labels = batch(model)
    nll = model.answer_nll(model.embed(ids), mask, labels)
    logits = model.model(input_ids=ids, attention_mask=mask).logits
    rows, columns = (labels != -100).nonzero(as_tuple=True)
    expected = F.cross_entropy(logits[rows, columns - 1], labels[rows, columns], reduction="none")
    assert torch.allclose(nll, expected, atol=1e-5)


def test_answer_nll_does_not_depend_on_the_side_of_padding(folder):
    model = CausalLM(folder).eval()
    ids, mask, labels = batch(model, (12, 9))
    right = model.answer_nll(model.embed(ids), mask, labels)
    roll = [12 - int(row.sum()) for row in mask]
    left = [torch.stack([row.roll(by) for row, by in zip(t, roll, strict=True)]) for t in (ids, mask, labels)]
    assert torch.allclose(right, model.answer_nll(model.embed(left[0]), left[1], left[2]), atol=1e-5)


def test_no_padding_needs_a_mask(folder):
    """What is padded elsewhere is moved, so that causality hides it from every family."""
    model, seen = CausalLM(folder).eval(), []
    ids, mask, labels = batch(model, (12, 9))
    model.model.register_forward_pre_hook(
        lambda _m, _args, kwargs: seen.append(kwargs["attention_mask"]), with_kwargs=True
    )
    embeddings = model.embed(ids)
    assert torch.equal(model.answer_nll(embeddings, mask.bool(), labels), model.answer_nll(embeddings, mask, labels))
    mask[0, 4] = 0  # a hole
    holed = model.answer_nll(embeddings, mask, labels)
    kept = torch.tensor([i for i in range(12) if i != 4])
    alone = model.answer_nll(embeddings[:1, kept], mask[:1, kept], labels[:1, kept])
    assert torch.allclose(holed[: len(alone)], alone, atol=1e-5)
    assert seen == [None] * 4


def test_head_runs_on_label_positions_alone(folder):
    model = CausalLM(folder)
    ids, mask, labels = batch(model)
    seen = []
    model.model.get_output_embeddings().register_forward_hook(lambda _m, args, _o: seen.append(args[0].shape))
    model.answer_nll(model.embed(ids), mask, labels)
    assert seen == [(1, int((labels != -100).sum()), 32)]


def trainable(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


@pytest.mark.parametrize("targets", [("q_proj", "v_proj")])
def test_lora_trains_adapters_alone(llama_folder, targets):
    model = CausalLM(llama_folder, lora=LoRA(rank=2, targets=targets))
    names = trainable(model)
    assert names
    assert all("lora_" in name for name in names)
    assert sum(p.numel() for p in model.parameters() if p.requires_grad) == 2 * 2 * ((32 + 32) + (32 + 16))


def test_weights_trainable_beside_lora(llama_folder):
    model = CausalLM(llama_folder, lora=LoRA(rank=2), weights_trainable=True)
    assert any("lora_" not in name for name in trainable(model))
    assert trainable(CausalLM(llama_folder, weights_trainable=False)) == []


def test_lora_on_gpt2(gpt2_folder):
    model = CausalLM(gpt2_folder, lora=LoRA(rank=2, targets=("c_attn",)))
    ids, mask, labels = batch(model)
    model.answer_nll(model.embed(ids), mask, labels).mean().backward()
    assert any(p.grad is not None for p in model.parameters())


def test_unknown_target_names_the_layers(gpt2_folder):
    with pytest.raises(ConfigError, match=r"no layer named q_proj, v_proj.*c_attn"):
        CausalLM(gpt2_folder, lora=LoRA())


def test_gradient_checkpointing_changes_nothing(llama_folder):
    grads = []
    for checkpointing in (False, True):
        model = CausalLM(llama_folder, gradient_checkpointing=checkpointing).train()
        ids, mask, labels = batch(model)
        embeddings = model.embed(ids).detach().requires_grad_()
        model.answer_nll(embeddings, mask, labels).mean().backward()
        grads.append(embeddings.grad)
    assert torch.equal(*grads)


def test_bfloat16_gives_float32_losses(llama_folder):
    model = CausalLM(llama_folder, dtype="bfloat16", lora=LoRA(rank=2))
    ids, mask, labels = batch(model)
    nll = model.answer_nll(model.embed(ids).float(), mask, labels)
    assert nll.dtype == torch.float32
    assert torch.isfinite(nll).all()


def test_merged_is_the_same_model_and_undone_exactly(llama_folder):
    model = CausalLM(llama_folder, lora=LoRA(rank=2)).eval()
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids, mask, labels = batch(model)
    plain = model.answer_nll(model.embed(ids), mask, labels)
    with torch.inference_mode(), model.merged():
        folded = model.answer_nll(model.embed(ids), mask, labels)
        assert not torch.equal(
            model.model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight,
            before["model.base_model.model.model.layers.0.self_attn.q_proj.base_layer.weight"],
        )
    assert torch.allclose(plain, folded, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    model.train()
    model.answer_nll(model.embed(ids), mask, labels).mean().backward()


def test_adapters_stay_apart_when_asked_to(llama_folder):
    model = CausalLM(llama_folder, lora=LoRA(), merge_adapters=False)
    weight = model.model.base_model.model.model.layers[0].self_attn.q_proj.base_layer.weight
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    before = weight.clone()
    with model.merged():
        assert torch.equal(weight, before)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_residual_in_float32(llama_folder, dtype):
    """The sum past the layers starts in float32 and stays there, layers compute in their own dtype."""
    weights, found = getattr(torch, dtype), []
    for kept in (False, True):
        model = CausalLM(llama_folder, dtype=dtype, lora=LoRA(), float32_residual=kept).eval()
        ids, mask, labels = batch(model)
        passing, inside = [], []
        last = model._causal.model.layers[-1]
        last.register_forward_pre_hook(lambda _, inputs, to=passing: to.append(inputs[0].dtype))
        last.mlp.down_proj.register_forward_hook(lambda _, __, output, to=inside: to.append(output.dtype))
        found.append(model.answer_nll(model.embed(ids), mask, labels))
        assert passing == [torch.float32 if kept else weights]
        assert inside == [weights]
        assert model.embed(ids).dtype == passing[0]
        assert all(one.ids for one in model.decode(model.embed(ids), mask, Decoding(max_new_tokens=3)))
    assert torch.equal(*found) == (dtype == "float32")
    assert torch.allclose(*found, rtol=0.05)


def test_context_error_has_the_arithmetic(gpt2_folder):
    model = CausalLM(gpt2_folder)
    with pytest.raises(ConfigError, match=r"at most 128 positions.*has 129\."):
        model.answer_nll(torch.zeros(1, 129, 32), torch.ones(1, 129), torch.zeros(1, 129, dtype=torch.long))
    with pytest.raises(ConfigError, match=r"100 \+ 50 new tokens = 150"):
        model.decode(torch.zeros(1, 100, 32), torch.ones(1, 100), Decoding(max_new_tokens=50))


def test_pad_never_takes_eos_from_the_vocabulary(llama_folder, gpt2_folder):
    llama, gpt2 = CausalLM(llama_folder), CausalLM(gpt2_folder)
    assert llama.tokenizer.pad_token_id == llama.tokenizer.unk_token_id
    assert gpt2.tokenizer.pad_token_id == gpt2.tokenizer.eos_token_id
    assert len(gpt2.tokenizer) + 3 == gpt2.model.get_input_embeddings().num_embeddings


def test_tokenizer_larger_than_the_model(llama_folder, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    tokenizer = AutoTokenizer.from_pretrained(llama_folder)
    tokenizer.add_tokens(["<image>"])
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    match = r"nothing for '<image>' \(\d+\)\. Fix: use the tokenizer that was saved with the model"
    with pytest.raises(ConfigError, match=match):
        CausalLM(str(tmp_path))


@pytest.mark.parametrize("path", ["./nowhere", "~/nowhere", "/no/where"])
def test_no_hub_is_asked_for_a_folder(path):
    with pytest.raises(
        ConfigError, match=r"no such folder\. Fix: give the path .*model\.llm\.init_args\.path"
    ) as caught:
        CausalLM(path)
    assert "hub" not in str(caught.value)


def test_hub_id_offline(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(
        ConfigError, match=r"'nobody/nothing': no such folder, and as a hub id: .*Three ways out.*HF_TOKEN"
    ) as caught:
        CausalLM("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_folder_without_safetensors(llama_folder, tmp_path):
    from transformers import AutoTokenizer

    AutoTokenizer.from_pretrained(llama_folder).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama", "architectures": ["LlamaForCausalLM"]}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"pytorch_model.bin.*safetensors"):
        CausalLM(str(tmp_path))


@pytest.mark.parametrize("keep", [0, 100, 0.5])
def test_truncated_weights_name_the_folder(llama_folder, tmp_path, keep):
    shutil.copytree(llama_folder, tmp_path / "lm")
    weights = tmp_path / "lm" / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[: keep if isinstance(keep, int) else int(len(data) * keep)])
    with pytest.raises(ConfigError, match=str(tmp_path / "lm")):
        CausalLM(str(tmp_path / "lm"))


def test_four_bit_without_the_extra(llama_folder, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"reg2rg\[quant\]"):
        CausalLM(llama_folder, quantize_4bit=True, lora=LoRA())
