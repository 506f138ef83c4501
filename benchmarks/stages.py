"""`reg2rg report` on a chest CT of full size, from a scanner's folder to all formats: seconds of stages, file sizes.

    make demo
    python benchmarks/stages.py demo/model [--size 512x512x300]

The scan is synthetic (`_scan.py`), written as a scanner's series, with ten masks in files. Seconds are those of the run
record, in the order in which a report is made; the model is a small one, so that encoding and writing take next to
nothing beside what a 7B model takes (`full_recipe.md`), and the others what they take with any model.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from _measure import machine
from _scan import write_study

from reg2rg.extras.dicom_study import write_dicom_study

FORMATS = "JSON,Page,FHIR,SEG,TextSR,MeasurementSR,PDF"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder of a model")
    parser.add_argument("--size", type=lambda text: tuple(map(int, text.split("x"))), default=(512, 512, 300))
    options = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        study = write_study(folder / "nifti", options.size)
        scan = write_dicom_study(study.image, folder / "scan")
        masks = str(folder / "nifti" / "{region}.nii.gz")
        out = folder / "out"
        command = [sys.executable, "-m", "reg2rg.cli.main", "report", str(scan), "--model", options.model, "--masks",
                   masks, "-o", str(out), "--formats", FORMATS]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr[-3000:])
        [record] = out.rglob("*run.json")
        for stage, seconds in json.loads(record.read_text())["seconds"].items():
            print(f"{stage:40}{seconds:8.1f} s")
        for file in sorted(out.rglob("*")):
            if file.is_file():
                print(f"{file.name.partition('.')[2]:40}{file.stat().st_size / 1e3:8.0f} KB")
        print(done.stderr.splitlines()[-1])
    return 0


if __name__ == "__main__":
    sys.exit(main())
