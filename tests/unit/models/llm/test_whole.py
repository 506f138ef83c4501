"""A language model is loaded whole or not at all: every key that is missing, left over or mis-shaped is named."""

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from reg2rg.core.errors import ConfigError
from reg2rg.models.llm.causal_lm import CausalLM, LoRA

HEAD, TABLE = "lm_head.weight", "model.embed_tokens.weight"


@pytest.fixture
def changed(llama_folder, gpt2_folder, tmp_path):
    """A copy of a model's folder with other weights, and keys of its config changed."""

    def change(weights=lambda held: held, source=llama_folder, name="lm", **config):
        folder = tmp_path / name
        shutil.copytree(source, folder)
        file, settings = folder / "model.safetensors", folder / "config.json"
        save_file({k: v.clone() for k, v in weights(load_file(file)).items()}, file, {"format": "pt"})
        settings.write_text(json.dumps(json.loads(settings.read_text()) | config))
        return str(folder)

    return change


def without(*parts):
    return lambda held: {k: v for k, v in held.items() if not any(part in k for part in parts)}


def prefixed(prefix):
    return lambda held: {prefix + k: v for k, v in held.items()}


def test_missing_weights_are_named_with_their_shapes(changed):
    folder = changed(without("layers.0.self_attn", "layers.1.mlp.up_proj"))
    with pytest.raises(ConfigError) as caught:
        CausalLM(folder, lora=LoRA(rank=2))
    assert str(caught.value) == (
        f"language model {folder}: its weights do not fit LlamaForCausalLM, and what is missing would be random. "
        "5 of 21 missing: model.layers.0.self_attn.k_proj.weight (16, 32), model.layers.0.self_attn.o_proj.weight "
        "(32, 32), model.layers.0.self_attn.q_proj.weight (32, 32), model.layers.0.self_attn.v_proj.weight (16, 32) "
        "and 1 more. Fix: take the whole folder from its source again, config.json and weights of one model; or save "
        "the model again with save_pretrained"
    )


def test_all_kinds_of_faults_come_in_one_message(changed, capfd):
    layer = {"model.layers.2.mlp.up_proj.weight": torch.ones(64, 32), TABLE: torch.ones(7, 32)}
    folder = changed(lambda held: without("model.norm")(held) | layer)
    with pytest.raises(
        ConfigError,
        match=r"1 of 21 missing: model\.norm\.weight \(32,\); 1 unexpected: model\.layers\.2\.mlp\.up_proj\.weight; "
        r"1 of another shape: model\.embed_tokens\.weight is \(7, 32\), expected \(\d+, 32\)\. Fix: take the whole",
    ):
        CausalLM(folder)
    assert "LOAD REPORT" not in "".join(capfd.readouterr())


@pytest.mark.parametrize("source", ["llama_folder", "gpt2_folder"])
def test_names_inside_pefts_wrapper(changed, request, source):
    folder = changed(prefixed("base_model.model."), request.getfixturevalue(source))
    with pytest.raises(ConfigError, match=r"inside peft's wrapper \(base_model\.model\.\)\. Fix: .*merge_and_unload"):
        CausalLM(folder)


def test_names_of_adapted_layers(changed):
    folder = changed(lambda held: {k.replace("q_proj.", "q_proj.base_layer."): v for k, v in held.items()})
    with pytest.raises(
        ConfigError, match=r"2 of 21 missing: .*2 unexpected: .*q_proj\.base_layer\.weight.*peft's wrapper"
    ):
        CausalLM(folder)


def test_names_behind_another_prefix(changed):
    with pytest.raises(ConfigError, match=r"Every name starts with '_orig_mod\.module\.'.*inside the wrapper"):
        CausalLM(changed(prefixed("_orig_mod.module.")))


def test_a_model_saved_without_its_head(changed):
    bare = changed(lambda held: {k.removeprefix("model."): v for k, v in without(HEAD)(held).items()})
    with pytest.raises(
        ConfigError, match=r"1 of 21 missing: lm_head\.weight.*saved without its head\. Fix: save it from"
    ):
        CausalLM(bare)


@pytest.mark.parametrize(
    "stored", [without(HEAD), without(TABLE), lambda held: held | {HEAD: held[TABLE]}], ids=["table", "head", "both"]
)
def test_a_tied_head_may_be_stored_or_not(changed, stored):
    folder = changed(stored, tie_word_embeddings=True)
    model, held = CausalLM(folder).model, load_file(f"{folder}/model.safetensors")
    assert model.lm_head.weight is model.model.embed_tokens.weight
    assert torch.equal(model.lm_head.weight, held.get(TABLE, held.get(HEAD)))


