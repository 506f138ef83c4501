"""Preparing a study: the published recipe beside ours, on the same synthetic CT with ten masks.

    python benchmarks/prepare.py            512 x 512 x 200 for both, and 512 x 512 x 300 for ours alone; with less
                                            than 19 GiB of free memory, which the published recipe needs, both
                                            stand beside each other at the quick size instead
    python benchmarks/prepare.py --quick    256 x 256 x 150
    python benchmarks/prepare.py --slices 1200    ours alone, 512 x 512 x 1200

The published recipe (the data set of Reg2RG) is composed from the same library calls: nibabel's get_fdata in float64,
masks multiplied in, MONAI's CropForeground and area Resize, everything stacked. It runs for every sample of every
epoch, since its cache is bypassed. Ours reads, crops, packs and writes once; then a sample costs what "sample" says.
Each side runs in a process of its own, one thread, so that CPU time and peak memory are its own.
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

SIZE = (256, 256, 64)  # of a view
PUBLISHED_NEEDS = 19 * 2**30  # bytes, at the full size
FULL, LONG, QUICK = (512, 512, 200), (512, 512, 300), (256, 256, 150)
THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"), "1")


class Stopwatch:
    def __enter__(self):
        self.wall, self.cpu = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_):
        self.wall, self.cpu = time.perf_counter() - self.wall, time.process_time() - self.cpu


def published(study, out: Path) -> dict:
    """One sample of the published data set."""
    import nibabel as nib
    import numpy as np
    import torch
    from monai.transforms import Compose, CropForeground, CropForegroundd, Resize, Resized

    torch.set_num_threads(1)
    base = peak()
    with Stopwatch() as watch:
        image = nib.load(study.image).get_fdata()
        masks = {name: nib.load(path).get_fdata() for name, path in study.masks.files.items()}
        views = {}
        crop = Compose(
            [CropForeground(select_fn=lambda x: x > -1000, margin=0, allow_smaller=True), Resize(spatial_size=SIZE)]
        )
        for name, mask in masks.items():
            region = image * mask
            region[mask == 0] = -1024
            views[name] = scale(np.asarray(crop(region[None])))
        names = list(masks)
        stacked = np.stack([image, *masks.values()])
        data = {"image": stacked[:1], **{name: stacked[i + 1 : i + 2] for i, name in enumerate(names)}}
        keys = ["image", *names]
        data = CropForegroundd(keys, source_key="image", select_fn=lambda x: x > -1000, margin=0, allow_smaller=True)(
            data
        )
        data = Resized(keys, spatial_size=SIZE)(data)
        whole = scale(np.asarray(data["image"]))
        geometry = {name: np.asarray(data[name]) for name in names}
        texture = {name: np.repeat(view, 3, axis=0) for name, view in views.items()}
        del texture  # what the collate function is handed: three equal channels
    np.savez(
        out / "published.npz",
        **{f"texture/{name}": view[0].astype(np.float32) for name, view in views.items()},
        **{f"geometry/{name}": view[0].astype(np.float32) for name, view in geometry.items()},
        **{"global": whole[0].astype(np.float32)},
    )
    return {"wall": watch.wall, "cpu": watch.cpu, "peak": peak(), "base": base}


def ours(study, out: Path, repeats: int = 5) -> dict:
    """Read, crop, pack, bake, write; then load the sample from what was written."""
    import blosc2  # noqa: F401 (imports are not counted, on either side)
    import numpy as np

    from reg2rg.core.malloc import keep_freed_memory
    from reg2rg.core.regions import load_region_set
    from reg2rg.core.task import Views
    from reg2rg.store.attributes import measure
    from reg2rg.store.prepare import prepare
    from reg2rg.store.store import Store
    from reg2rg.store.views import compute_views

    keep_freed_memory()  # as in workers
    base = peak()
    with Stopwatch() as watch:
        prepare([study], out / "store", bake=Views(), workers=0)
    result = {"wall": watch.wall, "cpu": watch.cpu, "peak": peak(), "base": base}
    store = Store(out / "store")
    store.studies()
    samples = []
    for _ in range(repeats):
        with Stopwatch() as one:
            views = store.views(study.id, Views())
        samples.append(one.cpu)
    with Stopwatch() as native:
        store.read(study.id)
    with Stopwatch() as plain:
        prepare([study], out / "plain", workers=0)
    detail, regions = store.read(study.id).detail, load_region_set()
    with Stopwatch() as measured:
        measure(detail, regions)
    with Stopwatch() as computed:
        compute_views(Views(), store.read(study.id))
    if (out / "published.npz").exists():
        result["difference"] = compare(views, np.load(out / "published.npz"))
    npy = sum(array.nbytes for array in (views.texture, views.geometry, views.global_))
    return result | {
        "sample": min(samples),
        "sample_all": samples,
        "plain": plain.cpu,
        "measured": measured.cpu,
        "read_native": native.cpu,
        "views_from_native": computed.cpu,
        "native_bytes": store.native_path(study.id).stat().st_size,
        "views_bytes": store.views_path(study.id, Views()).stat().st_size,
        "npy_bytes": npy,
        "npy_bytes_uint8_masks": npy - views.geometry.nbytes // 2,
        "scan_bytes": sum(path.stat().st_size for path in [study.image, *study.masks.files.values()]),
    }


def compare(views, reference) -> float:
    """Largest difference of any voxel of any view, in the scaled unit."""
    import numpy as np

    worst = np.abs(scale(views.global_ / np.float32(16)) - reference["global"]).max()
    for row, name in enumerate(views.regions):
        worst = max(worst, np.abs(scale(views.texture[row] / np.float32(16)) - reference[f"texture/{name}"]).max())
        worst = max(worst, np.abs(views.geometry[row] / np.float32(32767) - reference[f"geometry/{name}"]).max())
    return float(worst)


def scale(view):
    import numpy as np

    return (np.clip(view, -1000, 200) + 400) / 600


def peak() -> int:
    """Largest resident size of this process so far, bytes (of this program alone: `getrusage` counts its parent in)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def in_process(side: str, size: tuple[int, int, int], folder: Path) -> dict:
    command = [sys.executable, __file__, "--side", side, "--size", "x".join(map(str, size)), "--folder", str(folder)]
    done = subprocess.run(command, env={**os.environ, **THREADS}, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} at {size} ended with {done.returncode} (-9: killed by the system for want of memory)")
    return json.loads(done.stdout.splitlines()[-1])


