"""A hospital's table with one report column: what it lists, and every fault that is planted in it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from reg2rg.check.run import check_dataset
from reg2rg.core.errors import DataFault
from reg2rg.datasets import Manifest, RuleSplitter

GOOD = "id,image,report\n1,a.nii.gz,Clear lungs. Liver is fatty. Helical CT.\n2,b.nii.gz,No effusion.\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("a.nii.gz", "b.nii.gz", "lung.nii.gz"):
        (tmp_path / name).touch()
    return tmp_path


def listed(root: Path, text: str | bytes, **options) -> Manifest:
    path = root / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return Manifest(str(path), **({"val_fraction": 0.0, "max_skip": 1.0} | options))


def test_whole_reports_with_and_without_masks(root) -> None:
    whole = [study.whole for study in listed(root, GOOD).studies()]
    assert whole == ["Clear lungs. Liver is fatty. Helical CT.", "No effusion."]
    masked = (
        GOOD.replace("report\n", "report,mask:lung\n")
        .replace("CT.\n", "CT.,lung.nii.gz\n")
        .replace("n.\n", "n.,lung.nii.gz\n")
    )
    found = listed(root, masked)
    assert [(study.whole != "", study.reports) for study in found.studies()] == [(True, {})] * 2
    assert [(note.code, note.count) for note in found.notes] == [("WHOLE_REPORT_ONLY", 2)]


def test_a_splitter_gives_texts_and_counts_the_others(root) -> None:
    text = GOOD.replace("Clear lungs.", "Helical CT. Clear lungs.").replace(" Helical CT.\n", "\n")
    found = listed(root, text, splitter=RuleSplitter())
    first, second = found.studies()
    assert first.reports == {"abdomen": "Liver is fatty.", "lung": "Clear lungs."}
    assert second.reports == {"pleura": "No effusion."}
    assert first.whole == "Helical CT. Clear lungs. Liver is fatty."
    assert [(note.code, note.examples) for note in found.notes] == [("OTHER_SENTENCE", ("1: Helical CT.",))]


def skips(text: str) -> Callable[[Path], list[tuple[str, str]]]:
    return lambda root: [(skip.code, skip.message) for skip in listed(root, text).skipped]


CUT = "x" * 32_767


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (GOOD + "1,b.nii.gz,Again.\n", "DUPLICATE_STUDY", "the id stands at line 2 too"),
        (GOOD + "3,b.nii.gz,\n", "NO_REPORT", "no text"),
        (GOOD + "3,b.nii.gz,NaN\n", "NO_REPORT", "no text"),
        (GOOD + "3,c.nii.gz,Clear.\n", "VOLUME_MISSING", "image is 'c.nii.gz': no such file"),
        (GOOD + "3,,Clear.\n", "VOLUME_MISSING", "no file named"),
        (GOOD + f"3,b.nii.gz,{CUT}\n", "TEXT_CUT", "report has 32,767 characters, as many as a cell of Excel holds"),
        (GOOD + f"3,b.nii.gz,{CUT[2:]}\U0001fac1\n", "TEXT_CUT", "as many as a cell of Excel holds"),
        (GOOD + "3,b.nii.gz,#NAME?\n", "CELL_ERROR", "report is #NAME?, a spreadsheet's error"),
        (GOOD + "1.23457E+11,b.nii.gz,Clear.\n", "ROUNDED_ID", "a number that a spreadsheet has rounded"),
        (GOOD + "../3,b.nii.gz,Clear.\n", "UNSAFE_ID", "cannot be a file name"),
        (GOOD + "3,../b.nii.gz,Clear.\n", "UNSAFE_PATH", "leaves"),
    ],
)
def test_a_planted_fault_of_a_row_is_named(root, text, code, said) -> None:
    ((found, message),) = skips(text)(root)
    assert (found, said in message) == (code, True), message
    result = check_dataset(listed(root, text), workers=0, overlays=0, needs_regions=False)
    assert code in {finding.code for finding in result.faults}


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (GOOD.replace("report", "Befund"), "TABLE_COLUMNS", "Fix: columns: {report: Befund}, or give every row"),
        (GOOD.replace("report", "ward"), "TABLE_COLUMNS", "no column of reports; the header has: id, image, ward"),
        (GOOD.encode() + "3,b.nii.gz,双肺清晰，未见结节。\n".encode("gb18030"), "TABLE_ENCODING", "looks like gb18030"),
        (GOOD.encode("utf-16"), "TABLE_ENCODING", "looks like utf-16"),
        (GOOD + "3;b.nii.gz;Clear.\n", "TABLE_ROWS", "line 4 has 1"),
        (GOOD + "3,b.nii.gz,Clear, and large.\n", "TABLE_ROWS", "line 4 has 4"),
        (GOOD + '3,b.nii.gz,"Clear.\n', "TABLE_ROWS", "a quote that is opened there is never closed"),
    ],
)
def test_a_planted_fault_of_the_table_is_named(root, text, code, said) -> None:
    result = check_dataset(listed(root, text), workers=0, overlays=0, needs_regions=False)
    (found,) = (finding for finding in result.faults if finding.code == code)
    assert said in found.message
    assert result.exit_code == 2


def test_what_is_harmless_is_read_and_what_is_odd_is_noted(root) -> None:
    found = listed(root, b"\xef\xbb\xbfsep=;\r\n" + GOOD.replace(",", ";").replace("\n", "\r\n").encode())
    assert [study.id for study in found.studies()] == ["1", "2"]
    lost = listed(root, GOOD.replace("Clear", "Cl\ufffdar").replace("effusion", "\u00c3\u00a9panchement"))
    assert [(note.code, note.count) for note in lost.notes] == [("TEXT_GARBLED", 2)]
    renamed = listed(root, GOOD, columns={"report": "Befund"})
    with pytest.raises(DataFault, match="column Befund missing; the header has: id, image, report"):
        renamed.studies()
    tests = listed(root, "id,image,split\n1,a.nii.gz,test\n")
    assert [study.id for study in tests.studies()] == ["1"], "a list of scans to report on needs no reports"


def test_unsplit_reports_are_named_where_training_goes_by_region(root) -> None:
    result = check_dataset(listed(root, GOOD), workers=0, overlays=0, needs_regions=True)
    (found,) = (finding for finding in result.faults if finding.code == "NO_REGION_TEXT")
    assert found.count == 2
    assert "`reg2rg data split`" in found.message
    split = check_dataset(listed(root, GOOD, splitter=RuleSplitter()), workers=0, overlays=0, needs_regions=True)
    assert "NO_REGION_TEXT" not in {finding.code for finding in split.faults}
