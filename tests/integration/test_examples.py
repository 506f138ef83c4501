"""Every script of examples/ runs as it is written, with its toy defaults."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.py"))
LEAVES = {
    "own_dataset": ("check/check.json", "store/index.json"),
    "plugin_encoder": ("runs/checkpoints/last.ckpt",),
    "predict_one_scan": ("val*.json", "val*.html"),
    "region_maps": ("regions.pt",),
    "swap_encoder": ("store/index.json",),
    "train_on_phantoms": ("predictions/predictions.csv", "checkpoints/last.ckpt"),
}


def test_all_are_listed() -> None:
    assert [path.stem for path in EXAMPLES] == sorted(LEAVES)
    for path in EXAMPLES:
        assert len(path.read_text().splitlines()) < 80, f"{path.name}: examples stay under 80 lines"


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example(path, tmp_path, monkeypatch, components) -> None:
    out = tmp_path / "out"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", [str(path), "--out", str(out)])
    try:
        runpy.run_path(str(path), run_name="__main__")
    finally:
        sys.modules.pop("mylab_encoders", None)
    for file in LEAVES[path.stem]:
        assert any(out.glob(file)), f"{path.name} did not write {file}"
