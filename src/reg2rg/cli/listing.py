"""``reg2rg list [kind]``: components, region sets and packaged configs; components are read from the source text.

Importing the components would import torch and take seconds. Their source says the same: a class decorated with
``@SOMETHING.register``, where ``SOMETHING = Registry("kind", ...)``. A test holds this list against the registries.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from reg2rg.cli.main import Invocation
from reg2rg.config.overlay import packaged_configs, packaged_folder
from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import Region, load_region_set, packaged_region_sets
from reg2rg.core.registry import PLUGIN_GROUP, did_you_mean

CONFIGS = "config"
REGION_SETS = "region_set"


@dataclass(frozen=True, slots=True)
class Argument:
    """A constructor argument as written: its annotation and default are source text, ``""`` for none.

    Attributes:
        name: as written.
        annotation: as written.
        default: as written.
        arguments: fields of the record that the annotation names, if it names one.
    """

    name: str
    annotation: str
    default: str
    arguments: tuple[Argument, ...] = ()

    def __str__(self) -> str:
        annotation = f": {self.annotation}" if self.annotation else ""
        return f"{self.name}{annotation}{f' = {self.default}' if self.default else ''}"

    def lines(self, indent: int) -> Iterator[str]:
        """The argument, and below it, indented further, the fields of its record."""
        yield f"{' ' * indent}{self}\n"
        for field in self.arguments:
            yield from field.lines(indent + 4)


@dataclass(frozen=True, slots=True)
class Component:
    """A registered class as its source describes it."""

    kind: str
    name: str
    summary: str
    arguments: tuple[Argument, ...]
    module: str


def run(invocation: Invocation) -> int:
    """Run ``reg2rg list``; see `reg2rg.cli.main`."""
    parser = argparse.ArgumentParser(
        prog="reg2rg list", description="Components and their arguments, region sets, packaged configs."
    )
    found = components()
    kinds = sorted({component.kind for component in found})
    known = [*kinds, REGION_SETS, CONFIGS]
    parser.add_argument("kind", nargs="?", help=f"show one kind only: {', '.join(known)}")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args(list(invocation.args))
    wanted = _kind(options.kind, known)
    shown = [component for component in found if wanted in (None, component.kind)]
    region_sets = [load_region_set(name) for name in packaged_region_sets() if wanted in (None, REGION_SETS)]
    configs = {name: summary(name) for name in packaged_configs()} if wanted in (None, CONFIGS) else {}
    if options.json:
        sets = {item.name: [asdict(region) for region in item] for item in region_sets}
        table = {"components": [asdict(item) for item in shown], "region_sets": sets, "configs": configs}
        json.dump(table, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    for kind in [kind for kind in kinds if wanted in (None, kind)]:
        sys.stdout.write(f"{kind}\n")
        for component in shown:
            if component.kind == kind:
                sys.stdout.write(f"  {component.name}: {component.summary}\n")
                sys.stdout.writelines(line for argument in component.arguments for line in argument.lines(6))
    if region_sets:
        sys.stdout.write(f"{REGION_SETS}\n")
    for item in region_sets:
        sys.stdout.write(f"  {item.name}: {len(item)} regions\n")
        sys.stdout.writelines(f"      {_described(region)}\n" for region in item)
    if configs:
        sys.stdout.write(f"{CONFIGS}\n")
        sys.stdout.writelines(f"  {name}: {text}\n" for name, text in configs.items())
    return 0


def _described(region: Region) -> str:
    """One line: the region's name, its other spellings, and whether TotalSegmentator's task ``total`` has it."""
    also = f" (also {', '.join(region.aliases)})" if region.aliases else ""
    return f"{region.name}{also}: {len(region.totalsegmentator) or 'no'} label(s) of TotalSegmentator"


def _kind(word: str | None, known: list[str]) -> str | None:
    if word is None:
        return None
    for kind in known:
        if word.lower().replace("-", "_") in (kind, f"{kind}s"):
            return kind
    raise ConfigError(f"there is no kind '{word}'.{did_you_mean(word, known)} Kinds: {', '.join(known)}.")


def summary(config: str) -> str:
    """First comment line of a packaged config."""
    first = (packaged_folder() / config).read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""


def components() -> list[Component]:
    """Every component of the package and of the installed plug-ins, by kind and name."""
    texts = ((name, path.read_bytes()) for name, path in (*_own_modules(), *_plugin_modules()))
    modules = {name: ast.parse(text) for name, text in texts if b".register" in text or b"Registry(" in text}
    kinds: dict[str, str] = {}
    for tree in modules.values():
        kinds.update(_registries(tree))
    found = [item for name, tree in modules.items() for item in _registered(tree, name, kinds)]
    return sorted(found, key=lambda item: (item.kind, item.name))


def constructor_arguments(module: str, name: str) -> tuple[Argument, ...]:
    """Arguments of a class's constructor, or the fields of a dataclass, without importing it."""
    node = _classes(_parsed(module))[name]
    return tuple(_fields(node) if _is_record(node) else _arguments(node))


