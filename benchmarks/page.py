"""The page of a report: seconds, bytes, and how far the scan is thinned, for a synthetic chest CT with ten masks.

python benchmarks/page.py [--size 512x512x300]

The bar is a page of at most 10 MB. The noise of the synthetic CT, 20 HU, decides how well it is compressed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from _scan import write_study

from reg2rg.core.regions import load_region_set
from reg2rg.core.report import Paragraph, Report
from reg2rg.inference.result import Provenance, ReportResult
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.read import read_study
from reg2rg.scans.segmenters import MadeBy
from reg2rg.show.page_exporter import Page
from reg2rg.store.attributes import measure
from reg2rg.store.crop import crop_to_foreground

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", default="512x512x300", help="voxels")
    first, second, third = map(int, parser.parse_args().size.split("x"))
    with tempfile.TemporaryDirectory() as folder:
        study = write_study(Path(folder), (first, second, third))
        options = ReadOptions(implausible="ignore")
        source = read_study(study, load_region_set(), options)
        report = Report(tuple(Paragraph(i, name, f"The {name} is normal.") for i, name in enumerate(source.masks)))
        made_by = Provenance({}, "0", MadeBy("files"), options)
        attributes = measure(crop_to_foreground(source), load_region_set())
        result = ReportResult(study, report, source, tuple(source.masks), {}, made_by, attributes)
        wall, cpu = time.perf_counter(), time.process_time()
        [page] = Page().write(result, Path(folder))
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        html, size = page.read_text(encoding="utf-8"), page.stat().st_size
    thinned = html.partition('"thinned":"')[2].partition('"')[0] or "The picture is not thinned."
    print(f"{first} x {second} x {third}: {size / 1e6:.2f} MB, {cpu:.1f} CPU s, {wall:.1f} s. {thinned}")
    sys.exit(size > 10e6)
