"""`reg2rg predict` with nothing left to do, beside one pass that stats the same files.

    python benchmarks/predict_again.py                     5,000 studies
    python benchmarks/predict_again.py --studies 50000

The studies are those of many_studies.py; in the place of the store's entries and of the records stand small files, for
none of them is opened. Beside it stand the pass that stats those files, by paths that are known, and the listing of the
table, which checks that each scan is there. Each step runs in a process of its own, imports not counted; so does the
way that was taken before there was done.json: every record read and checked, and the table written.

Exit status 1 if it takes more than twice the pass.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from many_studies import THREADS, make

CONFIG = """
task: {regions: radgenome}
data:
  dataset:
    class_path: Manifest
    init_args: {path: FOLDER/studies.csv, label_map: {lung: [10], heart: [51]}, val_fraction: 0.0}
  store: FOLDER/again/store
  predict_split: train
model: {}
trainer:
  callbacks:
    - {class_path: PredictionWriter, init_args: {out: FOLDER/again/predictions}}
"""
STEPS = ("stat", "list", "nothing to do", "read records")


def finish(folder: Path, studies: int) -> None:
    """A folder in which all studies are reported on."""
    from reg2rg.core.documents import DIGEST, _digest  # write_record waits for the disk, which is not measured here

    text = "The region 0 is lung: A nodule of 3 mm is seen in the right lung. No pleural effusion. " * 10
    record = {
        "regions": ["lung"],
        "text": text,
        "question": text,
        "decoding": "constrained",
        "reference": {"lung": text},
    }
    for part in ("store/native", "predictions/studies"):
        (folder / "again" / part).mkdir(parents=True, exist_ok=True)
    for number in range(studies):
        name = f"s{number:06d}"
        (folder / f"again/store/native/{name}.r2g").write_text(name)
        path = folder / f"again/predictions/studies/{name}.json"
        values = {"study": name, **record}
        path.write_text(json.dumps({**values, DIGEST: _digest(values)}, indent=2))
    (folder / "run.yaml").write_text(CONFIG.replace("FOLDER", str(folder)))
    time.sleep(5)  # a table that was written a moment ago is not trusted to be left alone
    found = asked(folder)
    found.note(found.listed(found.dataset()))


def asked(folder: Path):
    from reg2rg.cli.main import Invocation
    from reg2rg.cli.predicted import Asked

    found = Asked.of(Invocation("predict", ("--config", str(folder / "run.yaml"))))
    assert found is not None
    return found


def step(name: str, folder: Path) -> dict[str, float]:
    """Run one step in this process."""
    import reg2rg.cli.section  # noqa: F401 (an import, not counted)
    from reg2rg.cli import predicted  # noqa: F401
    from reg2rg.datasets.manifest import Manifest
    from reg2rg.evaluation.records import read_records, write_table

    parts = [folder / "again/store/native", folder / "again/predictions/studies"]
    files = [f"{part}/{file}" for part in parts for file in sorted(os.listdir(part))] if name == "stat" else []  # noqa: PTH208
    before = _peak()
    wall, cpu = time.perf_counter(), time.process_time()
    if name == "stat":
        for file in files:
            os.stat(file)  # noqa: PTH116 (the quickest there is)
    elif name == "list":
        Manifest(str(folder / "studies.csv"), label_map={"lung": [10], "heart": [51]}, val_fraction=0.0).studies()
    elif name == "nothing to do":
        assert asked(folder).done() is not None
    else:
        for _ in read_records(folder / "again/predictions"):
            pass
        write_table(folder / "again/predictions")
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": _peak() - before}


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=5000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "reg2rg-predict-again")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    options = parser.parse_args()
    folder = options.folder / str(options.studies)
    if options.step:
        sys.stdout.write(json.dumps(step(options.step, folder)) + "\n")
        return 0
    make(folder, options.studies, 0)
    finish(folder, options.studies)
    found = {}
    for name in STEPS:
        words = [sys.executable, __file__, "--step", name, "--folder", str(options.folder)]
        done = subprocess.run(
            [*words, "--studies", str(options.studies)], env=os.environ | THREADS, capture_output=True, check=True
        )
        found[name] = json.loads(done.stdout.splitlines()[-1])
    once = found["stat"]["cpu"]
    print(f"{options.studies:,} studies")
    print(f"{'step':<15}{'wall s':>8}{'CPU s':>8}{'us a study':>12}{'x stat':>8}{'peak KiB each':>15}")
    for name, row in found.items():
        each, memory = 1e6 * row["cpu"] / options.studies, row["peak"] / 1024 / options.studies
        print(f"{name:<15}{row['wall']:>8.2f}{row['cpu']:>8.2f}{each:>12.1f}{row['cpu'] / once:>8.2f}{memory:>15.2f}")
    good = found["nothing to do"]["cpu"] <= 2 * once
    print("x stat: over the pass that stats the same files. Bar, 2 with nothing to do:", "held" if good else "MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
