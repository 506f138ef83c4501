"""Numbers on the command line."""

import argparse

import pytest

from reg2rg.cli.main import main
from reg2rg.cli.numbers import above_zero, whole


def test_what_is_read():
    assert (whole(0)("0"), whole(1)("12"), above_zero("0.5")) == (0, 12, 0.5)


@pytest.mark.parametrize(
    ("read", "text"),
    [(whole(1), "0"), (whole(0), "-1"), (whole(0), "1.5"), (whole(0), "x"), (whole(0), "")]
    + [(above_zero, text) for text in ("0", "-2", "inf", "nan", "x")],
)
def test_what_is_refused(read, text):
    with pytest.raises(argparse.ArgumentTypeError, match=f"expected a .*, found '{text}'"):
        read(text)


@pytest.mark.parametrize(
    "words",
    [
        ["ablate", "lfd", "--seeds", "x"],
        ["ablate", "lfd", "--jobs", "-1"],
        ["ablate", "lfd", "--max-hours", "0"],
        ["data", "phantom", "out", "--seed", "-1"],
        ["data", "phantom", "out", "--first", "-1"],
        ["data", "check", "-c", "run.yaml", "--overlays", "many"],
        ["evaluate", "reports.csv", "--resamples", "1.5"],
        ["lm", "out", "--layers", "0"],
        ["page", "--predictions", "p", "--studies", "-3"],
        ["export", "--ckpt_path", "best.ckpt", "--out", "m", "--spacing", "1", "0", "3"],
    ],
    ids=" ".join,
)
def test_commands_say_what_they_expect(words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    assert "expected a" in capsys.readouterr().err.splitlines()[-1]
    assert not list(tmp_path.iterdir())
