from __future__ import annotations

import pytest

from reg2rg.core.codes import Code, parse_code
from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import load_region_set, packaged_region_sets

# SNOMED CT's lobes of one side, which DICOM lists without their side only.
SIDED = {"42400003", "266005", "44714003", "41224006"}


def test_packaged_codes_are_those_that_dicom_lists_under_these_words():
    concepts = pytest.importorskip("pydicom.sr._concepts_dict", reason="pydicom is not installed (extra 'dicom')")
    listed = {(code, meaning) for found in concepts.concepts["SCT"].values() for code, (meaning, _) in found.items()}
    used = set()
    for name in packaged_region_sets():
        codes = load_region_set(name).codes()
        assert len(set(codes.values())) == len(codes)
        used |= {(code.value, code.meaning) for code in codes.values()}
        assert all(code.scheme == "SCT" for code in codes.values())
    assert {value for value, meaning in used if (value, meaning) not in listed} == SIDED
    assert len(used) == 15


def test_a_code_is_read():
    assert parse_code(None, "x") is None
    assert parse_code({"value": 39607008, "meaning": "Lung"}, "x") == Code("39607008", "Lung", "SCT")
    own = {"value": "RID1301", "meaning": "lung", "scheme": "RADLEX"}
    assert parse_code(own, "x") == Code("RID1301", "lung", "RADLEX")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("39607008", "x is '39607008' .expected a mapping with value and meaning"),
        ({"value": 1}, "expected a mapping with value and meaning"),
        ({"value": 1, "meaning": "a", "mean": 1}, "x: unknown key 'mean'. Did you mean 'meaning'"),
        ({"value": "1" * 17, "meaning": "a"}, "x.value is .*expected 1 to 16 ASCII"),
        ({"value": "", "meaning": "a"}, "x.value is ''"),
        ({"value": True, "meaning": "a"}, "x.value is True"),
        ({"value": 1, "meaning": "ak\\ciğer"}, "x.meaning is"),
        ({"value": 1, "meaning": "a" * 65}, "x.meaning is .*expected 1 to 64 ASCII"),
        ({"value": 1, "meaning": "a", "scheme": None}, "x.scheme is None"),
    ],
)
def test_what_is_no_code_is_refused(value, said):
    with pytest.raises(ConfigError, match=said):
        parse_code(value, "x")


def test_a_region_without_a_code_gets_one_of_our_own():
    assert Code.private("left kidney") == Code("LEFT_KIDNEY", "left kidney", "99REG2RG")
    first, second = (Code.private(f"pulmonary artery and its branches, {side}") for side in ("left", "right"))
    assert first.value != second.value
    assert first.value.startswith("PULMONA_")
    assert len(first.value) == 16
    assert len(Code.private("x" * 80).meaning) == 64
