"""RadFM's two files: converted, and loaded by the components that take them."""

from __future__ import annotations

import json

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from parity.ours import Given
from published_files import RESAMPLER, TEXTURE, fill, full, listed, nested, perceiver_shapes
from reg2rg.config.saving import build
from reg2rg.core.errors import ConfigError, Reg2RGError
from reg2rg.extras.convert import FORMATS, RECORD, Options, account, convert, verify_folder
from reg2rg.models.encoders import Encoder, Frozen, PerceiverResampler, ViT3D
from reg2rg.models.tensors import TensorEntry


def vit_weights(dtype=torch.float32):
    return fill(TEXTURE.shapes(), dtype=dtype)


def save_vit(path, weights=None):
    torch.save(vit_weights() if weights is None else weights, path)
    return path


def save_perceiver(path, weights=None):
    torch.save(nested(fill(perceiver_shapes()) if weights is None else weights, "perceiver", "fc"), path)
    return path


def built(folder):
    """The component that the folder's config names."""

    class Holder:
        def __init__(self, encoder: Encoder) -> None:
            self.encoder = encoder

    return build(Holder, {"encoder": yaml.safe_load((folder / "config.yaml").read_text())}).encoder


def test_the_forms_are_the_published_lists():
    assert TEXTURE.shapes() == listed("radfm_vit3d")
    assert perceiver_shapes() == listed("radfm_perceiver_fc")


@pytest.mark.parametrize(("name", "keys"), [("radfm-vit3d", 141), ("radfm-perceiver", 71)])
def test_the_full_size_fits(name, keys):
    tensors = full({"radfm-vit3d": "radfm_vit3d", "radfm-perceiver": "radfm_perceiver_fc"}[name])
    entries = {k: TensorEntry(tuple(t.shape), t.dtype, lambda: torch.zeros(0)) for k, t in tensors.items()}
    format_ = FORMATS[name]
    found = account(format_.keys, format_.layers, entries, name, "")
    assert len(found.kept) + len(found.used) + len(found.dropped) == len(tensors) == keys
    assert {key: found.sizes[key] for key in format_.sizes} == format_.sizes
    with torch.device("meta"):
        own = ViT3D() if name == "radfm-vit3d" else PerceiverResampler(Given(1024, 768)).resampler
    kept = {ours: tuple(tensors[theirs].shape) for ours, theirs in found.kept.items()}
    expected = {key: tuple(t.shape) for key, t in own.state_dict().items()}
    folded = {f"patch_{part}.{kind}" for part in ("norm", "linear") for kind in ("weight", "bias")}
    assert kept == {k: v for k, v in expected.items() if name != "radfm-vit3d" or k not in folded}


