"""The documentation is true: its Python runs, its commands run or parse, its files, links and modules exist.

Blocks of a page run in their order, in one folder that holds the demo's data at toy size; Python blocks share a
namespace. A YAML or CSV block with a ``title`` is written under that name. A block behind ``<!-- notest: reason -->``
is not run: it needs weights, GPUs or a network.
"""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import lightning
import pytest

from docs_blocks import ELSEWHERE, FENCE, ROOT, blocks, commands, title, toy
from reg2rg.cli.main import commands as commands_of_the_package
from reg2rg.cli.main import main

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NOTEST = {
    "audit.md": 3,
    "config.md": 1,
    "convert.md": 5,
    "ct_encoder.md": 2,
    "full_recipe.md": 1,
    "install.md": 2,
    "parity.md": 1,
    "performance.md": 1,
    "pretrained.md": 2,
    "published_code.md": 1,
    "quickstart.md": 1,
    "heads.md": 3,
    "scale.md": 1,
    "strategies.md": 1,
}
"""Blocks that are not run, by page; the others have none."""
NOT_OURS = {"git", "pip", "python3", "pre-commit", "tensorboard"}


def to_run(page: Path) -> list:
    return [block for block in blocks(page) if block.runs and (block.language in ("python", "bash") or title(block))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Path:
    """What the first commands of the quickstart leave, at toy size."""
    from reg2rg.core.task import INSTRUCTION
    from reg2rg.datasets import RadGenome
    from reg2rg.extras.phantom.writer import write_phantoms
    from reg2rg.extras.tiny_llm.build import build_tiny_llama
    from reg2rg.extras.tiny_llm.pretraining import Schedule
    from reg2rg.store.prepare import prepare

    root = tmp_path_factory.mktemp("docs")
    write_phantoms(root / "demo/data", studies=6, seed=0, size=(48, 48, 32), workers=0)
    dataset = RadGenome(str(root / "demo/data"))
    prepare(dataset, root / "demo/store", workers=0)
    reports = [study.reports for study in dataset.studies() if study.split == "train"]
    build_tiny_llama(
        reports,
        root / "demo/lm",
        hidden_size=32,
        layers=2,
        heads=2,
        instruction=INSTRUCTION,
        schedule=Schedule(steps=0),
    )
    return root


class ToyTrainer(lightning.Trainer):
    """One short batch of whatever a page trains."""

    def __init__(self, **arguments) -> None:
        toy = {
            "max_epochs": 1,
            "limit_train_batches": 1,
            "limit_val_batches": 1,
            "accelerator": "cpu",
            "logger": False,
            "enable_checkpointing": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
        }
        super().__init__(**{**arguments, **toy})


def test_what_is_not_run_is_counted() -> None:
    found = {page.name: sum(not block.runs for block in blocks(page)) for page in PAGES}
    assert {name: count for name, count in found.items() if count} == NOTEST


@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=pytest.mark.slow if page.name == "ablations.md" else (), id=page.name)
        for page in PAGES
        if to_run(page) and page.name not in ELSEWHERE
    ],
)
def test_page(page, demo, tmp_path, monkeypatch, components) -> None:
    folder = tmp_path / "work"
    shutil.copytree(demo, folder)
    monkeypatch.chdir(folder)
    namespace = {"__name__": page.stem}
    for block in to_run(page):
        place = f"{page.name}:{block.line}"
        if block.language == "python":
            code = compile("\n" * block.line + block.text, str(page), "exec")
            with monkeypatch.context() as patch:
                patch.setattr(lightning, "Trainer", ToyTrainer)
                exec(code, namespace)
        elif block.language == "bash":
            for words in commands(block.text):
                run(words, page, f"{place}: {shlex.join(words)}")
        else:
            Path(title(block)).write_text(block.text, encoding="utf-8")


def run(words: list[str], page: Path, place: str) -> None:
    program, *args = words
    name = Path(program).name
    if name == "reg2rg":
        code = main(toy(args, page))
        assert code == 0, f"{place}: exit code {code}"
    elif name == "make":
        targets = [word for word in args if "=" not in word]
        known = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert targets, place
        assert set(targets) <= set(known), f"{place}: Makefile has {known}"
    elif name == "python":
        assert (ROOT / args[0]).is_file(), f"{place}: no such script"
    else:
        assert name in NOT_OURS, f"{place}: neither run nor marked notest"


def test_the_file_tree_of_readme_is_complete() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    tree = re.search(r"<!-- tree -->\n```text\nsrc/reg2rg/\n(.*?)```", text, re.DOTALL)
    assert tree is not None
    described = {line.split()[0].rstrip("/"): line.split()[1:] for line in tree[1].splitlines()}
    assert all(len(words) > 3 for words in described.values()), described
    there = {path.parent.name for path in (ROOT / "src" / "reg2rg").glob("*/__init__.py")}
    assert set(described) == there, "python docs/make_tree.py"


@pytest.mark.parametrize("script", ["make_tree.py", "make_package.py"])
def test_what_is_made_from_the_package_is_up_to_date(script) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / script, "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_exist(page) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if not target.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_heading_stands_twice_and_no_figure_is_missing(page) -> None:
    """What a table that was pasted into its own draft leaves behind."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    sections = re.findall(r"^##? .*$", text, re.MULTILINE)
    assert len(sections) == len(set(sections)), sections
    names = re.findall(r"`[^`]*`|\b([A-Z]{2,}_[A-Z]{1,2})\b", text)
    assert not any(names), f"a placeholder: {sorted(filter(None, names))}"


def test_every_extra_is_on_the_page_of_installation() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = (ROOT / "docs/how-to/install.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", " ".join(re.findall(r"^\|([^|]*`[^|]*)\|", text, re.MULTILINE))))
    assert set(project["optional-dependencies"]) <= named


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = [path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")]
    assert not [page for page in pages if f": {page}\n" not in navigation]


def test_every_command_is_on_its_page() -> None:
    text = (ROOT / "docs/reference/cli.md").read_text(encoding="utf-8")
    assert not [name for name in commands_of_the_package() if f"`reg2rg {name}`" not in text]


def test_files_of_the_package_that_pages_name_exist() -> None:
    named = {(page.name, name) for page in PAGES for name in re.findall(r"`(reg2rg/[\w/.]*)`", page.read_text("utf-8"))}
    assert len(named) > 20
    assert not [(page, name) for page, name in sorted(named) if not (ROOT / "src" / name).exists()]


def test_messages_that_troubleshooting_quotes_are_in_the_source() -> None:
    """Symptoms begin a row, in backticks; ``...`` stands for what changes."""
    source = " ".join(
        " ".join(str(part.value) for part in ast.walk(node) if isinstance(part, ast.Constant))
        for path in (ROOT / "src/reg2rg").rglob("*.py")
        for node in ast.parse(path.read_text(encoding="utf-8")).body
    )
    page = (ROOT / "docs/how-to/troubleshooting.md").read_text(encoding="utf-8")
    rows = page[page.index("## Data") : page.index("## Something else")]
    cells = [cell for cell in re.findall(r"^\| ([^|]*)\|", rows, re.MULTILINE) if "`" in cell]
    quoted = [
        piece.strip(" ()") for cell in cells for text in re.findall(r"`([^`]+)`", cell) for piece in text.split("...")
    ]
    assert len(quoted) > 40
    assert not [piece for piece in quoted if len(piece) > 1 and " ".join(piece.split()) not in source]


def test_the_picture_of_readme_is_small() -> None:
    assert (ROOT / "docs/images/overview.png").stat().st_size < 200_000
