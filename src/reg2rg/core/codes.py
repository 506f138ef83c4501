"""What a region is called in coded form, as DICOM and FHIR want it. Data of a region set."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import did_you_mean

_KEYS = ("value", "meaning", "scheme")
_SHORT, _LONG = 16, 64  # DICOM's SH, LO
_PRIVATE = "99REG2RG"  # schemes of one's own begin with 99 (DICOM PS3.3, 8.2)


@dataclass(frozen=True, slots=True)
class Code:
    """A concept of a coding scheme.

    Attributes:
        value: the code, 16 characters at most.
        meaning: in words, 64 characters at most.
        scheme: designator of the scheme, as DICOM spells it (PS3.16, 8): ``SCT`` is SNOMED CT.
    """

    value: str
    meaning: str
    scheme: str = "SCT"

    @classmethod
    def private(cls, name: str) -> Code:
        """A code of our own scheme, for a region whose set has none; its value is the name, a long one shortened."""
        value = re.sub(r"[^A-Z0-9]+", "_", name.upper()).strip("_")
        if len(value) > _SHORT:
            value = f"{value[:7]}_{hashlib.sha256(name.encode()).hexdigest()[:8].upper()}"
        return cls(value, name[:_LONG], _PRIVATE)


def parse_code(value: Any, where: str) -> Code | None:
    """Read the key ``code`` of a region.

    Args:
        value: as YAML gives it; codes of digits alone may stand without quotes.
        where: file and key, for messages.

    Raises:
        ConfigError: not a mapping with ``value`` and ``meaning``, an unknown key, or text that is empty or too long.
    """
    if value is None:
        return None
    if not isinstance(value, dict) or not {"value", "meaning"} <= value.keys():
        raise ConfigError(
            f"{where} is {value!r} (expected a mapping with value and meaning, and optionally scheme). "
            "Fix: write for example {value: 39607008, meaning: Lung}."
        )
    for key in value:
        if key not in _KEYS:
            raise ConfigError(
                f"{where}: unknown key '{key}'.{did_you_mean(str(key), _KEYS)} Known: {', '.join(_KEYS)}."
            )
    code = str(value["value"]) if type(value["value"]) is int else value["value"]
    scheme = value.get("scheme", "SCT")
    texts = {"value": (code, _SHORT), "meaning": (value["meaning"], _LONG), "scheme": (scheme, _SHORT)}
    for key, (text, most) in texts.items():
        if not isinstance(text, str) or not re.fullmatch(rf"[!-\[\]-~]([ -\[\]-~]{{0,{most - 1}}})", text):
            raise ConfigError(
                f"{where}.{key} is {text!r} (expected 1 to {most} ASCII characters without backslash). Fix: correct it."
            )
    return Code(code, value["meaning"], scheme)
