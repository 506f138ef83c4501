"""Kills and damages, counted: what an interrupted command leaves, and what is said of files that are not as written.

    python benchmarks/faults.py                          40 kills and 600 damages: about 20 minutes on two quiet cores
    python benchmarks/faults.py --kills 4 --damages 100  two minutes

Kills: `data prepare`, `fit`, `predict` and `ablate` on a few small phantoms, with the packaged phantom_small.yaml at a
smaller size; each ended by SIGKILL at a random moment, run again, and what it leaves is compared bit for bit with what
a run leaves that nobody disturbed. Damages: one flipped bit, 4 KiB of zeros or a cut, at a random place of a file that
a command then reads. Detected: an error or a warning that names the file. Without effect: what is read is the same.
Silent: something else is read and nothing is said. Exit status 1 where a kill lost something, anything crashed, or
anything was silent that has a checksum.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = """\
base: phantom_small.yaml
vars: {folder: ., word_alignment_steps: 4}
task: {views: {size: [16, 16, 8]}, max_length: 512}
data: {batch_size: 2, eval_batch_size: 1, limit_eval_studies: 4}
model:
  max_new_tokens: 48
  texture: {init_args: {channels: [8, 8], dim: 16, patch: [2, 2, 2]}}
  geometry: {init_args: {channels: [8, 8], dim: 8, patch: [2, 2, 2]}}
trainer: {max_steps: 24, val_check_interval: 6, log_every_n_steps: 6, enable_progress_bar: false}
"""
STUDIES, SIZE = "24", ("48", "48", "40")
PREPARE = ("data", "prepare", "--config", "tiny.yaml", "--bake", "--workers", "1")
FIT = ("fit", "--config", "tiny.yaml", "--ckpt_path", "last")
PREDICT = ("predict", "--config", "tiny.yaml", "--ckpt_path", "kept/last.ckpt")
ABLATE = ("ablate", "full", "--runs", "full", "--seeds", "0", "-c", "tiny.yaml", "--out", "ablation", "--jobs")
# Its stages in one process; in two kills of ten each in a process of its own, which a kill leaves behind for a moment.
HERE, APART = (*ABLATE, "0"), (*ABLATE, "1")


def reg2rg(folder: Path, *words: str) -> subprocess.Popen[bytes]:
    """Start a command in a folder; its words go into log.txt there."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with open(folder / "log.txt", "ab") as log:
        command = [sys.executable, "-m", "reg2rg.cli.main", *words]
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)


def finish(folder: Path, *words: str) -> None:
    """Run a command to its end; leave with its log if it fails."""
    if reg2rg(folder, *words).wait():
        sys.exit(f"reg2rg {' '.join(words)} failed:\n{(folder / 'log.txt').read_text(errors='replace')[-3000:]}")


# ---- what a command leaves


def files_in(folder: Path, *patterns: str) -> dict[str, str]:
    """File -> digest of its bytes."""
    found = sorted(file for pattern in patterns for file in folder.glob(pattern) if file.is_file())
    return {file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in found}


def tensors_of(value: Any, digest: Any) -> None:
    """Feed every tensor and plain value of a nested value into a digest."""
    import torch

    if isinstance(value, torch.Tensor):
        digest.update(str((value.dtype, tuple(value.shape))).encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, dict):
        for key in value:
            digest.update(repr(key).encode())
            tensors_of(value[key], digest)
    elif isinstance(value, list | tuple):
        for item in value:
            tensors_of(item, digest)
    else:
        digest.update(repr(value).encode())


def training_in(folder: Path, pattern: str) -> dict[str, str]:
    """Last checkpoints: weights, the optimiser's state and the step, to the bit."""
    import torch

    found = {}
    for path in sorted(folder.glob(pattern)):
        checkpoint, digest = torch.load(path, map_location="cpu", weights_only=True), hashlib.sha256()
        tensors_of([checkpoint[key] for key in ("state_dict", "optimizer_states", "global_step")], digest)
        found[path.relative_to(folder).as_posix()] = digest.hexdigest()
    return found


def prepared(folder: Path) -> dict[str, str]:
    known = files_in(folder, "store/native/*", "store/views/*/*", "store/*.json")
    return {name: digest for name, digest in known.items() if name != "store/inputs.json"}  # inodes and times


