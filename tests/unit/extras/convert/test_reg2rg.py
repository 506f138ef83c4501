"""The published checkpoint of Reg2RG at its full number of keys: every key goes one way, and the model is that one."""

from __future__ import annotations

import json
import re

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from parity.llama import shipped
from published_files import HEAD, MLP, WIDTH, fill, full, listed, reg2rg_shapes
from reg2rg import Reg2RG
from reg2rg.config.saving import build
from reg2rg.core.errors import ConfigError, Reg2RGError
from reg2rg.extras.convert import FORMATS, Opened, Options, account, convert, open_published
from reg2rg.extras.convert.reg2rg import recipe
from reg2rg.models.encoders import Encoder
from reg2rg.models.encoders.weights_radfm import fold_channels
from reg2rg.models.tensors import TensorEntry, TensorSource, open_tensors

VOCABULARY = 640
LLM, EMBED = "lang_model.base_model.model.", "embedding_layer."
TEXTURE = "reporter.texture.encoder.encoder."
FOLDED = {f"{TEXTURE}patch_{part}.{kind}" for part in ("norm", "linear") for kind in ("weight", "bias")}


def tiny_llama(folder, seed=0, layers=32, **sizes):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    heads = WIDTH // HEAD
    config = LlamaConfig(
        **{"vocab_size": VOCABULARY, "hidden_size": WIDTH, "intermediate_size": MLP, **sizes},
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=2048,
        initializer_range=0.1,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    model = LlamaForCausalLM(config).half()
    model.save_pretrained(folder)
    shipped(VOCABULARY).save_pretrained(folder)
    return model


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder with a LLaMA of the published depth, in float16 as its authors ship it, and its weights."""
    folder = tmp_path_factory.mktemp("llama")
    return folder, tiny_llama(folder).state_dict()


@pytest.fixture(scope="module")
def published(llama):
    """What the published file holds, in bfloat16: LLaMA's weights rounded, its table twice."""
    weights = fill(reg2rg_shapes(VOCABULARY), dtype=torch.bfloat16)
    for name in weights:
        own = name.removeprefix(LLM).replace(".base_layer", "")
        if name.startswith(LLM) and own in llama[1]:
            weights[name] = llama[1][own].bfloat16()
        elif name.endswith("inv_freq"):
            weights[name] = (10000.0 ** -(torch.arange(HEAD // 2) / (HEAD // 2))).half().bfloat16()
    weights[f"{EMBED}weight"] = weights[f"{LLM}model.embed_tokens.weight"]
    return weights


@pytest.fixture
def saved(published, tmp_path):
    """Saves changed weights and gives their path; ``None`` takes a key away."""

    def save(changes=None, rename=lambda name: name):
        weights = {rename(k): v for k, v in {**published, **(changes or {})}.items() if v is not None}
        torch.save(weights, tmp_path / "pytorch_model.bin")
        return tmp_path / "pytorch_model.bin"

    return save


def test_the_form_is_the_published_list():
    assert reg2rg_shapes(VOCABULARY) == listed("reg2rg", s32000=VOCABULARY)


def test_the_full_size_fits_llama_2_and_the_recipe():
    """On the meta device: every tensor of the model that the recipe builds on Llama 2 has a source of its shape."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    format_, tensors = FORMATS["reg2rg"], full("reg2rg")
    entries = {k: TensorEntry(tuple(t.shape), t.dtype, lambda t=t: t) for k, t in tensors.items()}
    found = account(format_.keys, format_.layers, entries, "", "")
    assert len(tensors) == 710
    assert (len(found.kept), len(found.used), len(found.dropped), len(found.reference)) == (380, 6, 324, 291)
    assert {name: found.sizes[name] for name in format_.sizes} == format_.sizes
    opened = Opened(TensorSource(None, entries), found)
    assert not format_.check(opened)

    class Parts:
        def __init__(self, texture: Encoder, geometry: Encoder) -> None:
            self.encoders = {"texture": texture, "geometry": geometry}

    model = recipe(opened)["model"]
    for part in (model["texture"]["init_args"], model["texture"]["init_args"]["encoder"]["init_args"]):
        part["weights"] = None
    with torch.device("meta"):
        parts = build(Parts, {"texture": model["texture"], "geometry": model["geometry"]}).encoders
        llm = LlamaForCausalLM(LlamaConfig())  # Llama 2's sizes are the defaults
        base = {name: tuple(t.shape) for name, t in llm.state_dict().items()}
        adapters = get_peft_model(llm, LoraConfig(task_type="CAUSAL_LM", r=8, target_modules=["q_proj", "v_proj"]))
    expected = {
        f"reporter.{at}.{k}": tuple(t.shape) for at, part in parts.items() for k, t in part.state_dict().items()
    }
    expected |= {f"reporter.llm.model.{k}": tuple(t.shape) for k, t in adapters.state_dict().items() if "lora_" in k}
    expected |= {"reporter.tags": (4, 4096)}
    for name, encoder in parts.items():
        expected[f"reporter.{name}_projector.linear.weight"] = (4096, encoder.out_channels)
        expected[f"reporter.{name}_projector.linear.bias"] = (4096,)
    made = {ours: tuple(tensors[theirs].shape) for ours, theirs in found.kept.items()}
    made |= {ours: tuple(t.shape) for ours, t in format_.compute(opened).items()}
    assert made == expected
    assert {name: tuple(tensors[theirs].shape) for name, theirs in found.reference.items()} == base
    assert sum(torch.Size(shape).numel() for name, shape in made.items() if TEXTURE not in name) == 52_780_943


@pytest.fixture(scope="module")
def converted(published, llama, tmp_path_factory):
    """The folder, and the weights it was made of."""
    folder = tmp_path_factory.mktemp("converted")
    torch.save(published, folder / "pytorch_model.bin")
    options = Options(llm=str(llama[0]))
    return convert(folder / "pytorch_model.bin", "reg2rg", folder / "out", options), published


def test_the_model_that_loads_is_the_published_one(converted):
    done, weights = converted
    model = Reg2RG.from_pretrained(done.folder)
    own = model.state_dict()
    for ours, theirs in done.account.kept.items():
        assert torch.equal(own[ours], weights[theirs].to(own[ours].dtype)), ours
    for ours, theirs in done.account.reference.items():
        name = f"reporter.llm.model.base_model.model.{ours}"
        adapted = re.sub(r"([qv]_proj)\.weight", r"\1.base_layer.weight", name)
        assert torch.equal(own[adapted], weights[theirs]), ours
    tags = [weights[f"{EMBED}{kind}_token_weight"] for kind in ("image", "region")]
    assert torch.equal(own["reporter.tags"], torch.cat(tags).float())
    vision = {k.removeprefix(f"{EMBED}vision_encoder."): t for k, t in weights.items() if "vision_encoder" in k}
    folded = fold_channels(vision, voxels=4096)
    assert torch.equal(own[f"{TEXTURE}patch_linear.weight"], folded["to_patch_embedding.2.weight"])
    assert torch.equal(own[f"{TEXTURE}patch_linear.bias"], folded["to_patch_embedding.2.bias"])
    assert set(done.account.kept) | FOLDED | {"reporter.tags"} == set(done.tensors)
    assert len(done.tensors) == 385


def test_one_study_gives_finite_and_deterministic_tokens(converted):
    from reg2rg.data.batch import Sample, collate
    from reg2rg.data.prompt import PromptEncoder

    model = Reg2RG.from_pretrained(converted[0].folder)
    regions, reports = ("heart",), ("normal.",)
    encoder = PromptEncoder(model.tokenizer, model.token_counts, max_length=2048)
    encoded = encoder.encode_sample(regions, reports)
    size, generator = (256, 256, 64), torch.Generator().manual_seed(0)
    views = [torch.rand(shape, generator=generator).numpy() for shape in ((1, *size), (1, *size), size)]
    sample = Sample("s", regions, reports, encoded, views[0] * 2 - 1, views[1], views[2] * 2 - 1)
    batch = collate([sample], model.token_counts, encoder.pad_id)
    with torch.no_grad():
        table = model.reporter.visual_table(batch)
        assert table.shape == (4 + 32 + 33, WIDTH)
        assert table.isfinite().all()
        assert torch.equal(table, Reg2RG.from_pretrained(converted[0].folder).reporter.visual_table(batch))
    assert float((table[4 : 4 + 32] - table[4 + 32 : -1]).abs().max()) > 0  # image and region are told apart


def test_dtypes_and_notes(converted):
    done = converted[0]
    written = load_file(done.folder / "model.safetensors")
    assert {name for name, tensor in written.items() if tensor.dtype == torch.float32} == FOLDED
    assert {tensor.dtype for name, tensor in written.items() if name not in FOLDED} == {torch.bfloat16}
    record = json.loads((done.folder / "conversion.json").read_text())
    assert record["notes"] == list(done.notes)
    assert "rotary frequencies are those of base 10000, rounded to bfloat16" in done.notes
    numbers = sum(tensor.numel() for name, tensor in converted[1].items() if name in done.account.reference.values())
    assert f"all {numbers} numbers of the base language model in the file are those of --llm" in done.notes[-1]


def test_the_config_says_what_the_tensors_say(converted):
    model = yaml.safe_load((converted[0].folder / "config.yaml").read_text())["model"]
    texture, geometry = model["texture"]["init_args"], model["geometry"]["init_args"]["encoder"]["init_args"]
    vit = texture["encoder"]["init_args"]["encoder"]["init_args"]
    assert (vit["dim"], vit["depth"], vit["head_dim"], vit["mlp_dim"], vit["table_size"]) == (12, 12, 2, 20, [512] * 3)
    assert (geometry["dim"], geometry["depth"], geometry["table_size"]) == (9, 3, [256, 256, 64])
    assert (texture["num_latents"], texture["depth"], texture["ff_mult"]) == (32, 6, 2)
    assert model["llm"]["init_args"]["lora"] == {
        "rank": 8,
        "alpha": 32,
        "dropout": 0.1,
        "targets": ["q_proj", "v_proj"],
    }


def test_the_rank_is_read(saved, published, llama, tmp_path):
    ranked = {name: t for name, t in published.items() if "lora_" in name}
    half = {name: (t[:4] if "lora_A" in name else t[:, :4]).clone() for name, t in ranked.items()}
    done = convert(saved(half), "reg2rg", tmp_path / "out", Options(llm=str(llama[0])))
    assert Reg2RG.from_pretrained(done.folder).reporter.llm.lora.rank == 4


RENAMED = {
    "older peft": lambda name: name.replace(".base_layer", "").replace(".default", ""),
    "distributed": lambda name: f"module.{name}",
}


@pytest.mark.parametrize("variant", [*RENAMED, "no alias", "no inv_freq", "safetensors", "shards"])
def test_variants_give_the_same_folder(variant, saved, published, converted, llama, tmp_path):
    alias, rotary = f"{EMBED}weight", [name for name in published if name.endswith("inv_freq")]
    changes = {"no alias": {alias: None}, "no inv_freq": dict.fromkeys(rotary)}.get(variant, {})
    source = saved(changes, RENAMED.get(variant, lambda name: name))
    if variant == "safetensors":
        source = tmp_path / "w.safetensors"
        save_file({name: tensor.clone() for name, tensor in published.items()}, source)
    elif variant == "shards":
        source = tmp_path / "shards"
        source.mkdir()
        names = list(published)
        index = {}
        for i, part in enumerate((names[:300], names[300:])):
            index |= dict.fromkeys(part, f"pytorch_model-{i}.bin")
            torch.save({name: published[name] for name in part}, source / f"pytorch_model-{i}.bin")
        (source / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))
    done = convert(source, "reg2rg", tmp_path / "out", Options(llm=str(llama[0])))
    one, other = (open_tensors(folder / "model.safetensors") for folder in (done.folder, converted[0].folder))
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)
    if variant == "no inv_freq":
        assert "the file holds no rotary frequencies" in done.notes


def test_other_rotary_frequencies_are_told(saved, published, llama, tmp_path):
    name = next(name for name in published if name.endswith("7.self_attn.rotary_emb.inv_freq"))
    done = convert(saved({name: published[name] / 2}), "reg2rg", tmp_path / "out", Options(llm=str(llama[0])))
    assert "rotary frequencies of 1 layers are not of base 10000; the language model brings its own" in done.notes


def test_an_alias_that_is_none_is_refused(saved, published, tmp_path):
    changed = published[f"{EMBED}weight"].clone()
    changed[-1, -1] += 1
    with pytest.raises(ConfigError, match=r"embedding_layer\.weight differs from .*embed_tokens\.weight"):
        convert(saved({f"{EMBED}weight": changed}), "reg2rg", tmp_path / "out")


def test_empty_tensors_of_the_language_model(saved, published, llama, tmp_path):
    empty = {
        name: torch.zeros(0, dtype=torch.bfloat16) for name in published if name.startswith(LLM) and "lora" not in name
    }
    source = saved(empty)
    assert convert(source, "reg2rg", tmp_path / "a").notes[-1].startswith("291 of 291 tensors of the base")
    assert json.loads((tmp_path / "a" / "language_model.json").read_text())["tensors"] is None
    convert(source, "reg2rg", tmp_path / "b", Options(llm=str(llama[0])))
    assert len(json.loads((tmp_path / "b" / "language_model.json").read_text())["tensors"]) == 291
    Reg2RG.from_pretrained(tmp_path / "b")
    adapter = next(name for name in published if "lora_B" in name)
    with pytest.raises(ConfigError, match=rf"{re.escape(adapter)} \(0\), expected \(32, 8\)"):
        convert(saved({adapter: torch.zeros(0)}), "reg2rg", tmp_path / "c")


def test_another_language_model_is_refused(saved, converted, llama, tmp_path):
    tiny_llama(tmp_path / "other", seed=1)
    with pytest.raises(
        ConfigError, match=r"--llm .*other: the same architecture with other weights.*not the model inside"
    ):
        convert(saved(), "reg2rg", tmp_path / "out", Options(llm=str(tmp_path / "other")))
    tiny_llama(tmp_path / "wide", intermediate_size=64)
    with pytest.raises(ConfigError, match=r"--llm .*wide: another architecture or size"):
        convert(saved(), "reg2rg", tmp_path / "out", Options(llm=str(tmp_path / "wide")))
    with pytest.raises(ConfigError, match=r"gate_proj|other weights"):
        Reg2RG.from_pretrained(converted[0].folder, language_model=tmp_path / "other")
    assert not (tmp_path / "out").exists()


def test_one_number_of_the_language_model_that_differs_is_found(saved, published, llama, tmp_path):
    name = f"{LLM}model.layers.20.mlp.up_proj.weight"
    changed = published[name].clone()
    changed[17, 5] += 0.5
    with pytest.raises(
        ConfigError, match=r"1 of 291 tensors hold other numbers .*: model\.layers\.20\.mlp\.up_proj\.weight"
    ):
        convert(saved({name: changed}), "reg2rg", tmp_path / "out", Options(llm=str(llama[0])))


def test_a_disk_that_fills_up(saved, tmp_path, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    source = saved()
    monkeypatch.setattr("reg2rg.pretrained.folder.write_safetensors", refuse)
    with pytest.raises(Reg2RGError, match=r"out: writing failed \(No space left on device\); nothing was left there"):
        convert(source, "reg2rg", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["pytorch_model.bin"]


def test_a_language_model_by_name_stays_a_name(saved, tmp_path):
    done = convert(saved(), "reg2rg", tmp_path / "out")
    config = yaml.safe_load((done.folder / "config.yaml").read_text())
    assert config["model"]["llm"]["init_args"]["path"] == "meta-llama/Llama-2-7b-chat-hf"
    reference = json.loads((done.folder / "language_model.json").read_text())
    assert (len(reference["tensors"]), reference["vocabulary"]) == (291, VOCABULARY)


def test_everything_that_does_not_fit_is_in_one_message(saved, published, tmp_path):
    gone = [name for name in published if name.endswith("post_attention_layernorm.weight")]
    gone += [f"{EMBED}mask_fc.bias", f"{LLM}lm_head.weight"]
    changes = dict.fromkeys(gone) | {
        f"{EMBED}fc.weight": torch.zeros(WIDTH, 13),
        f"{EMBED}cls_head.weight": torch.zeros(1, 96),
        f"{EMBED}perceiver.layers.6.0.to_q.weight": torch.zeros(16, 12),
    }
    with pytest.raises(ConfigError) as caught:
        convert(saved(changes), "reg2rg", tmp_path / "out")
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("not pytorch_model.bin, the weights of Reg2RG: 37 keys do not fit")
    assert {line.strip() for line in lines[1:-1]} == {
        f"32 missing: {LLM}model.layers.{{0-31}}.post_attention_layernorm.weight (32)",
        f"1 missing: {EMBED}mask_fc.bias (32)",
        f"1 missing: {LLM}lm_head.weight ({VOCABULARY}, 32)",
        f"1 of another shape: {EMBED}fc.weight (32, 13), expected (32, 12)",
        f"1 unknown: {EMBED}cls_head.weight (1, 96)",
        f"1 unknown: {EMBED}perceiver.layers.6.0.to_q.weight (16, 12)",
    }


def test_every_missing_key_is_named(saved, published, tmp_path):
    """Of each kind of key the one of the last layer, by the accounting alone."""
    format_, opened = open_published(saved(), "reg2rg")
    entries, optional = opened.source.entries, 0
    last = {re.sub(r"layers\.\d+", "", name): name for name in published}
    assert len(last) == 78
    for name in last.values():
        rest = {key: entry for key, entry in entries.items() if key != name}
        if name.endswith("inv_freq") or name == f"{EMBED}weight":
            optional += 1
            account(format_.keys, format_.layers, rest, "", "")
            continue
        with pytest.raises(ConfigError, match=rf"1 keys do not fit\n  1 missing: {re.escape(name)} "):
            account(format_.keys, format_.layers, rest, "", "")
    assert optional == 2


def test_the_encoder_alone_is_no_checkpoint(saved, published, tmp_path):
    vision = {k.removeprefix(f"{EMBED}vision_encoder."): t for k, t in published.items() if "vision_encoder" in k}
    torch.save(vision, tmp_path / "v.pth")
    with pytest.raises(ConfigError, match=r"It looks like RadFM_vit3d\.pth.* Fix: --from radfm-vit3d"):
        convert(tmp_path / "v.pth", "reg2rg", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"It looks like pytorch_model\.bin.* Fix: --from reg2rg"):
        convert(saved(), "radfm-vit3d", tmp_path / "out")
