"""The segmenter `Thresholds` beside masks of others: Dice of lungs, bones and airways, and seconds.

python benchmarks/thresholds.py                  40 phantoms of 3.6 x 3.6 x 5 mm, three of 1.5 mm
python benchmarks/thresholds.py --shared DIR     real CTs below DIR/data/ct too, where they are
"""

from __future__ import annotations

import argparse
import os
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

from reg2rg.core.regions import load_region_set
from reg2rg.core.types import Volume
from reg2rg.extras.phantom.anatomy import draw
from reg2rg.extras.phantom.grid import Grid
from reg2rg.extras.phantom.patient import draw_patient
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.class_names import TOTAL
from reg2rg.scans.grid import index_map, resample_nearest
from reg2rg.scans.plausibility import judge
from reg2rg.scans.read import read_image, read_scan
from reg2rg.scans.segmenters.thresholds import averaged, segment

REGIONS = load_region_set()
PHANTOM = {"lung": "lung", "bone": "bone", "trachea": "trachea and bronchie"}
BONES = ("rib", "vertebrae", "sacrum", "humerus", "scapula", "clavicula", "femur", "hip", "skull", "sternum", "costal")


def dice(one, other) -> float:
    return float(2 * np.count_nonzero(one & other) / (np.count_nonzero(one) + np.count_nonzero(other)))


def phantoms(seed: int, numbers, size: tuple[int, int, int]) -> None:
    grid, found, refused, begun = Grid(size), defaultdict(list), 0, 0.0
    for number in numbers:
        array, truth = draw(draw_patient(seed, number), grid)
        volume = Volume(array, grid.affine)
        start = time.process_time()
        masks = segment(volume)
        begun += time.process_time() - start
        verdict = judge(volume, {REGIONS.canonical(k): m for k, m in masks.items() if k in REGIONS}, REGIONS)
        refused += verdict is not None and verdict.strength == "strong"
        for name, region in PHANTOM.items():
            if region in truth:
                found[name].append(dice(masks[name], truth[region]) if name in masks else 0.0)
    spacing = " x ".join(f"{mm:.1f}" for mm in volume.spacing)
    print(
        f"{len(numbers)} phantoms of {spacing} mm: {begun / len(numbers):.1f} s each, {refused} refused as implausible"
    )
    for name, values in found.items():
        print(f"  {name:8} least {min(values):.3f}  median {np.median(values):.3f}  most {max(values):.3f}")


def real(folder: Path) -> None:
    lungs = tuple(label for name, label in TOTAL.items() if name.startswith("lung_"))
    bones = tuple(label for name, label in TOTAL.items() if name.startswith(BONES))
    cip, total = folder / "chestimagingplatform_BSDstyle", folder / "totalsegmentator_Apache2"
    values = np.unique(read_image(cip / "lm-64.nrrd").stored)
    cases = [
        (cip / "ct-64.nrrd", cip / "lm-64.nrrd", {"lung": [int(v) for v in values if 9 <= v % 256 <= 14]}),
        (total / "example_ct.nii.gz", total / "example_seg_fast_force_split.nii.gz", {"lung": lungs, "bone": bones}),
        (total / "example_ct_sm.nii.gz", total / "example_seg.nii.gz", {"lung": lungs, "bone": bones}),
    ]
    for scan, labels, wanted in cases:
        volume = read_scan(scan, ReadOptions(min_slices=1)).volume
        coarse, affine = averaged(volume)
        start = time.process_time()
        masks = segment(coarse)
        seconds = time.process_time() - start
        stored = read_image(labels)
        values = resample_nearest(stored.values(), index_map(volume.affine, stored.affine), volume.array.shape)
        mapping = index_map(volume.affine, affine)
        scores = {
            name: dice(resample_nearest(masks[name], mapping, volume.array.shape), np.isin(values, numbers))
            for name, numbers in wanted.items()
        }
        print(f"{scan.name}: {seconds:.1f} s  " + "  ".join(f"{name} {score:.3f}" for name, score in scores.items()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, default=os.environ.get("REG2RG_SHARED"), help="folder of real data")
    options = parser.parse_args()
    if options.shared and (Path(options.shared) / "data" / "ct").is_dir():
        real(Path(options.shared) / "data" / "ct")
    phantoms(5, range(40), (96, 96, 64))
    phantoms(77, (0, 2, 4), (224, 224, 208))


if __name__ == "__main__":
    main()
