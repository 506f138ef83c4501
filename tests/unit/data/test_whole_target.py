"""Reports without regions: the whole report as target, from the prompt to the scores."""

import csv
import json
from dataclasses import replace

import lightning as L
import pytest
import torch

from reg2rg.cli.main import main
from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import load_region_set
from reg2rg.core.task import INSTRUCTION, WHOLE_INSTRUCTION
from reg2rg.data.datamodule import RegionReportDataModule
from reg2rg.data.prompt import GLOBAL_PREFIX, PromptEncoder, TokenCounts
from reg2rg.datasets.base import Dataset, Listing
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.reading import Reports, pair_texts
from reg2rg.evaluation.records import read_records, read_report
from reg2rg.training.prediction_writer import PredictionWriter

GLOBAL_ONLY = TokenCounts(texture=0, geometry=0, global_=2)


def data_of(toy, counts=GLOBAL_ONLY, without=(), **arguments):
    """The toy studies, each with a whole report but those in `without`."""
    studies = tuple(replace(s, whole="" if s.id in without else f"Whole report of {s.id}.") for s in toy.studies)

    class Whole(Dataset):
        def scan(self) -> Listing:
            return Listing(studies)

    task, arguments = toy.task({"target": "whole"} | arguments)
    options = {"batch_size": 2, "workers": 0} | arguments
    return RegionReportDataModule(Whole(), str(toy.store), str(toy.lm), counts, task=task, **options)


def module_of(toy, target="whole", **arguments):
    return toy.module(target=target, texture=None, geometry=None, global_=toy.encoder(), **arguments)


def test_prompt_has_the_image_and_no_region(toy):
    encoder = data_of(toy).encoder
    sample = encoder.encode_whole("All is well.")
    tokenizer = encoder.tokenizer
    slots = sample.visual_positions
    assert slots.tolist() == list(range(slots[0], slots[0] + 4))  # open, two tokens, close
    prompt = encoder.encode(0)
    assert tokenizer.decode(prompt.ids[: slots[0]]) == GLOBAL_PREFIX
    assert tokenizer.decode(prompt.ids[slots[-1] + 1 :]) == f". {WHOLE_INSTRUCTION}"
    labels = sample.labels[sample.labels != -100]
    assert tokenizer.decode(labels) == " All is well. </s>"
    assert (sample.region_of_label == -1).all()
    assert len(sample.region_of_label) == len(labels)
    assert encoder.encode_whole(None).ids.tolist() == prompt.ids.tolist() == sample.ids[: len(prompt.ids)].tolist()
    assert encoder.prompt_text(0) == f"{GLOBAL_PREFIX}<image>. {WHOLE_INSTRUCTION}"


def test_a_report_that_is_too_long_is_cut_at_a_sentence(toy):
    tokenizer = data_of(toy).encoder.tokenizer
    room = len(PromptEncoder(tokenizer, GLOBAL_ONLY, instruction=WHOLE_INSTRUCTION).encode(0).ids)
    encoder = PromptEncoder(tokenizer, GLOBAL_ONLY, max_length=room + 30, instruction=WHOLE_INSTRUCTION)
    sample = encoder.encode_whole("The heart is normal. " * 20)
    text = tokenizer.decode(sample.labels[sample.labels != -100])
    assert text.endswith("The heart is normal. </s>")
    assert sample.sentences_cut == 20 - text.count("heart") > 0


@pytest.mark.parametrize("target", ["joined", "whole"])
def test_target_is_the_text_that_was_asked_for(toy, target):
    data = data_of(toy, target=target)
    by_id = {study.id: study for study in toy.studies}
    tokenizer = data.encoder.tokenizer
    for batch in data.train_dataloader():
        assert batch.texture is None
        assert batch.geometry is None
        assert batch.global_.shape == (len(batch), 1, *toy.size)
        for row, study in enumerate(batch.study_ids):
            listed = [name for name in data.task.region_set.names if name in by_id[study].reports]
            joined = " ".join(by_id[study].reports[name] for name in listed)
            expected = joined if target == "joined" else f"Whole report of {study}."
            labels = batch.labels[row]
            assert tokenizer.decode(labels[labels != -100]) == f" {expected} </s>"
            assert (batch.regions[row], batch.reports[row]) == ((), (expected,))


def test_instruction_follows_the_target_unless_it_is_given(toy):
    assert data_of(toy).task.instruction_text == WHOLE_INSTRUCTION
    assert data_of(toy, TokenCounts(2, 1, 2), target="regions").task.instruction_text == INSTRUCTION
    assert data_of(toy, instruction="Report.").task.instruction_text == "Report."


