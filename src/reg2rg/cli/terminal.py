"""Standard output and error as they are: a terminal that knows few signs, or a reader that has left, ends no run."""

from __future__ import annotations

import codecs
import io
import os
import sys

from reg2rg.core.errors import EXIT_OK

_PLAIN = {
    "–": "-", "—": "-", "−": "-", "…": "...", "±": "+-", "×": "x", "→": "->", "≥": ">=", "≤": "<=", "’": "'", "‘": "'",
    "“": '"', "”": '"', "•": "*", "°": " deg", "│": "|", "─": "-", "━": "-",
}  # fmt: skip
_ERRORS = "reg2rg-plain"


def _plain(error: UnicodeError) -> tuple[str, int]:
    """What stands for the signs that an encoding lacks: the nearest plain ones, else a question mark."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(_PLAIN.get(sign, "?") for sign in error.object[error.start : error.end]), error.end


def open_terminal() -> None:
    """Let standard output and error replace what their encodings lack."""
    codecs.register_error(_ERRORS, _plain)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_ERRORS)


def leave_terminal() -> int:
    """Write no more: who reads standard output has left, as in ``reg2rg list | head``.

    Returns:
        the exit code, which is that of success.
    """
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())  # or Python tries again at its end, and complains
    return EXIT_OK
