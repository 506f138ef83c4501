"""``reg2rg listen``: what its options become, and what is refused before anything is received."""

import signal
import sys
from pathlib import Path

import pytest

from reg2rg.cli.main import main
from reg2rg.inference.listen import service
from reg2rg.inference.listen.settings import ListenSettings, Node


def test_options_become_settings_and_the_workers_command(monkeypatch, tmp_path, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    seen = []

    def listen(settings, worker, tell, until) -> None:
        assert not until()
        signal.raise_signal(signal.SIGTERM)
        assert until()
        tell("here")
        seen.append((settings, worker))

    monkeypatch.setattr(service, "listen", listen)
    words = [
        "listen",
        "--model",
        "m",
        "-o",
        "out",
        "--host",
        "0.0.0.0",
        "--calling",
        "CT1, PACS",
        "--send_to",
        "P@h:104",
    ]
    assert main(["--allow-import", "mylab", *words, "--quiet", "5", "--instance_mb", "1.5"]) == 143
    [(settings, worker)] = seen
    assert settings == ListenSettings(
        spool=tmp_path / "out" / ".spool", out=tmp_path / "out", host="0.0.0.0", calling=("CT1", "PACS"),
        node=Node("P", "h", 104), quiet_seconds=5.0, most_instance_bytes=1_500_000, most_study_bytes=8_000_000_000,
        least_free_bytes=2_000_000_000,
    )  # fmt: skip
    assert worker[:3] == [sys.executable, "-m", "reg2rg.cli.main"]
    assert worker[3:] == ["--allow-import", "mylab", *words, "--quiet", "5", "--instance_mb", "1.5", "--worker"]
    assert "listen: here\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--host", "0.0.0.0"], "everybody who reaches this machine could send"),
        (["--send_to", "PACS"], "expected AE@HOST:PORT"),
        (["--ae", "B\\AD"], "AE title"),
        (["--formats", "Words"], "format 'Words': there is no such exporter"),
        (["--segmenter", "Nobody"], "Unknown segmenter 'Nobody'"),
        (["--model", "."], "no model's folder"),
    ],
)
def test_what_is_refused_at_once(monkeypatch, tmp_path, capsys, more, said) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["listen", "--model", "m", "-o", "out", *more]) == 2
    assert said in capsys.readouterr().err
    assert not Path("out").exists()
