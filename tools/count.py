"""Count the package: statements, docstrings, long functions, long files; hold them to limits.

    python tools/count.py                     of the working tree
    python tools/count.py --against 5aa25f5   beside another commit, with the change in statements
    python tools/count.py --check             exit status 1 if a limit is missed

A statement is one of the syntax tree, docstrings left out. What lies in `extras` is counted apart: examples, peers and
converters are no part of what a reader must know. Public is what has no leading underscore on its way from the module;
magic methods mean what they always mean and need no docstring. A function's lines run from its ``def`` to its last one.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PACKAGE = "src/reg2rg"
# `extras`, and where its modules were before it: in commits that lack it they are counted apart all the same.
EXTRAS = (
    "extras/",
    "data/phantom/",
    "convert/",
    *(f"language/{name}.py" for name in ("tiny", "documents", "lookup", "pretraining")),
    *(f"encoders/{name}.py" for name in ("ctvit", "m3d", "medvint", "swin2d", "codebook", "published_peers")),
    "encoders/published_swin.py",
    "cli/lm.py",
    "cli/convert.py",
)
LONG = 50
DOCSTRINGS, LONG_FUNCTIONS, FILE_LINES = 96.0, 0.9, 433

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass
class Count:
    """What was counted in some files.

    Attributes:
        statements: of the syntax tree.
        public: definitions that need a docstring.
        bare: names of those that have none.
        functions: with lambdas left out, methods and nested ones counted.
        long: names of those over the limit, with their lines.
        files: lines of each.
    """

    statements: int = 0
    public: int = 0
    bare: list[str] = field(default_factory=list)
    functions: int = 0
    long: list[tuple[int, str]] = field(default_factory=list)
    files: list[tuple[int, str]] = field(default_factory=list)

    @property
    def documented(self) -> float:
        """Per cent of public definitions that have a docstring."""
        return 100 - 100 * len(self.bare) / max(1, self.public)

    @property
    def long_share(self) -> float:
        """Per cent of functions over the limit."""
        return 100 * len(self.long) / max(1, self.functions)

    def add(self, path: str, text: str) -> None:
        """Count a file in."""
        tree = ast.parse(text)
        self.files.append((len(text.splitlines()), path))
        for node in ast.walk(tree):
            self.statements += isinstance(node, ast.stmt) and not _is_text(node)
            if isinstance(node, Function):
                self.functions += 1
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > LONG:
                    self.long.append((lines, f"{path}:{node.lineno} {node.name}"))
        for place, node in _public(tree, path):
            self.public += 1
            if ast.get_docstring(node) is None:
                self.bare.append(place)


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _public(
    node: ast.Module | ast.ClassDef | Function, place: str
) -> Iterator[tuple[str, ast.Module | ast.ClassDef | Function]]:
    yield place, node
    if isinstance(node, Function):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | Function) and not child.name.startswith("_"):
            yield from _public(child, f"{place}:{child.lineno} {child.name}")


def count(files: Iterator[tuple[str, str]]) -> dict[str, Count]:
    """The package itself and its extras."""
    found = {"package": Count(), "extras": Count()}
    for path, text in files:
        own = not path.removeprefix(f"{PACKAGE}/").startswith(EXTRAS)
        found["package" if own else "extras"].add(path, text)
    return found


def working_tree() -> Iterator[tuple[str, str]]:
    """Path and text of each module as it lies here."""
    root = Path(__file__).resolve().parents[1]
    for path in sorted((root / PACKAGE).rglob("*.py")):
        yield path.relative_to(root).as_posix(), path.read_text(encoding="utf-8")


def of_commit(commit: str) -> Iterator[tuple[str, str]]:
    """Path and text of each module in a commit."""
    for path in _git("ls-tree", "-r", "--name-only", commit, "--", PACKAGE).splitlines():
        if path.endswith(".py"):
            yield path, _git("show", f"{commit}:{path}")


def _git(*words: str) -> str:
    root = Path(__file__).resolve().parents[1]
    return subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, encoding="utf-8").stdout


def show(found: dict[str, Count], title: str) -> None:
    """Print a table."""
    print(f"{title:28}{'statements':>12}{'docstrings':>12}{f'over {LONG}':>10}{'files':>8}{'longest file':>14}")
    for name, part in found.items():
        shares = f"{part.documented:10.1f} %{part.long_share:8.2f} %"
        longest = max(part.files, default=(0, ""))[0]
        print(f"{name:28}{part.statements:12,}{shares}{len(part.files):8}{longest:14}")


def missed(found: dict[str, Count]) -> Iterator[str]:
    """What is over its limit, package and extras together."""
    parts = found.values()
    both = Count(
        public=sum(part.public for part in parts),
        bare=[place for part in parts for place in part.bare],
        functions=sum(part.functions for part in parts),
        long=sorted(entry for part in parts for entry in part.long),
        files=sorted(entry for part in parts for entry in part.files),
    )
    if both.documented < DOCSTRINGS:
        yield f"public docstrings: {both.documented:.1f} %, expected {DOCSTRINGS} %. Without: {', '.join(both.bare)}"
    if both.long_share > LONG_FUNCTIONS:
        names = ", ".join(f"{place} ({lines})" for lines, place in both.long)
        yield f"functions over {LONG} lines: {both.long_share:.2f} %, expected at most {LONG_FUNCTIONS} %: {names}"
    for lines, path in both.files:
        if lines > FILE_LINES:
            yield f"{path}: {lines} lines, expected at most {FILE_LINES}. Fix: split it where the subject changes"


def main() -> int:
    """Count, compare, check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", metavar="COMMIT", help="count this commit too")
    parser.add_argument("--check", action="store_true", help="hold the limits")
    options = parser.parse_args()
    now = count(working_tree())
    show(now, "working tree")
    if options.against:
        before = count(of_commit(options.against))
        show(before, options.against)
        for name, part in now.items():
            earlier = before[name].statements
            change = part.statements - earlier
            print(f"{name}: {change:+,} statements ({100 * change / max(1, earlier):+.1f} %)")
    mistakes = list(missed(now)) if options.check else []
    for line in mistakes:
        print(line, file=sys.stderr)
    return int(bool(mistakes))


if __name__ == "__main__":
    sys.exit(main())
