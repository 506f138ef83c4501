"""A report whose tail tells of regions without a mask: from the study to the sample, the record and the scores."""

from reg2rg.core.documents import write_record
from reg2rg.core.regions import load_region_set
from reg2rg.evaluation.pairs import Side, pair_sides, pair_texts
from reg2rg.evaluation.reading import read_reports
from reg2rg.evaluation.records import read_records, read_report, write_table
from reg2rg.models.writing import GeneratedReport
from reg2rg.training.prediction_writer import record

TEN = load_region_set()
GIVEN = ("lung", "heart")
TEXTS = ("Clear lungs.", "Normal heart.")
OTHERS = {"pleura": "No effusion.", "other": "The brain is normal."}
REFERENCE = (
    "The region 0 is lung: Clear lungs. The region 1 is heart: Normal heart. The other report is: "
    "{pleura: No effusion.}{other: The brain is normal.}"
)
ANSWER = (
    "The region 0 is heart: A nodule. The region 1 is lung: Large. The other report is: {pleura: An effusion.}{other: }"
)


def told():
    return record(GeneratedReport("7", GIVEN, ANSWER, False), TEXTS, "Report.", others=OTHERS)


def test_a_record_holds_both_tails(tmp_path):
    found = told()
    assert found["reference"] == dict(zip(GIVEN, TEXTS, strict=True))
    assert found["reference_others"] == OTHERS
    assert found["others"] == {"pleura": "An effusion.", "other": ""}
    assert [paragraph["text"] for paragraph in found["paragraphs"]] == ["A nodule.", "Large."]
    write_record(tmp_path / "studies" / "7.json", found)
    [again] = read_records(tmp_path)
    assert read_report(again).others == found["others"]
    table = write_table(tmp_path).read_text().splitlines()[1]
    assert f'"{REFERENCE}"' in table or REFERENCE in table
    assert ANSWER in table


def test_without_a_tail_a_record_is_as_before():
    assert not {"others", "reference_others"} & record(GeneratedReport("7", GIVEN, ANSWER, False), TEXTS, "Q").keys()


def test_records_and_published_texts_are_scored_alike(tmp_path):
    write_record(tmp_path / "studies" / "7.json", told())
    [of_records] = read_reports(tmp_path, None, TEN).pairs
    of_texts = pair_texts("7", "7", REFERENCE, ANSWER, TEN)
    for name in ("reference", "prediction", "reference_text", "prediction_text", "given", "named", "surplus"):
        assert getattr(of_records, name) == getattr(of_texts, name), name
    assert of_records.reference_text == "Clear lungs. Normal heart. No effusion. The brain is normal."
    described = {"lung": "Clear lungs.", "heart": "Normal heart.", "pleura": "No effusion."}
    assert dict(of_records.reference_regions) == dict(of_texts.reference_regions) == described
    assert of_records.predicted_regions == {"lung": "Large.", "heart": "A nodule.", "pleura": "An effusion."}


def test_the_side_of_a_batch_is_that_of_the_record():
    side = Side.of_paragraphs(GIVEN, TEXTS, OTHERS)
    pair = pair_sides("7", "7", side, Side(ANSWER), TEN)
    assert pair.reference == REFERENCE
    assert not pair.unanswered
