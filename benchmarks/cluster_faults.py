"""Shards on a real one-node Slurm or local Ray while things die: whether they make what one process makes.

python benchmarks/cluster_faults.py                    20 trials on a Slurm that it starts (slurm-wlm, munge; root)
python benchmarks/cluster_faults.py --ray              on a Ray cluster that the command starts
python benchmarks/cluster_faults.py --work predict     reports of a tiny random model in place of a store; also --ray

Each trial prepares the same phantoms, or reports on them, as three shards and does one thing in the middle of it: kills
a shard's process, its worker, Ray's worker or the command itself, preempts its job by one of a higher partition,
requeues it, stops slurmd for a while, lets Ray run out of memory or cancel by force. Then the command is run again
until it ends with success. Printed: whether the bytes are those of one process, how many studies the campaign's
manifests have twice or not at all, and seconds.
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
from collections.abc import Callable
from pathlib import Path

import psutil
from one_node_slurm import kill_node, one_node_slurm, start_node

FAULTS = {
    "slurm": ("kill shard", "kill worker", "kill command", "preempt", "requeue", "restart slurmd", "freeze shard"),
    "ray": (
        "kill ray worker",
        "memory kill",
        "force cancel",
        "kill shard",
        "kill worker",
        "kill command",
        "freeze shard",
    ),
}
LEASE_S = 4
DATA = """
task: {regions: radgenome, views: {size: [32, 32, 16]}}
data: {dataset: {class_path: RadGenome, init_args: {root: data}}}
"""
MODEL = """
task: {views: {size: [32, 32, 32]}}
data: {dataset: {init_args: {root: data}}, store: store, limit_eval_studies: null, predict_split: train,
       eval_batch_size: 2, workers: 1}