def trained(folder: Path) -> dict[str, str]:
    return training_in(folder, "runs/checkpoints/last.ckpt")


def predicted(folder: Path) -> dict[str, str]:
    return files_in(folder, "runs/predictions/studies/*", "runs/predictions/predictions.csv")


def ablated(folder: Path) -> dict[str, str]:
    files = files_in(folder, "ablation/full/seed0/predictions/studies/*", "ablation/full/seed0/predictions/*.csv")
    return files | training_in(folder, "ablation/full/seed0/checkpoints/last.ckpt")


@dataclass(frozen=True)
class Job:
    """A command that is killed, the parts of the base that it starts from, and what it leaves."""

    name: str
    words: tuple[str, ...]
    needs: tuple[str, ...]
    leaves: Callable[[Path], dict[str, str]]


JOBS = (
    Job("data prepare", PREPARE, (), prepared),
    Job("fit", FIT, ("store", "lm"), trained),
    Job("predict", PREDICT, ("store", "lm", "kept"), predicted),
    Job("ablate", HERE, ("store", "lm"), ablated),
)


def fresh(base: Path, job: Job, folder: Path) -> Path:
    """A folder from which the command can start."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name in ("data", *job.needs):
        shutil.copytree(base / name, folder / name)
    shutil.copy(base / "tiny.yaml", folder)
    return folder


def kills(base: Path, count: int, dice: random.Random, names: Sequence[str]) -> list[dict[str, Any]]:
    """Kill each command so many times; one row a command."""
    rows = []
    jobs = [job for job in JOBS if job.name in names]
    for place, job in enumerate(jobs):
        wanted = count // len(jobs) + (place < count % len(jobs))
        begun = time.monotonic()
        finish(fresh(base, job, base / "work"), *job.words)
        whole, expected = time.monotonic() - begun, job.leaves(base / "work")
        if not expected:
            sys.exit(f"{job.name} left nothing to compare")
        row = {"command": job.name, "kills": 0, "equal": 0, "failed": 0, "seconds": round(whole, 1)}
        while row["kills"] < wanted:
            folder = fresh(base, job, base / "work")
            words = APART if job.words is HERE and row["kills"] % 5 == 4 else job.words
            process = reg2rg(folder, *words)
            time.sleep(dice.uniform(0.05, 0.95) * whole)
            if process.poll() is not None:  # it was done before
                whole *= 0.95
                continue
            process.send_signal(signal.SIGKILL)
            process.wait()
            row["kills"] += 1
            failed = reg2rg(folder, *words).wait() != 0
            row["failed"] += failed
            row["equal"] += not failed and job.leaves(folder) == expected
            if failed or job.leaves(folder) != expected:
                shutil.copytree(folder, base / f"lost_{job.name.replace(' ', '_')}_{row['kills']}", dirs_exist_ok=True)
        print(f"| {' | '.join(map(str, row.values()))} |", flush=True)
        rows.append(row)
    return rows


# ---- damages


def flipped(content: bytes, dice: random.Random) -> bytes:
    changed = bytearray(content)
    changed[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    return bytes(changed)


def zeroed(content: bytes, dice: random.Random) -> bytes:
    start = dice.randrange(max(1, len(content) - 4096))
    return content[:start] + bytes(min(4096, len(content) - start)) + content[start + 4096 :]


def cut(content: bytes, dice: random.Random) -> bytes:
    return content[: dice.randrange(len(content))]


KINDS = (flipped, zeroed, cut)


@dataclass(frozen=True)
class Target:
    """A file, or several, that is damaged, and how it is read.

    Attributes:
        name: row of the table.
        files: one is taken at random.
        read: a word for what is read, another for other content.
        checksum: the format has one, so that nothing may be silent.
    """

    name: str
    files: tuple[Path, ...]
    read: Callable[[], str]
    checksum: bool = True


class Told(logging.Handler):
    """Remembers warnings."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(record.getMessage())


@contextmanager
def listening() -> Iterator[Told]:
    told = Told()
    logger = logging.getLogger("reg2rg")
    logger.addHandler(told)
    logger.propagate = False
    try:
        yield told
    finally:
        logger.removeHandler(told)


