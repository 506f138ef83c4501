"""50,000 tiny studies: what listing, checking, summing up and preparing cost where there is nothing to do.

    python benchmarks/many_studies.py                           50,000 studies of 16 x 16 x 16 voxels with a label map
    python benchmarks/many_studies.py --studies 5000            fewer
    python benchmarks/many_studies.py --against FOLDER          and the same with the package of another checkout

    python benchmarks/many_studies.py --masks 10                ten mask files a study in place of a label map

Beside check and prepare with nothing to do ("again", over unchanged files) stands one pass that stats the same files,
by paths that are known: of check every input of every study, of prepare what the store has of it too. Each step runs in
a process of its own, one thread and no workers, so that CPU seconds and peak memory are its own; imports are not
counted.

--against takes an older layout of the package too. Its check reads every study whenever it runs. So that both look for
the same faults, masks are not held against the scan here (`implausible: ignore`), which would take most of the time of
a first check of scans so small.

The studies are made once below --folder and used again. Exit status 1 if check or prepare with nothing to do take more
than twice the pass that stats the same files, or more CPU than the other checkout's.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), "1")
STEPS = ("check", "check again", "prepare", "prepare again", "stat of inputs", "stat of all", "list", "summary")
REPORT = "The heart is of normal size. A nodule of {} mm is seen in the right lung. No pleural effusion."


REGIONS = ("lung", "heart", "abdomen", "bone", "breast", "esophagus", "mediastinum", "pleura", "thyroid", "trachea")


def make(folder: Path, studies: int, masks: int) -> None:
    """Tiny studies: a body of noise in air, and a label map of two regions or a mask file for each of several."""
    import nibabel as nib
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    affine, labels = np.diag([4.0, 4.0, 4.0, 1.0]), np.zeros((16, 16, 16), np.uint8)
    labels[3:7, 4:9, 4:12], labels[9:13, 6:10, 6:10] = 10, 51
    of_regions = {"_seg": labels} if not masks else {f"_{name}": labels // 10 == 1 for name in REGIONS[:masks]}
    packed = {name: nib.Nifti1Image(mask.astype(np.uint8), affine).to_bytes() for name, mask in of_regions.items()}
    rows = [
        ",".join(["id", "image", *(["mask"] if not masks else map("mask:{}".format, REGIONS[:masks])), "report:lung"])
    ]
    for number in range(studies):
        name = f"s{number:06d}"
        path = folder / "ct" / f"{number // 1000:03d}" / f"{name}.nii"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            array = np.full((16, 16, 16), -1000, np.int16)
            array[2:14, 3:12] = np.random.default_rng(number).integers(-40, 60, (12, 9, 16))
            array[labels == 10] = -850
            for end, data in packed.items():
                path.with_name(f"{name}{end}.nii").write_bytes(data)
            path.write_bytes(nib.Nifti1Image(array, affine).to_bytes())
        scan = path.relative_to(folder)
        files = [str(scan), *(str(scan.with_name(f"{name}{end}.nii")) for end in packed)]
        rows.append(f'{name},{",".join(files)},"{REPORT.format(number % 30 + 1)}"')
    (folder / "studies.csv").write_text("\n".join(rows) + "\n")


NAMES = {
    "check_dataset": ("reg2rg.check.run", "reg2rg.data.check"),
    "load_region_set": ("reg2rg.core.regions", "reg2rg.regions"),
    "Manifest": ("reg2rg.datasets.manifest", "reg2rg.data.datasets.manifest"),
    "ReadOptions": ("reg2rg.scans.base", "reg2rg.data.volumes"),
    "prepare": ("reg2rg.store.prepare", "reg2rg.data.prepare"),
    "Store": ("reg2rg.store.store", "reg2rg.data.store"),
}
"""What is measured, and where it stands: here, and in an older layout of the package."""


def _imported(name: str):
    for module in NAMES[name]:
        with contextlib.suppress(ModuleNotFoundError):
            return getattr(importlib.import_module(module), name)
    raise ModuleNotFoundError(f"{name}: none of {', '.join(NAMES[name])}")


def step(name: str, folder: Path, store: Path, count: int) -> dict[str, float]:
    """Run one step in this process."""
    check_dataset, load_region_set, Manifest, ReadOptions, prepare, Store = map(_imported, NAMES)
    regions = load_region_set("radgenome")
    options = _options(ReadOptions)
    dataset = Manifest(str(folder / "studies.csv"), label_map={"lung": [10], "heart": [51]}, val_fraction=0.0)
    if name.startswith("stat"):
        kept = Store(store)
        files = []
        for study in dataset.studies()[:count]:
            masks = [study.masks.file] if hasattr(study.masks, "file") else study.masks.files.values()
            files += [study.image, *masks]
            files += [kept.native_path(study.id), kept.attributes_path(study.id)] if name == "stat of all" else []
        texts = [str(file) for file in files]
    base = _peak()
    wall, cpu = time.perf_counter(), time.process_time()
    if name.startswith("stat"):
        for text in texts:
            os.stat(text)  # noqa: PTH116 (the quickest there is)
    elif name == "list":
        dataset.studies()
    elif name.startswith("check"):
        check_dataset(dataset, regions, options, workers=0, overlays=0, out=store / "check")
    elif name.startswith("prepare"):
        prepare(dataset, store, regions, options, workers=0)
    else:
        from reg2rg.check.summary import summarise

        summarise(dataset, regions, options, workers=0)
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": _peak() - base}


def _options(made: type) -> object:
    try:
        return made(implausible="ignore")
    except TypeError:  # before masks were held against the scan
        return made()


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0


def run(name: str, folder: Path, store: Path, studies: int, source: Path | None) -> dict[str, float] | None:
    """Run one step in a process of its own; ``None`` where that package has no such step."""
    env = os.environ | THREADS | ({} if source is None else {"PYTHONPATH": str(source / "src")})
    words = [sys.executable, __file__, "--step", name, "--folder", str(folder), "--store", str(store)]
    done = subprocess.run([*words, "--studies", str(studies)], env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.stderr.write(f"{name}: {done.stderr[-2000:]}\n")
        return None
    return json.loads(done.stdout.splitlines()[-1])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=50_000)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "reg2rg-many-studies")
    parser.add_argument("--masks", type=int, default=0, choices=range(len(REGIONS) + 1), help="mask files a study")
    parser.add_argument("--against", type=Path, metavar="FOLDER", help="root of another checkout")
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        sys.stdout.write(json.dumps(step(options.step, options.folder, options.store, options.studies)) + "\n")
        return 0
    folder = options.folder / f"{options.studies}-{options.masks}"
    make(folder, options.studies, options.masks)
    time.sleep(3)  # a listing of what was made a moment ago is not trusted: clocks of file systems tick slowly
    sides = {"this": None} | ({"other": options.against.resolve()} if options.against else {})
    found = {}
    for side, source in sides.items():
        store = folder / f"store-{side}"
        for name in STEPS:
            if side == "this" or name.startswith(("check", "prepare")):
                found[side, name] = run(name, folder, store, options.studies, source)
    passes = {"check again": found["this", "stat of inputs"], "prepare again": found["this", "stat of all"]}
    print(f"{options.studies:,} studies of a scan and {f'{options.masks} masks' if options.masks else 'a label map'}")
    print(f"{'':<7}{'step':<16}{'wall s':>8}{'CPU s':>8}{'us a study':>12}{'x its stat':>12}{'peak MiB':>10}")
    good = True
    for (side, name), row in found.items():
        if row is None:
            continue
        times = f"{row['cpu'] / passes[name]['cpu']:.2f}" if name in passes else ""
        each = 1e6 * row["cpu"] / options.studies
        print(
            f"{side:<7}{name:<16}{row['wall']:>8.2f}{row['cpu']:>8.2f}{each:>12.1f}{times:>12}"
            f"{row['peak'] / 2**20:>10.1f}"
        )
        if side == "this" and name in passes:
            other = found.get(("other", name))
            good &= row["cpu"] <= 2 * passes[name]["cpu"] and (other is None or row["cpu"] <= other["cpu"])
    print("x its stat: over the pass that stats the same files. Bars:", "held" if good else "MISSED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
