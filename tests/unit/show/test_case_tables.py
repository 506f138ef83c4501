"""Tables of scores in a terminal."""

import io

from rich.console import Console

from reg2rg.show.render import print_tables
from reg2rg.show.table import make_table

TABLE = make_table(
    "summary",
    "Summary",
    ("", "recognition", "precision", "recall", "findings F1", "macro F1", "abnormal", "distinct"),
    [
        ("Reg2RG", 0.995, 0.912, 0.691, 0.787, 0.727, 0.983, 1.0),
        ("floor: commonest paragraph of each region", 0.129, 0.0, 0.0, 0.0, 0.0, 0.0, 0.067),
        ("floor: every finding in every study", None, 0.237, 1.0, 0.383, 0.379, 1.0, None),
    ],
    ["What it means."],
)


def printed(width: int) -> str:
    stream = io.StringIO()
    print_tables([TABLE], Console(file=stream, width=width))
    return stream.getvalue()


def test_a_wide_terminal_has_a_row_a_model():
    rows = [line.split() for line in printed(140).splitlines()]
    assert ["floor:", "commonest", "paragraph", "of", "each", "0.129", "0.000", "0.000", "0.000", "0.000", "0.000",
            "0.067"] in rows  # fmt: skip
    assert ["–", "0.237", "1.000", "0.383", "0.379", "1.000", "–"] in [row[-7:] for row in rows]


def test_a_narrow_terminal_cuts_no_word():
    for width in (60, 80):
        lines = printed(width).splitlines()
        assert not any("…" in line or len(line) > width for line in lines)
        parts = [line.split()[1:] for line in lines if line.startswith("Reg2RG")]
        assert len(parts) > 1
        cells = [cell for part in parts for cell in part]
        assert cells == [
            "0.995",
            "0.912",
            "0.691",
            "0.787",
            "0.727",
            "0.983",
            "1.000",
        ]
    assert "What it means." in printed(80)
