"""A DICOM file of regions, SEG or RTSTRUCT: which there are, by name, and their masks on a scan."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from reg2rg.core.types import Mask
from reg2rg.scans.base import Scan
from reg2rg.scans.dicom.contours import add_contours, contour_names
from reg2rg.scans.dicom.files import is_dicom
from reg2rg.scans.dicom.library import damage, pydicom
from reg2rg.scans.dicom.onto_scan import OntoScan
from reg2rg.scans.dicom.segments import add_segments, segment_names

_KINDS: Mapping[str, Literal["SEG", "RTSTRUCT"]] = {
    "1.2.840.10008.5.1.4.1.1.66.4": "SEG",
    "1.2.840.10008.5.1.4.1.1.66.7": "SEG",  # label maps
    "1.2.840.10008.5.1.4.1.1.481.3": "RTSTRUCT",
}


@dataclass(frozen=True, slots=True)
class RegionFile:
    """A SEG or RTSTRUCT.

    Attributes:
        path: the file.
        kind: which of the two.
        names: number of a segment, or of an ROI -> its name.
    """

    path: Path
    kind: Literal["SEG", "RTSTRUCT"]
    names: Mapping[int, str]

    def masks(self, wanted: Mapping[str, tuple[int, ...]], scan: Scan) -> tuple[dict[str, Mask], list[str]]:
        """Masks on the scan's grid of the regions that have a voxel there, and notes.

        Args:
            wanted: region -> its numbers.
            scan: the scan that they were drawn on.

        Raises:
            DataFault: MASK_SLICE, drawn on another grid; HEADER, CORRUPT.
        """
        onto = OntoScan(scan, self.path)
        with damage(self.path, f"a {self.kind}"):
            dataset = pydicom().dcmread(self.path, force=True)
            notes = (add_segments if self.kind == "SEG" else add_contours)(dataset, wanted, onto)
        found, said = onto.result()
        empty = [f"{name}: the {self.kind} has no voxel of it" for name in wanted if name not in onto.masks]
        return found, [*notes, *said, *empty]


def region_file(path: Path) -> RegionFile | None:
    """The file as one of regions, ``None`` if it is none.

    Raises:
        DataFault: NO_PYDICOM, CORRUPT.
    """
    if not path.is_file() or not is_dicom(path) or path.suffix.lower() == ".zip":
        return None
    with damage(path, "a header"):
        dataset: Any = pydicom().dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
        kind = _KINDS.get(str(dataset.get("SOPClassUID", "")))
        if kind is None:
            return None
        return RegionFile(path, kind, segment_names(dataset) if kind == "SEG" else contour_names(dataset))


_TAGS = ("SOPClassUID", "SegmentSequence", "StructureSetROISequence")
