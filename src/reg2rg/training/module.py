"""Training, validation and prediction of a `RegionReporter` with Lightning."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import lightning as L
import torch
from lightning.pytorch.plugins.precision import HalfPrecision
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim import Optimizer

from reg2rg.config.saving import CONFIG_KEY, build, read_config
from reg2rg.core.task import ReportTask, with_task
from reg2rg.core.types import DecodingKind, NonNegativeFloat, NonNegativeInt, PositiveInt, UnitFloat
from reg2rg.data.batch import Batch
from reg2rg.data.order import mixed_seed
from reg2rg.data.prompt import TokenCounts
from reg2rg.models.auxiliary import is_auxiliary
from reg2rg.models.encoders.base import Encoder
from reg2rg.models.encoders.views_fit import require_fit
from reg2rg.models.heads.options import FindingsOptions, HeadFactory
from reg2rg.models.llm.base import Decoding, Form, LanguageModel, Sampling
from reg2rg.models.reporter import ProjectorFactory, RegionReporter
from reg2rg.models.state import check_names, check_sizes, kept_names
from reg2rg.models.writing import GeneratedReport
from reg2rg.pretrained.mixin import FolderModel
from reg2rg.pretrained.saving import settle_language_model
from reg2rg.training.checkpoints import read_checkpoint
from reg2rg.training.data_fit import check_data, check_lengths
from reg2rg.training.fully_shard import FullyShard, in_step, shard
from reg2rg.training.going_on import check_task, check_trained, warn_of_other_settings, way_to_fit
from reg2rg.training.half_precision import Float32Steps
from reg2rg.training.head_scores import HeadScores, learn_labels
from reg2rg.training.monitor import Throughput, explained_out_of_memory, peak_memory_gib, show_sample
from reg2rg.training.nonfinite import StepGuard
from reg2rg.training.optimization import OptimizerConfig, build_optimizer
from reg2rg.training.region_loss import RegionLoss, sum_losses
from reg2rg.training.report_scores import ReportScores
from reg2rg.training.strategies import ZeRO, agree, keeps_gradients, prepare_strategy, refuse_averages

log = logging.getLogger(__name__)

_GRADIENTS = "reg2rg_accumulated_gradients"


class Reg2RG(FolderModel, L.LightningModule):
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
        task: what the model sees and writes; the data hold the same one.
        tag_std: standard deviation of the learned tag vectors at the start.
        seed: of dropout and whatever else is drawn in a training step.
        decoding: ``constrained`` holds a report to its form: a frame for each region in slot order, named by the model,
            and text within; ``forced`` does too, and gives each frame the name of its region; ``free`` lets the model
            write what it likes, as published.
        max_new_tokens: longest generated report. One that is held to its form may go on beyond it, by an equal share
            for each region that is left.
        max_paragraph_tokens: longest paragraph of a report that is held to its form, or null.
        stop_on_loop: end a report, or a paragraph of one that is held to its form, that has written the same stretch
            so many times in a row; 0 never does, as published.
        stop_after_last: end a report that is decoded freely where it would go on to a region that was not given; the
            published code lets it.
        sampling: draw tokens as the published code has come to do, or null for the likeliest ones.
        val_generate: validation studies that a report is generated for; 0 turns it off. Test generates for all.
        val_samples: generated reports that are shown to the logger.
        attributes: encodes what is measured of a region, such as `AttributeEncoder`; or null.
        head: tells findings of each region from its visual tokens, such as `FindingsHead`; or null. It is trained with
            the report on what a labeler reads in the training texts; validation sets its temperature and thresholds.
        head_loss: weight of its loss, which as the others is a sum over a step's batch, divided by its label tokens.
        cues: the prompt names the findings that the head detects.
        cue_dropout: share of the regions of which the prompt says nothing, in training.
        operating_point: what decides when a finding counts as detected: ``f1``, ``precision=.9``, ``recall=.9``.
    """

    def __init__(
        self,
        texture: Encoder | None,
        geometry: Encoder | None,
        global_: Encoder | Literal["texture"] | None,
        projector: ProjectorFactory,
        llm: LanguageModel,
        optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008 (frozen)
        task: ReportTask = ReportTask(),  # noqa: B008 (frozen)
        tag_std: NonNegativeFloat = 1.0,
        seed: int = 0,
        decoding: DecodingKind = "constrained",
        max_new_tokens: PositiveInt = 500,
        max_paragraph_tokens: PositiveInt | None = None,
        stop_on_loop: NonNegativeInt = 4,
        stop_after_last: bool = True,
        sampling: Sampling | None = None,
        val_generate: NonNegativeInt = 16,
        val_samples: NonNegativeInt = 2,
        attributes: Encoder | None = None,
        head: HeadFactory | None = None,
        head_loss: NonNegativeFloat = 1.0,
        cues: bool = False,
        cue_dropout: UnitFloat = 0.15,
        operating_point: str = "f1",
    ) -> None:
        super().__init__()
        require_fit(texture, global_, geometry, task.views)
        names = task.region_set.names
        findings = FindingsOptions.for_task(task, head, cues, cue_dropout, operating_point)
        self.reporter = RegionReporter(texture, geometry, global_, projector, llm, tag_std, attributes, findings)
        self.head_loss, self.head_scores = head_loss, HeadScores(self.reporter.head)
        self.optimizer_config, self.task, self.seed = optimizer, task, seed
        self.decoding = Decoding(
            max_new_tokens,
            stop_on_loop,
            sampling=sampling,
            form=Form.of(task, decoding),
            max_paragraph_tokens=max_paragraph_tokens,
            stop_after_last=stop_after_last and task.target == "regions",
        )
        self.val_generate, self.val_samples = val_generate, val_samples
        self.train_losses = RegionLoss(names, over_processes=False)
        self.eval_losses = RegionLoss(names)
        self.report_scores = ReportScores(task.region_set, task.identity and decoding != "forced")
        self.throughput, self.guard = Throughput(), StepGuard()
        self._pending_gradients: dict[str, Tensor] = {}
        self._float32_steps: list[Float32Steps] = []
        self._checkpoint_config: dict[str, Any] = {}
        self._logged_step = self._shown = 0

    @property
    def token_counts(self) -> TokenCounts:
        """Visual tokens of a sample; the data needs them to lay out the prompt."""
        return self.reporter.token_counts

    @property
    def tokenizer(self) -> Any:
        """The language model's tokenizer."""
        return self.reporter.llm.tokenizer

    # ---- the task

    def prepare_data(self) -> None:
        """Refuse data of another task before they are listed; see `setup`."""
        check_data(self, getattr(self.trainer, "datamodule", None))

    def setup(self, stage: str) -> None:
        """Refuse data that are not as the model takes them (`conform` brings them to it); prepare the strategy.

        Raises:
            ConfigError: says what differs, that the longest sample does not fit the language model, or what averages
                weights.
        """
        refuse_averages(self.trainer)
        prepare_strategy(self.trainer.strategy, self, in_phases=self.reporter.auxiliary.alone > 0)
        data = getattr(self.trainer, "datamodule", None)
        check_data(self, data)
        check_lengths(self, data, stage, self.decoding.max_new_tokens, self.val_generate > 0)

    def configure_model(self) -> None:
        """Put the model in shards where the strategy asks for it."""
        if isinstance(self.trainer.strategy, FullyShard):
            shard(self.reporter, self.trainer.strategy.device_mesh["data_parallel"])

    # ---- training

    def on_fit_start(self) -> None:
        """Train mode everywhere: a language model comes from its file in eval mode. `Frozen` parts keep theirs.

        The head learns from the training texts what each region can have, once; a resumed one knows.
        """
        self.train()
        if self.reporter.head is not None and self._trainer is not None:
            learn_labels(self.reporter.head, getattr(self.trainer, "datamodule", None))
        if self._trainer is not None and isinstance(self.trainer.precision_plugin, HalfPrecision):  # bf16-true, 16-true
            self._float32_steps = [Float32Steps(optimizer) for optimizer in self.trainer.optimizers]

    def on_fit_end(self) -> None:
        """Let go of the optimiser."""
        self._float32_steps = []

    def on_train_start(self) -> None:
        """Put back what a checkpoint holds of an epoch: the loader's place, and gradients between two optimiser steps.

        Lightning has given the loader its place by now, unless a callback has asked for ``estimated_stepping_batches``
        too early; see `configure_optimizers`.
        """
        self.trainer.fit_loop._load_combined_loader_states()
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
        writes = self.global_step >= self.reporter.auxiliary.alone
        with explained_out_of_memory(batch):
            losses = self.reporter.losses(batch, writes)
        nll = losses.nll
        if nll is None:
            device = self.reporter.tags.device
            nll = torch.zeros(len(batch.label_region), device=device, dtype=torch.float32)
        total, tokens = sum_losses(nll, self.trainer)
        self.throughput.add(batch)
        loss: Tensor = nll.sum() * (self._world_size / tokens)
        if writes:
            finite = self.guard.see(batch, nll, total)
            self.train_losses.update(nll, batch.label_region, batch.region_names)
            self.log("train/loss", total / tokens, prog_bar=True, batch_size=len(batch))
            if not finite:
                loss = loss * math.nan  # DeepSpeed skips a step by its gradient alone
        head = {} if losses.findings is None else {"head": (self.head_loss, losses.findings)}
        for name, (weight, summed) in {**losses.auxiliary, **head}.items():
            self.log(f"train/{name}_loss", summed.detach() / len(nll), prog_bar=True, batch_size=len(batch))
            loss = loss + weight * summed * (self._world_size / tokens)
        return loss

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        """Leave the weights alone if the loss or its gradient is not finite; stop after three such steps in a row."""
        if isinstance(self.trainer.strategy, ZeRO):
            return  # which looks at the gradient itself
        scales = getattr(self.trainer.precision_plugin, "scaler", None) is not None
        agreed = functools.partial(agree, self.trainer)
        self.guard.clear(optimizer, self.global_step, check_gradients=not scales, agreed=agreed)
        for steps in self._float32_steps:
            steps.begin()

    def on_train_batch_end(self, outputs: Any, batch: Batch, batch_idx: int) -> None:
        """Log what is read now and then."""
        step, strategy = self.global_step, self.trainer.strategy
        if isinstance(strategy, ZeRO) and not self.trainer.fit_loop._should_accumulate():
            self.guard.count(not strategy.skipped, step - 1)
        every = int(self.trainer.log_every_n_steps)  # type: ignore[attr-defined]
        if not every or step == self._logged_step or step % every:
            return
        self._logged_step = step
        figures = self.throughput.read() | {"peak_memory_gib": peak_memory_gib(self.device)}
        figures["non_finite_steps"] = float(self.guard.skipped)
        for group in self.trainer.optimizers[0].param_groups:  # `optimizers()` gives DeepSpeed's in a list
            figures[f"lr_{group['name']}"] = group["lr"]
        named = {}
        if self.train_losses.update_called:  # not while the language model rests
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
        with explained_out_of_memory(batch), in_step(self.reporter):
            return self.reporter.generate(batch, self.decoding)

    def on_predict_start(self) -> None:
        """Fold adapters into the weights, where that is faster; shards of them are left alone."""
        spread = isinstance(self.trainer.strategy, FullyShard)
        self._merged = contextlib.nullcontext() if spread else self.reporter.llm.merged()
        self._merged.__enter__()

    def on_predict_end(self) -> None:
        """Take them out again."""
        self._merged.__exit__(None, None, None)

    # ---- optimiser and checkpoints

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """AdamW over what trains, with its schedule by optimiser steps.

        The run's number of steps is asked for in training alone: asked here, Lightning would set up the loader before
        a checkpoint's state is restored, and then never give the loader its place in the epoch.
        """
        optimizer, schedule = build_optimizer(
            self.named_parameters(), self.optimizer_config, lambda: self.trainer.estimated_stepping_batches
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what trains; add the count of refused steps, and gradients between two steps of an accumulation."""
        kept = kept_names(self)
        checkpoint["state_dict"] = {k: v for k, v in checkpoint.get("state_dict", {}).items() if k in kept}
        checkpoint["reg2rg_non_finite_steps"] = self.guard.skipped
        if keeps_gradients(self._trainer):
            checkpoint[_GRADIENTS] = {n: p.grad for n, p in self.named_parameters() if p.grad is not None}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Read what `on_save_checkpoint` added, and hold what trains against the checkpoint's.

        Raises:
            ConfigError: it is of another task, or other parameters trained then: the optimiser's state is of no use.
        """
        self.guard.skipped = checkpoint.get("reg2rg_non_finite_steps", 0)
        self._pending_gradients = checkpoint.get(_GRADIENTS, {})
        self._checkpoint_config = read_config({CONFIG_KEY: "{}", **checkpoint})
        check_task(self._checkpoint_config, self.task)
        trainer = self._trainer
        if trainer is None or trainer.state.fn != "fit":
            return
        if trainer.strategy.restore_checkpoint_after_setup and not trainer.strategy.lightning_restore_optimizer:
            return  # a sharded optimiser's state is the strategy's own
        optimizer, _ = build_optimizer(self.named_parameters(), self.optimizer_config, lambda: 0)
        check_trained(checkpoint.get("optimizer_states"), optimizer, self._way_to_fit())
        warn_of_other_settings(self._checkpoint_config, self.run_config or {})

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights. Strict means: all that a checkpoint holds, and nothing unknown but other auxiliary losses.

        Raises:
            ConfigError: names that do not fit, or sizes that do not.
        """
        own = self.state_dict()
        state_dict = {name: value for name, value in state_dict.items() if name in own or not is_auxiliary(name)}
        if strict:
            check_names(state_dict, kept_names(self), set(own), "the checkpoint", self._way_to_fit())
        check_sizes(state_dict, own, "the checkpoint", self._way_to_fit())
        return super().load_state_dict(state_dict, strict=False, assign=assign)

    def _way_to_fit(self) -> str:
        return way_to_fit(self._checkpoint_config, self.run_config or {})

    @classmethod
    def from_checkpoint(
        cls,
        path: str | Path,
        *,
        language_model: str | Path | None = None,
        allow_import: Sequence[str] = (),
        **changes: Any,
    ) -> Self:
        """Build the model that a checkpoint was saved from, with its weights, in eval mode on the CPU.

        Args:
            path: a checkpoint written by ``reg2rg fit``.
            language_model: where the base language model is, if not where it was in training.
            allow_import: packages that the config may name beside those of `reg2rg.config.imports.ALLOWED`.
            changes: constructor arguments that replace those of the config inside the checkpoint.

        Raises:
            ConfigError: no such file, or a checkpoint without a config.
            CheckpointError: a damaged file.
        """
        checkpoint = read_checkpoint(path)
        config = with_task(read_config(checkpoint, str(path)))
        settle_language_model(config, Path(path), language_model)
        config["model"] |= changes
        model = build(cls, {"task": config.get("task") or {}, **config["model"]}, allow_import)
        model.describe(config)
        model._checkpoint_config = read_config(checkpoint, str(path))
        model.load_state_dict(checkpoint["state_dict"])
        return model.eval()

    # ---- parts

    @property
    def _world_size(self) -> int:
        return int(self.trainer.world_size)

    def _evaluate(self, batch: Batch, generate: bool) -> None:
        losses = self.reporter.losses(batch)
        assert losses.nll is not None
        self.eval_losses.update(losses.nll, batch.label_region, batch.region_names)
        if losses.detected is not None:
            self.head_scores.update(*losses.detected)
        if not generate:
            return
        with in_step(self.reporter):
            answers = self.reporter.generate(batch, self.decoding)
        for i, answer in enumerate(answers):
            self.report_scores.update(answer.study, answer.regions, batch.reports[i], answer.text, batch.tail(i))
            if self._shown < self.val_samples and self.trainer.is_global_zero:
                self._shown += 1
                show_sample(self.loggers, f"sample_{self._shown}", answer, batch.reports[i], self.global_step)

    def _log_evaluation(self, stage: str) -> None:
        losses = self.eval_losses.compute()
        figures = {("loss" if name == "all" else f"loss_{name}"): value for name, value in losses.items()}
        self.eval_losses.reset()
        # All processes must take part in summing up, also one that generated nothing.
        if not self.trainer.sanity_checking and self.reporter.head is not None:
            figures |= {name: torch.tensor(value) for name, value in self.head_scores.settle(stage == "val").items()}
        if not self.trainer.sanity_checking and (stage == "test" or self.val_generate):
            figures |= {name: torch.tensor(value) for name, value in self.report_scores.compute().items()}
        self.report_scores.reset()
        self._shown = 0
        self.log_dict({f"{stage}/{name}": value.float() for name, value in figures.items()})
