"""A model into a folder and back: the same bits, the same reports, wherever the folder goes."""

import shutil

import pytest
import torch
import yaml

from reg2rg.core.errors import ConfigError
from reg2rg.core.model_folder import CONFIG, CONTRACT, write_sums
from reg2rg.models.llm.causal_lm import CausalLM, LoRA
from reg2rg.pretrained.folder import read_folder
from reg2rg.pretrained.saving import folder_names
from reg2rg.training.module import Reg2RG

KINDS = {
    "trained": {},
    "adapters": {"lora": {"rank": 2}},
    "frozen": {"weights_trainable": False},
    "adapters and trained": {"lora": {"rank": 2}, "weights_trainable": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_bits_and_reports_from_a_folder_that_moved(kind, model, predict, tmp_path):
    made = model(**KINDS[kind])
    made.save_pretrained(tmp_path / "here")
    (tmp_path / "there").mkdir()
    shutil.move(tmp_path / "here", tmp_path / "there" / "m")
    again = Reg2RG.from_pretrained(tmp_path / "there" / "m")
    one, other = made.state_dict(), again.state_dict()
    assert one.keys() == other.keys()
    for name in one:
        assert one[name].dtype == other[name].dtype
        assert torch.equal(one[name], other[name]), name
    assert not again.training
    assert predict(again) == predict(made)


def test_a_folder_of_the_first_format_reports_the_same(model, predict, tmp_path):
    made = model()
    folder = made.save_pretrained(tmp_path / "m")
    contract, config = (yaml.safe_load((folder / name).read_text()) for name in (CONTRACT, CONFIG))
    task = config.pop("task")
    for name in ("orientation", "spacing"):  # which stood in the contract alone
        del task["views"][name]
    config["data"] |= task
    for name in ("order", "max_length"):  # and these in the config alone
        del contract[name]
    (folder / CONTRACT).write_text(yaml.safe_dump(contract | {"format": 1}))
    (folder / CONFIG).write_text(yaml.safe_dump(config))
    write_sums(folder)
    again = Reg2RG.from_pretrained(folder)
    assert again.task.max_length == 512
    assert not again.task.differences(made.task)
    assert predict(again, conform=False) == predict(made)
    written = yaml.safe_load((again.save_pretrained(tmp_path / "n") / CONFIG).read_text())
    assert written["task"]["views"]["orientation"] == "RAS"
    assert not set(written["task"]) & set(written["data"])


def test_what_a_folder_holds(model, tmp_path):
    names = {
        kind: set(read_folder(model(**arguments).save_pretrained(tmp_path / kind)).tensors)
        for kind, arguments in KINDS.items()
    }
    base = {name for name in names["trained"] if name.startswith("reporter.llm.")}
    assert len(base) == 21
    assert names["frozen"] == names["trained"] - base
    assert len(names["adapters"] - names["frozen"]) == 8
    assert all("lora_" in name for name in names["adapters"] - names["frozen"])
    assert any(name.startswith("reporter.texture.encoder.") for name in names["frozen"])  # the frozen encoder is in it


def test_adapters_are_kept_when_somebody_froze_them(model, tmp_path):
    made = model(lora={"rank": 2})
    wanted = folder_names(made, made.reporter.llm)
    made.requires_grad_(False)
    assert folder_names(made, made.reporter.llm) == wanted
    again = Reg2RG.from_pretrained(made.save_pretrained(tmp_path / "m"))
    assert torch.equal(
        *(
            dict(one.named_parameters())[
                "reporter.llm.model.base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight"
            ]
            for one in (made, again)
        )
    )


def test_a_large_or_named_language_model_stays_a_reference(model, toy, tmp_path, monkeypatch):
    made = model(lora={"rank": 2})
    folder = made.save_pretrained(tmp_path / "m", copy_language_model=False)
    assert not (folder / "llm").exists()
    assert yaml.safe_load((folder / "config.yaml").read_text())["model"]["llm"]["init_args"]["path"] == str(toy.lm)
    Reg2RG.from_pretrained(folder)
    monkeypatch.setattr("reg2rg.pretrained.saving._SMALL", 10)
    assert not (made.save_pretrained(tmp_path / "m") / "llm").exists()
    folder = made.save_pretrained(tmp_path / "m", refer_to="lab/tiny")
    assert read_folder(folder).language_model.path == "lab/tiny"
    with pytest.raises(ConfigError, match="lab/tiny"):
        Reg2RG.from_pretrained(folder)
    monkeypatch.chdir(toy.lm.parent)
    made.reporter.llm.path = toy.lm.name  # a path that only means something here is written out
    assert read_folder(made.save_pretrained(tmp_path / "n", copy_language_model=False)).language_model.path == str(
        toy.lm
    )
    assert (
        read_folder(made.save_pretrained(tmp_path / "n", copy_language_model=True)).language_model.path == toy.lm.name
    )
    again = Reg2RG.from_pretrained(folder, language_model=toy.lm)
    assert torch.equal(again.reporter.tags, made.reporter.tags)


def test_a_language_model_that_is_not_here_is_said_at_once(model, toy, tmp_path):
    moved = tmp_path / "lm"
    shutil.copytree(toy.lm, moved)
    made = model(lora={"rank": 2})
    made.reporter.llm.path = str(moved)
    folder = made.save_pretrained(tmp_path / "m", copy_language_model=False)
    shutil.rmtree(moved)
    with pytest.raises(
        ConfigError, match=r"language model .*/lm, \d+ tokens, 21 tensors, which is not here.*language_model"
    ):
        Reg2RG.from_pretrained(folder)
    shutil.copytree(toy.lm, tmp_path / "elsewhere/lm")
    folder = folder.rename(tmp_path / "elsewhere/m")  # beside the folder it is found, under its own name
    again = Reg2RG.from_pretrained(folder)
    assert again.reporter.llm.path == str(tmp_path / "elsewhere/lm")
    assert torch.equal(again.reporter.tags, made.reporter.tags)
    shutil.copytree(toy.lm, moved)  # also where the old place has something
    assert Reg2RG.from_pretrained(folder).reporter.llm.path == str(tmp_path / "elsewhere/lm")
    shutil.rmtree(tmp_path / "elsewhere/lm")
    assert Reg2RG.from_pretrained(folder).reporter.llm.path == str(moved)


def test_what_a_folder_holds_comes_before_what_lies_beside_it(model, toy, tmp_path):
    folder = model().save_pretrained(tmp_path / "m", copy_language_model=True)
    (tmp_path / "llm").mkdir()
    assert Reg2RG.from_pretrained(folder).reporter.llm.path == str(folder / "llm")


def other_llm(toy, to, change):
    """The toy's language model with other weights."""
    shutil.copytree(toy.lm, to)
    llm = CausalLM(str(toy.lm))
    with torch.no_grad():
        change(llm.model)
    llm.model.save_pretrained(to)
    return to


def test_another_language_model_is_refused_with_the_difference(model, toy, tmp_path):
    folder = model(lora={"rank": 2}).save_pretrained(tmp_path / "m", copy_language_model=False)
    tuned = other_llm(toy, tmp_path / "tuned", lambda llm: [p.mul_(1.1) for p in llm.parameters()])
    with pytest.raises(ConfigError) as caught:
        Reg2RG.from_pretrained(folder, language_model=tuned)
    said = str(caught.value)
    assert said.startswith(f"{folder}: the language model {tuned} is not the one")
    assert f"trained on, {toy.lm}: the same architecture with other weights" in said
    assert "(float32), expected" in said

    merged = other_llm(toy, tmp_path / "merged", lambda llm: llm.model.layers[0].self_attn.q_proj.weight.add_(0.01))
    with pytest.raises(ConfigError, match=r"the same model with 1 of 21 tensors changed.*layers\.0\.self_attn\.q_proj"):
        Reg2RG.from_pretrained(folder, language_model=merged)
    longer = other_llm(toy, tmp_path / "longer", lambda llm: llm.resize_token_embeddings(700))
    with pytest.raises(ConfigError, match=r"the same weights with another vocabulary.*shape \(700, 32\)"):
        Reg2RG.from_pretrained(folder, language_model=longer)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_another_dtype_of_the_same_language_model_is_no_fault(model, toy, tmp_path, dtype):
    folder = model(lora={"rank": 2}).save_pretrained(tmp_path / "m")
    again = Reg2RG.from_pretrained(folder, llm={"dtype": dtype})
    assert again.reporter.llm.embed(torch.ones(1, 1, dtype=torch.long)).dtype == getattr(torch, dtype)
    folder = again.save_pretrained(tmp_path / "rounded")  # a fingerprint of rounded weights, and the unrounded model
    assert read_folder(folder).language_model.fingerprint.tensors["model.norm.weight"].dtype == dtype
    Reg2RG.from_pretrained(folder, llm={"dtype": "float32"})


def test_weights_in_four_bits_are_compared_by_their_files(model, toy, tmp_path, monkeypatch):
    folder = model(lora={"rank": 2}).save_pretrained(tmp_path / "m")
    monkeypatch.setattr(CausalLM, "_quantized", property(lambda self: True))
    made = Reg2RG.from_pretrained(folder)
    with torch.no_grad():  # what is in memory does not count
        for _, parameter in made.reporter.llm.model.named_parameters():
            parameter.zero_()
    made.load_folder(read_folder(folder))
    tuned = other_llm(toy, tmp_path / "tuned", lambda llm: [p.mul_(1.1) for p in llm.parameters()])
    with pytest.raises(ConfigError, match="other weights"):
        Reg2RG.from_pretrained(folder, language_model=tuned)


def test_files_without_the_prefix_of_the_base_model(toy, tmp_path):
    """GPT-2 on the hub has 'h.0...' where the module says 'transformer.h.0...'."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(toy.lm, tmp_path / "lm")
    path = tmp_path / "lm" / "model.safetensors"
    stripped = {name.removeprefix("model."): tensor for name, tensor in load_file(path).items()}
    save_file(stripped, path, {"format": "pt"})
    llm = CausalLM(str(toy.lm))
    wanted = {name for name, _ in llm.reference_tensors()}
    llm.path = str(tmp_path / "lm")
    llm.model.is_quantized = True
    assert {name for name, _ in llm.reference_tensors()} == wanted


def test_a_tokenizer_of_another_size_is_refused(model, toy, tmp_path):
    folder = model(lora={"rank": 2}).save_pretrained(tmp_path / "m", copy_language_model=False)
    shutil.copytree(toy.lm, tmp_path / "lm")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(toy.lm)
    llm = CausalLM(str(toy.lm)).model
    llm.resize_token_embeddings(len(tokenizer) + 4)
    tokenizer.add_tokens(["<more>"])
    tokenizer.save_pretrained(tmp_path / "lm")
    llm.save_pretrained(tmp_path / "lm")
    with pytest.raises(ConfigError, match=rf"tokenizer has {len(tokenizer)} tokens, expected {len(tokenizer) - 1}"):
        Reg2RG.from_pretrained(folder, language_model=tmp_path / "lm")


def test_changes_on_the_way_in(model, tmp_path):
    folder = model().save_pretrained(tmp_path / "m")
    changed = Reg2RG.from_pretrained(folder, max_new_tokens=3, map_location="cpu")
    assert changed.decoding.max_new_tokens == 3
    assert (
        yaml.safe_load((changed.save_pretrained(tmp_path / "n") / "config.yaml").read_text())["model"]["max_new_tokens"]
        == 3
    )


def test_a_language_model_keeps_its_name_through_many_hands(model, toy, tmp_path):
    folder = model().save_pretrained(tmp_path / "m")
    again = Reg2RG.from_pretrained(folder).save_pretrained(tmp_path / "n")
    assert [read_folder(one).language_model.path for one in (folder, again)] == [toy.lm.name] * 2
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()


def edit(folder, change):
    path = folder / "config.yaml"
    config = yaml.safe_load(path.read_text())
    change(config)
    path.write_text(yaml.safe_dump(config))
    write_sums(folder)


def test_a_class_outside_the_allow_list_is_never_imported(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "evil_encoders.py").write_text("open('canary', 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    folder = model().save_pretrained(tmp_path / "m")
    for path in ("evil_encoders.Net", "os.system", "subprocess.Popen"):
        edit(folder, lambda config, path=path: config["model"].update(geometry={"class_path": path, "init_args": {}}))
        with pytest.raises(ConfigError, match=rf"config\.yaml:\d+: model\.geometry: '{path}' would import"):
            Reg2RG.from_pretrained(folder)
    for path in ("torch.os.system", "torch.hub.Path"):  # of another package, by way of an allowed one
        edit(folder, lambda config, path=path: config["model"].update(geometry={"class_path": path, "init_args": {}}))
        with pytest.raises(ConfigError, match=rf"'{path}' is \S+: it would import") as caught:
            Reg2RG.from_pretrained(folder)
        assert "upgrade" not in str(caught.value)
    # Inside a value that is no component either.
    edit(folder, lambda config: config["model"].update(geometry=None, optimizer={"class_path": "evil_encoders.Net"}))
    with pytest.raises(ConfigError):
        Reg2RG.from_pretrained(folder)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda m: m["geometry"].update(class_path="CNN4D"), "CNN4D"),
        (lambda m: m["geometry"]["init_args"].update(channels=[3]), "channels are"),
        (lambda m: m["geometry"]["init_args"].update(depht=3), "depht"),
        (lambda m: m["geometry"]["init_args"].update(dim=7), "weights and config do not fit: .*is .*the config makes"),
        (lambda m: m.update(geometry=None), r"contradicts input_contract\.yaml beside it: inputs"),
        (lambda m: m.update(global_=m["geometry"]), r"missing \(reporter\.global_.*own config\.yaml"),
        (lambda m: m.pop("projector"), "projector"),
    ],
)
def test_a_config_that_does_not_fit_is_one_clear_line(model, tmp_path, change, said):
    folder = model().save_pretrained(tmp_path / "m")
    edit(folder, lambda config: change(config["model"]))
    with pytest.raises(ConfigError, match=said) as caught:
        Reg2RG.from_pretrained(folder)
    assert str(caught.value).startswith(str(folder))
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_a_model_without_a_config_needs_one(toy, tmp_path, config):
    made = toy.module()
    with pytest.raises(ConfigError, match=r"knows no config\. Fix: give config"):
        made.save_pretrained(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_random_weights_are_never_taken_for_a_model(toy):
    """`pretrained: false` is a choice of its own: a folder without weights stays an error."""
    with pytest.raises(ConfigError):
        CausalLM(str(toy.root))
    with pytest.raises(ConfigError, match="quantize_4bit needs"):
        CausalLM(str(toy.lm), pretrained=False, quantize_4bit=True)
    # A checkpoint would leave such weights out, as ones that come back from their files.
    for arguments in ({"weights_trainable": False}, {"lora": LoRA(rank=2)}):
        with pytest.raises(ConfigError, match="at random, and they do not train"):
            CausalLM(str(toy.lm), pretrained=False, **arguments)
    torch.manual_seed(1)
    made, random = CausalLM(str(toy.lm)), CausalLM(str(toy.lm), pretrained=False)
    assert made.state_dict().keys() == random.state_dict().keys()
    assert not torch.equal(made.model.lm_head.weight, random.model.lm_head.weight)
    assert made.eos_ids == random.eos_ids


def test_hub_ids_from_the_cache_and_without_a_network(model, toy, tmp_path, monkeypatch):
    cache = tmp_path / "hub"
    snapshot = cache / "models--lab--chest" / "snapshots" / "abc123"
    (cache / "models--lab--chest" / "refs").mkdir(parents=True)
    (cache / "models--lab--chest" / "refs" / "main").write_text("abc123")
    snapshot.parent.mkdir()
    made = model(lora={"rank": 2})
    made.save_pretrained(snapshot)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    again = Reg2RG.from_pretrained("lab/chest")
    assert torch.equal(again.reporter.tags, made.reporter.tags)
    with pytest.raises(ConfigError) as caught:
        Reg2RG.from_pretrained("lab/other", revision="v2")
    assert "hf download lab/other --revision v2 --local-dir other" in str(caught.value)
    assert "\n" not in str(caught.value)
