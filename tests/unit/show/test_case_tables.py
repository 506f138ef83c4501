"""Tables of scores in a terminal."""

import io

from rich.console import Console

from reg2rg.show.case_page import Table
from reg2rg.show.case_tables import print_tables

TABLE = Table(
    "Summary",
    "What it means.",
    ("", "recognition", "precision", "recall", "findings F1", "macro F1", "abnormal", "distinct"),
    [
        ("Reg2RG", 0.995, 0.912, 0.691, 0.787, 0.727, 0.983, 1.0),
        ("floor: commonest paragraph of each region", 0.129, 0.0, 0.0, 0.0, 0.0, 0.0, 0.067),
        ("floor: every finding in every study", None, 0.237, 1.0, 0.383, 0.379, 1.0, None),
    ],
    emphasis=1,
)


def printed(width: int) -> str:
    stream = io.StringIO()
    print_tables([TABLE], Console(file=stream, width=width))
    return stream.getvalue()


def test_a_wide_terminal_has_a_row_a_model():
    assert "│ floor: commonest paragraph of each region │       0.129 │" in printed(140)
    assert "│ floor: every finding in every study       │           – │" in printed(140)


def test_a_narrow_terminal_cuts_no_word():
    row = ["│", "recognition", "│", "0.995", "│", "0.129", "│", "–", "│"]
    for width in (60, 80):
        lines = printed(width).splitlines()
        assert not any("…" in line or len(line) > width for line in lines)
        assert row in [line.split() for line in lines]
    assert "What it means." in printed(80)
