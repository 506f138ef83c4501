"""The series of DICOM studies as tables: which one is read, and why each other one is not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from reg2rg.core.errors import DataFault
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.dicom.files import is_dicom
from reg2rg.scans.dicom.reader import series_table

_SHOWN = 8


def print_series(scans: Sequence[Path], options: ReadOptions, identified: bool = True) -> list[DataFault]:
    """Print the table of each of the first studies that has more than one series, and say which cannot be read.

    Args:
        scans: the studies.
        options: how they are read.
        identified: name the scan above its table; otherwise its number.
    """
    faults = []
    for number, scan in enumerate(scans[:_SHOWN], 1):
        try:
            table, fault = series_table(scan, options) if is_dicom(scan) else ("", None)
        except DataFault as error:
            table, fault = "", error
        if table:
            sys.stdout.write(f"{scan if identified else f'study {number}'}: series\n{table}\n")
        if fault is not None:
            faults.append(fault)
    return faults
