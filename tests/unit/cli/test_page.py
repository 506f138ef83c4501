import argparse
from types import SimpleNamespace

import pandas as pd
import pytest

from reg2rg.cli.page import _evenly, _explained, _in_slots, _page_studies
from reg2rg.core.documents import write_record
from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import load_region_set
from reg2rg.core.report import Paragraph, Report
from reg2rg.training.prediction_writer import record


def predicted(toy, folder, wrong):
    """Predictions of all studies: the reference, with a sentence more in those that are meant to be wrong."""
    for study in toy.studies:
        regions = tuple(study.reports)
        texts = [study.reports[name] for name in regions]
        said = [f"{text} A cyst is seen." if study.id in wrong and k == 0 else text for k, text in enumerate(texts)]
        text = "".join(f"The region {i} is {name}: {t} " for i, (name, t) in enumerate(zip(regions, said, strict=True)))
        answer = SimpleNamespace(study=study.id, regions=regions, text=text, truncated=False, written=(), findings=None)
        write_record(folder / "studies" / f"{study.id}.json", record(answer, tuple(texts), "?"))
    return folder


def options(folder, **more):
    given = {"predictions": folder, "compare": [], "studies": 12, "volumes": 2, "name": "ours"}
    return argparse.Namespace(**given | more)


def section(store):
    return SimpleNamespace(data=SimpleNamespace(store=store), task=SimpleNamespace(region_set=load_region_set()))


def test_studies_are_chosen_from_right_to_wrong(toy, tmp_path):
    wrong = {"s1", "s4"}
    folder = predicted(toy, tmp_path / "a", wrong)
    studies = {study.id: study for study in toy.studies}
    other = predicted(toy, tmp_path / "b", set(studies))
    shown, chosen = _page_studies(section(toy.store), studies, options(folder, studies=3, compare=[f"b={other}"]))
    assert [study.study for study in shown] == ["s0", "s6", "s4"]
    assert [study.volume is not None for study in shown] == [True, False, True]
    assert chosen.startswith("3 of 8 studies, chosen by rule and not by hand: evenly from the one with the fewest")
    assert "(0) to the one with the most (" in chosen
    assert chosen.endswith("2 of them, chosen alike, carry their scan; of the others the page has pictures of slices.")
    assert [row.name for row in shown[0].regions] == ["heart", "lung"]
    assert shown[0].regions[0].volume_ml == pytest.approx(4 * 4 * 8 / 1000)
    assert "cyst" in shown[0].others[0].paragraphs[0].text
    assert shown[0].files["txt"] == "heart: The heart is normal.\nlung: The lung is large.\n"
    everything, chosen = _page_studies(section(toy.store), studies, options(folder, volumes=0))
    assert len(everything) == 8
    assert chosen.startswith(
        "All 8 studies, by the number of findings and sentences of ours that do not agree with truth"
    )
    assert all(study.volume is None for study in everything)
    assert _page_studies(section(toy.store), studies, options(folder, studies=0)) == ([], "")


def test_without_a_store_there_is_nothing_to_show(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.store: no folder to read scans from\. Give it: --data\.store"):
        _page_studies(section(None), {}, options(tmp_path))


@pytest.mark.parametrize(
    ("count", "wanted", "chosen"),
    [(60, 4, [0, 20, 39, 59]), (3, 12, [0, 1, 2]), (5, 1, [0]), (5, 0, []), (0, 3, []), (5, 2, [0, 4])],
)
def test_evenly(count, wanted, chosen):
    assert _evenly(count, wanted) == chosen


def test_another_model_was_asked_in_another_order():
    report = Report((Paragraph(0, "lung", "Clear."), Paragraph(1, "heart", "Large."), Paragraph(2, "bone", "Fine.")))
    moved = _in_slots((("lung", "heart", "bone"), report), ["heart", "lung"])
    assert moved.paragraphs == (Paragraph(0, "heart", "Large."), Paragraph(1, "lung", "Clear."))
    assert _in_slots(None, ["heart"]) is None


def test_where_curves_begin_is_explained():
    late = pd.DataFrame({"step": [20, 40, 560, 580], "train/word_loss": [3.0, 2.0, 1.0, 1.0],
                         "train/loss": [None, None, 2.5, 2.0]})  # fmt: skip
    plain = pd.DataFrame({"step": [20, 40], "train/loss": [3.0, 2.0]})
    said = _explained({"ours": late, "text only": plain, "nothing": pd.DataFrame({"step": [1]})})
    assert "ours: its training loss begins at step 560. Up to there the encoders alone learn" in said
    assert said.endswith("text only: its training loss begins at step 20, the first that was logged.")