def word(*values: Any) -> str:
    digest = hashlib.sha256()
    tensors_of(list(values), digest)
    return digest.hexdigest()


def targets(base: Path) -> list[Target]:
    """Everything that is damaged, in a copy of its own."""
    from reg2rg import Reg2RG
    from reg2rg.core.regions import load_region_set
    from reg2rg.core.types import RegionFiles, Study
    from reg2rg.evaluation.records import read_records
    from reg2rg.scans.base import ReadOptions
    from reg2rg.scans.read import read_study
    from reg2rg.store.store import Store
    from reg2rg.training.checkpoints import read_checkpoint

    regions = load_region_set("radgenome")
    scan = min((base / "data").glob("train_preprocessed/**/*.nii.gz"))
    [mask] = (base / "data").glob(f"train_region_mask/seg_{scan.name.removesuffix('.nii.gz')}/lung.nii.gz")
    home = base / "damage"
    home.mkdir()
    for source, name in ((scan, "scan"), (mask, "mask")):
        shutil.copy(source, home / f"{name}.nii.gz")
        inflate = "import gzip,sys;open(sys.argv[2],'wb').write(gzip.open(sys.argv[1]).read())"
        subprocess.run([sys.executable, "-c", inflate, home / f"{name}.nii.gz", home / f"{name}.nii"], check=True)
    for name in ("store", "kept"):
        shutil.copytree(base / name, home / name)
    shutil.copytree(base / "runs" / "predictions", home / "predictions")
    (home / "alone").mkdir()
    shutil.copy(base / "kept" / "last.ckpt", home / "alone")
    shutil.copytree(base / "model", home / "model")

    def volume(image: str, lung: str) -> str:
        study = Study(id="s", image=home / image, masks=RegionFiles({"lung": home / lung}), patient="p", split="train")
        found = read_study(study, regions, ReadOptions())
        masks = [mask.tobytes() for mask in found.masks.values()]
        return word(found.volume.array.tobytes(), found.volume.affine.tobytes(), masks, list(found.masks))

    store = Store(home / "store")
    study = store.studies()[0]
    views = next((home / "store" / "views").iterdir()) / store.native_path(study).name

    def native() -> str:
        detail = Store(home / "store").read(study).detail
        return word(detail.array.tobytes(), detail.affine.tobytes(), [m.array.tobytes() for m in detail.masks.values()])

    def baked() -> str:
        from reg2rg.core.task import Views

        found = Store(home / "store").views(study, Views(size=(16, 16, 8), window=(-1000, 200)))
        arrays = (found.texture, found.geometry, found.global_)
        return word(found.regions, [None if array is None else array.tobytes() for array in arrays])

    def model() -> str:
        found = Reg2RG.from_pretrained(home / "model")
        tokens = sorted(found.reporter.llm.tokenizer.get_vocab().items())
        return word(dict(found.state_dict()), found.run_config, found.contract, tokens)

    records = tuple(sorted((home / "predictions" / "studies").iterdir()))
    sealed = tuple(sorted(file for file in (home / "model").rglob("*") if file.is_file()))
    return [
        Target("scan .nii.gz", (home / "scan.nii.gz",), lambda: volume("scan.nii.gz", "mask.nii.gz")),
        Target("mask .nii.gz", (home / "mask.nii.gz",), lambda: volume("scan.nii.gz", "mask.nii.gz")),
        Target("scan .nii", (home / "scan.nii",), lambda: volume("scan.nii", "mask.nii.gz"), checksum=False),
        Target("mask .nii", (home / "mask.nii",), lambda: volume("scan.nii.gz", "mask.nii"), checksum=False),
        Target("store: native detail", (store.native_path(study),), native),
        Target("store: views", (views,), baked),
        Target("store: index.json", (home / "store" / "index.json",), lambda: word(Store(home / "store").index())),
        Target("checkpoint with .sha256", (home / "kept" / "last.ckpt",),
               lambda: word(read_checkpoint(home / "kept" / "last.ckpt"))),
        Target("checkpoint alone", (home / "alone" / "last.ckpt",),
               lambda: word(read_checkpoint(home / "alone" / "last.ckpt"))),
        Target("model folder, all files", sealed, model),
        Target("predictions, one a study", records, lambda: word(list(read_records(home / "predictions")))),
    ]  # fmt: skip


