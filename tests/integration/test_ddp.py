"""Two processes take the steps that one process takes on the union of their batches."""

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from reg2rg.core.regions import load_region_set
from reg2rg.core.report import write_report
from reg2rg.evaluation.records import read_records
from reg2rg.extras.word_alignment import WordAlignment
from reg2rg.training.prediction_writer import PredictionWriter
from reg2rg.training.report_scores import ReportScores


@pytest.fixture(autouse=True)
def one_thread():
    """A forked process must not meet the thread pool of its parent."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def without_dropout(toy, **arguments):
    module = toy.module(dropout=0.0, val_generate=2, **arguments)
    for part in module.modules():
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.0
    return module


def trainer(toy, devices, **options):
    ddp = DDPStrategy(start_method="fork", process_group_backend="gloo", gradient_as_bucket_view=True)
    return L.Trainer(
        accelerator="cpu",
        devices=devices,
        strategy=ddp if devices > 1 else "auto",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        default_root_dir=toy.root,
        **options,
    )


def test_two_processes_equal_one_on_the_union(toy):
    runs = []
    for devices, batch_size in ((1, 4), (2, 2)):
        module = without_dropout(toy)
        run = trainer(toy, devices, max_epochs=3, limit_train_batches=1, gradient_clip_val=1.0)
        run.fit(module, datamodule=toy.data(module, batch_size=batch_size))
        runs.append((module, {key: float(value) for key, value in run.callback_metrics.items()}))
    (one, figures), (two, figures2) = runs
    for (name, value), (_, value2) in zip(one.state_dict().items(), two.state_dict().items(), strict=True):
        torch.testing.assert_close(value2, value, rtol=1e-4, atol=1e-6, msg=name)
    assert {"train/loss", "val/loss", "val/recognition", "val/bleu4", "val/findings_f1"} <= figures.keys()
    for key in figures:
        if key.startswith("val/") or key == "train/loss":
            assert figures2[key] == pytest.approx(figures[key], rel=1e-5), key


@pytest.mark.parametrize("steps", [2, 4], ids=["words alone", "and a report"])
def test_two_processes_equal_one_where_parameters_have_no_part_in_the_loss(toy, steps):
    """Word alignment leaves the language model out: there it must stay, weight decay and momentum included."""
    runs = []
    for devices, batch_size in ((1, 2), (2, 1)):
        module, words = without_dropout(toy), WordAlignment(0.5, steps=2)
        limits = {"max_steps": steps, "limit_train_batches": 2, "limit_val_batches": 0, "callbacks": [words]}
        run = trainer(toy, devices, accumulate_grad_batches=2, **limits)
        run.fit(module, datamodule=toy.data(module, batch_size=batch_size))
        runs.append(module.state_dict())
    before = without_dropout(toy).state_dict()
    for name in before:
        torch.testing.assert_close(runs[1][name], runs[0][name], rtol=1e-4, atol=1e-5, msg=name)
    moved = {name for name, value in before.items() if not torch.equal(value, runs[1][name])}
    assert any("texture" in name for name in moved)
    assert any(".llm." in name for name in moved) == (steps > 2)


def test_two_processes_predict_every_study_once(toy, tmp_path):
    module = without_dropout(toy)
    for devices in (1, 2):
        writer = PredictionWriter(str(tmp_path / str(devices)))
        run = trainer(toy, devices, callbacks=[writer])
        run.predict(module, datamodule=toy.data(module, batch_size=1), return_predictions=False)
    assert list(read_records(tmp_path / "1")) == list(read_records(tmp_path / "2"))
    assert (tmp_path / "1" / "predictions.csv").read_bytes() == (tmp_path / "2" / "predictions.csv").read_bytes()


def test_two_processes_test_as_one(toy):
    runs = []
    for devices in (1, 2):
        module, run = without_dropout(toy), trainer(toy, devices)
        run.test(module, datamodule=toy.data(module, batch_size=1), verbose=False)
        runs.append({key: float(value) for key, value in run.callback_metrics.items()})
    assert {"test/loss", "test/recognition", "test/bleu4", "test/cider", "test/findings_f1"} <= runs[0].keys()
    assert runs[1] == pytest.approx(runs[0], rel=1e-5)


SET = load_region_set("radgenome")
GIVEN = ("lung", "heart")
REPORTS = {
    f"s{i}": ((f"A nodule of {i} mm is seen.", "Large heart."), (f"A nodule of {i % 3} mm.", "Normal heart."))
    for i in range(5)
}
SHARES = (("s0", "s1", "s2", "s3"), ("s4", "s0"))  # uneven, and a sampler has filled up the second share
NOTHING = (tuple(REPORTS), ())  # one process generated no report at all


def scored(studies):
    metric = ReportScores(SET)
    for study in studies:
        references, told = REPORTS[study]
        metric.update(study, GIVEN, references, write_report(GIVEN, told))
    return metric.compute()


def share(rank, shares, address, results):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=len(shares))
    results.put((rank, scored(shares[rank])))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("shares", [SHARES, NOTHING], ids=["uneven", "one idle"])
def test_reports_of_two_processes_are_scored_as_those_of_one(tmp_path, shares):
    context = torch.multiprocessing.get_context("fork")
    results = context.SimpleQueue()
    address = f"file://{tmp_path / 'meet'}"
    processes = [context.Process(target=share, args=(rank, shares, address, results)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(results.get() for _ in processes)
    for process in processes:
        process.join(60)
        assert process.exitcode == 0
    assert found[0] == found[1] == scored(REPORTS)
