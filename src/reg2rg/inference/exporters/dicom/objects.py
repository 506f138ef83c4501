"""What all our DICOM objects share: patient and study of the CT, who made them, and UIDs that follow from the content.

No clock and no random number goes into them: the same content gives the same bytes and the same UIDs, so that an
archive knows a rerun again; other content gets other UIDs, for archives keep the object that they have under a UID.
Dates and times are those of the CT.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from reg2rg import __version__
from reg2rg.core.codes import Code
from reg2rg.core.files import atomic_write
from reg2rg.inference.exporters.dicom.source import SourceSeries, SourceSlice
from reg2rg.inference.result import ReportResult
from reg2rg.scans.dicom.library import pydicom, quiet

EXPLICIT = "1.2.840.10008.1.2.1"
MADE_BY = "reg2rg"
_TYPE_2 = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Of the CT's patient and study: written even where they are empty."""
_OPTIONAL = ("IssuerOfPatientID", "PatientAge", "StudyDescription", "TimezoneOffsetFromUTC")
_NO_DATE = ("19700101", "000000")
_CONTROLS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")
_TEXTS = ("LO", "LT", "PN", "SH", "ST", "UC", "UT")


def start(result: ReportResult, source: SourceSeries, sop_class: str, modality: str, what: str, number: int) -> Any:
    """A data set with all that is not its content.

    Args:
        result: what is written.
        source: the CT.
        sop_class: UID.
        modality: of the series.
        what: SeriesDescription, 64 characters at most.
        number: SeriesNumber.
    """
    found = pydicom().Dataset()
    for name in (*_TYPE_2, *_OPTIONAL):
        value = source.header.get(name)
        if value is not None or name in _TYPE_2:
            # As a string, so that names are encoded anew in this object's own character set.
            setattr(found, name, "" if value is None else str(value))
    found.StudyInstanceUID = source.header.StudyInstanceUID
    found.SOPClassUID, found.Modality = sop_class, modality
    found.SeriesNumber, found.InstanceNumber, found.SeriesDescription = number, 1, what
    found.Manufacturer = found.ManufacturerModelName = MADE_BY
    found.SoftwareVersions, found.DeviceSerialNumber = __version__, result.made_by.model[:64]
    found.ContentDate, found.ContentTime = _when(source.header)
    return found


def _when(header: Any) -> tuple[str, str]:
    """The CT's date and time."""
    for kind in ("Content", "Acquisition", "Series", "Study"):
        if date := str(header.get(f"{kind}Date") or ""):
            return date, str(header.get(f"{kind}Time") or "") or _NO_DATE[1]
    return _NO_DATE


def finish(found: Any, unicode: bool = False) -> Any:
    """Give a data set its character set, and UIDs of instance and series that follow from all it holds.

    Args:
        found: all else of it.
        unicode: UTF-8 even where Latin-1 would do: dcmqi's readers hand on bytes of any other set as they are. Where
            it is not asked for Latin-1 wins, as which dcmjs reads text in sequences of files, whatever they say.
    """
    narrow = "ISO_IR 100" if not unicode or _fit(found, "ascii") else "ISO_IR 192"
    found.SpecificCharacterSet = narrow if _fit(found, "latin-1") else "ISO_IR 192"
    content = io.BytesIO()
    found.file_meta = pydicom().dataset.FileMetaDataset()
    found.file_meta.TransferSyntaxUID = EXPLICIT
    with quiet():
        pydicom().dcmwrite(content, found, enforce_file_format=False, implicit_vr=False, little_endian=True)
    digest = hashlib.sha256(content.getbuffer()).hexdigest()
    found.SOPInstanceUID, found.SeriesInstanceUID = uid("instance", digest), uid("series", digest)
    return found


def uid(*words: str) -> str:
    """A UID of the kind that is made of a UUID (PS3.5, B.2), here the first bits of a SHA-256 (version 8, RFC 9562)."""
    bits = int.from_bytes(hashlib.sha256("\0".join(words).encode()).digest()[:16], "big")
    bits = bits & ~(0xF << 76) | 0x8 << 76
    bits = bits & ~(0x3 << 62) | 0x2 << 62
    return f"2.25.{bits}"


def write(found: Any, path: Path) -> Path:
    """Write a finished data set as a DICOM file, whole or not at all."""
    with atomic_write(path) as stream:
        pydicom().dcmwrite(stream, found, enforce_file_format=True)
    return path


def item(**values: Any) -> Any:
    """A data set with some elements, by keyword."""
    found = pydicom().Dataset()
    for name, value in values.items():
        setattr(found, name, value)
    return found


def sequence(items: Iterable[Any]) -> Any:
    """A sequence of items."""
    return pydicom().sequence.Sequence(list(items))


def coded(code: Code) -> Any:
    """A code as a sequence of one item."""
    return sequence([item(CodeValue=code.value, CodingSchemeDesignator=code.scheme, CodeMeaning=code.meaning)])


def clean(text: str) -> str:
    """Text as DICOM holds it: without control characters but tabs and line breaks, and without trailing blanks."""
    return _CONTROLS.sub("", text).rstrip()


def references(slices: Sequence[SourceSlice]) -> Any:
    """Class and instance of each file once, in the order of the slices."""
    named = dict.fromkeys((one.sop_class, one.instance) for one in slices)
    return sequence(item(ReferencedSOPClassUID=kind, ReferencedSOPInstanceUID=one) for kind, one in named)


def _fit(found: Any, encoding: str) -> bool:
    try:
        for text in _texts(found):
            text.encode(encoding)
    except UnicodeEncodeError:
        return False
    return True


def _texts(found: Any) -> Iterator[str]:
    for element in found:
        if element.VR == "SQ":
            for one in element.value:
                yield from _texts(one)
        elif element.VR in _TEXTS and element.value:
            yield str(element.value)
