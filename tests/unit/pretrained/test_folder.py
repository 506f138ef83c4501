"""Folders are whole or absent, and refused with the reason when something is wrong with them."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import reg2rg.pretrained.folder as module
from reg2rg.config.overlay import fold
from reg2rg.core.errors import ConfigError, Reg2RGError
from reg2rg.core.model_folder import verify, write_sums
from reg2rg.core.regions import Region, RegionSet
from reg2rg.core.task import ReportTask
from reg2rg.pretrained.atomic_folder import new_folder
from reg2rg.pretrained.contract import InputContract, model_config
from reg2rg.pretrained.fingerprint import fingerprint
from reg2rg.pretrained.folder import LanguageModelRef, read_folder, write_folder

LLM = LanguageModelRef("lab/llm", "v1", fingerprint({"w": torch.randn(4)}), vocabulary=7)
TENSORS = {"reporter.tags": torch.randn(4, 8), "reporter.half": torch.randn(3).bfloat16()}
WEIGHTS = {"class_path": "Frozen", "init_args": {"weights": "/a.pth", "encoder": {"class_path": "ViT3D"}}}
CONFIG = {
    "model": {
        "texture": {"class_path": "PerceiverResampler", "init_args": {"encoder": WEIGHTS, "weights": "/b.pth"}},
        "geometry": {"class_path": "TimmSlices", "init_args": {"pretrained": True}},
        "global_": {"class_path": "mylab.Net", "init_args": {"weights": "best"}},
        "projector": "LinearProjector",
        "llm": {"class_path": "CausalLM", "init_args": {"path": "/old", "revision": "x"}},
        "regions": "radgenome",
        "identity": True,
    },
    "data": {"dataset": {"class_path": "RadGenome"}, "store": "/store", "read": {"mask_grid": "scan", "min_slices": 9}},
    "trainer": {"max_steps": 3},
}


def write(folder, tensors=TENSORS, config=CONFIG, **changes):
    contract = InputContract.of_config(config)
    options = {"contract": contract, "language_model": LLM, "card": "# Card"} | changes
    return write_folder(folder, config=config, tensors=tensors, **options)


def test_round_trip(tmp_path):
    write(tmp_path / "m", metadata={"by": "test"}, files={"conversion.json": "{}"})
    names = ["README.md", "SHA256SUMS", "config.yaml", "conversion.json", "input_contract.yaml", "language_model.json"]
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == [*names, "model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["m"]
    found = read_folder(tmp_path / "m")
    assert found.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in TENSORS.items())
    assert not LLM.fingerprint.differences(found.language_model.fingerprint)
    assert (found.language_model.path, found.language_model.revision) == ("lab/llm", "v1")
    assert found.language_model.vocabulary == 7
    assert (tmp_path / "m" / "README.md").read_text() == "# Card\n"


def test_the_config_holds_what_belongs_to_the_model_and_no_files(tmp_path):
    write(tmp_path / "m")
    config = yaml.safe_load((tmp_path / "m" / "config.yaml").read_text())
    assert config.keys() == {"task", "model", "data"}
    task, model, data = config["task"], config["model"], config["data"]
    assert model["texture"]["init_args"]["weights"] is None
    assert model["texture"]["init_args"]["encoder"]["init_args"]["weights"] is None
    assert model["geometry"]["init_args"]["pretrained"] is False
    assert model["global_"]["init_args"]["weights"] == "best"  # of a stranger's class nothing is known
    assert model["llm"]["init_args"] == {"path": "lab/llm", "revision": "v1"}
    assert "regions" not in model
    assert "dataset" not in data
    assert data["read"] == {"hu": "check", "min_slices": 9}
    assert task["max_length"] == 2048  # defaults are written out: they may change
    assert task["instruction"].startswith("Given the provided")
    assert CONFIG["model"]["llm"]["init_args"]["path"] == "/old"


def test_references_must_be_resolved():
    config = {"model": {"texture": {"init_args": {"size": "${task.views.size}"}}, "llm": {}}, "data": {}}
    with pytest.raises(ConfigError, match=r"references \(\$\{task\.views\.size"):
        model_config(config, InputContract.of_config({"model": {}}))


def test_a_region_set_of_ones_own_travels(tmp_path):
    regions = RegionSet("mine", (Region("left lung", ("lung_l",)), Region("spleen")))
    write(tmp_path / "m", contract=InputContract(ReportTask(regions), ("texture", "geometry", "global")))
    (tmp_path / "far" / "away").mkdir(parents=True)
    shutil.move(tmp_path / "m", tmp_path / "far" / "away" / "m")
    found = read_folder(tmp_path / "far" / "away" / "m")
    assert found.config["task"]["regions"] == "regions.yaml"
    assert found.resolved()["task"]["regions"] == str(tmp_path / "far" / "away" / "m" / "regions.yaml")
    assert found.contract.task.region_set.canonical("Lung L") == "left lung"


def test_pairs_and_tied_tensors(tmp_path):
    table = torch.randn(5, 3)
    tied = {"llm.embed": table, "llm.head": table, "llm.turned": table.T.contiguous(), "part": table[:2]}
    write(tmp_path / "m", tensors=tied)
    found = read_folder(tmp_path / "m").tensors
    assert sorted(found) == sorted(tied)
    assert all(torch.equal(found[name], tensor) for name, tensor in tied.items())
    size = (tmp_path / "m" / "model.safetensors").stat().st_size
    write(tmp_path / "m", tensors=iter([*tied.items(), ("more", torch.ones(1))]))
    assert (tmp_path / "m" / "model.safetensors").stat().st_size - size < 200  # the table once, not twice
    assert torch.equal(read_folder(tmp_path / "m").tensors["llm.head"], table)


def test_ours_is_replaced_and_nothing_else(tmp_path):
    write(tmp_path / "m")
    write(tmp_path / "m", tensors={"reporter.tags": torch.zeros(1)})
    assert read_folder(tmp_path / "m").tensors.keys() == {"reporter.tags"}
    (tmp_path / "m" / "LICENSE").write_text("mine")
    write(tmp_path / "m")

    (tmp_path / "m" / "notes.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds notes\.txt .*Nothing was written"):
        write(tmp_path / "m")
    assert (tmp_path / "m" / "notes.txt").exists()
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter.tex").write_text("x")
    with pytest.raises(ConfigError, match=r"thesis: holds chapter\.tex"):
        write(other)
    with pytest.raises(ConfigError, match="a file of that name"):
        write(other / "chapter.tex")
    write(tmp_path / "new" / "deep" / "m")


def test_a_clone_is_not_replaced(tmp_path):
    write(tmp_path / "m")
    (tmp_path / "m" / ".git").mkdir()
    with pytest.raises(ConfigError, match="Nothing was written"):
        write(tmp_path / "m")


@pytest.mark.parametrize("at", ["write_safetensors", "write_json", "write_sums"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, at):
    write(tmp_path / "m")
    before = (tmp_path / "m" / "model.safetensors").read_bytes()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, at, full)
    with pytest.raises(Reg2RGError, match=r"m: writing failed \(No space left.*still stands"):
        write(tmp_path / "m", tensors={"other": torch.ones(3)})
    with pytest.raises(Reg2RGError, match="nothing was left there"):
        write(tmp_path / "n")
    assert (tmp_path / "m" / "model.safetensors").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_too_little_space_is_said_before_anything_is_written(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
    with pytest.raises(ConfigError, match="MiB will be written, 0 MiB are free"):
        write(tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    """The old folder has been moved away, the new one has not come: the next writer puts the old one back first."""
    write(tmp_path / "m")
    left = tmp_path / ".m.tmp.abc"
    left.mkdir()
    (tmp_path / "m").rename(left / "old")
    with pytest.raises(RuntimeError, match="stop"), new_folder(tmp_path / "m"):
        raise RuntimeError("stop")
    assert read_folder(tmp_path / "m").tensors.keys() == TENSORS.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


def test_rights_are_those_of_any_other_folder(tmp_path):
    (tmp_path / "plain").mkdir()
    write(tmp_path / "m")
    assert (tmp_path / "m").stat().st_mode == (tmp_path / "plain").stat().st_mode
    (tmp_path / "plain" / "file").write_text("")
    assert (tmp_path / "m" / "model.safetensors").stat().st_mode == (tmp_path / "plain" / "file").stat().st_mode


@pytest.mark.parametrize("name", ["config.yaml", "model.safetensors", "input_contract.yaml", "language_model.json"])
def test_a_missing_file_is_named(tmp_path, name):
    write(tmp_path / "m")
    (tmp_path / "m" / name).unlink()
    with pytest.raises(ConfigError, match=rf"{name} not there .*take the whole folder"):
        read_folder(tmp_path / "m")


def test_what_is_no_model_is_told_apart(tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        read_folder(tmp_path / "nothing")
    (tmp_path / "last.ckpt").write_bytes(b"x")
    with pytest.raises(ConfigError, match=r"a file .*from_checkpoint"):
        read_folder(tmp_path / "last.ckpt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds: nothing"):
        read_folder(tmp_path / "empty")


def test_every_cut_and_every_flipped_bit_is_found(tmp_path):
    write(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    good = path.read_bytes()
    for i in range(20):
        path.write_bytes(good[: len(good) * i // 20])
        with pytest.raises(ConfigError, match=r"model\.safetensors: SHA-256 .*damaged, cut"):
            read_folder(tmp_path / "m").tensors  # noqa: B018
        broken = bytearray(good)
        broken[len(good) * i // 20] ^= 1 << i % 8
        path.write_bytes(broken)
        with pytest.raises(ConfigError, match="damaged, cut"):
            read_folder(tmp_path / "m").tensors  # noqa: B018


FILES = ("config.yaml", "input_contract.yaml", "language_model.json", "regions.yaml", "llm/config.json", "SHA256SUMS")


@pytest.fixture
def everything(tmp_path):
    """A folder with all that one can have."""
    (tmp_path / "llm").mkdir()
    (tmp_path / "llm" / "config.json").write_text('{"layers": 2}')
    regions = RegionSet("mine", (Region("left lung", ("lung_l",)), Region("spleen")))
    copied = LanguageModelRef("llm", fingerprint=LLM.fingerprint, copy=tmp_path / "llm")
    contract = InputContract(ReportTask(regions), ("texture", "geometry", "global"))
    return write(tmp_path / "m", contract=contract, language_model=copied)


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_found_in_every_file(everything, name):
    path = everything / name
    good = path.read_bytes()
    card = good.find(b"README.md") - 66 if name == "SHA256SUMS" else -99  # its line, of which a difference is said
    for place in range(0, len(good), max(1, len(good) // 20)):
        if card - 1 <= place <= card + 76:
            continue
        broken = bytearray(good)
        broken[place] ^= 1 << place % 8
        path.write_bytes(broken)
        with pytest.raises(ConfigError, match=str(everything)):
            read_folder(everything).tensors  # noqa: B018
    path.write_bytes(good)
    read_folder(everything)


def test_a_byte_that_is_no_text_is_said(everything):
    (everything / "SHA256SUMS").write_bytes(b"\xff" + (everything / "SHA256SUMS").read_bytes())
    with pytest.raises(ConfigError, match=r"SHA256SUMS: cannot be read: byte 0 is no UTF-8 .*Fix: take the whole"):
        read_folder(everything)


def test_a_folder_without_digests_or_without_a_line_is_refused(everything):
    lines = (everything / "SHA256SUMS").read_text().splitlines(keepends=True)
    assert len(lines) == 1 + sum(path.is_file() for path in everything.rglob("*")) - 2  # README, not itself
    for name in ("input_contract.yaml", "llm/config.json", "model.safetensors"):
        (everything / "SHA256SUMS").write_text("".join(line for line in lines if name not in line))
        with pytest.raises(ConfigError, match=rf"SHA256SUMS: has no line for {name}, .*Fix: take"):
            read_folder(everything)
    (everything / "SHA256SUMS").write_text("".join(lines))
    (everything / "llm" / "generation_config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"no line for llm/generation_config\.json"):
        read_folder(everything)
    (everything / "SHA256SUMS").unlink()
    with pytest.raises(ConfigError, match=r"SHA256SUMS: not there, so that nothing .* can be verified"):
        read_folder(everything)


def test_an_edited_card_is_no_fault(everything, caplog):
    (everything / "README.md").write_text("# Mine")
    read_folder(everything)
    assert "README.md: was edited after the folder was written" in caplog.text


def test_a_contract_beside_another_config_is_refused(everything):
    path = everything / "input_contract.yaml"
    path.write_text(path.read_text().replace("-1000", "-100"))
    write_sums(everything)
    with pytest.raises(ConfigError, match=r"config\.yaml: contradicts input_contract\.yaml .*window"):
        read_folder(everything)


def test_a_base_config_of_a_damaged_folder_is_refused(everything):
    path = everything / "config.yaml"
    path.write_text(path.read_text() + " ")
    with pytest.raises(ConfigError, match=r"config\.yaml: SHA-256 is"):
        fold([str(path)])


def test_cut_weights_are_refused_by_their_header_too(tmp_path):
    write(tmp_path / "m")
    path = tmp_path / "m" / "model.safetensors"
    good = path.read_bytes()
    for end in (0, 4, 60, len(good) - 1):
        path.write_bytes(good[:end])
        write_sums(tmp_path / "m")
        with pytest.raises(ConfigError, match=r"model\.safetensors"):
            read_folder(tmp_path / "m").tensors  # noqa: B018


@pytest.mark.parametrize("line", ["../../secret", "/etc/passwd", "llm/../../x", "llm/gone.safetensors", ""])
def test_digests_lead_nowhere_else(tmp_path, line):
    write(tmp_path / "m")
    with open(tmp_path / "m" / "SHA256SUMS", "a") as stream:
        stream.write(f"{'0' * 64}  {line}\n")
    with pytest.raises(ConfigError, match=r"cannot read the line|gone\.safetensors: not there"):
        verify(tmp_path / "m", weights=True)


class Canary:
    def __reduce__(self):
        return os.mkdir, ("canary",)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_pickle_is_never_unpickled(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "m")
    if name != "model.safetensors":
        (tmp_path / "m" / "model.safetensors").unlink()
    torch.save({"w": Canary()}, tmp_path / "m" / name)
    write_sums(tmp_path / "m")
    with pytest.raises(ConfigError, match=r"model\.safetensors"):
        read_folder(tmp_path / "m").tensors  # noqa: B018
    assert not Path("canary").exists()


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("config.yaml", "model: {}\n"),
        ("config.yaml", "model: {llm: CausalLM}\ndata: {}\n"),
        ("config.yaml", "model: {llm: {}}\ndata: []\n"),
        ("config.yaml", "model: {llm: {}}\ndata: {}\ntrainer: {}\n"),
        ("config.yaml", "model: !!python/object/apply:os.mkdir [canary]\ndata: {}\n"),
        ("language_model.json", "{}"),
        ("language_model.json", "[1]"),
        (
            "language_model.json",
            '{"path": "x", "revision": null, "trained": false, "vocabulary": 1, "tensors": {"w": 1}}',
        ),
    ],
)
def test_spoilt_files_are_named(tmp_path, monkeypatch, file, text):
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "m")
    (tmp_path / "m" / file).write_text(text)
    write_sums(tmp_path / "m")
    with pytest.raises(ConfigError, match=file.replace(".", r"\.")):
        read_folder(tmp_path / "m")
    assert not Path("canary").exists()


def test_second_names_of_a_strangers_header_are_checked(tmp_path):
    from safetensors.torch import save_file

    write(tmp_path / "m")
    for aliases in ("no json", "[]", json.dumps({"a": "gone"}), json.dumps({"w": "w"})):
        save_file({"w": torch.ones(1)}, tmp_path / "m" / "model.safetensors", {"aliases": aliases})
        write_sums(tmp_path / "m")
        with pytest.raises(ConfigError, match="header"):
            read_folder(tmp_path / "m").tensors  # noqa: B018


def test_code_of_a_language_model_is_not_copied(tmp_path):
    llm = tmp_path / "llm"
    llm.mkdir()
    for name in (
        "config.json",
        "tokenizer.json",
        "modeling_own.py",
        "pytorch_model.bin",
        "model.safetensors",
        "LICENSE.txt",
    ):
        (llm / name).write_text("{}")
    frozen = LanguageModelRef("llm", fingerprint=LLM.fingerprint, copy=llm)
    write(tmp_path / "m", language_model=frozen)
    held = sorted(path.name for path in (tmp_path / "m" / "llm").iterdir())
    assert held == ["LICENSE.txt", "config.json", "model.safetensors", "tokenizer.json"]
    assert (tmp_path / "m" / "SHA256SUMS").read_text().count("llm/model.safetensors") == 1
    write(tmp_path / "m", language_model=LanguageModelRef("llm", copy=llm, trained=True))
    assert not (tmp_path / "m" / "llm" / "model.safetensors").exists()
    assert read_folder(tmp_path / "m").config["model"]["llm"]["init_args"]["pretrained"] is False
