"""The page of DICOM: every row of its table is a test."""

from pathlib import Path

ROOT = Path(__file__).parents[4]


def test_every_row_of_the_table_is_a_test() -> None:
    page = (ROOT / "docs/how-to/dicom.md").read_text(encoding="utf-8")
    rows = [row for row in page.splitlines() if row.startswith("|") and "`test_" in row]
    tables = page.split("| input | verdict |")[1:]
    assert len(rows) == sum(table.partition("\n\n")[0].count("\n") - 1 for table in tables)
    named = [row.rsplit("`", 2)[1] for row in rows]
    tests = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests/unit/scans").rglob("test_*.py"))
    assert len(named) > 35
    assert len(set(named)) == len(named)
    assert not [name for name in named if f"def {name}(" not in tests]
