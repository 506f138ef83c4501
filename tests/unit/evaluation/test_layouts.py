"""Files as people have them: encodings and separators, JSON of several kinds, sides in different forms, faults."""

import json

import numpy as np
import pytest

from reg2rg.core.documents import write_record
from reg2rg.core.errors import ConfigError, DataFault, Reg2RGError
from reg2rg.core.labels import FINDINGS
from reg2rg.core.regions import load_region_set
from reg2rg.core.report import Written, write_report
from reg2rg.evaluation.cohort import paragraphs, whole_texts
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.protocols import PROTOCOLS
from reg2rg.evaluation.reading import read_references, read_reports
from reg2rg.evaluation.records import write_table
from reg2rg.evaluation.sources import read_texts
from reg2rg.models.writing import GeneratedReport
from reg2rg.training.prediction_writer import record

REGIONS = load_region_set("radgenome")
HEADER = "AccNum,GT_combined_report,Pred_combined_report\n"


def texts(reports):
    return {pair.study: (pair.reference_text, pair.prediction_text) for pair in reports.pairs}


@pytest.mark.parametrize(
    "content",
    [
        HEADER.encode() + b'a,"one, two",three\n',
        b"\xef\xbb\xbf" + HEADER.encode() + b'a,"one, two",three\n',
        (HEADER + 'a,"one, two",three\n').encode("utf-16"),
        HEADER.replace("\n", "\r\n").encode() + b'a,"one, two",three\r\n',
        HEADER.replace(",", ";").encode() + b"a;one, two;three\n",
        HEADER.replace(",", "\t").encode() + b"a\tone, two\tthree\n",
        HEADER.encode() + b'a.nii.gz,"one,\ntwo"," three "\n\n',
    ],
    ids=["plain", "mark", "utf-16", "crlf", "semicolons", "tabs", "line breaks"],
)
def test_tables_as_programs_save_them(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    assert texts(read_reports(tmp_path / "a.csv", None, REGIONS)) == {"a": ("one, two", "three")}


def test_another_encoding_is_asked_for(tmp_path):
    (tmp_path / "a.csv").write_bytes((HEADER + "a,na\u00efve,\u00e9t\u00e9\n").encode("cp1252"))
    with pytest.raises(DataFault, match="TABLE_ENCODING"):
        read_reports(tmp_path / "a.csv", None, REGIONS)
    found = read_reports(tmp_path / "a.csv", None, REGIONS, encoding="cp1252")
    assert texts(found) == {"a": ("na\u00efve", "\u00e9t\u00e9")}
    with pytest.raises(ConfigError, match="not a text encoding"):
        read_reports(tmp_path / "a.csv", None, REGIONS, encoding="utf-9")


def test_quotes_inside_quotes_and_a_text_that_begins_like_a_formula(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + 'a,"a ""large"" heart","\'-nothing"\n')
    assert texts(read_reports(tmp_path / "a.csv", None, REGIONS)) == {"a": ('a "large" heart', "-nothing")}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("a.jsonl", '{"id": 7, "reference": ["one"], "prediction": "two"}\n{"id": 8, "reference": "x"}\n'),
        ("a.json", json.dumps([{"id": 7, "reference": "one", "prediction": "two"}, {"id": 8, "reference": "x"}])),
        ("a.json", json.dumps([{"id": "7", "reference": "one", "prediction": "two"},
                               {"id": 8, "reference": "x", "prediction": None}], indent=2)),
        ("a.jsonl", '{"id": 7, "reference": "one", "prediction": "two"}\n'
                    '{"id": 8, "reference": "x", "prediction": NaN}\n'),
    ],
    ids=["lines", "list", "indented list", "nan"],
)  # fmt: skip
def test_json_of_several_kinds(tmp_path, name, value):
    (tmp_path / name).write_text(value)
    assert texts(read_reports(tmp_path / name, None, REGIONS)) == {"7": ("one", "two"), "8": ("x", "")}


def test_one_line_of_json_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"id": "7", "reference": "one", "prediction": "two"}\n')
    assert texts(read_reports(tmp_path / "a.jsonl", None, REGIONS)) == {"7": ("one", "two")}


