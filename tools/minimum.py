"""The lower bounds of pyproject.toml as constraints for pip: `make minimum` installs and tests with them.

    python tools/minimum.py                  prints them
    python tools/minimum.py --output FILE    writes them

Exit status 1 if a dependency has no lower bound, and so promises to work with every release there ever was.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]


def constraints(requirements: list[str]) -> Iterator[str]:
    """``name==bound`` for each requirement."""
    for requirement in map(Requirement, requirements):
        bounds = [bound.version for bound in requirement.specifier if bound.operator == ">="]
        if len(bounds) != 1:
            sys.exit(f"pyproject.toml: {requirement}: expected one lower bound, such as {requirement.name}>=1.0")
        yield f"{requirement.name}=={bounds[0]}"


def main() -> None:
    """Print or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="file to write")
    options = parser.parse_args()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    text = "".join(f"{line}\n" for line in constraints(project["dependencies"]))
    if options.output is None:
        sys.stdout.write(text)
    else:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
