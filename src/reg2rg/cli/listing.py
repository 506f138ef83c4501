"""``reg2rg list [kind]``: the components, read from the source text.

Importing the components would import torch and take seconds. Their source says the same: a class decorated with
``@SOMETHING.register``, where ``SOMETHING = Registry("kind", ...)``. A test holds this list against the registries.
"""

from __future__ import annotations

import argparse
import ast
import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from reg2rg.cli.main import Invocation
from reg2rg.config.overlay import packaged_configs, packaged_folder
from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import PLUGIN_GROUP, did_you_mean

CONFIGS = "config"


@dataclass(frozen=True, slots=True)
class Argument:
    """A constructor argument as written: its annotation and default are source text, ``""`` for none."""

    name: str
    annotation: str
    default: str

    def __str__(self) -> str:
        annotation = f": {self.annotation}" if self.annotation else ""
        return f"{self.name}{annotation}{f' = {self.default}' if self.default else ''}"


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
    parser = argparse.ArgumentParser(prog="reg2rg list", description="Components, their arguments, packaged configs.")
    parser.add_argument("kind", nargs="?", help="show one kind only: encoder, metric, dataset, config, ...")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    options = parser.parse_args(list(invocation.args))
    found = components()
    kinds = sorted({component.kind for component in found})
    wanted = _kind(options.kind, [*kinds, CONFIGS])
    shown = [component for component in found if wanted in (None, component.kind)]
    configs = {name: summary(name) for name in packaged_configs()} if wanted in (None, CONFIGS) else {}
    if options.json:
        json.dump({"components": [asdict(item) for item in shown], "configs": configs}, sys.stdout, indent=2)
        sys.stdout.write("\n")
        return 0
    for kind in [kind for kind in kinds if wanted in (None, kind)]:
        sys.stdout.write(f"{kind}\n")
        for component in shown:
            if component.kind == kind:
                sys.stdout.write(f"  {component.name}: {component.summary}\n")
                sys.stdout.writelines(f"      {argument}\n" for argument in component.arguments)
    if configs:
        sys.stdout.write(f"{CONFIGS}\n")
        sys.stdout.writelines(f"  {name}: {text}\n" for name, text in configs.items())
    return 0


def _kind(word: str | None, known: list[str]) -> str | None:
    if word is None:
        return None
    for kind in known:
        if word.lower() in (kind, f"{kind}s"):
            return kind
    raise ConfigError(f"there is no kind '{word}'.{did_you_mean(word, known)} Kinds: {', '.join(known)}.")


def summary(config: str) -> str:
    """First comment line of a packaged config."""
    with open(packaged_folder() / config, encoding="utf-8") as stream:
        first = stream.readline()
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
    """Constructor arguments of a class of this package, without importing it."""
    return tuple(_arguments(_class(module, name)))


def class_arguments(module: str, name: str) -> tuple[Argument, ...]:
    """Fields of a dataclass of this package, without importing it."""
    return tuple(
        Argument(item.target.id, ast.unparse(item.annotation), ast.unparse(item.value) if item.value else "")
        for item in _class(module, name).body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
    )


def _class(module: str, name: str) -> ast.ClassDef:
    path = Path(str(files("reg2rg"))).joinpath(*module.split(".")[1:]).with_suffix(".py")
    for node in ast.parse(path.read_bytes()).body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return node
    raise LookupError(f"{module} has no class {name}")


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
        top, *rest = module.split(".")
        spec = PathFinder.find_spec(top)
        if spec is None or spec.origin is None:
            continue
        path = Path(spec.origin)
        if rest:
            path = path.parent.joinpath(*rest)
            path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path.suffix == ".py" and path.is_file():
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
                    yield Component(
                        kinds[registry], node.name, lines[0] if lines else "", tuple(_arguments(node)), module
                    )


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
