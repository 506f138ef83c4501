"""What strategies for several processes ask of the model and of the module, tried without their packages."""

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, StochasticWeightAveraging
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy
from torch import nn

from reg2rg.core.errors import ConfigError
from reg2rg.training.fully_shard import shard
from reg2rg.training.strategies import ZeRO, prepare_strategy


def trainer(toy, **options):
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    return L.Trainer(
        accelerator="cpu", num_sanity_val_steps=0, log_every_n_steps=1, default_root_dir=toy.root, **quiet, **options
    )


class Foreign:
    """An optimiser that is none of torch's, as DeepSpeed's is."""

    def __init__(self, optimizer):
        self.param_groups = optimizer.param_groups


class Exchange(L.Callback):
    """Shows the module a foreign optimiser when it logs."""

    def on_train_batch_start(self, trainer, *_):
        self.own = trainer.strategy._optimizers

    def on_train_batch_end(self, trainer, pl_module, *_):
        trainer.strategy._optimizers = [Foreign(self.own[0])]
        assert isinstance(pl_module.optimizers(use_pl_optimizer=False), list)  # Lightning's answer for such a one

    def on_train_epoch_end(self, trainer, *_):
        trainer.strategy._optimizers = self.own


def test_rates_of_an_optimiser_that_is_not_torchs_are_logged(toy):
    run = trainer(toy, max_steps=1, limit_val_batches=0, callbacks=[Exchange()])
    module = toy.module(lora=True)
    run.fit(module, datamodule=toy.data(module))
    assert {"train/lr_llm", "train/lr_vision"} <= run.callback_metrics.keys()


def test_no_parameter_is_a_scalar(toy):
    """DeepSpeed sends each parameter as bytes, which torch does not make of a scalar."""
    for name, parameter in toy.module(lora=True).named_parameters():
        assert parameter.data.view(torch.uint8).numel() == parameter.nbytes, name


def test_scalars_of_foreign_parts_are_refused_by_name():
    strategy = ZeRO.__new__(ZeRO)  # its constructor wants the package
    model = nn.Module()
    model.gain = nn.Parameter(torch.tensor(1.0))
    with pytest.raises(ConfigError, match=r"without a dimension: gain \(expected shape \(1,\)"):
        prepare_strategy(strategy, model, in_phases=False)
    model.gain = nn.Parameter(torch.ones(1))
    prepare_strategy(strategy, model, in_phases=False)
    assert strategy.exclude_frozen_parameters
    with pytest.raises(ConfigError, match=r"ZeRO steps weights that have no part .*WordAlignment: steps: 0"):
        prepare_strategy(strategy, model, in_phases=True)


@pytest.mark.parametrize("restored", [True, False])
def test_zero_leaves_out_what_comes_from_its_own_file(toy, restored):
    """Frozen weights of an encoder without a file would be lost."""
    strategy, model = ZeRO.__new__(ZeRO), toy.module(lora=True)
    model.reporter.texture.conv.requires_grad_(restored)
    prepare_strategy(strategy, model, in_phases=False)
    assert strategy.exclude_frozen_parameters == restored


def test_packed_weights_and_scalars_are_not_split():
    for weight in (torch.zeros(4, dtype=torch.uint8), torch.tensor(1.0)):
        model = nn.Module()
        model.weight = nn.Parameter(weight, requires_grad=False)
        with pytest.raises(ConfigError, match=r"FullyShard splits neither packed weights nor scalars \(1: weight"):
            shard(model, None)


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        (DeepSpeedStrategy, r"DeepSpeedStrategy divides the loss .* twice .* class_path: ZeRO"),
        (FSDPStrategy, r"FSDPStrategy takes neither weights of two dtypes .* class_path: FullyShard"),
    ],
)
def test_strategies_that_would_train_otherwise_are_refused(kind, told):
    with pytest.raises(ConfigError, match=told):
        prepare_strategy(kind.__new__(kind), nn.Module(), in_phases=False)


@pytest.mark.parametrize("average", [EMAWeightAveraging(decay=0.9), StochasticWeightAveraging(swa_lrs=1e-3)])
def test_averages_of_weights_are_refused_before_anything_trains(toy, average):
    module, run = toy.module(), trainer(toy, max_epochs=2, callbacks=[average])
    with pytest.raises(ConfigError, match=rf"trainer.callbacks: {type(average).__name__} averages weights.*take it"):
        run.fit(module, datamodule=toy.data(module))
    assert run.global_step == 0
