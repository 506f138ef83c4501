"""What a report was made from: identifiers and digests of the scan, and digests of the masks that were given."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from reg2rg.core.errors import DataFault
from reg2rg.core.types import LabelMap, MaskChannels, RegionFiles
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.dicom.choose import Candidate
from reg2rg.scans.dicom.files import Opener
from reg2rg.scans.dicom.library import damage, pydicom
from reg2rg.scans.dicom.reader import DICOM, series_of
from reg2rg.scans.read import files_of, reader_of


@dataclass(frozen=True, slots=True)
class DicomSeries:
    """The series that was read.

    Attributes:
        study: StudyInstanceUID.
        series: SeriesInstanceUID.
        number: SeriesNumber, ``""`` if there is none.
        patient: PatientID.
        instances: SOPInstanceUID -> SOPClassUID, in the order of the UIDs.
    """

    study: str
    series: str
    number: str
    patient: str
    instances: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a report was made from.

    Attributes:
        scan: SHA-256 of the scan's file; of several files, that of their digests, sorted, a line each, so that names
            do not count.
        files: how many files the scan has.
        dicom: the series, where the scan is one.
        masks: region -> the same of the files of its mask; one file of all regions stands under ``"labels"``. Empty
            where a segmenter made them.
    """

    scan: str
    files: int
    dicom: DicomSeries | None = None
    masks: Mapping[str, str] = field(default_factory=dict)


def chosen_series(scan: Path, options: ReadOptions) -> Candidate | None:
    """The series that is read of a scan that is DICOM, ``None`` for every other scan.

    Raises:
        DataFault: no series can be chosen.
    """
    if not isinstance(reader_of(scan), DICOM):
        return None
    taken, _, said = series_of(scan, options)
    if isinstance(taken, DataFault):
        raise taken.with_note("; ".join(said))
    return taken


def inputs_of(scan: Path, series: Candidate | None, masks: RegionFiles | LabelMap | MaskChannels | None) -> Inputs:
    """Digests of what is read, from every byte of it.

    Args:
        scan: the scan.
        series: what `chosen_series` says of it.
        masks: the masks that were given.

    Raises:
        DataFault: CORRUPT, a DICOM file that can no longer be read.
    """
    found: dict[str, str] = {}
    if isinstance(masks, LabelMap | MaskChannels):
        found["labels"] = _digest_of_files(files_of(masks.file))
    elif masks is not None:
        for region, parts in masks.parts().items():
            found[region] = _digest_of_files([file for part in parts for file in files_of(part)])
    if series is None:
        files = files_of(scan)
        return Inputs(_digest_of_files(files), len(files), None, found)
    digests, instances = _slices(series)
    known = series.series
    return Inputs(
        _joined(digests),
        len(digests),
        DicomSeries(known.study, known.uid, known.number, known.patient, instances),
        found,
    )


def _slices(series: Candidate) -> tuple[list[str], dict[str, str]]:
    """The digest of each file of a series, and its instances with their classes."""
    digests, instances = [], {}
    with Opener() as opener:
        for source in dict.fromkeys(frame.source for frame in series.frames):
            with damage(source.path, "a slice"), opener.open(source) as stream:
                header = pydicom().dcmread(
                    stream, stop_before_pixels=True, force=True, specific_tags=["SOPClassUID", "SOPInstanceUID"]
                )
            instances[str(header.get("SOPInstanceUID", ""))] = str(header.get("SOPClassUID", ""))
            with opener.open(source) as stream:
                digests.append(_digest(stream))
    return digests, dict(sorted(instances.items()))


def _digest_of_files(files: tuple[Path, ...] | list[Path]) -> str:
    digests = []
    for file in files:
        with open(file, "rb") as stream:
            digests.append(_digest(stream))
    return _joined(digests)


def _digest(stream: BinaryIO) -> str:
    found = hashlib.sha256()
    while block := stream.read(1 << 20):
        found.update(block)
    return found.hexdigest()


def _joined(digests: list[str]) -> str:
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(f"{digest}\n" for digest in sorted(digests)).encode()).hexdigest()
