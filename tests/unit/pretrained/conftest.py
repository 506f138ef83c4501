"""A model of a config, small enough to build in a fraction of a second."""

import pytest
import torch
from torch import nn


def encoder(dim, size=(16, 16, 8)):
    arguments = {"size": list(size), "patch": [2, 2, 2], "channels": [8, 8], "grid": [1, 1, 1], "dim": dim}
    return {"class_path": "CNN3D", "init_args": arguments}


@pytest.fixture
def config(toy):
    """Makes a run's config; arguments are those of the language model."""

    def make(**llm):
        return {
            "model": {
                "texture": {"class_path": "Frozen", "init_args": {"encoder": encoder(8), "weights": None}},
                "geometry": encoder(6),
                "global_": "texture",
                "projector": {"class_path": "LinearProjector"},
                "llm": {"class_path": "CausalLM", "init_args": {"path": str(toy.lm), **llm}},
                "max_new_tokens": 12,
                "val_generate": 0,
            },
            "task": {
                "regions": "radgenome",
                "views": {"size": [16, 16, 8], "window": [-1000, 200]},
                "max_length": 512,
                "instruction": "Report.",
            },
            "data": {"read": {"mask_grid": "scan"}},
            "trainer": {"max_steps": 3},
        }

    return make


@pytest.fixture
def model(config):
    """Builds it, with adapters that are not zero."""
    import reg2rg.models.encoders
    import reg2rg.models.llm.causal_lm  # noqa: F401 (components by their short names)
    from reg2rg.config.saving import build
    from reg2rg.training.module import Reg2RG

    def make(seed=0, **llm):
        settings = config(**llm)
        torch.manual_seed(seed)
        built = build(Reg2RG, settings["model"] | {"task": settings["task"]}).eval()
        for name, parameter in built.named_parameters():
            if "lora_B" in name:
                nn.init.normal_(parameter, std=0.1)
        built.describe(settings)
        return built

    return make


@pytest.fixture
def data_of(toy):
    """The toy's data for a model, with changes to its task or of the data module's arguments."""

    def make(model, **changes):
        from reg2rg.data.datamodule import RegionReportDataModule

        task, options = toy.task(changes, model.task)
        options = {"workers": 0, "tokenizer": model.tokenizer} | options
        return RegionReportDataModule(
            toy.dataset(), str(toy.store), token_counts=model.token_counts, task=task, **options
        )

    return make


@pytest.fixture
def predict(data_of, monkeypatch):
    """Predicts on the toy's test studies; gives embedded prompts, which depend on all of the input, and texts.

    The texts alone would not do: the toy's language model says the same whatever it sees.
    """
    import lightning as L

    from reg2rg.models.reporter import RegionReporter

    seen = []
    generate = RegionReporter.generate
    monkeypatch.setattr(
        RegionReporter,
        "generate",
        lambda self, batch, *args, **more: seen.append(self.embed(batch)) or generate(self, batch, *args, **more),
    )

    def run(model, conform=True, **changes):
        data = data_of(model, **changes)
        data = model.conform(data) if conform else data
        trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False)
        seen.clear()
        texts = [answer.text for batch in trainer.predict(model, datamodule=data) for answer in batch]
        return [embedded.tolist() for embedded in seen], texts

    return run