model: {llm: {init_args: {path: lm}}, max_new_tokens: 60}
"""
OUT_OF_MEMORY = {"RAY_memory_monitor_refresh_ms": "100", "RAY_task_oom_retries": "0"}
MARGIN = 1 << 30
"""Bytes beyond what is in use when the cluster starts, after which Ray kills."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ray", action="store_true")
    parser.add_argument("--work", choices=("prepare", "predict"), default="prepare")
    parser.add_argument(
        "--no-signals", action="store_true", help="Slurm's default: who is preempted is not told before"
    )
    parser.add_argument("--only", help="this fault alone")
    parser.add_argument("--trials", type=int, default=20)
    parser.add_argument("--studies", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cancel-at", type=Path, help=argparse.SUPPRESS)
    options, words = parser.parse_known_args()
    if options.cancel_at:
        raise SystemExit(cancelled_by_force(words, options.cancel_at))
    engine = "ray" if options.ray else "slurm"
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_raylet_start_wait_time_s": "300"}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if not options.ray:
            stack.enter_context(one_node_slurm(folder / "slurm", signals=not options.no_signals))
        equal = trials(folder, engine, options)
    raise SystemExit(0 if equal == options.trials else 1)


def trials(folder: Path, engine: str, options: argparse.Namespace) -> int:
    os.chdir(folder)
    reg2rg("data", "phantom", "data", "--studies", str(options.studies), "--size", "48", "48", "40")
    Path("run.yaml").write_text(DATA if options.work == "prepare" else MODEL)
    if options.work == "predict":
        config = ("--config=phantom.yaml", "--config=run.yaml")
        reg2rg("data", "prepare", *config)
        reg2rg("lm", "lm", *config, "--steps=0", "--hidden_size=32", "--layers=2", "--heads=2")
    work = WORK[options.work]
    reg2rg(*work("one"))
    wanted, draw = digest(Path("one")), random.Random(options.seed)
    equal = 0
    for trial in range(options.trials):
        fault = options.only or FAULTS[engine][trial % len(FAULTS[engine])]
        store, begun = Path(f"store{trial}"), time.monotonic()
        counts: Counter[str] = Counter()
        watch = threading.Thread(target=keep_manifests, args=(store, counts), daemon=True)
        watch.start()
        runs = run_with(fault, work, store, engine, draw)
        same = digest(store) == wanted
        twice = [item for item, times in counts.items() if times > 1]
        leftovers = [*store.rglob(".campaigns/*"), *store.rglob(".*.tmp.*")]
        equal += same and not twice
        print(
            f"{trial + 1:3} {fault:15} {'equal' if same else 'OTHER BYTES':12} {len(twice)} twice, {len(leftovers)} "
            f"leftovers, {runs} commands, {time.monotonic() - begun:.0f} s", flush=True,
        )  # fmt: skip
        shutil.rmtree(store)
    print(f"{equal} of {options.trials} trials: bytes as of one process, no study finished twice or lost")
    return equal


def keep_manifests(store: Path, counts: Counter[str]) -> None:
    """Count how often each study was finished, from the manifests as they grow; they go when all is done."""
    read: dict[Path, int] = {}
    while True:
        paths: list[Path] = []
        with contextlib.suppress(FileNotFoundError):  # a folder that goes while it is read
            paths += store.rglob(".campaigns/*/manifests/*.jsonl")
        for path in paths:
            try:
                data = path.read_bytes()
            except FileNotFoundError:
                continue
            whole = data[read.get(path, 0) : data.rfind(b"\n") + 1]
            read[path] = read.get(path, 0) + len(whole)
            counts.update(json.loads(line)["item"] for line in whole.splitlines())
        time.sleep(0.02)


def run_with(fault: str, work: Work, store: Path, engine: str, draw: random.Random) -> int:
    """Do the work, with one fault in the middle; how many commands it took."""
    cluster = (
        ["--cluster", "slurm_partition=low", "cpus_per_task=1"] if engine == "slurm" else ["--cluster", "num_cpus=0.5"]
    )
    words = [*work(str(store)), "--shards=3", f"--lease={LEASE_S}", f"--runner={engine}", *cluster]
    log = open(f"{store}.log", "w")  # noqa: SIM115 (open while processes write to it)
    first, environment = command(*words), dict(os.environ)
    if fault == "force cancel":
        first = [sys.executable, HERE, "--cancel-at", f"{store}.cancel", *words]
    elif fault == "memory kill":
        memory = psutil.virtual_memory()
        threshold = (memory.total - memory.available + MARGIN) / memory.total
        environment |= OUT_OF_MEMORY | {"RAY_memory_usage_threshold": f"{threshold:.4f}"}
    process = subprocess.Popen(first, stdout=log, stderr=subprocess.STDOUT, start_new_session=True, env=environment)
    wait_for(lambda: len(made(store)) >= 3 or process.poll() is not None)
    time.sleep(draw.uniform(0, 3))
    strike(fault, process, store, draw)
    runs = 1
    while process.wait() != 0:
        runs += 1
        if runs > 5:
            raise SystemExit(f"{fault}: no success in five commands; see {log.name}:\n{Path(log.name).read_text()}")
        process = subprocess.Popen(command(*words), stdout=log, stderr=subprocess.STDOUT)
    return runs


def cancelled_by_force(words: list[str], at: Path) -> int:
    """The command, whose tasks Ray cancels by force once a file is there: children first, the workers after them."""
    import ray

    from reg2rg.cli.main import main as command_line

    waited, tasks = ray.wait, []

    def wait(references, **options):
        tasks[:] = references
        return waited(references, **options)

    def cancel() -> None:
        wait_for(at.exists)
        for task in tasks[:1]:
            ray.cancel(task, force=True)

    ray.wait = wait
    threading.Thread(target=cancel, daemon=True).start()
    return command_line(words)


def strike(fault: str, process: subprocess.Popen[bytes], store: Path, draw: random.Random) -> None:
    shards, workers = ours()
    if fault == "force cancel":
        Path(f"{store}.cancel").touch()
    elif fault == "memory kill":
        use_memory()
    elif fault == "kill ray worker":
        kill(draw.choice(rays_workers()))
    elif fault == "kill command":
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


def use_memory() -> None:
    """More than there may be in use, until Ray has killed a worker for it."""
    before, blocks = len(rays_workers()), []
    limit = time.monotonic() + 60
    while len(rays_workers()) >= before and time.monotonic() < limit:
        if len(blocks) < 12:
            blocks.append(bytearray(os.urandom(1 << 20) * (MARGIN >> 22)))
        time.sleep(0.2)


def rays_workers() -> list[psutil.Process]:
    """Processes of Ray in which a job is at work."""
    return [one for one in psutil.process_iter(["cmdline"]) if "ray::_execute" in " ".join(one.info["cmdline"] or [])]


def ours() -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Processes of shards, and the workers that they started."""
    found = {}
    for one in psutil.process_iter(["cmdline", "ppid"]):
        words = one.info["cmdline"] or []
        if "reg2rg.cli.main" in words and any(word.startswith("--shard=") for word in words):
            found[one.pid] = one
    shards = [one for one in found.values() if one.info["ppid"] not in found]  # a forked worker is called as its parent
    workers = [child for shard in shards for child in shard.children(recursive=True)]
    return shards, [one for one in workers if one.pid in found or "spawn_main" in " ".join(one.cmdline())]


def kill(process: psutil.Process) -> None:
    with contextlib.suppress(psutil.NoSuchProcess):
        process.send_signal(signal.SIGKILL)


def wait_for(happened) -> None:
    limit = time.monotonic() + 180
    while not happened():
        if time.monotonic() > limit:
            raise SystemExit("nothing was made within three minutes")
        time.sleep(0.05)


def prepare(out: str) -> tuple[str, ...]:
    return "data", "prepare", "--config=run.yaml", f"--data.store={out}", "--bake", "--workers=1"


def predict(out: str) -> tuple[str, ...]:
    return "predict", "--config=phantom.yaml", "--config=run.yaml", f"--trainer.default_root_dir={out}"


Work = Callable[[str], tuple[str, ...]]
WORK: dict[str, Work] = {"prepare": prepare, "predict": predict}
HERE = str(Path(__file__).resolve())


def command(*words: str) -> list[str]:
    return [sys.executable, "-m", "reg2rg.cli.main", *words]


def reg2rg(*words: str) -> None:
    subprocess.run(command(*words), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def made(out: Path) -> list[Path]:
    """Files of studies that are there: native detail, or records."""
    return [
        path for path in (*out.glob("native/*.r2g"), *out.glob("predictions/studies/*.json")) if path.name[0] != "."
    ]


def digest(out: Path) -> str:
    found = hashlib.sha256()
    tables = (path for path in (out / "summary.json", *out.glob("predictions/*.*")) if path.is_file())
    for path in sorted({*made(out), *out.rglob("*.r2g"), *tables}):
        found.update(str(path.relative_to(out)).encode())
        found.update(path.read_bytes())
    return found.hexdigest()


if __name__ == "__main__":
    main()
