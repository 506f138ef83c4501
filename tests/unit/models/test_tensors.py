"""Files of tensors: nothing is run, nothing is read before it is used, and every kind of bad file is one message."""

from __future__ import annotations

import json
import os
import pickle
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from reg2rg.core.errors import ConfigError
from reg2rg.models.tensors import open_tensors

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}


class Evil:
    """A pickle that touches a file when it is read."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def write(folder: Path, kind: str) -> Path:
    path = folder / kind
    if kind.startswith("old"):
        torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False)
    elif kind.endswith(".safetensors"):
        save_file(WEIGHTS, path)
    else:
        torch.save(WEIGHTS, path)
    return path


@pytest.mark.parametrize("kind", ["w.safetensors", "w.pth", "w.bin", "named_otherwise"])
def test_reads_either_kind_by_its_content(tmp_path: Path, kind: str) -> None:
    source = open_tensors(write(tmp_path, kind))
    assert list(source) == list(WEIGHTS)
    assert (source.entries["b"].shape, source.entries["b"].dtype, source.entries["b"].nbytes) == (
        (2,),
        torch.bfloat16,
        4,
    )
    assert all(torch.equal(source[name], tensor) for name, tensor in WEIGHTS.items())


def test_nested_dicts_are_joined_by_dots(tmp_path: Path) -> None:
    torch.save({"one": {"a": torch.zeros(1), "epoch": 3}, "two": {"b": {"c": torch.ones(2)}}}, tmp_path / "w.pth")
    source = open_tensors(tmp_path / "w.pth")
    assert list(source) == ["one.a", "two.b.c"]
    assert source.others == {"one.epoch": "int"}
    assert list(source.part("two")) == ["b.c"]
    assert source.part("three") is source


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards(tmp_path: Path, kind: str) -> None:
    names = {"a": f"model-1.{kind}", "b": f"model-2.{kind}"}
    for name, file in names.items():
        (save_file if kind == "safetensors" else torch.save)({name: torch.full((2,), 3.0)}, tmp_path / file)
    index = "model.safetensors.index.json" if kind == "safetensors" else "pytorch_model.bin.index.json"
    (tmp_path / index).write_text(json.dumps({"weight_map": names}))
    for path in (tmp_path, tmp_path / index):
        source = open_tensors(path)
        assert torch.equal(source["b"], torch.full((2,), 3.0))
        assert [file.name for file in source.files] == list(names.values())
    (tmp_path / names["a"]).unlink()
    with pytest.raises(ConfigError, match=rf"1 of 2 files are not beside it: model-1\.{kind}"):
        open_tensors(tmp_path)


def test_shards_outside_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path, "w.safetensors")
    index = tmp_path / "in" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a.weight": "../w.safetensors"}}))
    with pytest.raises(ConfigError, match="are not beside it"):
        open_tensors(index)


def test_an_index_of_other_files_is_told(tmp_path: Path) -> None:
    write(tmp_path, "w.safetensors")
    (tmp_path / "x.index.json").write_text(json.dumps({"weight_map": {"c": "w.safetensors"}}))
    with pytest.raises(ConfigError, match="1 tensors are not in the file that the index names: c"):
        open_tensors(tmp_path / "x.index.json")


@pytest.mark.parametrize("old", [False, True])
def test_code_is_not_run(tmp_path: Path, old: bool) -> None:
    torch.save({"a": Evil(tmp_path / "owned")}, tmp_path / "evil.pth", _use_new_zipfile_serialization=not old)
    with pytest.raises(ConfigError, match=r"weights .*evil\.pth: holds more than tensors \(posix\.system\)"):
        open_tensors(tmp_path / "evil.pth", mapped_only=False)
    with (tmp_path / "bare.pth").open("wb") as stream:
        pickle.dump({"a": Evil(tmp_path / "owned")}, stream)
    with pytest.raises(ConfigError, match=r"bare\.pth: holds more than tensors"):
        open_tensors(tmp_path / "bare.pth", mapped_only=False)
    assert not (tmp_path / "owned").exists()


def test_a_whole_module_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(ConfigError, match=r"holds more than tensors \(torch\.nn\.modules\.linear\.Linear\)"):
        open_tensors(tmp_path / "module.pth")


def test_the_old_format_must_be_read_whole(tmp_path: Path) -> None:
    path = write(tmp_path, "old.pth")
    with pytest.raises(
        ConfigError, match=r"neither safetensors nor a PyTorch file of version 1\.6 .*weights_only=True"
    ):
        open_tensors(path)
    assert list(open_tensors(path, mapped_only=False)) == list(WEIGHTS)


def lying_header() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [10**9], "data_offsets": [0, 4 * 10**9]}}).encode()
    return struct.pack("<Q", len(header)) + header


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("page.pth", b"<!DOCTYPE html><html>", "a web page"),
        ("w.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer.*git lfs pull"),
        ("empty.pth", b"", "the file is empty"),
        ("w.pth.gz", b"\x1f\x8b\x08\x00", "gzip"),
        ("noise.pth", bytes(range(256)), "neither safetensors nor a PyTorch file"),
        ("lie.safetensors", lying_header(), "cannot be read .*(not fully covered|Incomplete)"),
        ("noise.safetensors", b"not tensors at all", "cannot be read"),
        ("list.pth", None, "holds list"),
    ],
)
def test_what_is_no_file_of_tensors_says_what_it_is(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    torch.save([1], path) if content is None else path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"weights .*{name}.*{message}"):
        open_tensors(path)


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
def test_a_file_that_is_cut_short(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path, f"w.{suffix}")
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2])
    with pytest.raises(ConfigError, match=rf"cannot be read.* it has {size // 2} bytes\. Fix: compare"):
        open_tensors(path)


def test_a_folder_must_hold_one_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no file of weights among nothing"):
        open_tensors(tmp_path)
    write(tmp_path, "a.pth")
    assert len(open_tensors(tmp_path)) == 2
    write(tmp_path, "b.pth")
    with pytest.raises(ConfigError, match=r"holds 2 files of weights \(a\.pth, b\.pth\)"):
        open_tensors(tmp_path)
    write(tmp_path, "model.safetensors")
    assert open_tensors(tmp_path).path.name == "model.safetensors"


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:  # tests may run as root, who may read everything
        raise PermissionError(13, "Permission denied")

    path = write(tmp_path, "w.pth")
    monkeypatch.setattr("reg2rg.models.tensors.open", refuse, raising=False)
    with pytest.raises(ConfigError, match=r"w\.pth: no permission to read it"):
        open_tensors(path)