def test_files_of_the_vlm3d_challenge(tmp_path):
    said = [{"input_image_name": "v_1.nii.gz", "report": "Findings: clear . "}]
    (tmp_path / "predictions.json").write_text(json.dumps([{"outputs": [{"value": {"generated_reports": said}}]}]))
    truth = {"name": "x", "generated_reports": [{"input_image_name": "v_1.mha", "report": "Clear."}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth, indent=1))
    reports = read_reports(tmp_path / "predictions.json", tmp_path / "truth.json", REGIONS)
    assert texts(reports) == {"v_1": ("Clear.", "Findings: clear .")}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "TABLE_COLUMNS|no rows"),
        ("a.csv", HEADER.encode(), "no rows"),
        ("a.csv", b"PK\x03\x04rest", "Excel workbook or zip archive.*save the table as CSV"),
        ("a.csv", b"\x1f\x8brest", "compressed by gzip"),
        ("a.csv", HEADER.encode() + b'a,"one,two\n', "TABLE_ROWS"),
        ("a.csv", HEADER.encode() + b"a,one,two,three\n", "line 2 has 4"),
        ("a.csv", b"AccNum,AccNum,GT_combined_report\n1,2,3\n", "AccNum twice"),
        ("a.csv", HEADER.encode("utf-16-le") + "a,one,two\n".encode("utf-16-le"), "zero byte.*looks like utf-16-le"),
        ("a.json", b'{"id": 1}', "no column for the prediction"),
        ("a.json", b'{"id": 1,\n "b": 2}', "holds dict"),
        ("a.json", b"[1, 2]", "a list of int"),
        ("a.json", b"[]", "a list of nothing"),
        ("a.json", b"", "no rows"),
        ("a.jsonl", b'{"id": 1}\n{"id": ', "line 2 is not JSON"),
        ("a.jsonl", b'{"id": 1, "reference": "x", "prediction": ["a", "b"]}\n', "'prediction' is a list of 2"),
        ("a.jsonl", b'{"id": 1, "reference": {"lung": "x"}, "prediction": "a"}\n', "'reference' is a dict"),
        ("a.jsonl", b'{"id": true, "reference": "x", "prediction": "a"}\n', "'id' is a bool"),
    ],
)
def test_what_cannot_be_read_is_one_message_and_exit_code_2(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(Reg2RGError, match=message) as caught:
        read_reports(tmp_path / name, None, REGIONS)
    assert caught.value.exit_code == 2
    assert name in str(caught.value)


def test_words_for_nothing_are_scored_and_said(tmp_path):
    (tmp_path / "a.csv").write_text(HEADER + "a,Clear.,nan\nb,Clear.,None\nc,Clear.,nan\n")
    notes = read_reports(tmp_path / "a.csv", None, REGIONS).notes
    assert any("'nan' 2 times, 'None' 1 times" in note and "scored as the words" in note for note in notes)


def test_labels_in_the_file_are_pointed_out(tmp_path):
    header = ",".join([*HEADER.strip().split(","), *(f"GT_{label}" for label in FINDINGS)])
    (tmp_path / "a.csv").write_text(f"{header}\na,x,y{',0' * 18}\n")
    notes = " ".join(read_reports(tmp_path / "a.csv", None, REGIONS).notes)
    assert "labels of the references too (GT_...)" in notes
    assert "--reference-labels" in notes
    assert "Pred_..." not in notes


# ---- sides in different forms

PREFIXED = "The region 0 is heart: Large. The region 1 is lung: A nodule."
ROWS = "study,region,{}\na,lung,A nodule.\na,heart,Large.\n"


def side(tmp_path, form, column):
    """One study's report in the file form that is asked for."""
    path = tmp_path / f"{column}_{form}.csv"
    if form == "rows":
        path.write_text(ROWS.format(column))
    else:
        text = PREFIXED if form == "prefixed" else "Large. A nodule."
        path.write_text(f'study,{column}\na,"{text}"\n')
    return path


@pytest.mark.parametrize("expected", ["rows", "prefixed", "whole"])
@pytest.mark.parametrize("told", ["rows", "prefixed", "whole"])
def test_a_perfect_report_is_perfect_in_any_two_forms(tmp_path, expected, told):
    reports = read_reports(side(tmp_path, told, "prediction"), side(tmp_path, expected, "reference"), REGIONS)
    (pair,) = reports.pairs
    assert not pair.unanswered
    assert pair.prediction_text == pair.reference_text == "Large. A nodule."
    found = evaluate("x", reports, Settings(resamples=0, floors=False))
    assert found.number("ROUGE-L").value == 1
    by_region = "whole" not in (expected, told)
    assert reports.regions == (("heart", "lung") if by_region else ())
    assert any("whole reports are scored" in note for note in reports.notes) is not by_region
    assert bool(pair.given) is (expected == told == "prefixed")


def test_one_model_that_never_writes_prefixes_among_prefixed_references_is_scored_on_whole_reports(tmp_path):
    (tmp_path / "a.csv").write_text(
        'id,reference,prediction\n1,"The region 0 is lung: A nodule.",A nodule.\n2,"The region 0 is lung: Clear.",\n'
    )
    reports = read_reports(tmp_path / "a.csv", None, REGIONS)
    assert "Only the references are divided by region: whole reports are scored." in reports.notes
    assert [pair.unanswered for pair in reports.pairs] == [False, True]
    (tmp_path / "b.csv").write_text(
        (tmp_path / "a.csv").read_text().replace(",A nodule.\n", ",The region 0 is lung: A\n")
    )
    assert read_reports(tmp_path / "b.csv", None, REGIONS).regions == ("lung",)


def test_slots_may_be_numbered_otherwise(tmp_path):
    (tmp_path / "a.csv").write_text(
        'id,reference,prediction\n1,"The region 1 is lung: a. The region 2 is heart: b.",'
        '"The region 1 is lung: c. The region 2 is heart: d. The region 3 is bone: e."\n'
    )
    (pair,) = read_reports(tmp_path / "a.csv", None, REGIONS).pairs
    assert (pair.given, pair.named, pair.surplus) == (("lung", "heart"), ("lung", "heart"), ("bone",))
    assert pair.predicted_regions == {"lung": "c.", "heart": "d."}


def test_radgenomes_own_table_as_references(tmp_path):
    (tmp_path / "validation_region_report.csv").write_text(
        "Volumename,Anatomy,Sentence\n"
        "valid_1_a_1.nii.gz,,Large heart. Clear lungs. A cyst.\n"
        "valid_1_a_1.nii.gz,lung,Clear lungs.\n"
        "valid_1_a_1.nii.gz,lung,Clear lungs.\n"
        "valid_1_a_1.nii.gz,lung/lung/right lung,Clear.\n"
        "valid_1_a_1.nii.gz,others,A cyst.\n"
        "valid_1_a_1.nii.gz,heart,Large heart.\n"
    )
    (tmp_path / "p.csv").write_text('id,generated\nvalid_1_a_1,"The region 0 is lung: Clear lungs."\n')
    reports = read_reports(tmp_path / "p.csv", tmp_path / "validation_region_report.csv", REGIONS)
    (pair,) = reports.pairs
    assert pair.reference_regions == {"heart": "Large heart.", "lung": "Clear lungs."}
    assert pair.predicted_regions == {"lung": "Clear lungs."}
    assert pair.reference_text == "Large heart. Clear lungs. A cyst."
    assert any("2 rows of parts of regions or of other regions are left out" in note for note in reports.notes)


def test_references_alone(tmp_path):
    (tmp_path / "train.csv").write_text("VolumeName,Findings_EN\na.nii.gz,Clear.\nb.nii.gz,\n")
    assert [pair.reference_text for pair in read_references(tmp_path / "train.csv", REGIONS)] == ["Clear."]
    (tmp_path / "none.csv").write_text("VolumeName,Findings_EN\na.nii.gz,\n")
    with pytest.raises(ConfigError, match="no reference has a text"):
        read_references(tmp_path / "none.csv", REGIONS)
    with pytest.raises(ConfigError, match="looks like a file of references \\('Findings_EN'\\)"):
        read_reports(tmp_path / "train.csv", None, REGIONS)


def written_by_predict(folder, identity=True, forced=False):
    """Two studies as ``reg2rg predict`` writes them; the second one's report ends early."""
    order, references = ("lung", "heart", "bone"), ("A nodule.", "Large.", "")
    for study, told in (("valid_1_a_1", ("A nodule.", "Large.", "Normal.")), ("valid_1_b_1", ("Clear.",))):
        text = write_report(order[: len(told)], told, identity)
        written = tuple(Written(slot, name, {name: 1.0}, True) for slot, name in enumerate(order)) if forced else ()
        answer = GeneratedReport(study, order, text, len(told) < 3, written)
        write_record(folder / "studies" / f"{study}.json", record(answer, references, "question", identity))
    write_table(folder)
    return folder


@pytest.mark.parametrize("identity", [True, False])
def test_what_predict_writes_as_folder_and_as_table(tmp_path, identity):
    folder = written_by_predict(tmp_path / "predictions", identity)
    for path in (folder, folder / "predictions.csv"):
        reports = read_reports(path, None, REGIONS)
        first, second = reports.pairs
        assert first.given == ("lung", "heart", "bone")
        assert first.reference_regions == {"lung": "A nodule.", "heart": "Large."}
        assert first.predicted_regions == {"lung": "A nodule.", "heart": "Large.", "bone": "Normal."}
        assert first.patient == second.patient == "valid_1"
        assert (first.unanswered, second.unanswered) == (False, True)
        assert first.nameless is second.nameless is not identity
        assert any("no recognition to score" in note for note in reports.notes) is not identity


def test_names_that_were_given_to_the_decoder_are_no_recognition(tmp_path):
    """From the folder and from its table; text scores are what they are without."""
    folder, free = written_by_predict(tmp_path / "forced", forced=True), written_by_predict(tmp_path / "free")
    assert (folder / "predictions.csv").read_text().splitlines()[0].endswith(",Decoding")
    assert not (free / "predictions.csv").read_text().splitlines()[0].endswith(",Decoding")
    wanted = evaluate("free", read_reports(free, None, REGIONS), Settings(resamples=0))
    assert any(number.name.startswith("Recognition") for number in wanted.numbers)
    others = [number for number in wanted.numbers if number.group != "regions"]
    for path in (folder, folder / "predictions.csv"):
        reports = read_reports(path, None, REGIONS)
        assert "Decoding was forced in 2 of 2 predictions" in " ".join(reports.notes)
        found = evaluate("forced", reports, Settings(resamples=0))
        assert [number for number in found.numbers if number.group == "regions"] == []
        assert [number.value for number in found.numbers] == pytest.approx([n.value for n in others], nan_ok=True)
        assert any("Recognition is not scored" in note for note in found.notes)


@pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
def test_naming_regions_is_no_part_of_the_text_that_is_compared(tmp_path, protocol):
    """Nor is the slot before a paragraph that names none, though the published scripts do not know it."""
    compared = []
    for identity in (True, False):
        pairs = read_reports(written_by_predict(tmp_path / str(identity), identity), None, REGIONS).pairs
        compared.append([(whole_texts(pair, protocol), paragraphs(pair, protocol, REGIONS.names)) for pair in pairs])
    assert compared[0] == compared[1]
    whole = {
        "": ("A nodule. Large.", "A nodule. Large. Normal."),
        "ptb": ("a nodule large", "a nodule large normal"),
        "characters": ("A nodule . Large .", "A nodule . Large . Normal ."),
    }
    assert compared[1][0][0] == whole[protocol.cut]


def test_a_folder_of_references_apart_keeps_the_slots_of_predict(tmp_path):
    folder = written_by_predict(tmp_path / "predictions")
    (tmp_path / "r.csv").write_text(
        "study,region,reference\n"
        + "".join(f"valid_1_{scan}_1,{region},Text.\n" for scan in "ab" for region in ("lung", "heart"))
    )
    first, second = read_reports(folder, tmp_path / "r.csv", REGIONS).pairs
    assert first.given == ("lung", "heart", "bone")
    assert first.named == ("lung", "heart", "bone")
    assert second.named == ("lung", "", "")
    assert second.reference_regions == {"lung": "Text.", "heart": "Text."}


def test_a_folder_says_what_it_lacks(tmp_path):
    (tmp_path / "heart_reports.csv").write_text(HEADER + "a,x,y\n")
    (tmp_path / "ctrg_combined_reports.csv").write_text(HEADER + "a,x,y\n")
    notes = " ".join(read_texts(tmp_path, "reference", REGIONS).notes)
    assert "no region has these names: ctrg_combined_reports.csv" in notes
    assert "has no file of: abdomen, bone" in notes


# ---- the form of the published CTRG file

MAIN = "The region 0 is heart: The heart is not large. The region 1 is trachea and bronchie: Open. "
TAIL = "The other report is: {mediastinum: No large node. }{pleura: Thin. }{other: }"


def ctrg(tmp_path, rows):
    path = tmp_path / "ctrg_combined_reports.csv"
    lines = [f'{i},ask,"{reference}","{prediction}"' for i, (reference, prediction) in enumerate(rows)]
    path.write_text("AccNum,Question,GT_combined_report,Pred_combined_report\n" + "\n".join(lines) + "\n")
    return read_reports(path, None, REGIONS)


def test_the_tail_of_other_regions_belongs_to_the_report(tmp_path):
    reports = ctrg(
        tmp_path,
        [
            (MAIN + TAIL, MAIN + "The other report is {mediastinum: No large node"),
            (MAIN + "The other report is: {other: }", MAIN),
        ],
    )
    first, second = reports.pairs
    assert first.reference_text == "The heart is not large. Open. No large node. Thin."
    assert first.prediction_text == "The heart is not large. Open. No large node"
    assert set(first.reference_regions) == {"heart", "trachea and bronchie", "mediastinum", "pleura"}
    assert first.predicted_regions["mediastinum"] == "No large node"
    assert first.unanswered  # no pleura
    assert not second.unanswered
    assert second.reference_text == "The heart is not large. Open."


def test_published_reading_of_the_same_texts(tmp_path):
    """First words, the last of repeated slots, further slots ignored, the tail left in the last region."""
    order = "The region 0 is heart: a. The region 1 is trachea and bronchie: b. The region 2 is lung: c. "
    odd = "The region 0 is lung: a. The region 0 is heart: a. The region 2 is brain: c. The region 3 is bone: d."
    reports = ctrg(
        tmp_path,
        [
            (order + TAIL, order),
            (order, order.replace("0 is heart", "0 is trachea").replace("1 is trachea and bronchie", "1 is heart")),
            (order, odd),
            (order, ""),
        ],
    )
    found = evaluate("x", reports, Settings(protocol=PROTOCOLS["paper"], resamples=0, floors=False))
    accuracy = found.number("Recognition accuracy")
    assert accuracy.value == pytest.approx((1 + 1 / 3 + 1 / 3 + 0) / 4)
    assert accuracy.std == pytest.approx(np.std([1, 1 / 3, 1 / 3, 0]))
    assert found.number("Recognition precision", "heart").value == pytest.approx(2 / 3)
    assert found.number("Recognition recall", "heart").value == pytest.approx(2 / 4)
    assert found.number("ROUGE-L", "heart").n == 3  # the pair without a paragraph is dropped
    assert found.number("ROUGE-L", "lung").n == 3
    assert any("drops" in note and "trachea and bronchie 3" in note for note in found.notes)


# ---- what strangers' files hold


@pytest.mark.parametrize("name", ["a.txt", "a.json", "a.csv"])
def test_ids_to_texts_are_predictions(tmp_path, name):
    (tmp_path / name).write_text(json.dumps({"a": "Clear lungs.", "b.nii.gz": ["Nodule."]}))
    (tmp_path / "r.csv").write_text("study,reference\na,Clear.\nb,Mass.\n")
    found = read_reports(tmp_path / name, tmp_path / "r.csv", REGIONS)
    assert texts(found) == {"a": ("Clear.", "Clear lungs."), "b": ("Mass.", "Nodule.")}


def test_texts_are_cleaned_before_anything_is_made_of_them(tmp_path):
    rows = [
        {"id": "a", "reference": "Clear.", "prediction": "Nodule \ud83d here."},
        {"id": "\ufeffb", "reference": "Clear._x000D_\nNo node.", "prediction": "\x1b[1mClear\0.\x1b[0m"},
    ]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read_reports(tmp_path / "a.jsonl", None, REGIONS)
    assert texts(found) == {"a": ("Clear.", "Nodule \ufffd here."), "b": ("Clear. No node.", "Clear.")}
    assert sum("a.jsonl: 4 texts were cleaned" in note for note in found.notes) == 1
