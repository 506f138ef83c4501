"""Your own scans: list them in a table, look through them, bring them into a store.

python examples/own_dataset.py --table studies.csv --out runs/mine
Without a table a toy one is made. docs/how-to/data.md lists the columns.
"""

from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path

from reg2rg.check.report import print_check
from reg2rg.check.run import check_dataset
from reg2rg.datasets import Manifest, RadGenome
from reg2rg.extras.phantom.writer import write_phantoms
from reg2rg.store.prepare import prepare
from reg2rg.store.store import Store

REGIONS = ("lung", "heart", "bone")


def toy_table(root: Path) -> Path:
    """A hospital's own folder: scans, one mask file a region, and a table with a text for each region."""
    write_phantoms(root / "source", studies=5, seed=0, size=(48, 48, 32), workers=0)
    columns = ["id", "patient", "split", "image", *(f"{kind}:{r}" for kind in ("mask", "report") for r in REGIONS)]
    rows = []
    for study in RadGenome(str(root / "source")).studies():
        row = {"id": f"scan-{study.id}", "patient": study.patient, "split": study.split}
        row["image"] = os.path.relpath(study.image, root)  # paths are relative to the table
        for region in REGIONS:
            row[f"mask:{region}"] = os.path.relpath(study.masks.files[region], root)
            row[f"report:{region}"] = study.reports[region]
        rows.append(row)
    table = root / "studies.csv"
    with table.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return table


def main() -> None:
    """Look at everything, then prepare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", type=Path, help="CSV or JSON lines, one row a study")
    parser.add_argument("--out", type=Path, default=Path("runs/own_dataset"))
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 works in this one")
    options = parser.parse_args()
    out = options.out
    out.mkdir(parents=True, exist_ok=True)

    dataset = Manifest(str(options.table or toy_table(out)))
    result = check_dataset(dataset, workers=options.workers, overlays=1, out=out / "check")
    print_check(result)  # every fault with its reason code; look at the pictures in check/overlays too

    summary = prepare(dataset, out / "store", workers=options.workers)
    print(summary.describe())
    store = Store(out / "store")
    for study in store.studies():
        print(f"{study}: {', '.join(store.regions(study))}")
    print(f"in a config:  data: {{dataset: {{class_path: Manifest, init_args: {{path: {dataset.path}}}}}}}")


if __name__ == "__main__":
    main()
