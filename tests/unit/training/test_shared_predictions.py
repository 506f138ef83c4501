"""Several processes write one folder of predictions: each study by one of them, the same bytes as one process's."""

from __future__ import annotations

import json
import shutil

import lightning as L
import pytest
from lightning.pytorch.utilities.exceptions import SIGTERMException

from reg2rg.core.claims import COMPLETE, Campaign, Claims
from reg2rg.core.documents import read_record, write_record
from reg2rg.core.errors import ConfigError, Reg2RGError, TooManySkippedError
from reg2rg.models.reporter import GeneratedReport
from reg2rg.store.store import Store
from reg2rg.training.prediction_writer import PredictionWriter

EVERY = ["s0", "s1", "s2", "s3", "s4"]


@pytest.fixture(scope="module")
def module(toy):
    """A model whose reports cost nothing; those of a real one are compared in tests/integration/test_pretrained.py."""

    def generate(self, batch, *rest):
        told = zip(batch.study_ids, batch.regions, strict=True)
        return [GeneratedReport(study, names, f"The region 0 is {names[0]}: {study}.", False) for study, names in told]

    made = toy.module()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(made.reporter), "generate", generate)
        yield made


@pytest.fixture(scope="module")
def alone(toy, module, tmp_path_factory):
    """What one process makes."""
    out = tmp_path_factory.mktemp("alone")
    predict(toy, module, out, None)
    return contents(out)


def predict(toy, module, out, part, lease=30.0, callbacks=(), **data):
    writer = PredictionWriter(str(out))
    if part is not None:
        writer.take_part(part, Campaign("trial", lease))
    run = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        callbacks=[*callbacks, writer],
    )  # fmt: skip
    data = {"predict_split": "train", "batch_size": 2} | data
    run.predict(module, datamodule=toy.data(module, **data), return_predictions=False)


def contents(out):
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*.*"))
        if path.is_file() and ".campaigns" not in path.parts
    }


def campaign(out):
    (folder,) = (out / ".campaigns").iterdir()
    return folder


def noted(monkeypatch, module, before=lambda studies: None):
    """Studies that are reported on; `before` is called ahead of each batch."""
    made = []
    generate = type(module.reporter).generate

    def generate_and_note(self, batch, *rest):
        before(batch.study_ids)
        made.extend(batch.study_ids)
        return generate(self, batch, *rest)

    monkeypatch.setattr(type(module.reporter), "generate", generate_and_note)
    return made


@pytest.mark.parametrize("workers", [0, 1])
def test_parts_make_what_one_process_makes(toy, module, alone, tmp_path, monkeypatch, workers):
    made = noted(monkeypatch, module)
    predict(toy, module, tmp_path, (2, 2), workers=workers)
    assert sorted(made) == EVERY  # nobody else has begun
    assert contents(tmp_path) == alone
    assert read_record(campaign(tmp_path) / COMPLETE, "") == {"skipped": 0}
    predict(toy, module, tmp_path, (1, 2), workers=workers)
    assert sorted(made) == EVERY
    assert contents(tmp_path) == alone


def test_what_another_part_holds_is_left_to_it(toy, module, alone, tmp_path, monkeypatch):
    made = noted(monkeypatch, module)
    with pytest.raises(SIGTERMException):
        predict(toy, module, tmp_path, (1, 2), callbacks=[Told()])
    first = sorted(made)
    with Claims(campaign(tmp_path), 30.0) as other:
        held = next(other.take([study for study in EVERY if study not in made]))
        predict(toy, module, tmp_path, (1, 2))
        assert sorted(made) == [study for study in EVERY if study != held.item]
        assert not (tmp_path / "predictions.csv").exists()
        assert not (campaign(tmp_path) / COMPLETE).exists()
    predict(toy, module, tmp_path, (2, 2))
    assert sorted(made) == EVERY
    assert len(first) == 2
    assert contents(tmp_path) == alone


class Told(L.Callback):
    """The process is told to end while the first batch is in work."""

    def on_predict_batch_start(self, trainer, *rest):
        trainer._signal_connector.received_sigterm = True


def test_told_to_end_it_ends_after_the_batch_and_gives_back_what_it_held(toy, module, tmp_path):
    with pytest.raises(SIGTERMException) as told:
        predict(toy, module, tmp_path, (1, 1), callbacks=[Told()], workers=1)
    assert told.value.code == 143
    assert len(list((tmp_path / "studies").iterdir())) == 2
    assert not list(campaign(tmp_path).glob("attempts/*"))
    with pytest.raises(SIGTERMException):
        predict(toy, module, tmp_path / "alone", None, callbacks=[Told()])


