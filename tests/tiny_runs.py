"""What tests of whole programs train on."""

from __future__ import annotations

from pathlib import Path

from reg2rg.cli.main import main


def make_phantoms(root: Path, own: str, two: str) -> Path:
    """Six phantoms, their store and a tiny language model, `own.yaml` that names them, and `two.yaml`."""
    (root / "own.yaml").write_text(own.replace("ROOT", str(root)))
    (root / "two.yaml").write_text(two)
    config = ["-c", "phantom.yaml", "-c", str(root / "own.yaml")]
    for command in (
        ["data", "phantom", str(root / "data"), "--studies", "6", "--size", "48", "48", "32", "--workers", "1"],
        ["data", "prepare", *config, "--workers", "1"],
        ["lm", str(root / "lm"), *config, "--steps", "0", "--hidden_size", "32", "--layers", "2", "--heads", "2"],
    ):
        assert main(command) == 0
    return root
