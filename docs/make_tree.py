"""Write the file tree of README: one line a module, its first docstring sentence.

python docs/make_tree.py          writes it into README.md
python docs/make_tree.py --check  says what is out of date, exit code 1
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "reg2rg"
BEGIN, END = "<!-- tree -->\n```text\n", "```\n<!-- /tree -->"
WIDTH, COLUMN = 118, 26

# Files first, in the order of the data's way; packages follow in theirs. What is new and not named here comes last.
ORDER = (
    "types registry regions report errors files labels records alignment model optimization training checkpoints guard "
    "half_precision monitor predict projectors testing"
)
PACKAGES = "data encoders language metrics config cli page"
DATA = (
    "inflate nifti grid volumes placement masks datasets phantom check check_study check_result check_report "
    "check_overlays prepare prepare_study parallel memory detail pooling views device_views scaling store container "
    "codecs store_files store_index prompt order samples batch loader datamodule"
)


def modules() -> list[Path]:
    """Modules and packages of the top two levels, in the order of the tree; packages before what they hold."""
    top = [path for path in PACKAGE.iterdir() if _counts(path)]
    found: list[Path] = []
    for path in sorted(top, key=lambda p: (p.is_dir(), _place(p, PACKAGES if p.is_dir() else ORDER))):
        found.append(path)
        if path.is_dir():
            found += sorted((p for p in path.iterdir() if _counts(p)), key=lambda p: _place(p, DATA))
    return found


def _counts(path: Path) -> bool:
    if path.is_dir():
        return (path / "__init__.py").exists()
    return path.suffix == ".py" and path.stem != "__init__"


def _place(path: Path, order: str) -> tuple[int, str]:
    words = order.split()
    return (words.index(path.stem) if path.stem in words else len(words), path.stem)


def sentence(path: Path) -> str:
    """First sentence of a module's docstring, in plain text."""
    source = path / "__init__.py" if path.is_dir() else path
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8"))) or ""
    first = re.split(r"(?<=[.!?])\s", " ".join(text.split("\n\n")[0].split()), maxsplit=1)[0]
    return first.replace("``", "").replace("`", "").rstrip(".:")


def tree() -> str:
    """The lines of the tree."""
    lines = ["src/reg2rg/"]
    for path in modules():
        depth = len(path.relative_to(PACKAGE).parts)
        name = "  " * depth + path.name + ("/" if path.is_dir() else "")
        line = f"{name:<{COLUMN}} {sentence(path)}"
        lines.append(line if len(line) <= WIDTH else _cut(line))
    return "\n".join(lines) + "\n"


def _cut(line: str) -> str:
    """A line that is too long, cut at the end of a clause, or of a word where there is none."""
    clauses = [match.start() for match in re.finditer(r"[,;:] ", line[:WIDTH]) if match.start() > COLUMN + 20]
    return line[: clauses[-1]] if clauses else line[: WIDTH - 4].rsplit(" ", 1)[0] + " ..."


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(BEGIN)
    old, _, after = rest.partition(END)
    if old == tree():
        return 0
    if options.check:
        print("README.md: the file tree is out of date. Fix: python docs/make_tree.py")
        return 1
    readme.write_text(before + BEGIN + tree() + END + after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