def test_what_was_taken_over_meanwhile_is_not_written(toy, module, tmp_path, monkeypatch):
    def take_over(studies):
        if "s3" in studies and "s3" not in made:
            record = campaign(tmp_path) / "attempts" / "s3.json"
            write_record(record, read_record(record, "") | {"token": "another"})
        elif "s3" in studies:
            assert list(studies) == ["s3"]
            assert not (tmp_path / "studies" / "s3.json").exists()

    made = noted(monkeypatch, module, take_over)
    predict(toy, module, tmp_path, (1, 2), lease=1.0)
    lines = [
        json.loads(line) for path in campaign(tmp_path).glob("manifests/*") for line in path.read_text().splitlines()
    ]
    assert sorted(line["item"] for line in lines) == EVERY  # s3 the second time: nobody was there
    assert (tmp_path / "studies" / "s3.json").exists()


def test_what_broke_a_process_is_tried_alone(toy, module, alone, tmp_path, monkeypatch):
    batches = []

    def break_at_s3(studies):
        batches.append(sorted(studies))
        if "s3" in studies and sum("s3" in batch for batch in batches) < 3:
            raise RuntimeError("CUDA error")

    noted(monkeypatch, module, break_at_s3)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="CUDA error"):
            predict(toy, module, tmp_path, (1, 1))
    predict(toy, module, tmp_path, (1, 1))
    assert contents(tmp_path) == alone
    assert [batch for batch in batches if "s3" in batch][1:] == [["s3"], ["s3"]]


def test_a_study_that_no_attempt_survives_is_given_up(toy, module, tmp_path, monkeypatch):
    made = noted(monkeypatch, module)
    with pytest.raises(SIGTERMException):
        predict(toy, module, tmp_path, (1, 1), callbacks=[Told()])
    left = next(study for study in EVERY if study not in made)
    write_record(campaign(tmp_path) / "attempts" / f"{left}.json", {"attempt": 5, "token": "dead"})
    with pytest.raises(TooManySkippedError, match=rf"1 of 5 studies .* CRASHED {left}: 5 processes"):
        predict(toy, module, tmp_path, (1, 1))
    assert sorted(made) == [study for study in EVERY if study != left]
    assert list(json.loads((tmp_path / "skipped.json").read_text())) == [left]


def test_a_study_that_cannot_be_read_holds_nobody(toy, module, tmp_path, monkeypatch):
    shutil.copytree(toy.store, tmp_path / "store")
    monkeypatch.setattr(toy, "store", tmp_path / "store")
    path = Store(toy.store).native_path("s2")
    path.write_bytes(path.read_bytes()[:-20] + bytes(20))
    predict(toy, module, tmp_path / "alone", None, max_skip=0.3)
    predict(toy, module, tmp_path / "parts", (1, 2), max_skip=0.3)
    assert contents(tmp_path / "parts") == contents(tmp_path / "alone")
    assert list(json.loads((tmp_path / "parts" / "skipped.json").read_text())) == ["s2"]
    with pytest.raises(TooManySkippedError, match="1 of 5 studies could not be read; max_skip allows 0"):
        predict(toy, module, tmp_path / "strict", (1, 2))
    assert len(list((tmp_path / "strict" / "studies").iterdir())) == 4
    assert (tmp_path / "strict" / "predictions.csv").exists()


def test_a_record_that_was_removed_is_missed(toy, module, tmp_path):
    predict(toy, module, tmp_path, (1, 1))
    (tmp_path / "studies" / "s1.json").unlink()
    with pytest.raises(Reg2RGError, match=r"1 studies were reported on, and have no record any more \(s1\)"):
        predict(toy, module, tmp_path, (1, 1))


def test_a_part_alone_takes_nothing_over(toy, module, alone, tmp_path, monkeypatch):
    made = noted(monkeypatch, module)
    writers = [PredictionWriter(str(tmp_path)) for _ in range(2)]
    for number, writer in enumerate(writers, 1):
        writer.take_part((number, 2), None)
        run = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, callbacks=[writer])
        run.predict(module, datamodule=toy.data(module, predict_split="train"), return_predictions=False)
        assert sorted(made) == (["s0", "s2", "s4"] if number == 1 else EVERY)
    assert contents(tmp_path) == alone


def test_data_that_cannot_be_shared_are_refused(toy, module, tmp_path, monkeypatch):
    monkeypatch.delattr(type(toy.data(module)), "share_studies")
    with pytest.raises(ConfigError, match=r"a part of --shards has one process, and data that can be shared"):
        predict(toy, module, tmp_path, (1, 2))
