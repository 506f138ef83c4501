"""From Python the good line is the last one, and no traceback of another library stands before it."""

import traceback
from pathlib import Path

import pytest

from reg2rg.core.errors import Reg2RGError
from reg2rg.core.hub import local_folder
from reg2rg.core.regions import load_region_set


def no_yaml(folder: Path) -> None:
    (folder / "bad.yaml").write_text("name: [x\n")
    load_region_set(folder / "bad.yaml")


def two_of_a_name(folder: Path) -> None:
    (folder / "twice.yaml").write_text("name: x\nregions: [a, a]\n")
    load_region_set(folder / "twice.yaml")


def no_hub(folder: Path) -> None:
    local_folder("nobody/nothing", "model")


def no_scan(folder: Path) -> None:
    from reg2rg.scans.read import read_volume

    read_volume(folder / "gone.nii.gz")


def cut_scan(folder: Path) -> None:
    from reg2rg.scans.read import read_volume

    (folder / "cut.nii.gz").write_bytes(b"\x1f\x8b\x08\x00\x00\x00")
    read_volume(folder / "cut.nii.gz")


def no_model(folder: Path) -> None:
    from reg2rg import Reg2RG

    Reg2RG.from_pretrained(folder / "gone")


def no_tensors(folder: Path) -> None:
    from reg2rg.models.tensors import open_tensors

    (folder / "w.safetensors").write_bytes(b"noise")
    open_tensors(folder / "w.safetensors")


def no_language_model(folder: Path) -> None:
    from reg2rg.models.llm.causal_lm import CausalLM

    CausalLM(str(folder))


@pytest.mark.parametrize(
    "mistake",
    [no_yaml, two_of_a_name, no_hub, no_scan, cut_scan, no_model, no_tensors, no_language_model],
    ids=lambda function: function.__name__,
)
def test_one_traceback(mistake, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(Reg2RGError) as caught:
        mistake(tmp_path)
    shown = "".join(traceback.format_exception(caught.value))
    assert shown.count("Traceback (most recent call last)") == 1
    assert str(caught.value) in shown
