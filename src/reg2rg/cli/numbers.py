"""Numbers on the command line: what is none, or out of range, is refused with what was expected."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole(least: int) -> Callable[[str], int]:
    """Reads a whole number.

    Args:
        least: the smallest that is taken.
    """

    def read(text: str) -> int:
        expected = f"expected a whole number, {least} or more, found {text!r}"
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(expected) from None
        if value < least:
            raise argparse.ArgumentTypeError(expected)
        return value

    return read


def above_zero(text: str) -> float:
    """Reads a number above 0 that is not infinite."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, found {text!r}")
    return value
