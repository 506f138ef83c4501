"""Shards on a real one-node Slurm or local Ray while things die: whether they make what one process makes.

python benchmarks/cluster_faults.py                    20 trials on a Slurm that it starts (slurm-wlm, munge; root)
python benchmarks/cluster_faults.py --ray --trials 8   on a Ray cluster that the command starts

Each trial prepares the same phantoms as three shards and does one thing in the middle of it: kills a shard's process,
its worker or the command itself, preempts its job by one of a higher partition, requeues it, stops slurmd for a while.
Then the command is run again until it ends with success. Printed: whether the store's bytes are those of one process,
how many studies the campaign's manifests have twice or not at all, and seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from pathlib import Path

import psutil
from one_node_slurm import kill_node, one_node_slurm, start_node

FAULTS = {
    "slurm": ("kill shard", "kill worker", "kill command", "preempt", "requeue", "restart slurmd", "freeze shard"),
    "ray": ("kill shard", "kill worker", "kill command", "freeze shard"),
}
LEASE_S = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    engine = "ray" if options.ray else "slurm"
    os.environ["RAY_AUTH_MODE"] = "disabled"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not options.ray:
            stack.enter_context(one_node_slurm(folder / "slurm"))
        equal = trials(folder, engine, options)
    raise SystemExit(0 if equal == options.trials else 1)


def trials(folder: Path, engine: str, options: argparse.Namespace) -> int:
    os.chdir(folder)
    reg2rg("data", "phantom", "data", "--studies", str(options.studies), "--size", "48", "48", "40")
    Path("run.yaml").write_text(
        "task: {regions: radgenome, views: {size: [32, 32, 16]}}\n"
        "data: {dataset: {class_path: RadGenome, init_args: {root: data}}}\n"
    )
    reg2rg(*prepare("one"))
    wanted, draw = digest(Path("one")), random.Random(options.seed)
    equal = 0
    for trial in range(options.trials):
        fault = FAULTS[engine][trial % len(FAULTS[engine])]
        store, begun = Path(f"store{trial}"), time.monotonic()
        counts: Counter[str] = Counter()
        watch = threading.Thread(target=keep_manifests, args=(store, counts), daemon=True)
        watch.start()
        runs = run_with(fault, store, engine, draw)
        same = digest(store) == wanted
        twice = [item for item, times in counts.items() if times > 1]
        leftovers = [*store.glob(".campaigns/*"), *store.rglob(".*.tmp.*")]
        equal += same and not twice
        print(
            f"{trial + 1:3} {fault:15} {'equal' if same else 'OTHER BYTES':12} {len(twice)} twice, {len(leftovers)} "
            f"leftovers, {runs} commands, {time.monotonic() - begun:.0f} s", flush=True,
        )  # fmt: skip
        shutil.rmtree(store)
    print(f"{equal} of {options.trials} trials: bytes as of one process, no study finished twice")
    return equal


def keep_manifests(store: Path, counts: Counter[str]) -> None:
    """Count how often each study was finished, from the manifests as they grow; they go when all is done."""
    read: dict[Path, int] = {}
    while True:
        for path in list(store.glob(".campaigns/*/manifests/*.jsonl")):
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            whole = data[read.get(path, 0) : data.rfind(b"\n") + 1]
            read[path] = read.get(path, 0) + len(whole)
            counts.update(json.loads(line)["item"] for line in whole.splitlines())
        time.sleep(0.02)


def run_with(fault: str, store: Path, engine: str, draw: random.Random) -> int:
    """Prepare, with one fault in the middle; how many commands it took."""
    cluster = (
        ["--cluster", "slurm_partition=low", "cpus_per_task=1"] if engine == "slurm" else ["--cluster", "num_cpus=1"]
    )
    words = [*prepare(str(store)), "--workers=1", "--shards=3", f"--lease={LEASE_S}", f"--runner={engine}", *cluster]
    log = open(f"{store}.log", "w")  # noqa: SIM115 (open while processes write to it)
    process = subprocess.Popen(command(*words), stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
    wait_for(lambda: len(list(store.glob("native/*.r2g"))) >= 3 or process.poll() is not None)
    time.sleep(draw.uniform(0, 3))
    strike(fault, process, draw)
    runs = 1
    while process.wait() != 0:
        runs += 1
        if runs > 5:
            raise SystemExit(f"{fault}: no success in five commands; see {log.name}:\n{Path(log.name).read_text()}")
        process = subprocess.Popen(command(*words), stdout=log, stderr=subprocess.STDOUT)
    return runs


def strike(fault: str, process: subprocess.Popen[bytes], draw: random.Random) -> None:
    shards, workers = ours()
    if fault == "kill command":
        process.kill()
    elif fault == "kill shard" and shards:
        kill(draw.choice(shards))
    elif fault == "kill worker" and workers:
        kill(draw.choice(workers))
    elif fault == "freeze shard" and shards:
        frozen = draw.choice(shards)
        frozen.suspend()
        time.sleep(3 * LEASE_S)
        frozen.resume()
    elif fault in ("preempt", "requeue"):
        jobs = subprocess.run(["squeue", "-h", "-t", "R", "-o", "%A"], capture_output=True, text=True).stdout.split()
        if fault == "preempt":
            subprocess.run(["sbatch", "-p", "high", "-c", "4", "-o", "/dev/null", "--wrap", "sleep 2"], check=True,
                           capture_output=True)  # fmt: skip
            time.sleep(25)  # the grace time of the partition
        elif jobs:
            subprocess.run(["scontrol", "requeue", draw.choice(jobs)], check=False)
        begin_requeued()
    elif fault == "restart slurmd":
        kill_node()
        time.sleep(2)
        start_node()


def begin_requeued() -> None:
    """Slurm lets requeued jobs wait for two minutes."""
    time.sleep(4)
    listed = subprocess.run(["squeue", "-h", "-t", "PD", "-o", "%A"], capture_output=True, text=True).stdout.split()
    for job in listed:
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False, capture_output=True)


def ours() -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Processes of shards, and the workers that they started."""
    shards = []
    for one in psutil.process_iter(["cmdline"]):
        words = one.info["cmdline"] or []
        if "data" in words and "prepare" in words and any(word.startswith("--shard=") for word in words):
            shards.append(one)
    workers = [child for shard in shards for child in shard.children(recursive=True)]
    return shards, [one for one in workers if "spawn_main" in " ".join(one.cmdline())]


def kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


def wait_for(happened) -> None:
    limit = time.monotonic() + 180
    while not happened():
        if time.monotonic() > limit:
            raise SystemExit("nothing was made within three minutes")
        time.sleep(0.05)


def prepare(store: str) -> tuple[str, ...]:
    return "data", "prepare", "--config=run.yaml", f"--data.store={store}", "--bake"


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "reg2rg.cli.main", *words]


def reg2rg(*words: str) -> None:
    subprocess.run(command(*words), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def digest(store: Path) -> str:
    found = hashlib.sha256()
    for path in sorted(store.rglob("*.r2g")):
        found.update(str(path.relative_to(store)).encode())
        found.update(path.read_bytes())
    found.update((store / "summary.json").read_bytes())
    return found.hexdigest()


if __name__ == "__main__":
    main()
