import csv
import shutil

import lightning as L
import pytest

from reg2rg.core.documents import DocumentError, read_record, write_record
from reg2rg.core.errors import ConfigError
from reg2rg.core.report import Written, parse_report
from reg2rg.core.task import Views
from reg2rg.evaluation.records import (
    COLUMNS,
    as_cell,
    read_records,
    read_report,
    read_written,
    reference_paragraphs,
    write_table,
)
from reg2rg.models.writing import GeneratedReport
from reg2rg.training.prediction_writer import PredictionWriter, record


@pytest.fixture(scope="module")
def module(toy):
    return toy.module()


def predict(toy, module, out, **data):
    run = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[PredictionWriter(str(out))])
    run.predict(module, datamodule=toy.data(module, **data), return_predictions=False)


def contents(out):
    return {path.relative_to(out): path.read_bytes() for path in sorted(out.rglob("*.*")) if path.is_file()}


def test_same_files_for_any_batch_size_and_any_run(toy, module, tmp_path):
    for name, size in (("a", 1), ("b", 2), ("c", 2)):
        predict(toy, module, tmp_path / name, batch_size=size)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")
    assert len(list((tmp_path / "a" / "studies").iterdir())) == 2


def test_table_has_the_published_columns(toy, module, tmp_path):
    predict(toy, module, tmp_path)
    with open(tmp_path / "predictions.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert tuple(rows[0]) == COLUMNS
    assert [row["AccNum"] for row in rows] == ["s6", "s7"]
    assert rows[0]["GT_combined_report"].startswith("The region 0 is ")
    assert "<region>" in rows[0]["Question"]


def test_goes_on_with_what_is_not_complete(toy, module, tmp_path, monkeypatch, caplog):
    predict(toy, module, tmp_path)
    before = contents(tmp_path)
    (tmp_path / "studies" / "s7.json").write_text(before[next(p for p in before if p.name == "s7.json")].decode()[:50])
    (tmp_path / "predictions.csv").unlink()
    made = []
    generate = type(module.reporter).generate
    monkeypatch.setattr(
        type(module.reporter),
        "generate",
        lambda self, batch, *rest: (made.extend(batch.study_ids), generate(self, batch, *rest))[1],
    )
    predict(toy, module, tmp_path)
    assert made == ["s7"]
    assert "1 studies are complete; the others follow" in caplog.text
    assert contents(tmp_path) == before
    (tmp_path / "predictions.csv").unlink()
    predict(toy, module, tmp_path)  # nothing left to do: the table is written all the same
    assert made == ["s7"]
    assert "2 studies are complete; nothing is left to do" in caplog.text
    assert contents(tmp_path) == before


def test_predictions_of_another_model_are_not_mixed(toy, module, tmp_path):
    predict(toy, module, tmp_path)
    with pytest.raises(ConfigError, match="predictions made with another model"):
        predict(toy, toy.module(seed=9), tmp_path)


WINDOW = Views(size=(16, 16, 8), window=(-200, 300))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"order": "listed"}, "order"),
        ({"instruction": "Totally other words."}, "instruction"),
        ({"views": WINDOW}, r"views\.window"),
        ({"identity": False, "max_length": 1000}, "identity, max_length"),
    ],
)
def test_predictions_of_another_task_are_not_mixed(toy, tmp_path, changes, said):
    predict(toy, toy.module(), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=rf"predictions made with another {said} \(see .*Fix: give another folder"):
        predict(toy, toy.module(**changes), tmp_path)
    assert contents(tmp_path) == before


def test_predictions_of_other_data_are_not_mixed(toy, module, tmp_path):
    predict(toy, module, tmp_path)
    with pytest.raises(ConfigError, match=r"holds predictions of 2 studies that the data do not list \(s6, s7\)"):
        predict(toy, module, tmp_path, predict_split="val")
    with pytest.raises(ConfigError, match="predictions made with another test_regions"):
        predict(toy, module, tmp_path, test_regions="all")
    limited = tmp_path / "limited"
    predict(toy, module, limited, limit_eval_studies=1)
    predict(toy, module, limited)  # the rest of the same data follows
    assert len(list(read_records(limited))) == 2


