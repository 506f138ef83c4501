"""What the headers say of every slice: one record a single-frame file, one a frame of an Enhanced file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.scans.dicom.files import Opener, Source, find
from reg2rg.scans.dicom.library import counted, pydicom, quiet
from reg2rg.scans.dicom.plain import Plain, plain_pixels

Vector = npt.NDArray[np.float64]

CT_CLASSES = ("1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
"""CT Image, Enhanced CT Image, Legacy Converted Enhanced CT Image."""
_TRAITS = (
    "ConvolutionKernel",
    "SliceThickness",
    "ReconstructionDiameter",
    "AcquisitionNumber",
    "ContrastBolusAgent",
    "KVP",
    "TemporalPositionIdentifier",
    "StackID",
)
"""What tells two reconstructions of one series apart, as far as it says nothing of the patient."""
_TAGS = (
    *_TRAITS,
    "SOPClassUID",
    "SOPInstanceUID",
    "StudyInstanceUID",
    "SeriesInstanceUID",
    "SeriesNumber",
    "PatientID",
    "Modality",
    "ImageType",
    "Rows",
    "Columns",
    "SamplesPerPixel",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "NumberOfFrames",
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "RescaleSlope",
    "RescaleIntercept",
    "RescaleType",
    "ModalityLUTSequence",
    "LossyImageCompression",
    "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)


@dataclass(frozen=True, slots=True, eq=False)
class Frame:
    """One slice.

    Attributes:
        source: the file that it is in.
        index: its number in an Enhanced file, ``None`` for a file of one slice.
        instance: SOPInstanceUID.
        shape: rows, columns.
        position: (3,) of the centre of the first pixel, LPS mm.
        orientation: (2, 3) directions along a row and down a column, LPS.
        spacing: between columns, between rows; mm.
        slope, inter: HU = stored * slope + inter.
        kinds: ImageType in capitals.
        traits: what tells reconstructions apart.
        plain: where its pixels are, if they are not compressed.
    """

    source: Source
    index: int | None
    instance: str
    shape: tuple[int, int]
    position: Vector
    orientation: Vector
    spacing: tuple[float, float]
    slope: float
    inter: float
    kinds: tuple[str, ...]
    traits: Mapping[str, str]
    plain: Plain | None = None

    @property
    def normal(self) -> Vector:
        """(3,) unit vector from slice to slice of an untilted series."""
        return np.asarray(np.cross(self.orientation[0], self.orientation[1]), np.float64)


@dataclass(slots=True)
class Series:
    """All files of one SeriesInstanceUID.

    Attributes:
        uid, study, patient: identifiers; the patient's is compared, never shown.
        number: SeriesNumber.
        modality: as the files say, or CT by their class.
        frames: slices that have a place.
        unplaced: files without one: pictures, documents, localizers without geometry.
        oddities: what the files say that matters, each once.
        pictures: frames or files whose pixels are no plain slices (colour, no CT class).
    """

    uid: str
    study: str = ""
    patient: str = ""
    number: str = ""
    modality: str = ""
    frames: list[Frame] = field(default_factory=list)
    unplaced: int = 0
    oddities: dict[str, None] = field(default_factory=dict)
    pictures: int = 0


def read_series(path: Path) -> tuple[list[Series], tuple[str, ...]]:
    """Every series at `path`, in the order of their files, and notes on files that could not be read.

    Raises:
        DataFault: what `find` raises; CORRUPT, no file can be read.
    """
    found: dict[str, Series] = {}
    damaged: list[str] = []
    sources = find(path)
    tags = [pydicom().tag.Tag(name) for name in _TAGS]
    with quiet(), Opener() as opener:
        for source in sources:
            try:
                with opener.open(source) as stream:
                    header = pydicom().dcmread(stream, stop_before_pixels=True, force=True, specific_tags=tags)
                    _add(header, plain_pixels(header, stream.tell()), source, found)
            except (DataFault, OSError, MemoryError):
                raise
            except Exception:  # pydicom raises whatever comes of a value that it cannot read
                damaged.append(source.member or source.path.name)
    if not found:
        fix = "export or download the series again"
        text = f"{len(sources)} files whose headers cannot be read"
        raise DataFault.of("CORRUPT", found=text, expected="sound DICOM", fix=fix, path=path)
    said = f"{counted(len(damaged), 'DICOM file')} cannot be read: {', '.join(damaged[:3])}"
    return list(found.values()), (said,) if damaged else ()


def study_uid(path: Path) -> str:
    """StudyInstanceUID of the first DICOM file at `path`, ``""`` if it cannot be read."""
    return _peek(path, "StudyInstanceUID")


def is_slice(path: Path) -> bool:
    """Whether a file is one of the slices of a series."""
    return _peek(path, "SOPClassUID") == CT_CLASSES[0]


def _peek(path: Path, keyword: str) -> str:
    try:
        with quiet(), Opener() as opener, opener.open(find(path)[0]) as stream:
            header = pydicom().dcmread(stream, stop_before_pixels=True, force=True, specific_tags=[keyword])
            return text(header.get(keyword))
    except Exception:  # whatever is wrong is said when the file is read
        return ""


def text(value: Any) -> str:
    """An element's value as one line; several values joined by commas, as lists and single values are alike."""
    if value is None or isinstance(value, (str, bytes)):
        return "" if value is None else str(value).strip()
    return ", ".join(str(part) for part in value) if hasattr(value, "__iter__") else str(value)


