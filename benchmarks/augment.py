"""What transforms of training studies cost: CPU seconds a sample with and without them, one thread.

    python benchmarks/augment.py [--size 512x512x300] [--views 256x256x64]

A synthetic CT with ten masks in a store, native detail; all three views of all regions, as a sample has them.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLOSC_NTHREADS"):
    os.environ.setdefault(_name, "1")
os.environ["ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"] = "1"

import torchio  # noqa: E402 (after the number of threads is set)
from _measure import machine, take_turns  # noqa: E402
from _scan import write_study  # noqa: E402

from reg2rg.core.task import Views  # noqa: E402
from reg2rg.data.augment import Augment, AugmentedStore  # noqa: E402
from reg2rg.store.prepare import prepare  # noqa: E402
from reg2rg.store.store import Store  # noqa: E402

WAYS = {
    "noise": [torchio.RandomNoise(std=30)],
    "blur": [torchio.RandomBlur(std=0.7)],
    "affine": [torchio.RandomAffine(scales=0.05, degrees=5, translation=5)],
    "elastic": [torchio.RandomElasticDeformation()],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="512x512x300")
    parser.add_argument("--views", default="256x256x64")
    parser.add_argument("--repeats", type=int, default=1)
    options = parser.parse_args()
    size, views = (tuple(int(n) for n in text.split("x")) for text in (options.size, options.views))
    with tempfile.TemporaryDirectory() as name:
        study = write_study(Path(name) / "scan", size)
        prepare([study], Path(name) / "store", workers=0)
        store, settings = Store(Path(name) / "store"), Views(views)
        want = {"texture", "geometry", "global"}
        regions = store.regions(study.id)
        ways = {"none": lambda: store.views(study.id, settings, regions, want)}
        for way, transforms in WAYS.items():
            augmented = AugmentedStore(store, Augment(transforms), 0, 0)
            ways[way] = lambda source=augmented: source.views(study.id, settings, regions, want)
        results = take_turns(ways, options.repeats)
    print(f"{machine()}\n{options.size}, {len(regions)} masks, views of {options.views}")
    for way, result in results.items():
        print(f"{way:10} {result.cpu:6.1f} CPU s  {result.wall:6.1f} s  {result.peak / 2**30:5.1f} GiB")


if __name__ == "__main__":
    main()
