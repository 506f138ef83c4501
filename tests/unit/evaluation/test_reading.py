import json

import pytest

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import load_region_set
from reg2rg.evaluation.pairs import REPEATED
from reg2rg.evaluation.reading import Columns, read_reports

REGIONS = load_region_set("radgenome")
GT, PRED = "GT_combined_report", "Pred_combined_report"


def write(path, rows, header=("AccNum", GT, PRED)):
    lines = [",".join(header), *(",".join(f'"{cell}"' for cell in row) for row in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_both_published_layouts(tmp_path):
    one = write(tmp_path / "a.csv", [("valid_2_a_1.nii.gz", "a", "b"), ("valid_2_b_1.nii.gz", "c", "d")])
    two = write(
        tmp_path / "b.csv", [("9", "ask", "a", "b")], ("AccNum", "Question", "GT_whole_report", "Pred_whole_report")
    )
    reports = read_reports(one, None, REGIONS)
    assert [(p.study, p.patient, p.reference_text, p.prediction_text) for p in reports.pairs] == [
        ("valid_2_a_1", "valid_2", "a", "b"),
        ("valid_2_b_1", "valid_2", "c", "d"),
    ]
    assert [p.prediction_text for p in read_reports(two, None, REGIONS).pairs] == ["b"]


def test_prefixes_are_detected_and_said(tmp_path):
    reference = "The region 0 is lung: a. The region 1 is heart: b."
    path = write(tmp_path / "a.csv", [("x", reference, "The region 0 is heart: b. The region 1 is heart: c.")])
    reports = read_reports(path, None, REGIONS)
    (pair,) = reports.pairs
    assert pair.given == ("lung", "heart")
    assert pair.named == ("heart", REPEATED)
    assert pair.surplus == ("heart",)
    assert pair.predicted_regions == {"heart": "b."}
    assert pair.unanswered
    assert reports.regions == ("heart", "lung")
    assert any("Region prefixes found in 1 references and 1 predictions" in note for note in reports.notes)
    assert f"a.csv: id from 'AccNum', reference from '{GT}', prediction from '{PRED}'." in reports.notes


def test_none_and_na_are_texts_and_empty_predictions_stay(tmp_path):
    path = write(tmp_path / "a.csv", [("x", "NA", ""), ("y", "None", "nan")])
    assert [(p.reference_text, p.prediction_text) for p in read_reports(path, None, REGIONS).pairs] == [
        ("NA", ""),
        ("None", "nan"),
    ]


def test_a_row_a_region_and_json_lines(tmp_path):
    table = write(
        tmp_path / "a.csv",
        [("x", "lung", "a", "b"), ("x", "Heart", "c", ""), ("y", "lung", "d", "e")],
        ("study", "region", "reference", "prediction"),
    )
    lines = tmp_path / "a.jsonl"
    lines.write_text(
        "\n".join(
            json.dumps({"study": s, "region": r, "reference": a, "prediction": b})
            for s, r, a, b in (("x", "lung", "a", "b"), ("x", "Heart", "c", ""), ("y", "lung", "d", "e"))
        )
    )
    for path in (table, lines):
        pairs = read_reports(path, None, REGIONS).pairs
        assert [dict(pair.reference_regions) for pair in pairs] == [{"heart": "c", "lung": "a"}, {"lung": "d"}]
        assert [dict(pair.predicted_regions) for pair in pairs] == [{"lung": "b"}, {"lung": "e"}]
        assert [pair.unanswered for pair in pairs] == [True, False]


def test_region_files_keep_their_common_order(tmp_path):
    write(tmp_path / "heart_reports.csv", [("c", "1", "1"), ("a", "2", "2")])
    write(tmp_path / "lung_reports.csv", [("c", "1", "1"), ("b", "3", "3"), ("a", "2", "2")])
    write(tmp_path / "other_reports.csv", [("z", "1", "1")])
    reports = read_reports(tmp_path, None, REGIONS)
    assert [pair.study for pair in reports.pairs] == ["c", "b", "a"]
    assert reports.regions == ("heart", "lung")


def test_references_apart_must_be_of_the_same_studies(tmp_path):
    predictions = write(tmp_path / "p.csv", [("x", "1"), ("y", "2")], ("id", "generated"))
    references = write(tmp_path / "r.csv", [("x", "1"), ("z", "2")], ("id", "report"))
    with pytest.raises(ConfigError, match=r"Without a prediction: 1 \(z\).*Without a reference: 1 \(y\)"):
        read_reports(predictions, references, REGIONS)
    reports = read_reports(predictions, references, REGIONS, intersection=True)
    assert [pair.study for pair in reports.pairs] == ["x"]
    assert "left out" in reports.notes[0]


@pytest.mark.parametrize(
    ("header", "rows", "columns", "message"),
    [
        (("name", GT, PRED), [("x", "a", "b")], Columns(), "no column for the study id.*--id-column"),
        (("AccNum", "text", PRED), [("x", "a", "b")], Columns(), "no column for the reference.*--reference-column"),
        (
            ("AccNum", GT, PRED),
            [("x", "a", "b")],
            Columns(reference="GT_combined"),
            "Did you mean 'GT_combined_report'",
        ),
        (("AccNum", "report"), [("x", "a")], Columns(), "compared with itself"),
        (("AccNum", GT, PRED), [("x", "a", "b"), ("x", "a", "b")], Columns(), "more than once.*x"),
        (("AccNum", GT, PRED), [("x", "", "b")], Columns(), "1 studies have no reference text, such as x"),
        (("AccNum", GT, PRED), [], Columns(), "no rows"),
        (("AccNum", "region", GT, PRED), [("x", "spleeen", "a", "b")], Columns(), "line 2: Unknown region 'spleeen'"),
        (("AccNum", GT, PRED), [("x", "a", "b"), (" ", "a", "b")], Columns(), "line 3 has no study id"),
        (("AccNum", GT), [("x", "a")], Columns(), "no column for the prediction.*looks like a file of references"),
        (("AccNum", PRED), [("x", "a")], Columns(), "no column for the reference.*--references"),
    ],
)
def test_faults_name_file_and_remedy(tmp_path, header, rows, columns, message):
    path = write(tmp_path / "table.csv", rows, header)
    with pytest.raises(ConfigError, match=message) as caught:
        read_reports(path, None, REGIONS, columns)
    assert "table.csv" in str(caught.value)


def test_broken_files(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "x"}\n[1]\n')
    with pytest.raises(DataFault, match="line 2 is a list"):
        read_reports(tmp_path / "a.jsonl", None, REGIONS)
    (tmp_path / "b.csv").write_text(f"AccNum,{GT},{PRED}\nx,a\n")
    with pytest.raises(DataFault, match="line 2 has 2"):
        read_reports(tmp_path / "b.csv", None, REGIONS)
    with pytest.raises(ConfigError, match="not found"):
        read_reports(tmp_path / "none.csv", None, REGIONS)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no reports in this folder"):
        read_reports(tmp_path / "empty", None, REGIONS)