def test_a_tied_head_without_its_partner(changed):
    with pytest.raises(ConfigError, match=r"2 of 21 missing: lm_head\.weight \(\d+, 32\), model\.embed_tokens\.weight"):
        CausalLM(changed(without(HEAD, TABLE), tie_word_embeddings=True))


def test_a_head_of_its_own_that_the_config_ties(changed):
    """Frozen it is kept as it is stored; trained, it would be read back into the table of embeddings."""
    folder = changed(tie_word_embeddings=True)
    model = CausalLM(folder, lora=LoRA(rank=2))
    assert torch.equal(model._causal.lm_head.weight, load_file(f"{folder}/model.safetensors")[HEAD])
    with pytest.raises(
        ConfigError, match=r"ties lm_head\.weight to model\.embed_tokens\.weight.*tie_word_embeddings: f"
    ):
        CausalLM(folder)


def test_frequencies_in_every_layer_as_llama_2_has_them(changed, llama_folder):
    stored = {f"model.layers.{i}.self_attn.rotary_emb.inv_freq": torch.ones(4) for i in range(2)}
    same(llama_folder, changed(lambda held: held | stored))


def test_masks_and_no_prefix_as_gpt2_has_them(changed, gpt2_folder):
    masks = {"h.0.attn.bias": torch.ones(1, 1, 8, 8), "h.0.attn.masked_bias": torch.ones(())}
    same(
        gpt2_folder,
        changed(lambda held: {k.removeprefix("transformer."): v for k, v in (held | masks).items()}, gpt2_folder),
    )


def same(folder, other):
    ours, theirs = CausalLM(folder).state_dict(), CausalLM(other).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def mixture(folder, words):
    from transformers import MixtralConfig, MixtralForCausalLM

    shutil.copytree(words, folder)
    config = MixtralConfig(
        vocab_size=len(CausalLM(words).tokenizer),
        hidden_size=16,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_local_experts=3,
    )
    MixtralForCausalLM(config).save_pretrained(folder)


@pytest.mark.parametrize(
    ("gone", "match"),
    [
        ("experts.1.w1.", r"not hold all parts of model\.layers\.0\.mlp\.experts\.gate_up_proj, such as every expert"),
    ],
)
def test_a_missing_expert(llama_folder, tmp_path, gone, match):
    mixture(tmp_path / "lm", llama_folder)
    assert CausalLM(str(tmp_path / "lm")).hidden_size == 16
    file = tmp_path / "lm" / "model.safetensors"
    save_file(without(gone)(load_file(file)), file, {"format": "pt"})
    with pytest.raises(ConfigError, match=match):
        CausalLM(str(tmp_path / "lm"))


def test_packed_weights_of_another_shape(llama_folder, monkeypatch):
    """bitsandbytes packs what it gets; the shape from before stands beside the packed numbers."""
    from transformers import AutoModelForCausalLM

    read = AutoModelForCausalLM.from_pretrained

    def packed(*args, **options):
        model, found = read(*args, **options)
        for layer, shape in zip(model.model.layers, ((32, 32), (8, 32)), strict=True):
            layer.self_attn.q_proj.weight.quant_state = SimpleNamespace(shape=torch.Size(shape))
        return model, found

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", packed)
    with pytest.raises(
        ConfigError, match=r"random\. 1 of another shape: model\.layers\.1\S+ is \(8, 32\), expected \(32, 32\)"
    ):
        CausalLM(llama_folder)


def test_a_packed_weight_that_cannot_be_made_up(changed, monkeypatch):
    from transformers import LlamaForCausalLM

    def fail(*_):
        raise NotImplementedError("normal_kernel_cpu not implemented for Byte")

    monkeypatch.setattr(LlamaForCausalLM, "_initialize_missing_keys", fail)
    with pytest.raises(ConfigError, match=r"not hold all parts of model\.layers\.0\.mlp\.up_proj\.weight, such as"):
        CausalLM(changed(without("layers.0.mlp.up_proj")))
    with pytest.raises(NotImplementedError):
        CausalLM(changed(name="other"))


def test_nothing_is_left_at_random(llama_folder):
    one, other = CausalLM(llama_folder), CausalLM(llama_folder)
    assert all(torch.equal(p, q) for p, q in zip(one.parameters(), other.parameters(), strict=True))


def test_weights_under_another_name(llama_folder, tmp_path):
    folder = shutil.copytree(llama_folder, tmp_path / "lm")
    (folder / "model.safetensors").rename(folder / "other.safetensors")
    with pytest.raises(ConfigError, match=r"no file named model\.safetensors.*The folder holds: .*other\.safetensors"):
        CausalLM(str(folder))


