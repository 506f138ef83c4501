from __future__ import annotations

import json

import pytest

from reg2rg.core.errors import DataFault
from reg2rg.core.text import TextGate
from reg2rg.datasets.columns import any_rows
from reg2rg.datasets.json_tables import read_json
from reg2rg.datasets.labels import read_labels
from reg2rg.datasets.tables import read_rows

ROWS = [{"id": "a", "report": "one, two"}, {"id": "b", "report": "three"}]


def read(path, needed=("id", "report")):
    return [dict(row.values) for row in any_rows(path, needed, "utf-8-sig", TextGate())]


@pytest.mark.parametrize("name", ["a.csv", "a.json", "a.jsonl", "a.txt"])
@pytest.mark.parametrize(
    "content",
    [
        'id,report\na,"one, two"\nb,three\n',
        'sep=;\nid;report\na;"one, two"\nb;three\n',
        json.dumps(ROWS),
        "\ufeff" + json.dumps(ROWS, indent=2),
        "\n".join(map(json.dumps, ROWS)),
        json.dumps({row["id"]: row["report"] for row in ROWS}),
        json.dumps({row["id"]: {"report": row["report"]} for row in ROWS}, indent=1),
    ],
    ids=["csv", "sep", "list", "indented list", "lines", "id to text", "id to row"],
)
def test_a_table_is_told_by_its_content(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    assert read(path) == ROWS


def test_json_that_lacks_a_column_says_what_it_has(tmp_path):
    (tmp_path / "a.json").write_text('[{"id": "a", "text": "x"}]')
    with pytest.raises(DataFault, match="column report missing; the header has: id, text"):
        read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"a": "x", "a": "y"}', "the key 'a' stands there twice"),
        ('[{"id": "a"},\n{"id": "b"', "is not JSON as a whole"),
        ('{"id": "a"}\n{"id": \n', r"1 broken rows: line 2 is not JSON"),
        ("[1, 2]", "a list of int"),
        ('{"a": 1}', "holds dict"),
    ],
)
def test_faults_of_json_are_one_short_message(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataFault, match=message) as caught:
        read_json(tmp_path / "a.json", "utf-8-sig")
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize(
    ("text", "guess"),
    [
        ("Größe normal, Fußnote, über", "cp1252"),
        ("Maße: äußere Größe", "cp1252"),
        ("créée, hôpital, naïve", "cp1252"),
        ("10 ± 2 °C, µm²", "cp1252"),
        ("双肺纹理清晰", "gb18030"),
        ("CT：右肺上叶见结节影，直径约8mm。", "gb18030"),
    ],
)
def test_german_is_not_taken_for_chinese(tmp_path, text, guess):
    (tmp_path / "a.csv").write_bytes(f"id,report\na,{text}\n".encode(guess))
    with pytest.raises(DataFault, match=f"looks like {guess}") as caught:
        list(read_rows(tmp_path / "a.csv"))
    assert f"set encoding: {guess}" in str(caught.value)


def test_a_cell_of_any_length_is_read(tmp_path):
    long = "word " * 60_000
    (tmp_path / "a.csv").write_text(f'id,report\na,"{long}"\n')
    assert [row.values["report"] for row in read_rows(tmp_path / "a.csv")] == [long]


def test_a_quote_that_is_never_closed_is_named_by_its_line(tmp_path):
    rest = "b,more\n" * 40_000  # longer than Python's own limit of a cell
    (tmp_path / "a.csv").write_text(f'id,report\nx,y\na,"open\n{rest}')
    with pytest.raises(DataFault, match="1 broken rows: line 3: a quote that is opened there is never closed"):
        list(read_rows(tmp_path / "a.csv"))


def test_a_fault_of_the_whole_file_is_said_once(tmp_path):
    (tmp_path / "a.csv").write_text("id,report\n" + "a,one,two\n" * 500)
    with pytest.raises(DataFault, match="all 500 rows, from line 2 on, have 3 fields") as caught:
        list(read_rows(tmp_path / "a.csv"))
    assert len(str(caught.value)) < 400


def test_a_few_zero_bytes_are_cleaned_and_counted(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"id,report\na,lu\0ng\n")
    gate = TextGate()
    assert [row.values["report"] for row in read_rows(tmp_path / "a.csv", gate=gate)] == ["lung"]
    assert gate.texts == 1


def test_labels_come_from_json_too(tmp_path):
    (tmp_path / "labels.json").write_text(
        '[{"VolumeName": "a.nii.gz", "Emphysema": 1}, {"VolumeName": "b", "Emphysema": 0}]'
    )
    assert read_labels([tmp_path / "labels.json"]) == {"a": {"Emphysema": True}, "b": {"Emphysema": False}}
