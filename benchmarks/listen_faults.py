"""What a listener withstands: kills at any moment, and many studies while one is being reported on.

python benchmarks/listen_faults.py kills [--kills 20] [--seed 0]
python benchmarks/listen_faults.py load [--studies 200] [--slices 50] [--side 128] [--senders 4]

Listener, worker, senders (dcmtk's storescu in `load`, where it is installed) and the node that results go to are
processes and threads of this machine; a report is one small DICOM object, made without a model (tests/listen_parts.py),
so that kills meet every stage often.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]

from dicom_files import save  # noqa: E402 (it stands beside the tests)
from listen_parts import Running, kill_at_random_moments, study, wait_for  # noqa: E402 (it stands beside the tests)
from reg2rg.testing.dicom_node import send_objects  # noqa: E402


def kills(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory() as folder:
        found = kill_at_random_moments(Path(folder), options.kills, options.seed)
    said = ", ".join(f"{count} while {moment}" for moment, count in sorted(found.moments.items()))
    print(f"{found.kills} kills ({said})")
    print(f"studies that were received and have no whole report: {len(found.lost)} of {found.kills}")
    print(f"results that the node got more than once: {len(found.twice)}")
    return 1 if found.lost or found.twice else 0


def send_study(run: Running, slices: list, folder: Path) -> list[str]:
    """Send a study by dcmtk's storescu where that is installed, else by pynetdicom; what was not taken, and why."""
    dcmtk = shutil.which("storescu", path="/usr/bin:/usr/local/bin")  # pynetdicom installs a program of that name too
    if dcmtk is None:
        answers = send_objects(run.address, slices)
        said = [f"{answer:04X}" if answer else "no answer" for answer in answers if answer != 0]
        return said + ["no association"] * (len(slices) - len(answers))
    save(slices, folder)
    done = subprocess.run(
        [dcmtk, "-v", "-aec", "REG2RG", "+sd", "127.0.0.1", str(run.port), str(folder)],
        capture_output=True,
        text=True,
    )
    shutil.rmtree(folder)
    answers = [line for line in done.stderr.splitlines() if "Received Store Response" in line]
    wrong = [line for line in answers if "Success" not in line]
    return wrong + [f"no answer, {done.stderr[-200:]}"] * (len(slices) - len(answers))


def load(options: argparse.Namespace) -> int:
    refused, done, memory, lock = [], [0], {}, threading.Lock()
    with tempfile.TemporaryDirectory() as folder, Running(Path(folder), quiet_seconds=2.0) as run:
        listener = psutil.Process(run.process.pid)
        slow = Path(folder, "spool", "work", "slow")
        slow.touch()
        send_objects(run.address, study(9999, options.slices, options.side))
        wait_for(lambda: "reporting" in run.log())

        def send(numbers: range) -> None:
            for number in numbers:
                answers = send_study(run, study(number, options.slices, options.side), Path(folder, f"send{number}"))
                with lock:
                    refused.extend(answer for answer in answers if answer)
                    done[0] += 1
                    if done[0] in (10, options.studies // 2, options.studies):
                        memory[done[0]] = listener.memory_info().rss / 2**20

        begun = time.monotonic()
        senders = [
            threading.Thread(target=send, args=(range(first, options.studies + 1, options.senders),))
            for first in range(1, options.senders + 1)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
        seconds = time.monotonic() - begun
        still, log = not run.results(), [line for line in run.log().splitlines() if "complete" not in line]
        slow.unlink()
        wait_for(lambda: len(run.results()) == options.studies + 1, 600)
    count = options.studies * options.slices
    print(
        f"{options.studies} studies of {options.slices} slices of {options.side} x {options.side} by {options.senders}"
    )
    print(f"one was being reported on all the time: {still}; all have a report: True")
    print(
        f"{seconds:.0f} s, {count / seconds:.0f} slices a second; not answered with success: {len(refused)} of {count}"
    )
    if refused:
        print(dict(Counter(refused)), *log[-20:], sep="\n")
    print("; ".join(f"{size:.0f} MiB after {number} studies" for number, size in memory.items()))
    return 1 if refused else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("kills")
    one.add_argument("--kills", type=int, default=20)
    one.add_argument("--seed", type=int, default=0)
    one.set_defaults(run=kills)
    many = commands.add_parser("load")
    for name, value in (("studies", 200), ("slices", 50), ("side", 128), ("senders", 4)):
        many.add_argument(f"--{name}", type=int, default=value)
    many.set_defaults(run=load)
    options = parser.parse_args()
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
