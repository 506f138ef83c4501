"""``reg2rg lm``: how long a language model is trained."""

import pytest
import yaml

from reg2rg.cli.main import main
from reg2rg.extras.phantom.writer import write_phantoms
from reg2rg.extras.tiny_llm.pretraining import WITH_CUES, Schedule


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    """A config of six phantoms."""
    root = tmp_path_factory.mktemp("phantoms")
    write_phantoms(root / "data", studies=6, size=(32, 32, 24), workers=0)
    data = {"dataset": {"class_path": "RadGenome", "init_args": {"root": str(root / "data")}}}
    (root / "mine.yaml").write_text(yaml.safe_dump({"data": {**data, "store": str(root / "store")}}))
    return str(root / "mine.yaml")


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ([], Schedule()),
        (["--cues"], WITH_CUES),
        (["--steps", "7"], Schedule(steps=7)),
        (["--cues", "--steps", "0"], Schedule(steps=0, tokens=WITH_CUES.tokens)),
    ],
)
def test_models_that_read_cues_are_trained_longer(words, wanted, config, tmp_path, monkeypatch) -> None:
    given = []
    monkeypatch.setattr("reg2rg.extras.tiny_llm.build.build_tiny_llama", lambda *_, **options: given.append(options))
    assert main(["lm", str(tmp_path / "lm"), "--config", config, *words]) == 0
    assert [one["schedule"] for one in given] == [wanted]


def test_help_has_the_steps_that_are_taken(capsys) -> None:
    assert main(["lm", "--help"]) == 0
    assert f"{Schedule().steps} by default, {WITH_CUES.steps} longer ones with --cues" in " ".join(
        capsys.readouterr().out.split()
    )
