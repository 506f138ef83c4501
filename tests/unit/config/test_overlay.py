from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from reg2rg.config.options import apply_options, split_config_options
from reg2rg.config.overlay import find_config, fold, packaged_configs, same_class
from reg2rg.config.reading import Tree, read_tree
from reg2rg.core.errors import ConfigError


@pytest.fixture
def folded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)

    def fold_texts(*texts: str, options: tuple[str, ...] = ()) -> Tree:
        names = [f"{position}.yaml" for position in range(len(texts))]
        for name, text in zip(names, texts, strict=True):
            Path(name).write_text(text)
        tree = fold(names)
        apply_options(tree, options)
        return tree

    return fold_texts


def test_later_file_wins_and_the_rest_stays(folded: Any) -> None:
    tree = folded("a: {b: 1, c: 2}\nd: 3\n", "a: {b: 4}\n")
    assert tree.values == {"a": {"b": 4, "c": 2}, "d": 3}


def test_lists_are_replaced_and_plus_appends(folded: Any) -> None:
    assert folded("a: [1, 2]\n", "a: [3]\n").values == {"a": [3]}
    tree = folded("a: [1, 2]\n", "a+: [3]\n", options=("--a+=4",))
    assert tree.values == {"a": [1, 2, 3, 4]}
    assert str(tree.origins["a", 2]) == "1.yaml:1"
    assert folded("b: 1\n", "a+: [3]\n", "a+: [4]\n").values == {"b": 1, "a+": [3, 4]}


BASE = "m: {class_path: ViT, init_args: {depth: 3}}\n"


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [
        ("m: {class_path: CNN}", {"class_path": "CNN"}),
        ("m: {class_path: CNN, init_args: {dim: 1}}", {"class_path": "CNN", "init_args": {"dim": 1}}),
        ("m: CNN", "CNN"),
        ("m: null", None),
        ("m: ViT", {"class_path": "ViT", "init_args": {"depth": 3}}),
        ("m: {class_path: ViT, init_args: {dim: 1}}", {"class_path": "ViT", "init_args": {"depth": 3, "dim": 1}}),
        ("m: {class_path: pkg.ViT}", {"class_path": "pkg.ViT", "init_args": {"depth": 3}}),
        ("m: {init_args: {depth: 4}}", {"class_path": "ViT", "init_args": {"depth": 4}}),
    ],
)
def test_another_class_starts_its_arguments_afresh(folded: Any, overlay: str, expected: Any) -> None:
    assert folded(BASE, overlay).values["m"] == expected


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("--m=CNN", "CNN"),
        ("--m.class_path=CNN", {"class_path": "CNN"}),
        ("--m.depth=5", {"class_path": "ViT", "init_args": {"depth": 5}}),
        ("--m.init_args.depth=5", {"class_path": "ViT", "init_args": {"depth": 5}}),
        ("--m.lora={rank: 2}", {"class_path": "ViT", "init_args": {"depth": 3, "lora": {"rank": 2}}}),
        ("--m=null", None),
    ],
)
def test_options_follow_the_same_rules(folded: Any, option: str, expected: Any) -> None:
    assert folded(BASE, options=(option,)).values["m"] == expected


def test_option_in_two_words_and_list_items(folded: Any) -> None:
    tree = folded("c: [{class_path: X, init_args: {k: 1}}]\n", options=("--c.0.k", "7", "--d.e", "1e-4"))
    assert tree.values == {"c": [{"class_path": "X", "init_args": {"k": 7}}], "d": {"e": 1e-4}}
    assert str(tree.origins["c", 0, "init_args", "k"]) == "command line"


def test_a_bare_name_can_be_refined(folded: Any) -> None:
    tree = folded("m: ViT\n", "m: {init_args: {depth: 2}}\n")
    assert tree.values["m"] == {"class_path": "ViT", "init_args": {"depth": 2}}


def test_origins_name_the_file_that_won(folded: Any) -> None:
    tree = folded("a:\n  b: 1\n  c: 2\n", "\n\na:\n  b: 4\n")
    assert str(tree.origins["a", "b"]) == "1.yaml:4"
    assert str(tree.origins["a", "c"]) == "0.yaml:3"
    assert str(tree.origin(("a", "b", "missing"))) == "1.yaml:4"


def test_base_is_folded_first_and_found_beside_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "root.yaml").write_text("a: 1\nb: 1\n")
    (tmp_path / "sub" / "top.yaml").write_text("base: root.yaml\nb: 2\n")
    monkeypatch.chdir(tmp_path)
    assert fold(["sub/top.yaml"]).values == {"a": 1, "b": 2}


def test_working_folder_before_packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "configs" in find_config("phantom.yaml").parts
    assert find_config("phantom") == find_config("phantom.yaml")
    (tmp_path / "phantom.yaml").write_text("{}")
    assert find_config("phantom.yaml") == Path("phantom.yaml")
    assert {"reg2rg.yaml", "reg2rg_24gb.yaml", "phantom.yaml", "ablations/no_geometry.yaml"} <= set(packaged_configs())


def test_config_options_in_every_spelling() -> None:
    args = ["--config", "a", "--config=b", "-c", "c", "-cd", "-c=e", "--x", "1"]
    assert split_config_options(args) == (["a", "b", "c", "d", "e"], ["--x", "1"])


def test_values_are_read_as_jsonargparse_reads_them(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("a: 5e-5\nb: 2020-01-01\nc: .5\nd: 1_000\ne: '3'\nf: yes\ng: 12:30\n<<: {h: 1}\n")
    values = read_tree(path).values
    assert values == {"a": 5e-5, "b": "2020-01-01", "c": 0.5, "d": 1000, "e": "3", "f": True, "g": 750, "h": 1}
    assert yaml.safe_load(yaml.safe_dump(values)) == values


def test_empty_file_is_an_empty_config(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("# nothing\n")
    assert read_tree(path).values == {}
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_tree(path)


def test_same_class() -> None:
    assert same_class("ViT", "a.b.ViT")
    assert not same_class("a.ViT", "b.ViT")
    assert not same_class("ViT", "ViT3D")


@pytest.mark.parametrize(
    "content", ["hunter2 is the secret\n", "user: x\n\thunter2: [\n", "[hunter2", "hunter2: a: b\n"]
)
def test_nothing_is_echoed_of_a_file_that_is_no_config(tmp_path, content):
    (tmp_path / "id_rsa").write_text(content)
    (tmp_path / "run.yaml").write_text(f"base: {tmp_path / 'id_rsa'}\n")
    with pytest.raises(ConfigError, match="id_rsa") as caught:
        fold([str(tmp_path / "run.yaml")])
    assert "hunter2" not in str(caught.value)
