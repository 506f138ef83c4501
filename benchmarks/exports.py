"""Writing a report down: time, memory and size of each format, on a DICOM CT with ten masks.

    python benchmarks/exports.py [--size 512x512x300] [--formats NAMES]

The scan is synthetic (`_scan.py`), written as a scanner's series; ten paragraphs of 300 characters. Headers are read
anew by each format, as when it is the only one. "asked" is what it takes to find out, before the model runs, whether
the format can be written of the scan. CPU seconds, one thread; files in a temporary folder.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from _measure import machine, take_turns  # noqa: E402 (after the number of threads is set)
from _scan import write_study  # noqa: E402

from reg2rg.config.sources import components  # noqa: E402
from reg2rg.core.regions import load_region_set  # noqa: E402
from reg2rg.core.report import Paragraph, Report  # noqa: E402
from reg2rg.core.types import Study  # noqa: E402
from reg2rg.extras.dicom_study import write_dicom_study  # noqa: E402
from reg2rg.inference.generate import exporter_named  # noqa: E402
from reg2rg.inference.result import Provenance, ReportResult  # noqa: E402
from reg2rg.scans.base import ReadOptions  # noqa: E402
from reg2rg.scans.read import read_study  # noqa: E402
from reg2rg.scans.segmenters import MadeBy  # noqa: E402
from reg2rg.store.attributes import measure  # noqa: E402
from reg2rg.store.crop import crop_to_foreground  # noqa: E402

SENTENCE = "No suspicious lesion is seen in this part of the examination. "


def result_of(folder: Path, size: tuple[int, int, int]) -> ReportResult:
    """A report on a study of the size."""
    nifti, regions = write_study(folder / "nifti", size), load_region_set()
    scan = write_dicom_study(nifti.image, folder / "scan")
    options = ReadOptions(implausible="ignore")
    study = Study("scan", "patient", "test", scan, nifti.masks)
    source = read_study(study, regions, options)
    paragraphs = (Paragraph(slot, name, (SENTENCE * 5)[:300].strip()) for slot, name in enumerate(source.masks))
    return ReportResult(
        study=study,
        report=Report(tuple(paragraphs)),
        source=source,
        asked=tuple(source.masks),
        absent={},
        made_by=Provenance({}, "0" * 16, MadeBy("files"), options),
        attributes=measure(crop_to_foreground(source), regions),
        codes=regions.codes(),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="512x512x300")
    parser.add_argument("--formats", default="", help="names of exporters, by default all")
    options = parser.parse_args()
    first, second, third = map(int, options.size.split("x"))
    known = [found.name for found in components() if found.kind == "exporter" and found.module.startswith("reg2rg.")]
    names = [name for name in options.formats.split(",") if name] or known
    with tempfile.TemporaryDirectory() as temporary:
        result, out = result_of(Path(temporary), (first, second, third)), Path(temporary, "out")
        print(f"{options.size}, {len(result.masks)} masks; {machine(1)}\n")
        print("| format | asked, CPU s | written, CPU s | memory, MiB | files, KB |\n|---|---|---|---|---|")
        for name in names:
            exporter = exporter_named(name)
            took = take_turns(
                {
                    "asked": lambda each=exporter: each.refusal(result.study.image, True, result.made_by.options),
                    "written": lambda each=exporter, to=out / name: each.write(result, to),
                },
                3,
            )
            assert not took["asked"].output
            sizes = ", ".join(f"{path.stat().st_size / 1000:,.0f}" for path in took["written"].output)
            memory = took["written"].peak / 2**20
            print(
                f"| {name} | {took['asked'].cpu:.2f} | {took['written'].cpu:.2f} | {memory:.0f} | {sizes} |",
                flush=True,
            )
