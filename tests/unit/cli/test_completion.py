from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from reg2rg.cli.completion import training_keys
from reg2rg.cli.listing import components
from reg2rg.cli.main import commands, main


def test_keys_and_names() -> None:
    keys = dict(training_keys(components()))
    assert {"CNN3D", "ViT3D"} <= set(keys["model.texture"])
    assert keys["model.llm"] == ["CausalLM"]
    assert "RadGenome" in keys["data.dataset"]
    assert {"model.optimizer.lr", "task.views.size", "data.read.hu", "trainer.max_epochs"} <= set(keys)
    assert {"model.texture.dim", "model.llm.lora", "data.dataset.root"} <= set(keys)


def test_bash_completes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "bash"]) == 0
    path = tmp_path / "reg2rg.bash"
    path.write_text(capsys.readouterr().out)
    ask = f"source {path}; COMP_WORDS=(reg2rg fit --model.tex); COMP_CWORD=2; _shtab_reg2rg; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False)
    assert "--model.texture" in done.stdout.split(), done.stderr
    ask = f"source {path}; COMP_WORDS=(reg2rg ''); COMP_CWORD=1; _shtab_reg2rg; echo ${{COMPREPLY[@]}}"
    done = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=False)
    assert {name.split()[0] for name in commands()} <= set(done.stdout.split()), done.stderr


@pytest.mark.parametrize("shell", ["zsh", "tcsh"])
def test_other_shells(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell]) == 0
    assert "reg2rg" in capsys.readouterr().out