def _source(module: str) -> Path | None:
    """The file of a module or folder, found without importing anything; ``None`` if it is not installed."""
    top, *rest = module.split(".")
    spec = PathFinder.find_spec(top)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent.joinpath(*rest) if rest else Path(spec.origin)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return path if path.is_file() else None


@cache
def _parsed(module: str) -> ast.Module:
    path = _source(module)
    if path is None:
        raise LookupError(f"{module} is not installed")
    return ast.parse(path.read_bytes())


def _classes(tree: ast.Module) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}


def _own_modules() -> Iterator[tuple[str, Path]]:
    root = Path(str(files("reg2rg")))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] not in ("cli", "config", "page"):
            yield ".".join(("reg2rg", *parts)), path


def _plugin_modules() -> Iterator[tuple[str, Path]]:
    """Source files of the modules that plug-ins register, found without importing anything."""
    for entry in entry_points(group=PLUGIN_GROUP):
        module = entry.value.partition(":")[0]
        path = _source(module)
        if path is not None:
            yield module, path


def _registries(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Name of the variable and kind, for each ``NAME = Registry("kind", ...)``."""
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets, value = [node.target] if isinstance(node, ast.AnnAssign) else node.targets, node.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Registry":
            kind = value.args[0]
            for target in targets:
                if isinstance(target, ast.Name) and isinstance(kind, ast.Constant):
                    yield target.id, str(kind.value)


def _registered(tree: ast.Module, module: str, kinds: dict[str, str]) -> Iterator[Component]:
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        for decorator in node.decorator_list:
            if isinstance(decorator, ast.Attribute) and decorator.attr == "register":
                owner = decorator.value
                registry = owner.id if isinstance(owner, ast.Name) else getattr(owner, "attr", "")
                if registry in kinds:
                    lines = (ast.get_docstring(node) or "").splitlines()
                    arguments = tuple(_nested(argument, tree) for argument in _arguments(node))
                    yield Component(kinds[registry], node.name, lines[0] if lines else "", arguments, module)


def _nested(argument: Argument, tree: ast.Module) -> Argument:
    """`argument` with the fields of the record that its annotation names: one of its module, or imported from ours."""
    for word in re.findall(r"[A-Z]\w*", argument.annotation):
        sources = (node for node in tree.body if isinstance(node, ast.ImportFrom))
        modules = [node.module or "" for node in sources if any(alias.name == word for alias in node.names)]
        home = next((_parsed(module) for module in modules if module.startswith("reg2rg.")), tree)
        record = _classes(home).get(word)
        if record is not None and _is_record(record):
            return replace(argument, arguments=tuple(_nested(field, home) for field in _fields(record)))
    return argument


def _is_record(node: ast.ClassDef) -> bool:
    return any("dataclass" in ast.unparse(item) for item in node.decorator_list)


def _fields(record: ast.ClassDef) -> Iterator[Argument]:
    for item in record.body:
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            yield Argument(item.target.id, ast.unparse(item.annotation), ast.unparse(item.value) if item.value else "")


def _arguments(node: ast.ClassDef) -> Iterator[Argument]:
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            given = item.args
            positional = [*given.posonlyargs, *given.args][1:]
            defaults = [None] * (len(positional) - len(given.defaults)) + list(given.defaults)
            for argument, default in (
                *zip(positional, defaults, strict=True),
                *zip(given.kwonlyargs, given.kw_defaults, strict=True),
            ):
                annotation = ast.unparse(argument.annotation) if argument.annotation else ""
                yield Argument(argument.arg, annotation, ast.unparse(default) if default is not None else "")
