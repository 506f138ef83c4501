"""``reg2rg ablate`` at its border: options, exit codes, parameters of clusters."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from reg2rg.ablation import interrupt
from reg2rg.ablation.execute import Task
from reg2rg.ablation.interrupt import time_limit, told_to_end
from reg2rg.cli.ablate import EXIT_UNFINISHED, Ablation
from reg2rg.cli.main import main
from reg2rg.cli.runner import _parameters
from reg2rg.core.errors import ConfigError
from reg2rg.runners import Outcome, Stop


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def outcomes(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Run -> how it ends; configs, data and tables are left out, and nothing is run."""
    found: dict[str, str] = {}

    class Runner:
        def run(self, tasks: Sequence[Task], begin: Any, stop: Stop) -> Iterator[tuple[Task, Outcome]]:
            for task in tasks:
                if task.run in found:
                    begin(task)
                    yield task, Outcome(found[task.run])  # type: ignore[arg-type]

    monkeypatch.setattr("reg2rg.cli.ablate.build_runner", lambda options, folder: Runner())
    monkeypatch.setattr(Ablation, "_check_configs", lambda self: None)
    monkeypatch.setattr(Ablation, "_write_tables", lambda self: None)
    monkeypatch.setattr(Ablation, "_require_data", lambda self, config: None)
    monkeypatch.setattr("reg2rg.ablation.steps.make_data", lambda *arguments: None)
    return found


def lfd(*words: str) -> int:
    return main(["ablate", "lfd", "--seeds", "0", *words])


@pytest.mark.parametrize(
    ("ends", "code"),
    [
        ({"full": "done", "no_lfd": "done", "text_only": "done"}, 0),
        ({"full": "done", "no_lfd": "failed", "text_only": "done"}, 1),
        ({"full": "done", "no_lfd": "busy", "text_only": "done"}, EXIT_UNFINISHED),
        ({"full": "done", "no_lfd": "stopped"}, EXIT_UNFINISHED),
        ({"full": "failed", "no_lfd": "stopped"}, 1),
        ({}, EXIT_UNFINISHED),
    ],
)
def test_exit_codes(outcomes: dict[str, str], ends: dict[str, str], code: int) -> None:
    outcomes.update(ends)
    assert lfd() == code


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nothing",), "no sweep file 'nothing'"),
        (("lfd", "--runs", "no_lfdd"), "Did you mean 'no_lfd'?"),
        (("lfd", "-c", "nowhere.yaml"), "no config file 'nowhere.yaml'"),
        (("lfd", "--cluster", "num_gpus=1"), "--cluster is for --runner slurm and ray"),
        (("lfd", "--runner", "slurm", "--cluster", "partition"), "--cluster partition: expected KEY=VALUE"),
    ],
)
def test_mistakes_end_in_one_line(words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", *words]) == 2
    assert message in capsys.readouterr().err
    assert not Path("ablations").exists()


def test_data_that_nobody_makes_are_missed_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "lfd", "--base", "reg2rg.yaml", "--runs", "full", "--seeds", "0"]) == 2
    said = capsys.readouterr().err
    assert "/data/store', and no step of the sweep makes it" in said
    assert "Fix: reg2rg data prepare --config reg2rg.yaml" in said
    assert not list(Path().rglob("log.txt"))


@pytest.mark.parametrize("words", [("--jobs", "-1"), ("--threads", "0"), ("--seeds", "x"), ("--runner", "pbs")])
def test_options_are_checked(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "lfd", *words]) == 2
    assert words[0] in capsys.readouterr().err


def test_help_names_the_packaged_sweeps(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--help"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Packaged sweeps: all, detect, features, findings, full, lfd, llm_size, paragraphs, peers, rra." in out
    assert f"{EXIT_UNFINISHED} time limit reached" in out


def test_parameters_of_a_cluster() -> None:
    assert _parameters(["slurm_partition=gpu", "timeout_min=60", "a=x=y", "flag=true"]) == {
        "slurm_partition": "gpu",
        "timeout_min": 60,
        "a": "x=y",
        "flag": True,
    }
    with pytest.raises(ConfigError, match="expected KEY=VALUE"):
        _parameters(["=1"])


def test_a_time_limit_counts_from_the_start_of_the_command() -> None:
    stop = Stop()
    with time_limit(stop, 1.0, time.monotonic() - 3600):
        assert stop.event.wait(5)
    stop = Stop()
    with time_limit(stop, 1.0, time.monotonic()), time_limit(stop, None, 0.0):
        assert not stop.event.wait(0.05)


class Stopped(Stop):
    def __init__(self) -> None:
        super().__init__()
        self.calls: list[bool] = []

    def __call__(self, kill: bool = False) -> None:
        self.calls.append(kill)
        super().__call__(kill)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_runs_in_order_and_a_second_one_kills_them(number: signal.Signals) -> None:
    stop, before = Stopped(), signal.getsignal(number)
    with told_to_end(stop, here=False) as got:
        signal.raise_signal(number)
        assert (stop.calls, got) == ([False], [number])
        signal.raise_signal(number)
        assert stop.calls == [False, True]
    assert signal.getsignal(number) is before


def test_runs_that_do_not_end_are_killed_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupt, "_GRACE_S", 0.05)
    stop = Stopped()
    with told_to_end(stop, here=False):
        signal.raise_signal(signal.SIGTERM)
        for _ in range(200):
            if len(stop.calls) > 1:
                break
            time.sleep(0.01)
    assert stop.calls == [False, True]


def test_a_run_in_this_process_is_interrupted_itself() -> None:
    with told_to_end(Stop(), here=True) as got, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    assert got == [signal.SIGINT]


def test_elsewhere_than_in_the_main_thread_signals_are_left_alone() -> None:
    seen = []

    def work() -> None:
        with told_to_end(Stop(), here=False) as got:
            seen.append(got)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [[]]


def test_nothing_heavy_is_imported_for_help() -> None:
    import subprocess
    import sys

    code = (
        "import sys; from reg2rg.cli import ablate; from reg2rg.ablation import execute, steps, tables; "
        "import reg2rg.runners; ablate._parser(); "
        "print(any(name in sys.modules for name in ('torch', 'lightning', 'transformers')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
