from pathlib import Path

import pytest

from reg2rg.core.report import parse_report
from reg2rg.core.types import RegionFiles, Study
from reg2rg.evaluation.metrics.scores import (
    Counts,
    Prediction,
    commonest_paragraphs,
    findings_by_label,
    floor_commonest,
    floor_swapped,
    macro_f1,
    mean_recognition,
    micro,
    recognition_by_region,
    say_everything,
    share_called_abnormal,
    summarise,
)

LABELS = ("nodule", "effusion")


def read(text):
    return {label: f"{label} seen" in text for label in LABELS}


def prediction(study, given, text, truth=None):
    return Prediction(study, tuple(given), parse_report(text, given), truth)


@pytest.fixture
def predictions():
    return [
        prediction(
            "a",
            ["lung", "heart"],
            "The region 0 is lung: nodule seen. The region 1 is heart: normal. ",
            {"nodule": True, "effusion": True},
        ),
        prediction(
            "b",
            ["heart", "lung"],
            "The region 0 is lung: effusion seen. The region 1 is heart: normal. ",
            {"nodule": False, "effusion": False},
        ),
        prediction("c", ["lung"], "nothing that can be parsed", {"nodule": True, "effusion": False}),
    ]


def test_recognition_counts_slots_with_the_right_name(predictions):
    assert recognition_by_region(predictions) == {"heart": (1, 2), "lung": (1, 3)}
    assert mean_recognition(recognition_by_region(predictions)) == pytest.approx((1 / 2 + 1 / 3) / 2)


def test_findings_are_counted_over_all_studies_and_labels(predictions):
    counts = findings_by_label(predictions, read)
    assert counts == {"nodule": Counts(1, 0, 1), "effusion": Counts(0, 1, 1)}
    assert micro(counts).f1 == pytest.approx(2 / (2 + 1 + 2))
    assert macro_f1(counts) == pytest.approx((2 / 3 + 0) / 2)


def test_studies_without_labels_do_not_count():
    assert findings_by_label([prediction("a", ["lung"], "The region 0 is lung: nodule seen. ")], read) == {}


def test_a_silent_model_scores_nothing():
    silent = [prediction("a", ["lung"], "", {"nodule": True, "effusion": False})]
    summary = summarise(silent, read)
    assert (summary.recognition, summary.precision, summary.recall, summary.f1) == (0, 0, 0, 0)
    assert Counts().precision == Counts().recall == Counts().f1 == 0


def test_share_called_abnormal(predictions):
    assert share_called_abnormal(predictions, read) == pytest.approx(2 / 3)
    assert share_called_abnormal([], read) == 0


def test_say_everything_has_full_recall(predictions):
    counts = say_everything(predictions)
    assert counts == Counts(tp=3, fp=3, fn=0)
    assert counts.recall == 1


def test_swapping_reports_never_helps_perfect_predictions():
    perfect = [
        prediction("a", ["lung"], "The region 0 is lung: nodule seen. ", {"nodule": True, "effusion": False}),
        prediction("b", ["lung"], "The region 0 is lung: effusion seen. ", {"nodule": False, "effusion": True}),
    ]
    assert summarise(perfect, read).f1 == 1
    assert summarise(floor_swapped(perfect), read).f1 == 0


def test_commonest_paragraph_floor_does_not_know_the_order():
    def study(name, texts):
        return Study(name, name, "train", Path("ct.nii.gz"), RegionFiles({}), texts)

    train = [study("x", {"lung": "clear"}), study("y", {"lung": "clear", "heart": "big"}), study("z", {"heart": "a"})]
    commonest = commonest_paragraphs(train)
    assert commonest == {"lung": "clear", "heart": "a"}
    orders = [["lung", "heart"], ["heart", "lung"]]
    floor = floor_commonest([prediction(str(i), given, "") for i, given in enumerate(orders)], commonest)
    assert mean_recognition(recognition_by_region(floor)) == 0.5
    assert floor[0].text == "a clear"
