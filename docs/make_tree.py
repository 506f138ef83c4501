"""Write the file tree of README: one line a folder, the first sentence of its docstring.

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
# In the order of the data's way; a folder that is not named here comes last.
ORDER = (
    *("core", "scans", "datasets", "store", "check", "data", "models", "pretrained", "training", "inference"),
    *("evaluation", "show", "audit", "ablation", "runners", "config", "cli", "extras", "testing"),
)


def sentence(folder: Path) -> str:
    """First sentence of the docstring of a package, or of a module where there is no such folder, in plain text."""
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    first = re.split(r"(?<=[.!?])\s", " ".join(text.split("\n\n")[0].split()), maxsplit=1)[0]
    return first.replace("`", "").rstrip(".")


def tree() -> str:
    """The lines of the tree."""
    folders = [path.parent for path in PACKAGE.glob("*/__init__.py")]
    folders.sort(key=lambda path: (ORDER.index(path.name) if path.name in ORDER else len(ORDER), path.name))
    return "".join(f"{line}\n" for line in ["src/reg2rg/", *(f"  {f.name + '/':<13} {sentence(f)}" for f in folders)])


def main() -> int:
    """Write or check the tree."""
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
