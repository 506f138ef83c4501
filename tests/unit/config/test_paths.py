"""Paths of a config hold from everywhere; what is a path is told by types alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from jsonargparse import ArgumentParser
from lightning.pytorch import Trainer

from reg2rg.config.imports import import_policy
from reg2rg.config.paths import absolute, make_absolute
from reg2rg.core.task import ReportTask
from reg2rg.core.types import PathInside, PathOrHubId, PathOrName, PathText, Place


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home/lm").mkdir(parents=True)
    (tmp_path / "work/here").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("~/a", "path", "home/a"),
        ("~//a", "path", "home/a"),  # what ${vars.folder}/a becomes where the folder is ~/
        ("a/b", "path", "work/a/b"),
        ("./a", "path", "work/a"),
        ("/a/b", "path", "/a/b"),
        ("s3://bucket/runs", "path", None),
        ("~nobody-of-this-name/a", "path", "work/~nobody-of-this-name/a"),
        ("", "path", None),
        ("~/lm", "hub", "home/lm"),
        ("here", "hub", "work/here"),
        ("./gone", "hub", "work/gone"),
        ("owner/model", "hub", None),
        ("gpt2", "hub", None),
        ("~/mine.yaml", "yaml", "home/mine.yaml"),
        ("mine.YML", "yaml", "work/mine.YML"),
        ("here", "yaml", None),  # a folder of a packaged set's name is no set
        ("~/labels", "inside", "home/labels"),
        ("labels/{id}", "inside", None),
    ],
)
def test_one_path(tmp_path: Path, text: str, kind: Any, expected: str | None) -> None:
    assert absolute(text, Place(kind)) == (text if expected is None else str(tmp_path / expected))


@dataclass(frozen=True)
class Record:
    file: PathText = "r"
    plain: str = "r"


class Part:
    def __init__(self, weights: PathText | None = None, name: str = "~/n") -> None: ...


class Whole:
    def __init__(
        self,
        plain: Path,
        store: PathText,
        lm: PathOrHubId,
        regions: PathOrName,
        below: PathInside | None,
        part: Part,
        parts: list[Part],
        files: list[PathText],
        named: dict[str, PathText],
        record: Record = Record(),
        text: str = "~/t",
    ) -> None: ...


def test_paths_are_found_by_type_at_any_depth(tmp_path: Path) -> None:
    part = {"class_path": f"{__name__}.Part", "init_args": {"weights": "~/w"}}
    given: dict[str, Any] = {
        "plain": "p", "store": "~/s", "lm": "~/lm", "regions": "mine.yaml", "below": "b", "part": part,
        "parts": [part, part], "files": ["a", "~/b"], "named": {"k": "v"}, "record": {"file": "~/f", "plain": "~/p"},
    }  # fmt: skip
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Whole, "model")
    parser.add_class_arguments(ReportTask, "task")
    parser.add_argument("--ckpt_path", type=str)
    with import_policy((__name__,)):
        config = parser.parse_object({"model": given, "task": {"regions": "own.yaml"}, "ckpt_path": "~/a.ckpt"})
        make_absolute(config, {"model": Whole, "task": ReportTask})
    home, work = tmp_path / "home", tmp_path / "work"
    found = config.as_dict()
    model = found["model"]
    assert [Path(str(model[key])) for key in ("plain", "store", "lm", "regions", "below")] == [
        work / "p", home / "s", home / "lm", work / "mine.yaml", Path("b")]  # fmt: skip
    assert [one["init_args"]["weights"] for one in (model["part"], *model["parts"])] == [str(home / "w")] * 3
    assert model["part"]["init_args"]["name"] == model["text"].replace("t", "n") == "~/n"
    assert (model["files"], model["named"]) == ([str(work / "a"), str(home / "b")], {"k": str(work / "v")})
    assert model["record"] == {"file": str(home / "f"), "plain": "~/p"}
    assert (found["task"]["regions"], found["ckpt_path"]) == (str(work / "own.yaml"), str(home / "a.ckpt"))


@pytest.mark.parametrize("word", ["best", "last", "hpc", "owner/model"])
def test_words_for_a_checkpoint_stay(word: str) -> None:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--ckpt_path", type=str)
    config = parser.parse_object({"ckpt_path": word})
    make_absolute(config, {})
    assert config["ckpt_path"] == word


def test_paths_of_lightnings_classes(tmp_path: Path) -> None:
    logger = {
        "class_path": "TensorBoardLogger",
        "init_args": {"save_dir": "~/r", "sub_dir": "s"},
    }
    keeper = {
        "class_path": "ModelCheckpoint",
        "init_args": {"dirpath": "c", "filename": "f"},
    }
    values: Mapping[str, Any] = {
        "default_root_dir": "~/runs", "logger": [logger], "callbacks": [keeper], "precision": "32-true"}  # fmt: skip
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Trainer, "trainer")
    config = parser.parse_object({"trainer": values})
    make_absolute(config, {"trainer": Trainer})
    found = config.as_dict()["trainer"]
    assert Path(found["default_root_dir"]) == tmp_path / "home/runs"
    assert Path(found["logger"][0]["init_args"]["save_dir"]) == tmp_path / "home/r"
    assert found["logger"][0]["init_args"]["sub_dir"] == "s"  # below save_dir
    assert Path(found["callbacks"][0]["init_args"]["dirpath"]) == tmp_path / "work/c"
    assert (found["callbacks"][0]["init_args"]["filename"], found["precision"]) == ("f", "32-true")
