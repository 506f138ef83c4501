"""Training, validation and prediction of a `RegionReporter` with Lightning."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from reg2rg.checkpoints import check_names, kept_names, read_checkpoint
from reg2rg.config.saving import build, read_config
from reg2rg.data.batch import Batch
from reg2rg.data.order import mixed_seed
from reg2rg.data.prompt import TokenCounts
from reg2rg.encoders.base import Encoder
from reg2rg.errors import ConfigError, Reg2RGError
from reg2rg.language.base import Decoding, LanguageModel
from reg2rg.metrics.recognition import RegionLoss, RegionRecognition
from reg2rg.model import GeneratedReport, ProjectorFactory, RegionReporter
from reg2rg.monitor import Throughput, explained_out_of_memory, peak_memory_gib, show_sample
from reg2rg.optimization import OptimizerConfig, build_optimizer
from reg2rg.regions import load_region_set
from reg2rg.report import parse_report

log = logging.getLogger(__name__)

_NON_FINITE_IN_A_ROW = 3
_GRADIENTS = "reg2rg_accumulated_gradients"


class NonFiniteLossError(Reg2RGError):
    """The loss or its gradient was NaN or infinite several times in a row; the message names the studies."""


class Reg2RG(L.LightningModule):
    """Region-by-region reports, trained.

    The loss is the mean negative log-likelihood over the label tokens of a step's batch, over all processes: a run on
    several processes takes the same steps as one process on the union of their batches. With gradient accumulation it
    is the mean over the batches' means, as published.

    Every random number of a training step follows from (seed, epoch, batch, process), so that a run that is stopped and
    resumed at any step is the run that was not, bit for bit.

    Args:
        texture: encodes a region's cropped detail, or null.
        geometry: encodes a region's mask in the frame of the whole image, or null.
        global_: encodes the whole image; ``texture`` shares the texture encoder, as published; or null.
        projector: encoder width and language model's width -> projector.
        llm: the language model.
        optimizer: rates, decay and schedule.
        regions: region set by name or file; the same as the data's.
        identity: reports name their regions; the same as the data's.
        tag_std: standard deviation of the learned tag vectors at the start.
        seed: of dropout and whatever else is drawn in a training step.
        max_new_tokens: longest generated report.
        val_generate: validation studies that a report is generated for; 0 turns it off. Test generates for all.
        val_samples: generated reports that are shown to the logger.
    """

    def __init__(
        self,
        texture: Encoder | None,
        geometry: Encoder | None,
        global_: Encoder | Literal["texture"] | None,
        projector: ProjectorFactory,
        llm: LanguageModel,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (frozen)
        regions: str = "radgenome",
        identity: bool = True,
        tag_std: float = 1.0,
        seed: int = 0,
        max_new_tokens: int = 500,
        val_generate: int = 16,
        val_samples: int = 2,
    ) -> None:
        super().__init__()
        self.reporter = RegionReporter(texture, geometry, global_, projector, llm, tag_std)
        self.optimizer_config, self.identity, self.seed = optimizer, identity, seed
        self.decoding = Decoding(max_new_tokens=max_new_tokens)
        self.val_generate, self.val_samples = val_generate, val_samples
        names = load_region_set(regions).names
        self.train_losses = RegionLoss(names, over_processes=False)
        self.eval_losses = RegionLoss(names)
        self.recognition = RegionRecognition(names)
        self.throughput = Throughput()
        self.non_finite_steps, self._in_a_row = 0, 0
        self._suspects: list[str] = []
        self._step_is_finite = True
        self._pending_gradients: dict[str, Tensor] = {}
        self._logged_step = self._shown = 0

    @property
    def token_counts(self) -> TokenCounts:
        """Visual tokens of a sample; the data needs them to lay out the prompt."""
        return self.reporter.token_counts

    @property
    def tokenizer(self) -> Any:
        """The language model's tokenizer."""
        return self.reporter.llm.tokenizer

    # ---- training

    def on_fit_start(self) -> None:
        """Train mode everywhere: a language model comes from its file in eval mode. `Frozen` parts keep theirs."""
        self.train()

    def on_train_start(self) -> None:
        """Put back gradients that a checkpoint caught between two optimiser steps."""
        for name, parameter in self.named_parameters():
            if name in self._pending_gradients:
                parameter.grad = self._pending_gradients[name].to(parameter.device)
        self._pending_gradients = {}

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Seed what this step draws."""
        torch.manual_seed(mixed_seed(self.seed, self.current_epoch, batch_idx, self.global_rank))
        self.throughput.begin()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch, scaled so that the mean of all processes' gradients is the gradient of the union."""
        with explained_out_of_memory(batch):
            nll = self.reporter(batch)
        total, tokens, finite = self._summed(nll)
        if not finite:
            self._step_is_finite = False
            self._suspects += _non_finite_studies(batch, nll)
        self.train_losses.update(nll, batch.label_region, batch.region_names)
        self.throughput.add(batch)
        self.log("train/loss", total / tokens, prog_bar=True, batch_size=len(batch))
        loss: Tensor = nll.sum() * (self._world_size / tokens)
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave the weights alone if the loss or its gradient is not finite; stop after three such steps in a row."""
        if not self._step_is_finite or not self._gradients_are_finite():
            self._refuse_step(optimizer)
        else:
            self._in_a_row = 0
        self._step_is_finite, self._suspects = True, []

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log what is read now and then."""
        step = self.global_step
        every = int(self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if step == self._logged_step or step % every:
            return
        self._logged_step = step
        figures = self.throughput.read() | {"peak_memory_gib": peak_memory_gib(self.device)}
        figures["non_finite_steps"] = float(self.non_finite_steps)
        for group in self.optimizers(use_pl_optimizer=False).param_groups:  # type: ignore[union-attr]
            figures[f"lr_{group['name']}"] = group["lr"]
        named = {f"loss_{name}": value for name, value in self.train_losses.compute().items() if name != "all"}
        self.train_losses.reset()
        logged = {f"train/{name}": float(value) for name, value in (figures | named).items()}
        self.log_dict(logged, batch_size=len(batch))

    def on_validation_start(self) -> None:
        """Validation is no training time."""
        self.throughput.pause()

    # ---- validation, test, predict

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss; for the first studies, a generated report as well."""
        done = batch_idx * len(batch) * self._world_size
        self._evaluate(batch, generate=done < self.val_generate and not self.trainer.sanity_checking)

    def on_validation_epoch_end(self) -> None:
        """Log the figures of the whole split."""
        self._log_evaluation("val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss and a generated report."""
        self._evaluate(batch, generate=True)

    def on_test_epoch_end(self) -> None:
        """Log the figures of the whole split."""
        self._log_evaluation("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> list[GeneratedReport]:
        """A report for each study."""
        with explained_out_of_memory(batch):
            return self.reporter.generate(batch, self.decoding)

    def on_predict_start(self) -> None:
        """Fold adapters into the weights, where that is faster."""
        self._merged = self.reporter.llm.merged()
        self._merged.__enter__()

    def on_predict_end(self) -> None:
        """Take them out again."""
        self._merged.__exit__(None, None, None)

    # ---- optimiser and checkpoints

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW over what trains, with its schedule by optimiser steps."""
        total = self.trainer.estimated_stepping_batches
        optimizer, schedule = build_optimizer(self.named_parameters(), self.optimizer_config, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what trains; add the count of refused steps, and gradients between two steps of an accumulation."""
        kept = kept_names(self)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint.get("state_dict", {}).items() if k in kept}
        checkpoint["reg2rg_non_finite_steps"] = self.non_finite_steps
        if self._between_steps():
            checkpoint[_GRADIENTS] = {n: p.grad for n, p in self.named_parameters() if p.grad is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read what `on_save_checkpoint` added."""
        self.non_finite_steps = checkpoint.get("reg2rg_non_finite_steps", 0)
        self._pending_gradients = checkpoint.get(_GRADIENTS, {})

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights. Strict means: all that a checkpoint holds, and nothing unknown.

        Raises:
            ConfigError: names that do not fit, or sizes that do not.
        """
        if strict:
            check_names(state_dict, kept_names(self), set(self.state_dict()), "the checkpoint")
        try:
            return super().load_state_dict(state_dict, strict=False, assign=assign)
        except RuntimeError as error:
            raise ConfigError(f"the checkpoint does not fit the model: {error}") from error

    @classmethod
    def from_checkpoint(cls, path: str | Path, **changes: Any) -> Self:
        """Build the model that a checkpoint was saved from, with its weights, in eval mode on the CPU.

        Args:
            path: a checkpoint written by ``reg2rg fit``.
            changes: constructor arguments that replace those of the config inside the checkpoint.

        Raises:
            ConfigError: no such file, or a checkpoint without a config.
            CheckpointError: a damaged file.
        """
        checkpoint = read_checkpoint(path)
        config = read_config(checkpoint, str(path))
        model = build(cls, {**config["model"], **changes})
        model.load_state_dict(checkpoint["state_dict"])
        return model.eval()

    # ---- parts

    @property
    def _world_size(self) -> int:
        return int(self.trainer.world_size)

    def _summed(self, nll: Tensor) -> tuple[Tensor, Tensor, bool]:
        """Loss sum and number of label tokens over all processes, and whether all losses are finite."""
        sums = torch.stack([nll.detach().sum(), nll.new_tensor(float(nll.numel()))])
        if self._world_size > 1:
            sums = self.trainer.strategy.reduce(sums, reduce_op="sum")
        total, tokens = sums
        return total, tokens, bool(torch.isfinite(total))

    def _gradients_are_finite(self) -> bool:
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        if scaler is not None:  # float16: infinite gradients are its daily business, it skips the step itself
            return True
        gradients = [p.grad for p in self.parameters() if p.grad is not None]
        return not gradients or math.isfinite(float(torch.nn.utils.get_total_norm(gradients)))

    def _refuse_step(self, optimizer: Optimizer) -> None:
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # AdamW leaves such a parameter and its moments as they are
        self.non_finite_steps += 1
        self._in_a_row += 1
        studies = ", ".join(dict.fromkeys(self._suspects)) or "none by itself: the gradient is at fault"
        log.warning("Step %d was skipped: loss or gradient not finite. Studies: %s", self.global_step, studies)
        if self._in_a_row >= _NON_FINITE_IN_A_ROW:
            raise NonFiniteLossError(
                f"loss or gradient were not finite {self._in_a_row} times in a row, the last time at step "
                f"{self.global_step} (studies: {studies}). The weights are those from before. Fix: look at these "
                "studies with `reg2rg data check`, lower model.optimizer.lr, or use bf16 instead of fp16"
            )

    def _between_steps(self) -> bool:
        trainer = self._trainer
        if trainer is None or trainer.accumulate_grad_batches == 1 or trainer.state.fn != "fit":
            return False
        return bool(trainer.fit_loop._should_accumulate())

    def _evaluate(self, batch: Batch, generate: bool) -> None:
        self.eval_losses.update(self.reporter(batch), batch.label_region, batch.region_names)
        if not generate or not self.identity:
            return
        for i, answer in enumerate(self.reporter.generate(batch, self.decoding)):
            self.recognition.update(answer.regions, parse_report(answer.text, answer.regions))
            if self._shown < self.val_samples and self.trainer.is_global_zero:
                self._shown += 1
                show_sample(self.loggers, f"sample_{self._shown}", answer, batch.reports[i], self.global_step)

    def _log_evaluation(self, stage: str) -> None:
        losses = self.eval_losses.compute()
        figures = {("loss" if name == "all" else f"loss_{name}"): value for name, value in losses.items()}
        self.eval_losses.reset()
        if int(self.recognition.studies):
            recognised = self.recognition.compute()
            figures |= {"recognition": recognised.pop("region"), "recognition_study": recognised.pop("study")}
            figures |= {f"recognition_{name}": share for name, share in recognised.items()}
        self.recognition.reset()
        self._shown = 0
        self.log_dict({f"{stage}/{name}": value.float() for name, value in figures.items()})


def _non_finite_studies(batch: Batch, nll: Tensor) -> list[str]:
    """Studies of a batch whose own losses are not finite."""
    row_of_label = (batch.labels != -100).nonzero(as_tuple=True)[0]
    rows = row_of_label[~torch.isfinite(nll.detach())].tolist()
    return [batch.study_ids[row] for row in dict.fromkeys(rows)]