def outcome(target: Target, path: Path, content: bytes, expected: str, usual: list[str]) -> str:
    """Write damaged content, read, and put the file back."""
    from reg2rg.core.errors import Reg2RGError

    good, status = path.read_bytes(), path.stat()
    path.write_bytes(content)
    try:
        with listening() as told:
            found = target.read()
    except Reg2RGError as error:
        return "detected" if path.name in str(error) or "Fix: " in str(error) else "crashed"
    except Exception as error:
        print(f"crashed: {target.name}, {path.name}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        return "crashed"
    finally:
        path.write_bytes(good)
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    if [message for message in told.messages if message not in usual and path.name in message]:
        return "detected"
    return "no effect" if found == expected else "silent"


def damages(base: Path, count: int, dice: random.Random) -> list[dict[str, Any]]:
    """Damage each kind of file so many times; one row a kind."""
    rows, every = [], targets(base)
    for place, target in enumerate(every):
        with listening() as told:
            expected = target.read()
        if target.read() != expected:
            sys.exit(f"{target.name}: read twice, and not the same")
        wanted, counts = count // len(every) + (place < count % len(every)), Counter[str]()
        while counts.total() < wanted:
            path = target.files[counts.total() % len(target.files)]
            good = path.read_bytes()
            content = KINDS[counts.total() % len(KINDS)](good, dice)
            if content != good:  # zeros over zeros are no damage
                counts[outcome(target, path, content, expected, told.messages)] += 1
        row = {"file": target.name, "trials": counts.total()}
        row |= {kind: counts[kind] for kind in ("detected", "no effect", "silent", "crashed")}
        rows.append(row | {"checksum": "yes" if target.checksum else "none"})
        print(f"| {' | '.join(map(str, rows[-1].values()))} |", flush=True)
    return rows


def make_base(base: Path) -> None:
    """A few phantoms, a language model, a store, a checkpoint, its model folder and predictions."""
    (base / "tiny.yaml").write_text(CONFIG)
    finish(base, "data", "phantom", "data", "--studies", STUDIES, "--size", *SIZE, "--workers", "0")
    sizes = ("--hidden_size", "32", "--layers", "2", "--heads", "2", "--vocab_size", "300", "--steps", "5")
    finish(base, "lm", "lm", "--config", "tiny.yaml", *sizes)
    finish(base, *PREPARE)
    finish(base, *FIT)
    shutil.copytree(base / "runs" / "checkpoints", base / "kept")
    finish(base, *PREDICT)
    finish(base, "export", "--ckpt_path", "kept/last.ckpt", "--out", "model")


def main() -> int:
    """Run both, print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [job.name for job in JOBS]
    parser.add_argument("--kills", type=int, default=40, help="over the commands (default 40)")
    parser.add_argument("--commands", nargs="+", choices=names, default=names, help="which are killed (default: all)")
    parser.add_argument("--damages", type=int, default=600, help="over eleven kinds of files (default 600)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the counts here too")
    parser.add_argument("--keep", type=Path, help="work in this folder and keep it; what is there is used again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        base = options.keep or Path(temporary)
        base.mkdir(exist_ok=True)
        base, begun = base.resolve(), time.monotonic()
        if not (base / "model").is_dir():
            make_base(base)
        shutil.rmtree(base / "damage", ignore_errors=True)
        found = {}
        if options.damages:
            print("| file | trials | detected | no effect | silent | crashed | checksum |")
            print("|---|--:|--:|--:|--:|--:|---|")
            found["damages"] = damages(base, options.damages, random.Random(options.seed))
        if options.kills:
            print("\n| command | kills | equal | failed | seconds of a run |\n|---|--:|--:|--:|--:|", flush=True)
            found["kills"] = kills(base, options.kills, random.Random(options.seed), options.commands)
    print(f"\n{time.monotonic() - begun:.0f} s in all")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2))
    lost = any(row["equal"] < row["kills"] for row in found.get("kills", ()))
    wrong = any(row["crashed"] or (row["silent"] and row["checksum"] == "yes") for row in found.get("damages", ()))
    return int(lost or wrong)


if __name__ == "__main__":
    sys.exit(main())
