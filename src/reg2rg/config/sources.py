"""What classes take, read from their source text: nothing is imported, so that torch need not be.

A component is a class decorated with ``@SOMETHING.register``, where ``SOMETHING = Registry("kind", ...)``. Tests hold
what is read here against the registries and the classes themselves.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import PathFinder
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

from reg2rg.core.registry import PLUGIN_GROUP

SECTIONS = {
    "task": ("reg2rg.core.task", "ReportTask"),
    "model": ("reg2rg.training.module", "Reg2RG"),
    "data": ("reg2rg.data.datamodule", "RegionReportDataModule"),
    "trainer": ("lightning.pytorch.trainer.trainer", "Trainer"),
}
"""Section of a trainer config -> module and name of the class that it fills."""


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


def components() -> list[Component]:
    """Every component of the package and of the installed plug-ins, by kind and name."""
    modules = _registering()
    kinds = {variable: kind for tree in modules.values() for variable, kind, _ in _registries(tree)}
    found = [item for name, tree in modules.items() for item in _registered(tree, name, kinds)]
    return sorted(found, key=lambda item: (item.kind, item.name))


def base_classes() -> dict[str, str]:
    """Name of the class that all components of a kind extend -> the kind."""
    return {base: kind for tree in _registering().values() for _, kind, base in _registries(tree)}


def _registering() -> dict[str, ast.Module]:
    """The modules that have a registry or something registered."""
    return {**_registering_here(), **_with_registry(_plugin_modules())}


@cache
def _registering_here() -> dict[str, ast.Module]:
    return _with_registry(_own_modules())


def _with_registry(modules: Iterable[tuple[str, Path]]) -> dict[str, ast.Module]:
    texts = ((name, path.read_bytes()) for name, path in modules)
    return {name: ast.parse(text) for name, text in texts if b".register" in text or b"Registry(" in text}


def constructor_arguments(module: str, name: str) -> tuple[Argument, ...]:
    """Arguments of a class's constructor, or the fields of a dataclass, without importing it."""
    node = _classes(_parsed(module))[name]
    return tuple(_fields(node) if _is_record(node) else _arguments(node))


def closed_arguments(module: str, name: str) -> tuple[Argument, ...] | None:
    """All arguments that a class takes, records among them with their fields.

    ``None`` where the source does not tell: no such class in it, an inherited constructor, or one that takes others.
    """
    try:
        tree = _parsed(module)
    except (LookupError, SyntaxError):
        return None
    node = _classes(tree).get(name)
    if node is None:
        return None
    if _is_record(node):
        plain = not node.bases and "init=False" not in ast.unparse(node)
        return tuple(_nested(field, tree) for field in _fields(node)) if plain else None
    own = next((item for item in node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"), None)
    if own is None or own.args.vararg or own.args.kwarg:
        return None
    return tuple(_nested(argument, tree) for argument in _arguments(node))


def method_arguments(module: str, name: str, method: str) -> tuple[str, ...]:
    """Names of the arguments of a class's method, without ``self``."""
    body = _classes(_parsed(module))[name].body
    given = next(item.args for item in body if isinstance(item, ast.FunctionDef) and item.name == method)
    return tuple(argument.arg for argument in (*given.args[1:], *given.kwonlyargs))


def imported_from(module: str) -> dict[str, str]:
    """Name -> module, of what a module brings in by ``from MODULE import NAME``."""
    nodes = (node for node in _parsed(module).body if isinstance(node, ast.ImportFrom) and not node.level)
    return {alias.asname or alias.name: node.module or "" for node in nodes for alias in node.names}


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


def _registries(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    """Name of the variable, kind and base class, for each ``NAME = Registry("kind", BASE)``."""
    for node in tree.body:
        if not isinstance(node, ast.Assign | ast.AnnAssign):
            continue
        targets, value = [node.target] if isinstance(node, ast.AnnAssign) else node.targets, node.value
        if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "Registry":
            kind = value.args[0]
            for target in targets:
                if isinstance(target, ast.Name) and isinstance(kind, ast.Constant):
                    yield target.id, str(kind.value), ast.unparse(value.args[1])


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
