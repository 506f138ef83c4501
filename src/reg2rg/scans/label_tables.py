"""Tables of label names that programs write into the files of their masks."""

from __future__ import annotations

import re
from collections.abc import Mapping

_MOST_BYTES = 1 << 20
_LABEL = re.compile(r'<Label\b[^>]*\bKey="(\d{1,5})"[^>]*>\s*(?:<!\[CDATA\[(.*?)\]\]>|([^<]*))\s*</Label>', re.DOTALL)
_SEGMENT = re.compile(r"(Segment\d+)_Name")


def caret_labels(extension: bytes) -> dict[int, str]:
    """Label -> name from a NIfTI extension in the form of Caret's label table, which TotalSegmentator writes.

    Only its entries are looked for: nothing of XML is expanded or followed.
    """
    text = extension[:_MOST_BYTES].decode("utf-8", "replace")
    found = _LABEL.findall(text) if "<LabelTable>" in text or "<LabelTable " in text else []
    return {int(key): (quoted or plain).strip() for key, quoted, plain in found}


def segment_labels(fields: Mapping[str, object]) -> dict[int, str]:
    """Label -> name from the fields that 3D Slicer writes into the header of a ``.seg.nrrd``."""
    found = {}
    for field, name in fields.items():
        segment = _SEGMENT.fullmatch(field)
        value = str(fields.get(f"{segment[1]}_LabelValue", "")) if segment else ""
        if value.isdigit():
            found[int(value)] = str(name).strip()
    return found
