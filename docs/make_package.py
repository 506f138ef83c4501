"""Draw docs/images/package.svg: the folders of the package, one row a layer, with what each imports.

python docs/make_package.py          writes the picture
python docs/make_package.py --check  says whether it is out of date, exit code 1
"""

from __future__ import annotations

import argparse
import ast
import html
import sys
import textwrap
import tomllib
from collections.abc import Iterator

from make_tree import PACKAGE, ROOT, sentence

PICTURE = ROOT / "docs" / "images" / "package.svg"
WIDTH, MARGIN, GAP, LINE = 1000, 20, 10, 16
ARROW = 40  # width of the column on the right
COLOURS = {
    "data": ("#e8f1fb", "scans datasets store check data"),
    "model": ("#e5f4e8", "models pretrained training inference"),
    "scores": ("#fdf1dc", "evaluation show audit ablation"),
    "ground and doors": ("#eeeeee", "core config cli runners testing"),
    "a plug-in": ("#f3e8f8", "extras"),
}


def layers() -> list[list[str]]:
    """Rows from top to bottom, from the contract that import-linter holds."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = (c for c in project["tool"]["importlinter"]["contracts"] if c.get("containers") == ["reg2rg"])
    return [row.split(" | ") for row in contract["layers"]]


def imported(name: str) -> list[str]:
    """Folders of the package that `name` imports directly, in the order of the layers from below."""
    module = PACKAGE / f"{name}.py"
    found = set()
    for path in [module] if module.is_file() else (PACKAGE / name).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            found |= {parts[1] for parts in (name.split(".") for name in names) if parts[0] == "reg2rg" and parts[1:]}
    return [other for row in reversed(layers()) for other in row if other in found - {name}]


def words(x: float, y: float, size: float, text: str, extra: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" font-size="{size:g}"{extra}>{html.escape(text, quote=False)}</text>'


def lines(name: str, width: float) -> list[tuple[str, str]]:
    """What stands in a box of `width`: text and colour of each line."""
    said = textwrap.wrap(sentence(PACKAGE / name), int((width - 125) / 6.2))
    below = textwrap.wrap(f"imports {', '.join(imported(name)) or 'nothing of the package'}", int((width - 125) / 6.2))
    return [(text, "#000000") for text in said] + [(text, "#666666") for text in below]


def box(name: str, x: float, y: float, width: float, height: float) -> Iterator[str]:
    """One folder: its name, the first sentence of its docstring, its imports."""
    colour = next((colour for colour, names in COLOURS.values() if name in names.split()), "#ffffff")
    yield f'<rect x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="6" fill="{colour}" stroke="#999999"/>'
    yield words(x + 12, y + 20, 15, name, ' font-weight="bold"')
    for place, (text, ink) in enumerate(lines(name, width)):
        yield words(x + 115, y + 19 + LINE * place, 12.5, text, f' fill="{ink}"')


def picture() -> str:
    """The whole SVG."""
    parts, bottom = [], float(MARGIN)
    for row in layers():
        width = (WIDTH - 2 * MARGIN - ARROW - GAP * (len(row) - 1)) / len(row)
        height = 13 + LINE * max(len(lines(name, width)) for name in row)
        for column, name in enumerate(row):
            parts += box(name, MARGIN + column * (width + GAP), bottom, width, height)
        bottom += height + GAP
    height = bottom + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" '
        'font-family="Helvetica, Arial, sans-serif">',
        f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>',
        *parts,
    ]
    x = WIDTH - MARGIN - 12
    parts += [
        f'<path d="M{x} {MARGIN + 6} V{bottom - GAP - 12:g} m-6 -10 l6 14 l6 -14" fill="none" stroke="#444444"/>',
        words(0, 0, 12.5, "imports point down", f' transform="translate({x - 8} {bottom / 2 + 50:g}) rotate(-90)"'),
    ]
    left = MARGIN
    for label, (colour, _) in COLOURS.items():
        parts.append(f'<rect x="{left}" y="{bottom:g}" width="14" height="14" fill="{colour}" stroke="#999999"/>')
        parts.append(words(left + 20, bottom + 12, 12.5, label))
        left += 45 + 7 * len(label)
    return "\n".join([*parts, "</svg>", ""])


def main() -> int:
    """Write or check the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing")
    options = parser.parse_args()
    if options.check:
        same = PICTURE.is_file() and PICTURE.read_text(encoding="utf-8") == picture()
        print("" if same else f"{PICTURE.name} is out of date. Fix: python docs/make_package.py")
        return 0 if same else 1
    PICTURE.write_text(picture(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
