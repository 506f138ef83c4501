"""Other systems on phantoms: one epoch, predictions, scores, all from packaged configs."""

from __future__ import annotations

import json
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy

from reg2rg.cli.main import main
from reg2rg.evaluation.records import read_records
from reg2rg.extras.peers import CTViT
from reg2rg.training.checkpoints import read_checkpoint

PEERS = ("radfm", "m3d", "ct2rep", "ctchat", "r2gengpt", "medvint")
OWN = """
data: {dataset: {init_args: {root: ROOT/data}}, store: ROOT/store, workers: 0, batch_size: 2}
model: {llm: {init_args: {path: ROOT/lm}}, val_generate: 1, max_new_tokens: 20}
vars: {word_alignment_steps: 1}
trainer: {max_epochs: 1, max_steps: -1, val_check_interval: 1.0, check_val_every_n_epoch: 1, precision: bf16-mixed}
"""


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few studies in a store, and a language model that has learned nothing."""
    root = tmp_path_factory.mktemp("peers")
    (root / "own.yaml").write_text(OWN.replace("ROOT", str(root)))
    config = ["-c", "phantom.yaml", "-c", str(root / "own.yaml")]
    for command in (
        ["data", "phantom", str(root / "data"), "--studies", "7", "--size", "48", "48", "32", "--workers", "1"],
        ["data", "prepare", *config, "--workers", "1"],
        ["lm", str(root / "lm"), *config, "--steps", "0", "--hidden_size", "64", "--layers", "2", "--heads", "2"],
    ):
        assert main(command) == 0
    return root


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def check(root: Path, out: Path, name: str, *options: str) -> None:
    config = ["-c", "phantom.yaml", "-c", f"peers/phantom/{name}.yaml", "-c", str(root / "own.yaml")]
    config += [f"--trainer.default_root_dir={out}", *options]
    assert main(["fit", *config]) == 0
    last = out / "checkpoints" / "last.ckpt"
    weights = read_checkpoint(last)["state_dict"]
    assert all(tensor.isfinite().all() for tensor in weights.values() if tensor.is_floating_point())
    assert main(["predict", *config, "--ckpt_path", str(last)]) == 0
    records = list(read_records(out / "predictions"))
    assert records
    assert all(record["regions"] == [] and record["reference"][""] for record in records)
    scores = out / "scores"
    assert (
        main(
            [
                "evaluate",
                str(out / "predictions"),
                "--protocol",
                "paper",
                "--no-floors",
                "--resamples",
                "0",
                "--out",
                str(scores),
            ]
        )
        == 0
    )
    found = json.loads((scores / "metrics.json").read_text())
    assert (found["protocol"]["name"], found["studies"]) == ("paper", len(records))
    assert {"BLEU-4", "METEOR", "CE F1 (micro)"} <= {number["name"] for number in found["numbers"]}


def test_a_step_of_each_kind_of_m3d(phantoms: Path, tmp_path: Path) -> None:
    check(phantoms, tmp_path, "m3d", "--trainer.max_steps=2", "--trainer.limit_val_batches=1")


@pytest.mark.slow
@pytest.mark.parametrize("name", PEERS)
def test_one_epoch(name: str, phantoms: Path, tmp_path: Path) -> None:
    check(phantoms, tmp_path, name)


def test_codes_follow_the_tokens_of_all_processes(toy) -> None:
    """Two processes on halves of a batch move the codebook as one does on the whole."""
    found = []
    for devices, batch_size in ((1, 4), (2, 2)):
        torch.manual_seed(0)
        sizes = {"dim": 12, "spatial_depth": 1, "temporal_depth": 1, "heads": 2, "head_dim": 4}
        encoder = CTViT(toy.size, (8, 8, 4), codes=5, codebook_update="ema", **sizes)
        module = toy.module(texture=encoder, geometry=None)
        for part in module.modules():
            if hasattr(part, "attention_dropout"):
                part.attention_dropout = 0.0
        before = encoder.codebook.vectors.clone()
        trainer = L.Trainer(
            accelerator="cpu",
            devices=devices,
            strategy=DDPStrategy(start_method="fork", process_group_backend="gloo") if devices > 1 else "auto",
            max_epochs=2,
            limit_train_batches=1,
            limit_val_batches=0,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=toy.root,
        )
        trainer.fit(module, datamodule=toy.data(module, batch_size=batch_size))
        assert (encoder.codebook.vectors - before).abs().max() > 1e-3
        found.append(encoder.codebook.vectors)
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-5)
