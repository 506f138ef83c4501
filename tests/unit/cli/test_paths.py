"""``~`` in options, whatever the shell left of it: found by the types of arguments, so that none is forgotten."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from reg2rg.cli.main import commands, load_target, main
from reg2rg.cli.paths import place, place_or_name
from reg2rg.config.overlay import find_config
from reg2rg.core.errors import ConfigError

OF_PATHS = ("FILE", "FOLDER", "DIR", "PATH", "CSV", "OUT", "SOURCE", "PREDICTIONS", "SET")


def parsers() -> list[argparse.ArgumentParser]:
    """Those of all commands, as completion builds them or as their modules keep them."""
    found = [load_target(command.parser)() for command in commands().values() if command.parser]
    for command in commands().values():
        module = sys.modules.get(command.target.partition(":")[0])
        build = getattr(module, "_parser", None)
        if build is not None and not build.__code__.co_argcount:
            found.append(build())
    return found


def test_every_path_of_every_command_is_read_as_one() -> None:
    for command in commands().values():
        load_target(command.target)
    actions = [action for parser in parsers() for action in parser._actions]
    assert not [action.dest for action in actions if action.type is Path]
    named = [action for action in actions if action.metavar in OF_PATHS and action.dest not in ("config", "base")]
    assert len(named) > 20
    assert {action.type for action in named} == {place, place_or_name}


def test_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert place("~/a") == tmp_path / "a"
    assert place_or_name("~/a") == str(tmp_path / "a")
    assert place_or_name("owner/model") == "owner/model"
    (tmp_path / "c.yaml").write_text("base: ~/b.yaml\n")
    (tmp_path / "b.yaml").write_text("{}\n")
    assert find_config("~/c.yaml") == tmp_path / "c.yaml"
    with pytest.raises(ConfigError, match="no config file"):
        find_config("~/d.yaml")
    assert main(["data", "phantom", "~/made", "--studies", "1", "--size", "48", "48", "32"]) == 0
    capsys.readouterr()
    assert (tmp_path / "made/radgenome_files").is_dir()
