"""``reg2rg convert`` as a user meets it: one message and code 2 for every mistake, sums that two sites can compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

from published_files import TEXTURE, fill, nested, perceiver_shapes
from reg2rg.cli.main import main
from reg2rg.extras.convert import FORMATS


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    torch.save(fill(TEXTURE.shapes()), folder / "RadFM_vit3d.pth")
    torch.save(nested(fill(perceiver_shapes()), "perceiver", "fc"), folder / "RadFM_perceiver_fc.pth")
    return folder


@pytest.fixture
def run(capsys):
    def call(*words):
        code = main(["convert", *map(str, words)])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


def test_converts(run, files, tmp_path):
    code, out, err = run(files / "RadFM_vit3d.pth", "--from", "radfm-vit3d", "--to", tmp_path / "out")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == (
        "RadFM_vit3d.pth: 141 keys: 137 kept; 4 used for the one-channel patch embedding (equal channels folded)"
    )
    assert lines[1].startswith("note: sizes differ from the published ones: dim 12 (published 768)")
    assert lines[2] == f"written: {tmp_path / 'out'}, 141 tensors"
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_check_alone_writes_nothing(run, files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = run(files / "RadFM_perceiver_fc.pth", "--from", "radfm-perceiver", "--check")
    assert code == 0
    assert not list(tmp_path.iterdir())
    lines = out.splitlines()
    assert len(lines) == 1 + 71 + 1
    assert lines[1].split()[:3] == ["fc.bias", "7", "float32"]
    assert lines[-1].startswith("71 tensors, ")
    assert run(files / "RadFM_perceiver_fc.pth", "--from", "radfm-perceiver", "--check")[1] == out


def test_check_of_what_is_written(run, files, tmp_path):
    words = (files / "RadFM_vit3d.pth", "--from", "radfm-vit3d", "--to", tmp_path / "out", "--check")
    code, out, _ = run(*words)
    assert code == 0
    assert sum(line.startswith("141 tensors, ") for line in out.splitlines()) == 2
    assert out.splitlines()[-1] == "every written tensor is the one that follows from the file"


def test_two_sites_compare(run, files, tmp_path):
    vit = files / "RadFM_vit3d.pth"
    assert run(vit, "--from", "radfm-vit3d", "--check", "--sums", tmp_path / "here.json")[0] == 0
    code, out, _ = run(vit, "--from", "radfm-vit3d", "--check", "--against", tmp_path / "here.json")
    assert (code, out.splitlines()[-1]) == (0, "the same tensors as in here.json, to the last byte")
    changed = fill(TEXTURE.shapes())
    changed["pos_embedding.col_embed.weight"][3, 1] += 1e-3
    torch.save(changed, tmp_path / "changed.pth")
    code, out, _ = run(
        tmp_path / "changed.pth", "--from", "radfm-vit3d", "--check", "--against", tmp_path / "here.json"
    )
    assert code == 1
    assert out.splitlines()[-1].startswith("pos_embedding.col_embed.weight: 16x4 float32 sum ")
    assert json.loads((tmp_path / "here.json").read_text())["file"] == "RadFM_vit3d.pth"


def test_every_mistake_is_one_message(run, files, tmp_path):
    vit, out = files / "RadFM_vit3d.pth", tmp_path / "out"
    torch.save({"x": print}, tmp_path / "code.pth")
    (tmp_path / "cut.pth").write_bytes(vit.read_bytes()[:5000])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "kept").touch()
    mistakes = {
        (vit, "--from", "radfm-vit3d"): "neither --to FOLDER nor --check is given",
        (vit, "--from", "radfm-vit3d", "--to", out, "--sums", "x.json"): "--sums and --against go with --check",
        (vit, "--from", "radfm-vit", "--to", out): "Did you mean 'radfm-vit3d'",
        (vit, "--from", "radfm-perceiver", "--to", out): "It looks like RadFM_vit3d.pth",
        (tmp_path / "none.pth", "--from", "radfm-vit3d", "--to", out): "no such file",
        (tmp_path / "code.pth", "--from", "radfm-vit3d", "--to", out): "code.pth: holds more than tensors",
        (tmp_path / "cut.pth", "--from", "radfm-vit3d", "--to", out): "it is cut short",
        (vit, "--from", "radfm-vit3d", "--to", tmp_path / "full"): "the folder holds something",
        (vit, "--from", "radfm-vit3d", "--check", "--against", vit): "cannot be read as sums",
    }
    for words, message in mistakes.items():
        code, printed, err = run(*words)
        assert code == 2, words
        assert message in err
        assert err.startswith("error: ")
        assert len(err.splitlines()) == 1
        assert "written" not in printed
    assert not out.exists()


def test_format_is_required(capsys, files):
    assert main(["convert", str(files / "RadFM_vit3d.pth"), "--check"]) == 2
    assert "--from" in capsys.readouterr().err


def test_help_names_every_format(capsys):
    assert main(["convert", "--help"]) == 0
    words = capsys.readouterr().out.replace("|", " ").split()
    assert set(FORMATS) <= set(words)


def test_an_interrupt_leaves_nothing(files, tmp_path):
    """A real SIGINT while the folder is being written."""
    code = (
        "import os, signal, sys; from reg2rg.cli.main import main; import reg2rg.extras.convert.writing as w\n"
        "def stop(*a, **k): os.kill(os.getpid(), signal.SIGINT)\n"
        "w.write_safetensors = stop\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    words = ["convert", str(files / "RadFM_vit3d.pth"), "--from", "radfm-vit3d", "--to", str(tmp_path / "out")]
    run = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, env=os.environ)
    assert run.returncode == 130
    assert "interrupted" in run.stderr
    assert not list(tmp_path.iterdir())