def test_a_study_whose_mask_was_mended_is_reported_on_anew(toy, module, tmp_path, monkeypatch, caplog):
    from reg2rg.store.store import Store

    store = tmp_path / "store"
    shutil.copytree(toy.store, store)
    monkeypatch.setattr(toy, "store", store)
    predict(toy, module, tmp_path / "out")
    before = {record["study"]: record for record in read_records(tmp_path / "out")}
    Store(store).write("s7", "mended", Store(store).read("s6").detail)
    made = []
    generate = type(module.reporter).generate
    monkeypatch.setattr(
        type(module.reporter),
        "generate",
        lambda self, batch, *rest: (made.extend(batch.study_ids), generate(self, batch, *rest))[1],
    )
    predict(toy, module, tmp_path / "out")
    assert made == ["s7"]
    assert "the data of 1 studies have changed since (s7); they are reported on anew" in caplog.text
    after = {record["study"]: record for record in read_records(tmp_path / "out")}
    assert after["s6"] == before["s6"]
    assert after["s7"]["key"] != before["s7"]["key"]


def test_predictions_of_an_older_version_are_not_added_to(toy, module, tmp_path):
    predict(toy, module, tmp_path)
    run = read_record(tmp_path / "run.json", "")
    del run["task"]
    write_record(tmp_path / "run.json", run | {"target": "regions", "identity": True})
    with pytest.raises(ConfigError, match=r"of an older version, which did not note their task .*Fix: give another"):
        predict(toy, module, tmp_path)


def test_a_data_module_that_says_nothing_of_its_studies_is_refused(toy, module, tmp_path):
    class Silent(L.LightningDataModule):
        def predict_dataloader(self):
            return toy.data(module).predict_dataloader()

    run = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[PredictionWriter("out")])
    with pytest.raises(ConfigError, match=r"Silent, which does not say .*PredictionSource"):
        run.predict(module, datamodule=Silent(), return_predictions=False)


def test_record_lists_what_is_wrong_with_a_report():
    given = ("heart", "lung", "bone")
    text = "The region 0 is heart: Big. The region 1 is spleen: Odd. The region 0 is heart: Again."
    found = record(GeneratedReport("s", given, text, True), ("a", "b", ""), "Q")
    assert found["paragraphs"] == [{"slot": 0, "region": "heart", "text": "Big."}]
    assert len(found["invalid"]) == 1
    assert len(found["duplicate"]) == 1
    assert found["missing"] == ["lung", "bone"]
    assert found["truncated"] is True
    assert found["reference"] == {"heart": "a", "lung": "b", "bone": ""}


def test_record_tells_how_paragraphs_came_by_their_names():
    shares = {"heart": 0.70049, "lung": 0.29945, "bone": 0.00006}
    written = (Written(0, "heart", shares), Written(1, "lung", shares, truncated=True))
    text = "The region 0 is heart: Big. The region 1 is lung: Clear."
    found = record(GeneratedReport("s", ("heart", "lung"), text, True, written), ("a", "b"), "Q")
    assert found["decoding"] == "constrained"
    assert found["paragraphs"][0]["referring"] == {"heart": 0.701, "lung": 0.299, "bone": 0.0}
    assert [one["truncated"] for one in found["paragraphs"]] == [False, True]
    again = read_written(found)
    assert [one.probability for one in again] == [0.701, 0.299]
    assert [(one.slot, one.region, one.forced, one.truncated) for one in again] == [
        (0, "heart", False, False),
        (1, "lung", False, True),
    ]
    free = record(GeneratedReport("s", ("heart", "lung"), text, True), ("a", "b"), "Q")
    assert free["decoding"] == "free"
    assert read_written(free) == ()
    assert set(free["paragraphs"][0]) == {"slot", "region", "text"}


def test_predictions_are_ready_to_be_scored(tmp_path):
    (tmp_path / "studies").mkdir()
    found = record(GeneratedReport("s", ("heart",), "The region 0 is heart: Big.", False), ("a",), "Q")
    write_record(tmp_path / "studies" / "s.json", found)
    (tmp_path / "studies" / "torn.json").write_text("{")
    write_record(tmp_path / "studies" / "other.json", found)
    told = []
    (one,) = read_records(tmp_path, lambda path, error: told.append(str(error)))
    assert "other.json: a record of study 's'. Fix: delete it and run `reg2rg predict` again" in told[0]
    assert "torn.json: not JSON" in told[1]
    with pytest.raises(DocumentError, match=r"other\.json"):
        list(read_records(tmp_path))
    assert read_report(one) == parse_report("The region 0 is heart: Big.", ("heart",))
    assert list(reference_paragraphs(one)) == ["a"]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_a_cell_is_never_a_formula(tmp_path, start):
    assert as_cell(f'{start}HYPERLINK("x")').startswith("'")
    assert as_cell("The region") == "The region"
    (tmp_path / "studies").mkdir()
    text = f'{start}cmd|"/c calc"!A1'
    found = record(GeneratedReport("s", ("heart",), text, False), ("a",), "Q")
    write_record(tmp_path / "studies" / "s.json", found)
    with open(write_table(tmp_path), newline="") as stream:
        assert list(csv.reader(stream))[1][3].startswith("'")