@pytest.mark.parametrize("wrapped", ["", "module."])
def test_vit_loads_where_the_published_file_does(tmp_path, wrapped):
    weights = vit_weights()
    source = save_vit(tmp_path / "RadFM_vit3d.pth")
    torch.save({wrapped + name: tensor for name, tensor in weights.items()}, tmp_path / "other.pth")
    done = convert(tmp_path / "other.pth", "radfm-vit3d", tmp_path / "out")
    assert sorted(path.name for path in done.folder.iterdir()) == ["config.yaml", RECORD, "model.safetensors"]
    encoder = built(done.folder)
    assert isinstance(encoder, ViT3D)
    converted = Frozen(encoder, weights=str(done.folder))
    direct = Frozen(built(done.folder), weights=str(source))
    for (name, a), b in zip(converted.state_dict().items(), direct.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert "dim 12 (published 768)" in done.notes[0]


def test_a_file_of_one_channel_is_kept_as_it_is(tmp_path):
    weights = vit_weights()
    for name in ("to_patch_embedding.1.weight", "to_patch_embedding.1.bias", "to_patch_embedding.2.weight"):
        weights[name] = weights[name][..., :4096].contiguous()
    convert(save_vit(tmp_path / "one.pth", weights), "radfm-vit3d", tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert torch.equal(written["patch_linear.weight"], weights["to_patch_embedding.2.weight"])
    weights["to_patch_embedding.2.weight"] = torch.zeros(12, 4000)
    weights |= {f"to_patch_embedding.1.{kind}": torch.zeros(4000) for kind in ("weight", "bias")}
    with pytest.raises(ConfigError, match=r"a patch has 4000 numbers .expected 1 x 4096 or 3 x 4096"):
        convert(save_vit(tmp_path / "odd.pth", weights), "radfm-vit3d", tmp_path / "odd")


@pytest.mark.parametrize("form", ["nested", "alone", "safetensors"])
def test_perceiver_loads_where_the_published_file_does(tmp_path, form):
    weights = fill(perceiver_shapes())
    source = save_perceiver(tmp_path / "RadFM_perceiver_fc.pth")
    given = tmp_path / f"given.{form}"
    if form == "nested":
        given = source
    elif form == "alone":
        torch.save(nested(weights, "perceiver")["perceiver"], given)
    else:
        save_file(weights, given)
    done = convert(given, "radfm-perceiver", tmp_path / "out")
    arguments = yaml.safe_load((done.folder / "config.yaml").read_text())["init_args"]
    assert arguments == {"num_latents": 32, "depth": 6, "heads": 8, "head_dim": 2, "ff_mult": 2}
    converted = PerceiverResampler(Given(4, RESAMPLER.dim), **arguments, weights=str(done.folder))
    direct = PerceiverResampler(Given(4, RESAMPLER.dim), **arguments, weights=str(source))
    assert converted.state_dict().keys() == direct.state_dict().keys()
    assert all(torch.equal(a, direct.state_dict()[name]) for name, a in converted.state_dict().items())
    record = json.loads((done.folder / RECORD).read_text())
    assert record["dropped"] == (
        {} if form == "alone" else {name: done.account.dropped[name] for name in ("fc.weight", "fc.bias")}
    )


def test_dtypes(tmp_path):
    source = save_vit(tmp_path / "half.pth", vit_weights(torch.bfloat16))
    convert(source, "radfm-vit3d", tmp_path / "kept")
    kept = load_file(tmp_path / "kept" / "model.safetensors")
    computed = {name for name, tensor in kept.items() if tensor.dtype == torch.float32}
    assert computed == {f"patch_{part}.{kind}" for part in ("norm", "linear") for kind in ("weight", "bias")}
    assert all(tensor.dtype == torch.bfloat16 for name, tensor in kept.items() if name not in computed)
    convert(source, "radfm-vit3d", tmp_path / "wide", Options(dtype=torch.float32))
    wide = load_file(tmp_path / "wide" / "model.safetensors")
    assert {tensor.dtype for tensor in wide.values()} == {torch.float32}
    assert all(torch.equal(wide[name], tensor.float()) for name, tensor in kept.items())


def test_a_written_folder_is_held_against_the_file(tmp_path):
    source = save_vit(tmp_path / "w.pth")
    convert(source, "radfm-vit3d", tmp_path / "out")
    verify_folder(source, "radfm-vit3d", tmp_path / "out")
    written = load_file(tmp_path / "out" / "model.safetensors")
    written["position_h"][0, 0] += 1e-6
    save_file(written, tmp_path / "out" / "model.safetensors")
    with pytest.raises(Reg2RGError, match=r"1 tensors are not those that follow from .*: position_h"):
        verify_folder(source, "radfm-vit3d", tmp_path / "out")


def test_files_of_another_format(tmp_path):
    vit, perceiver = save_vit(tmp_path / "v.pth"), save_perceiver(tmp_path / "p.pth")
    with pytest.raises(ConfigError, match=r"looks like RadFM_vit3d.pth, the 3D ViT of RadFM. Fix: --from radfm-vit3d"):
        convert(vit, "radfm-perceiver", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"looks like RadFM_perceiver_fc.pth.* Fix: --from radfm-perceiver"):
        convert(perceiver, "radfm-vit3d", tmp_path / "out")
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "x.pth")
    with pytest.raises(ConfigError, match=r"none of its keys are there. It holds 1 tensors \(conv.weight\)"):
        convert(tmp_path / "x.pth", "radfm-vit3d", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"no such format. Did you mean 'radfm-vit3d'"):
        convert(vit, "radfm_vit3d", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_training_checkpoint_says_what_is_no_tensor(tmp_path):
    save_vit(tmp_path / "w.pth", {**vit_weights(), "epoch": 3, "config": "text"})
    with pytest.raises(ConfigError, match=r"2 entries are no tensors: epoch \(int\), config \(str\)"):
        convert(tmp_path / "w.pth", "radfm-vit3d", tmp_path / "out")


def test_numbers_that_are_not_finite(tmp_path):
    weights = vit_weights()
    weights["pos_embedding.row_embed.weight"][0, 0] = float("nan")
    with pytest.raises(ConfigError, match=r"1 tensors hold numbers that are not finite: position_h"):
        convert(save_vit(tmp_path / "w.pth", weights), "radfm-vit3d", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_output_folder(tmp_path, monkeypatch):
    source = save_vit(tmp_path / "w.pth")
    (tmp_path / "empty").mkdir()
    assert convert(source, "radfm-vit3d", tmp_path / "empty").folder == tmp_path / "empty"
    before = (tmp_path / "empty" / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match=r"empty: the folder holds something"):
        convert(source, "radfm-vit3d", tmp_path / "empty")
    assert (tmp_path / "empty" / "model.safetensors").read_bytes() == before
    with pytest.raises(ConfigError, match=r"w\.pth: a file of that name is there"):
        convert(source, "radfm-vit3d", source)
    convert(source, "radfm-vit3d", tmp_path / "deep" / "er")
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(ConfigError, match=r"MiB will be written, 0 MiB are free"):
        convert(source, "radfm-vit3d", tmp_path / "full")
    assert not (tmp_path / "full").exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_conversion_that_stops(tmp_path, monkeypatch, error):
    def stop(*args, **kwargs):
        raise error

    source = save_vit(tmp_path / "w.pth")
    monkeypatch.setattr("reg2rg.extras.convert.writing.write_safetensors", stop)
    with pytest.raises((Reg2RGError, KeyboardInterrupt), match=r"out: writing failed \(No space left|^$"):
        convert(source, "radfm-vit3d", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["w.pth"]


def test_rights_are_those_of_any_new_file(tmp_path):
    convert(save_vit(tmp_path / "w.pth"), "radfm-vit3d", tmp_path / "out")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    (tmp_path / "any").touch()
    assert modes == {(tmp_path / "any").stat().st_mode & 0o777}