def test_studies_without_a_whole_report_are_left_out_and_counted(toy, caplog):
    data = data_of(toy, without=("s0", "s6"))
    assert "s0" not in {entry.study for entry in data.entries("train")}
    assert "left out 0 that are not in the store and 1 without a whole report" in caplog.text
    assert [entry.study for entry in data.entries("test")] == ["s7"]
    every = data_of(toy, without=("s6",), test_regions="all")
    assert {entry.study: entry.reports for entry in every.entries("test", all_masks=True)}["s6"] == ("",)


def test_baked_views_serve_as_well(toy, tmp_path):
    from reg2rg.store.store import Store

    data, store = data_of(toy), Store(tmp_path)
    for study in toy.studies:
        entry = data.store.read(study.id)
        store.write(study.id, entry.key, entry.detail, data.task.views)
    store.write_index()
    baked = RegionReportDataModule(
        data.dataset, str(tmp_path), str(toy.lm), GLOBAL_ONLY, workers=0, task=data.task, batch_size=2
    )
    for one, other in zip(data.train_dataloader(), baked.train_dataloader(), strict=True):
        assert torch.equal(one.global_, other.global_)


def test_region_tokens_are_refused(toy):
    with pytest.raises(ConfigError, match=r"task.target 'whole' puts no region .* 2 texture and 1 geometry .* null"):
        data_of(toy, TokenCounts(texture=2, geometry=1, global_=2))


def test_a_split_without_whole_reports_is_refused(toy):
    with pytest.raises(ConfigError, match=r"no study in split 'train' .* with a whole report"):
        data_of(toy, without=tuple(study.id for study in toy.studies)).setup("fit")


def run(toy, **options):
    return L.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=toy.root,
        **options,
    )


def test_from_training_to_scores(toy, tmp_path, capsys):
    module = module_of(toy, val_generate=2)
    trainer = run(toy, max_epochs=1)
    trainer.fit(module, datamodule=data_of(toy))
    assert trainer.callback_metrics["val/loss"].isfinite()
    logged = {name.partition("/")[2] for name in trainer.callback_metrics}
    assert "bleu4" in logged
    assert not any(name.startswith(("recognition", "loss_")) for name in logged)

    out = tmp_path / "predictions"
    run(toy, callbacks=[PredictionWriter(str(out))]).predict(module, datamodule=data_of(toy), return_predictions=False)
    records = list(read_records(out))
    assert [record["study"] for record in records] == ["s6", "s7"]
    assert records[0]["reference"] == {"": "Whole report of s6."}
    assert (records[0]["regions"], records[0]["paragraphs"]) == ([], [])
    with (out / "predictions.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["GT_combined_report"] for row in rows] == ["Whole report of s6.", "Whole report of s7."]
    assert [read_report(r).paragraphs[0].text for r in records] == [" ".join(r["text"].split()) for r in records]
    joined = data_of(toy, target="joined")
    module.task = joined.task
    with pytest.raises(ConfigError, match="made with another target"):
        run(toy, callbacks=[PredictionWriter(str(out))]).predict(module, datamodule=joined)

    for source in (out, out / "predictions.csv"):
        assert main(["evaluate", str(source), "--protocol", "paper", "--out", str(tmp_path / "scores")]) == 0
    written = json.loads(next((tmp_path / "scores").glob("*.json")).read_text())
    assert written
    assert "whole reports are scored" in capsys.readouterr().out


def test_on_the_page_a_whole_report_has_findings_and_no_recognition():
    pair = pair_texts("s6", "s6", "Large heart.", "Cardiomegaly.", load_region_set("radgenome"))
    settings = Settings(truth={"s6": {"Cardiomegaly": True}}, resamples=0, floors=False)
    found = {number.name: number.value for number in evaluate("x", Reports([pair], (), ()), settings).numbers}
    assert found["Truth F1 (micro)"] == 1
    assert "Recognition (mean over regions)" not in found


def test_compared_with_reports_of_regions(toy, tmp_path, capsys):
    """In the listed order both have the same reference, word by word; in another order they are told apart."""
    names = {"whole": {"target": "joined"}, "listed": {"order": "listed_in_evaluation"}, "shuffled": {}}
    for name, arguments in names.items():
        module = module_of(toy, **arguments) if name == "whole" else toy.module(**arguments)
        writer = PredictionWriter(str(tmp_path / name))
        data = toy.data(module)
        run(toy, callbacks=[writer]).predict(module, datamodule=data, return_predictions=False)
    compared = [
        "evaluate",
        str(tmp_path / "whole"),
        "--protocol",
        "paper",
        "--resamples",
        "9",
        "--no-floors",
        "--against",
    ]
    assert main([*compared, str(tmp_path / "listed")]) == 0
    capsys.readouterr()
    assert main([*compared, str(tmp_path / "shuffled")]) == 2
    assert "have another reference" in capsys.readouterr().err