def _add(header: Any, plain: Plain | None, source: Source, found: dict[str, Series]) -> None:
    uid = text(header.get("SeriesInstanceUID"))
    if not any(name in header for name in ("SeriesInstanceUID", "SOPClassUID", "Modality")):
        raise ValueError("no header")
    known = found.get(uid)
    if known is None:
        known = Series(uid, text(header.get("StudyInstanceUID")), text(header.get("PatientID")))
        known.number, known.modality = text(header.get("SeriesNumber")), text(header.get("Modality"))
        found[uid] = known
    meta = getattr(header, "file_meta", {})
    sop_class = text(header.get("SOPClassUID")) or text(meta.get("MediaStorageSOPClassUID"))
    is_ct = sop_class in CT_CLASSES
    known.modality = known.modality or ("CT" if is_ct else "unknown")
    colour = int(header.get("SamplesPerPixel") or 1) != 1
    known.pictures += colour or (known.modality == "CT" and sop_class not in ("", *CT_CLASSES))
    if text(header.get("LossyImageCompression")) == "01":
        known.oddities["compressed with loss: HU are not exact"] = None
    frames = [] if colour or not header.get("Rows") else [replace(one, plain=plain) for one in _frames(header, source)]
    known.frames += frames
    known.unplaced += not frames


def _frames(header: Any, source: Source) -> Iterator[Frame]:
    shared = first(header, "SharedFunctionalGroupsSequence")
    groups = header.get("PerFrameFunctionalGroupsSequence")
    if not groups:
        if int(header.get("NumberOfFrames") or 1) == 1 and (frame := _frame(header, header, source, None, {})):
            yield frame
        return
    for index, group in enumerate(groups):
        values = functional(shared) | functional(group)
        if frame := _frame(header, values, source, index, values):
            yield frame


_MACROS = (
    "SegmentIdentificationSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "PixelValueTransformationSequence",
    "CTImageFrameTypeSequence",
    "CTReconstructionSequence",
    "FrameContentSequence",
)


def functional(group: Any) -> dict[str, Any]:
    """Keyword -> value of what is said of a frame, or of all frames."""
    values: dict[str, Any] = {}
    for macro in _MACROS if group is not None else ():
        if (item := first(group, macro)) is not None:
            values |= {element.keyword: element.value for element in item}
    return values


def first(dataset: Any, keyword: str) -> Any:
    """The first item of a sequence, ``None`` where there is none."""
    sequence = dataset.get(keyword)
    return sequence[0] if sequence else None


def _frame(header: Any, values: Any, source: Source, index: int | None, own: Mapping[str, Any]) -> Frame | None:
    """The slice, ``None`` where it has no place in the patient."""
    geometry = [values.get(name) for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")]
    if any(value is None or value == "" for value in geometry) or "ModalityLUTSequence" in header:
        return None
    position, orientation, spacing = (np.array([float(part) for part in value]) for value in geometry)
    if (len(position), len(orientation), len(spacing)) != (3, 6, 2) or not np.isfinite([*position, *orientation]).all():
        return None
    slope, inter = values.get("RescaleSlope"), values.get("RescaleIntercept")
    traits = {name: text(value) for name in _TRAITS if (value := own.get(name, header.get(name))) is not None}
    kinds = own.get("FrameType") or header.get("ImageType") or ()
    return Frame(
        source,
        index,
        text(header.get("SOPInstanceUID")),
        (int(header.Rows), int(header.Columns)),
        position,
        orientation.reshape(2, 3),
        (float(spacing[1]), float(spacing[0])),
        1.0 if slope is None else float(slope),
        0.0 if inter is None else float(inter),
        tuple(str(kind).upper() for kind in ([kinds] if isinstance(kinds, str) else kinds)),
        traits,
    )
