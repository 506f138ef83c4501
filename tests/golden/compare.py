"""Two texts are the same if their numbers are close and all else is equal."""

from __future__ import annotations

import re
from difflib import unified_diff
from itertools import zip_longest
from math import isclose

TOLERANCE = {"losses.json": 1e-5}
"""Relative; `EXACT` elsewhere."""
EXACT = 1e-9
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


def changes(file: str, expected: str, found: str) -> str:
    """A unified diff of the lines that differ by more than the file's tolerance; "" for none."""
    tolerance = TOLERANCE.get(file, EXACT)
    before, after = expected.splitlines(keepends=True), found.splitlines(keepends=True)
    pairs = zip_longest(before, after, fillvalue="")
    after = [old if _same(old, new, tolerance) else new for old, new in pairs]
    return "".join(unified_diff(before, after, f"{file}, golden", f"{file}, now", n=1))


def _same(old: str, new: str, tolerance: float) -> bool:
    numbers = zip(_NUMBER.findall(old), _NUMBER.findall(new), strict=False)
    return _NUMBER.sub("#", old) == _NUMBER.sub("#", new) and all(
        isclose(float(a), float(b), rel_tol=tolerance, abs_tol=1e-12) for a, b in numbers
    )
