"""What is held against a FHIR bundle before it is written: what readers of FHIR let through, and servers refuse.

Libraries check names and kinds of fields. Whether a reference leads anywhere, a code is one of its system, a unit is
one of UCUM, an id is given twice, or a value stands beside the reason why there is none, they do not.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any
from xml.etree import ElementTree

from reg2rg.core.errors import Reg2RGError

LOINC, SNOMED, UCUM = "http://loinc.org", "http://snomed.info/sct", "http://unitsofmeasure.org"
DCM, URI = "http://dicom.nema.org/resources/ontology/DCM", "urn:ietf:rfc3986"
CATEGORY = "http://terminology.hl7.org/CodeSystem/v2-0074"
OBSERVATION_CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
ABSENT_REASON = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
CODES: Mapping[str, frozenset[str]] = {
    LOINC: frozenset({"24627-2"}),
    DCM: frozenset({"CT"}),
    CATEGORY: frozenset({"RAD"}),
    OBSERVATION_CATEGORY: frozenset({"imaging"}),
    ABSENT_REASON: frozenset({"unknown", "unsupported"}),
    UCUM: frozenset({"mL", "mm", "[hnsf'U]", "1"}),
}
"""System -> the codes of it that are used here. Those of SNOMED CT, which region sets name, have a check digit."""
STATUS = {"DiagnosticReport": "preliminary", "Observation": "preliminary", "ImagingStudy": "available"}
TARGETS = {
    "subject": {"Patient"},
    "device": {"Device"},
    "derivedFrom": {"ImagingStudy"},
    "imagingStudy": {"ImagingStudy"},
    "study": {"ImagingStudy"},
    "result": {"Observation"},
}
"""Element -> the kinds of resources that it may refer to."""

_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_OID = re.compile(r"[0-2](?:\.(?:0|[1-9][0-9]*))+")
_XHTML = "{http://www.w3.org/1999/xhtml}div"
_ONLY_IN = {"R4B": {"imagingStudy", "deviceName"}, "R5": {"study"}}


class BrokenBundleError(Reg2RGError):
    """A bundle that a server would refuse or misread."""


def require_sound(bundle: Mapping[str, Any], version: str) -> None:
    """Refuse a bundle with faults.

    Raises:
        BrokenBundleError: with all of them.
    """
    found = faults(bundle, version)
    if found:
        raise BrokenBundleError("FHIR: the bundle is broken and was not written:\n  " + "\n  ".join(found))


def faults(bundle: Mapping[str, Any], version: str) -> list[str]:
    """What is wrong with a bundle, a line each with its place; nothing of a sound one."""
    entries = bundle.get("entry") or []
    kinds = {entry.get("fullUrl"): entry.get("resource", {}).get("resourceType") for entry in entries}
    found = [] if bundle.get("type") == "transaction" else [f"type {bundle.get('type')!r}, expected 'transaction'"]
    names = Counter((entry["resource"].get("resourceType"), entry["resource"].get("id")) for entry in entries)
    found += [f"{kind}/{name}: given {count} times" for (kind, name), count in names.items() if count > 1]
    for entry in entries:
        resource = entry["resource"]
        kind, name = resource.get("resourceType"), resource.get("id")
        where = f"{kind}/{name}"
        if not _ID.fullmatch(str(name)):
            found.append(f"{where}: id is none: 1 to 64 of A-Z a-z 0-9 - .")
        if entry.get("request") != {"method": "PUT", "url": where}:
            found.append(f"{where}: request {entry.get('request')}, expected a PUT of {where}")
        if resource.get("status") != STATUS.get(kind):
            found.append(f"{where}: status {resource.get('status')!r}, expected {STATUS.get(kind)!r}")
        found += [f"{where}: {fault}" for fault in _walk(resource, "", kinds)]
        found += [f"{where}: {key} is no element of {version}" for key in _foreign(resource, version)]
    return found


def _foreign(resource: Mapping[str, Any], version: str) -> set[str]:
    return set(resource) & {key for other, keys in _ONLY_IN.items() if other != version for key in keys}


def _walk(value: Any, key: str, kinds: Mapping[str, str]) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _walk(item, key, kinds)
        if not value:
            yield f"{key} is an empty list"
        return
    if isinstance(value, Mapping):
        yield from _object(value, key, kinds)
        for name, item in value.items():
            yield from _walk(item, name, kinds)
    elif key == "div":
        yield from _xhtml(str(value))
    elif key == "uid" and not (_OID.fullmatch(str(value)) and len(str(value)) <= 64):
        yield f"uid {value!r} is no UID"
    elif value is None or value == "":
        yield f"{key} is empty"


def _object(value: Mapping[str, Any], key: str, kinds: Mapping[str, str]) -> Iterator[str]:
    if "reference" in value:
        kind = kinds.get(value["reference"])
        if kind is None:
            yield f"{key}: reference {value['reference']!r} leads to nothing in the bundle"
        elif kind not in TARGETS.get(key, ()) or value.get("type", kind) != kind:
            yield f"{key}: refers to {kind}, expected {' or '.join(sorted(TARGETS.get(key, {'nothing'})))}"
    if "code" in value and isinstance(value["code"], str):
        yield from _code(value.get("system"), value["code"])
    if "value" in value and key == "valueQuantity":
        number = value["value"]
        if not isinstance(number, int | float) or not math.isfinite(number):
            yield f"{key}: {number!r} is no finite number"
        if value.get("system") != UCUM:
            yield f"{key}: unit of {value.get('system')!r}, expected {UCUM}"
    given = [name for name in value if name.startswith("value") and name != "value"]
    if len(given) + ("dataAbsentReason" in value) > 1:
        yield f"{key or 'resource'}: {', '.join(given)} and a reason why there is no value, or two values"
    if "data" in value:
        yield from _attachment(value)
    if value.get("system") == "urn:dicom:uid" and not _OID.fullmatch(str(value.get("value")).removeprefix("urn:oid:")):
        yield f"{key}: {value.get('value')!r} is no urn:oid"


def _code(system: Any, code: str) -> Iterator[str]:
    if system == URI:
        if not (code.startswith("urn:oid:") and _OID.fullmatch(code.removeprefix("urn:oid:"))):
            yield f"code {code!r} is no urn:oid"
    elif system == SNOMED:
        if not is_snomed(code):
            yield f"code {code!r} is none of {SNOMED}: its check digit is wrong"
    elif system not in CODES:
        yield f"code {code!r} of the system {system!r}, which nobody knows"
    elif code not in CODES[system]:
        yield f"code {code!r} is none of those of {system} that are used here"


def is_snomed(code: str) -> bool:
    """Whether a code may be one of SNOMED CT: 6 to 18 digits, of which the last one checks the others.

    Source: J. Verhoeff, Error detecting decimal codes, 1969; SNOMED CT Release File Specification, 5.5.
    """
    if not (code.isascii() and code.isdigit() and 6 <= len(code) <= 18):
        return False
    found = 0
    for place, digit in enumerate(map(int, reversed(code))):
        found = _product(found, _permuted(digit, place))
    return found == 0


def _product(a: int, b: int) -> int:
    """Of two elements of the dihedral group of the pentagon; from 5 on they are reflections."""
    turn = (a - b if a >= 5 else a + b) % 5
    return turn if (a < 5) == (b < 5) else turn + 5


def _permuted(digit: int, place: int) -> int:
    for _ in range(place % 8):
        digit = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)[digit]
    return digit


def _attachment(value: Mapping[str, Any]) -> Iterator[str]:
    try:
        base64.b64decode(str(value["data"]), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        yield "data is no base64 of UTF-8"


def _xhtml(text: str) -> Iterator[str]:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        yield f"div is no XML ({error})"
        return
    if root.tag != _XHTML:
        yield f"div is {root.tag}, expected {_XHTML}"