def test_shards(llama_folder, tmp_path):
    from transformers import AutoModelForCausalLM

    folder = tmp_path / "lm"
    shutil.copytree(llama_folder, folder)
    (folder / "model.safetensors").unlink()
    AutoModelForCausalLM.from_pretrained(llama_folder).save_pretrained(folder, max_shard_size="30KB")
    shard, index = sorted(folder.glob("*.safetensors"))[1], folder / "model.safetensors.index.json"
    data, listed = shard.read_bytes(), json.loads(index.read_text())
    assert CausalLM(str(folder)).hidden_size == 32
    shard.write_bytes(data[: len(data) // 2])
    with pytest.raises(ConfigError, match=f"{folder}: Error while deserializing"):
        CausalLM(str(folder))
    shard.unlink()
    with pytest.raises(ConfigError, match=f"No such file or directory: {shard}"):
        CausalLM(str(folder))
    shard.write_bytes(data)
    kept = {name: file for name, file in listed["weight_map"].items() if file != shard.name}
    index.write_text(json.dumps(listed | {"weight_map": kept}))
    with pytest.raises(ConfigError, match=rf"{21 - len(kept)} of 21 missing: model\.embed_tokens\.weight"):
        CausalLM(str(folder))
    index.write_text("{}")
    with pytest.raises(ConfigError, match=f"{folder}: its files have no 'weight_map'"):
        CausalLM(str(folder))


class TestAdapter:
    """The folder of an adapter is no model: it is refused, with a command that makes one of it."""

    @pytest.fixture
    def adapter(self, llama_folder, tmp_path):
        from peft import LoraConfig, get_peft_model
        from transformers import AutoModelForCausalLM

        torch.manual_seed(0)
        options = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM", init_lora_weights=False)
        model = get_peft_model(AutoModelForCausalLM.from_pretrained(llama_folder), options)
        model.save_pretrained(tmp_path / "adapter")
        self.model, self.settings = model, tmp_path / "adapter" / "adapter_config.json"
        return tmp_path / "adapter"

    def change(self, **settings):
        self.settings.write_text(json.dumps(json.loads(self.settings.read_text()) | settings))

    @pytest.mark.parametrize("options", [{}, {"lora": LoRA(rank=2)}, {"pretrained": False}])
    def test_refused_by_name(self, adapter, llama_folder, options):
        with pytest.raises(
            ConfigError, match=rf"adapter_config\.json makes it an adapter of {llama_folder} \(expected a"
        ):
            CausalLM(str(adapter), **options)

    def test_the_command_makes_the_model(self, adapter, llama_folder, monkeypatch, tmp_path):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ConfigError) as caught:
            CausalLM(str(adapter))
        code = str(caught.value).partition('python -c "')[2].removesuffix('"')
        exec(code, {})
        ids = torch.tensor([[1, 5, 9, 7]])
        found = CausalLM("merged").eval().model(input_ids=ids).logits
        assert torch.allclose(found, self.model.eval()(input_ids=ids).logits, atol=1e-5)
        assert not torch.allclose(found, CausalLM(llama_folder).eval().model(input_ids=ids).logits, atol=1e-3)

    def test_base_inside_the_adapters_folder(self, adapter, llama_folder):
        shutil.copytree(llama_folder, adapter / "base")
        self.change(base_model_name_or_path="base", a_key_of_tomorrow={"x": 1})
        with pytest.raises(ConfigError, match=rf"M\.from_pretrained\('{adapter}/base'\), '{adapter}'\)"):
            CausalLM(str(adapter))

    @pytest.mark.parametrize(
        ("base", "match"),
        [
            (
                "/cluster/of/others/llama",
                r"an adapter of /cluster/of/others/llama, which is not here.*'PATH_OF_THAT_MODEL'",
            ),
            (None, r"an adapter of a model that it does not name.*'PATH_OF_THAT_MODEL'"),
        ],
    )
    def test_base_gone(self, adapter, base, match):
        self.change(base_model_name_or_path=base)
        with pytest.raises(ConfigError, match=match):
            CausalLM(str(adapter))

    def test_beside_a_whole_model(self, adapter, llama_folder, tmp_path):
        shutil.copytree(llama_folder, adapter, dirs_exist_ok=True)
        with pytest.raises(
            ConfigError, match=r"or, where the folder's own weights hold the adapter already, remove adap"
        ):
            CausalLM(str(adapter))
        self.settings.write_text("{")
        with pytest.raises(ConfigError, match="a model that it does not name"):
            CausalLM(str(adapter))
        self.settings.unlink()
        assert CausalLM(str(adapter)).hidden_size == 32