def free_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) * 1024
    return 0


def report(size, theirs: dict | None, mine: dict) -> None:
    gib, mb = 2**30, 1e6
    print(f"\n{' x '.join(map(str, size))}, ten masks, one thread")
    print(f"{'':34}{'published':>12}{'ours':>12}{'ratio':>10}")

    def row(label, a, b, unit, digits=2):
        left = f"{a:.{digits}f}" if a is not None else "-"
        ratio = f"{a / b:.1f} x" if a is not None and b else ""
        print(f"{label + ', ' + unit:34}{left:>12}{b:>12.{digits}f}{ratio:>10}")

    t = theirs or {}
    row("prepare, CPU", t.get("cpu"), mine["cpu"], "s")
    row("prepare, wall", t.get("wall"), mine["wall"], "s")
    row("prepare without baking, CPU", None, mine["plain"], "s")
    row("  of it, measuring regions, CPU", None, mine["measured"], "s")
    print(f"  measuring takes {mine['measured'] / mine['plain']:.1%} of preparing without baking (at most 10 %)")
    row("peak memory of the process", t["peak"] / gib if t else None, mine["peak"] / gib, "GiB")
    row("  less its imports", (t["peak"] - t["base"]) / gib if t else None, (mine["peak"] - mine["base"]) / gib, "GiB")
    row("sample, baked views, CPU", t["cpu"] * 1e3 if t else None, mine["sample"] * 1e3, "ms", 1)
    row("sample, from native detail, CPU", t["cpu"] * 1e3 if t else None, mine["views_from_native"] * 1e3, "ms", 1)
    npy = mine["npy_bytes"]
    print(f"bytes, MB: scan and masks .nii.gz {mine['scan_bytes'] / mb:.1f}; views as int16 npy {npy / mb:.1f}, with")
    print(
        f"  uint8 masks {mine['npy_bytes_uint8_masks'] / mb:.1f}; store: native {mine['native_bytes'] / mb:.1f}", end=""
    )
    print(f" + baked views {mine['views_bytes'] / mb:.1f} = ", end="")
    total = mine["native_bytes"] + mine["views_bytes"]
    print(f"{total / mb:.1f} ({npy / total:.1f} x and {mine['npy_bytes_uint8_masks'] / total:.1f} x smaller)")
    if "difference" in mine:
        print(f"largest difference of any view: {mine['difference']:.1e} of the scaled unit")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="256 x 256 x 150 only")
    parser.add_argument("--ours-only", action="store_true", help="leave the published recipe out")
    parser.add_argument("--slices", type=int, metavar="N", help="ours alone, 512 x 512 x N")
    parser.add_argument("--json", type=Path, help="write all figures there")
    parser.add_argument("--side", choices=["published", "ours"], help=argparse.SUPPRESS)
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    from _scan import write_study

    if options.side:
        study = write_study(options.folder / "scan", options.size)
        run = {"published": published, "ours": ours}[options.side]
        print(json.dumps(run(study, options.folder)))
        return
    both, alone = [FULL], [LONG]
    if options.quick:
        both, alone = [QUICK], []
    elif options.slices:
        both, alone = [], [(*FULL[:2], options.slices)]
    elif options.ours_only:
        both, alone = [], [FULL, LONG]
    elif free_memory() < PUBLISHED_NEEDS:
        print("Too little free memory for the published recipe at full size: side by side at the quick size instead.")
        both, alone = [QUICK], [FULL, LONG]
    figures = []
    for size in both + alone:
        with tempfile.TemporaryDirectory(prefix="reg2rg-bench-") as name:
            folder = Path(name)
            write_study(folder / "scan", size)
            theirs = in_process("published", size, folder) if size in both else None
            mine = in_process("ours", size, folder)
            report(size, theirs, mine)
            figures.append({"size": size, "published": theirs, "ours": mine})
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
