"""What a config takes: parameters, operations and peak memory of a step and of reports, without weights or data.

The model is built of fake tensors, which have shapes and no memory, and runs one step; every tensor that an operation
makes is counted while it lives (`LiveBytes`), so that checkpointing, frozen parts, chunks and dtypes count as they act.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from reg2rg.core.errors import ConfigError
from reg2rg.core.task import ReportTask
from reg2rg.models.encoders import Frozen
from reg2rg.models.encoders import grids as _grids
from reg2rg.models.reporter import RegionReporter
from reg2rg.training.live_bytes import LiveBytes
from reg2rg.training.outline import Amounts, OutlineLM, batch_of, outline, report, step

GIB = 2**30
BITS_4 = 4.127 / 8
"""Bytes of a weight in NF4 with its scales quantised too: a scale of 8 bits for 64, one of 32 for 256 of those."""
GPU_OVERHEAD = int(1.2e9)
"""CUDA's context, and what its allocator holds beyond what is alive: a guess, not measured here."""
_TEXT = 60  # tokens of a prompt beside slots and instruction: what stands before the image and before the regions
_CHARACTERS = 4  # of a token


@dataclass(frozen=True, slots=True)
class Phase:
    """A step, or reports.

    Attributes:
        amounts: of what.
        flops: operations.
        peak: bytes.
        parts: part -> bytes at the peak.
        read: bytes of weights and cache that its tokens read one after another; 0 for a step.
    """

    amounts: Amounts
    flops: int
    peak: int
    parts: Mapping[str, int]
    read: int = 0

    @property
    def dominant(self) -> str:
        """The part with most bytes."""
        return max(self.parts, key=self.parts.__getitem__)


_WITHOUT_LOSSES = ("reg2rg.training.", "lightning.")
"""Where callbacks come from that give a model no auxiliary loss."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a config takes.

    Attributes:
        parameters: part -> parameters, and those of them that train.
        step: one batch, forward, backward and the optimiser.
        report: reports written at once.
        optimizer: bytes of what a checkpoint holds: what trains, and its two moments.
        left_out: what the config has and is not counted.
    """

    parameters: Mapping[str, tuple[int, int]]
    step: Phase
    report: Phase
    optimizer: int
    left_out: Sequence[str] = field(default=())


def estimate(
    config: Mapping[str, Any], step_amounts: Amounts | None = None, report_amounts: Amounts | None = None
) -> Estimate:
    """Estimate a folded and resolved config.

    Args:
        config: with sections ``task``, ``model`` and, where there are any, ``data`` and ``trainer``.
        step_amounts: of a step; by default the config's batch with all regions and the longest sample.
        report_amounts: of reports; by default the config's evaluation batch, and its longest report.

    Raises:
        ConfigError: a language model whose architecture is not here, or a sample shorter than its visual tokens.
    """
    step, parameters, trained = _measured(config, "step", step_amounts)
    report, *_ = _measured(config, "report", report_amounts)
    left = ["model.head"] if config["model"].get("head") is not None else []
    for callback in (config.get("trainer") or {}).get("callbacks") or []:
        name = str(callback["class_path"] if isinstance(callback, Mapping) else callback)
        if "." in name and not name.startswith(_WITHOUT_LOSSES):
            left.append(f"trainer.callbacks: {name}, if it adds a loss")
    if ReportTask.of(config.get("task") or {}).independent_paragraphs:
        left.append("task.independent_paragraphs (a row a paragraph)")
    return Estimate(parameters, step, report, 12 * trained, tuple(left))


def _measured(
    config: Mapping[str, Any], name: Literal["step", "report"], given: Amounts | None
) -> tuple[Phase, dict[str, tuple[int, int]], int]:
    """What a phase takes, part -> parameters and those that train, and how many train in all."""
    task, model, trainer = ReportTask.of(config.get("task") or {}), config["model"], config.get("trainer") or {}
    views = {"size": task.views.size, "channels": task.views.channels}
    gpu = trainer.get("accelerator", "auto") not in ("cpu", "auto")
    weights, autocast = _precision(str(trainer.get("precision", "32-true")))
    with imagined() as live, ExitStack() as stack:
        reporter = _built(model, live, weights, gpu)
        amounts = given or _amounts(config, task, reporter, name)
        _check(reporter, amounts)
        parameters = _parameters(reporter)
        saved = _saved_by_4_bits(reporter)
        _label(reporter, live, stack)
        run = _step if name == "step" else _report
        try:
            found = run(reporter, amounts, views, live, autocast, saved)
        except (DataDependentOutputException, DynamicOutputShapeException) as error:
            raise ConfigError(
                f"a component looks at the numbers that it computes ({error}), and an estimate has none. Fix: "
                "leave it out (MaskPool: pool: mean), and add its part"
            ) from error
        trained = sum(p.numel() for p in reporter.parameters() if p.requires_grad)
        del reporter
    if gpu:
        found = replace(found, peak=found.peak + GPU_OVERHEAD, parts={**found.parts, "device": GPU_OVERHEAD})
    return found, parameters, trained


@contextmanager
def imagined() -> Iterator[LiveBytes]:
    """While active tensors have shapes and no memory, and are counted; what would look at numbers does not."""
    with (
        patch.object(_grids, "_require_weight", lambda *_: None),
        patch.object(nn.Module, "_apply", _apply),
        FakeTensorMode(allow_non_fake_inputs=True),
        LiveBytes() as live,
    ):
        yield live


def _apply(module: nn.Module, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
    """`nn.Module._apply` for fake tensors, whose memory torch would swap, which it cannot while they are counted."""
    for child in module.children() if recurse else ():
        child._apply(fn)  # type: ignore[no-untyped-call]
    for name, parameter in module._parameters.items():
        if parameter is not None:
            moved = fn(parameter.detach())
            if moved.dtype != parameter.dtype:
                module._parameters[name] = nn.Parameter(moved, parameter.requires_grad)
    for name, buffer in module._buffers.items():
        if buffer is not None:
            module._buffers[name] = fn(buffer)
    return module


def _precision(text: str) -> tuple[torch.dtype | None, torch.dtype | None]:
    """Dtype that all weights are cast to, and that of autocast."""
    kind = torch.bfloat16 if text.startswith("bf16") else torch.float16 if text.startswith("16") else None
    return (kind, None) if text.endswith("true") else (None, kind)


def _built(model: Mapping[str, Any], live: LiveBytes, weights: torch.dtype | None, gpu: bool) -> RegionReporter:
    with live.part("weights"):
        reporter = outline(model)
        if weights is not None:
            reporter.to(weights)
    for module in reporter.modules():
        if gpu and isinstance(module, Frozen) and module.chunk is None:
            module.chunk = 0  # all at once, as on a GPU
    return reporter


def _amounts(config: Mapping[str, Any], task: ReportTask, reporter: RegionReporter, name: str) -> Amounts:
    data = config.get("data") or {}
    regions = len(task.region_set) if task.target == "regions" else 0
    batch = int(data.get("batch_size") or 1)
    text = _TEXT + len(task.instruction_text) // _CHARACTERS
    prompt = reporter.token_counts.slots(regions) + text
    if name == "step":
        return Amounts(batch, regions, task.max_length, max(1, task.max_length - prompt))
    return Amounts(
        int(data.get("eval_batch_size") or batch), regions, prompt, int(config["model"].get("max_new_tokens") or 500)
    )


def _check(reporter: RegionReporter, amounts: Amounts) -> None:
    slots = reporter.token_counts.slots(amounts.regions)
    if slots >= amounts.positions:
        raise ConfigError(
            f"a sample of {amounts.positions} positions has no room for its {slots} visual tokens (expected more). "
            "Fix: --positions, task.max_length, or encoders with fewer tokens"
        )


def _parameters(reporter: RegionReporter) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for name, parameter in reporter.named_parameters():
        top = name.split(".")[0]
        part = "language model" if top == "llm" else "projectors" if "projector" in top or top == "tags" else "encoders"
        every, trained = found.get(part, (0, 0))
        found[part] = every + parameter.numel(), trained + parameter.numel() * parameter.requires_grad
    return found


def _saved_by_4_bits(reporter: RegionReporter) -> int:
    """Bytes that 4-bit weights do not take: those of linear layers, but for the head's."""
    llm = reporter.llm
    if not isinstance(llm, OutlineLM) or not llm.in_4_bit:
        return 0
    head = llm._causal.get_output_embeddings()
    linear = [m.weight for m in llm._causal.modules() if isinstance(m, nn.Linear) and m is not head]
    frozen = [weight for weight in linear if not weight.requires_grad]
    return int(sum(weight.numel() * (weight.element_size() - BITS_4) for weight in frozen))


def _by_part(reporter: RegionReporter, live: LiveBytes, saved: int) -> dict[str, int]:
    """Bytes at the peak; weights count to whose they are."""
    parts = Counter(live.at_peak)
    of_llm = sum(p.numel() * p.element_size() for p in reporter.llm.parameters())
    parts["language model"] += of_llm - saved
    parts["encoders"] += parts.pop("weights", 0) - of_llm
    return dict(+parts)


def _label(reporter: RegionReporter, live: LiveBytes, stack: ExitStack) -> None:
    """Let what encoders and language model make count to them, in the forward pass."""
    encoders = [reporter.texture, reporter.geometry, reporter.global_, reporter.attributes]
    llm: Any = reporter.llm
    for module, part in [*((e, "encoders") for e in encoders if e is not None), (llm.model, "language model")]:
        active: list[Any] = []

        def begin(*_: Any, part: str = part, active: list[Any] = active) -> None:
            active.append(live.part(part))
            active[-1].__enter__()

        def end(*_: Any, active: list[Any] = active) -> None:
            active.pop().__exit__(None, None, None)

        stack.callback(module.register_forward_pre_hook(begin).remove)
        stack.callback(module.register_forward_hook(end).remove)


def _step(
    reporter: RegionReporter,
    amounts: Amounts,
    views: Mapping[str, Any],
    live: LiveBytes,
    autocast: torch.dtype | None,
    saved: int,
) -> Phase:
    reporter.train()
    trained = [p for p in reporter.parameters() if p.requires_grad]
    with live.part("optimizer"):
        moments = [
            torch.zeros_like(p, dtype=torch.promote_types(p.dtype, torch.float32)) for p in trained for _ in "mv"
        ]
    with live.part("views"):
        batch = batch_of(reporter, amounts, views)
    live.reset()
    with live.part("gradients"):
        step(reporter, batch, amounts.answer, autocast)
    # The optimiser's own step: gradients are there, activations are gone, and the largest parameter has three copies.
    update = live.now + 3 * max(p.numel() * p.element_size() for p in trained)
    del moments
    parts = _by_part(reporter, live, saved)
    return Phase(amounts, live.flops, max(live.peak, update) - saved, parts)


def _report(
    reporter: RegionReporter,
    amounts: Amounts,
    views: Mapping[str, Any],
    live: LiveBytes,
    autocast: torch.dtype | None,
    saved: int,
) -> Phase:
    reporter.eval()
    with live.part("views"):
        batch = batch_of(reporter, Amounts(amounts.studies, amounts.regions, amounts.positions, 1), views)
    live.reset()
    with live.part("cache"):
        cache = report(reporter, batch, amounts.answer, autocast)
    kept = sum(b.numel() * b.element_size() for layer in cache.layers for b in layer._buffers)
    llm = sum(p.numel() * p.element_size() for p in reporter.llm.parameters()) - saved
    numbers = sum(p.numel() for p in reporter.llm.parameters())
    # Each new token reads all weights once for all rows, and the cache as far as it is written: half of what is new.
    filled = kept * (amounts.positions + amounts.answer / 2) / (amounts.positions + amounts.answer)
    products = 2 * numbers * amounts.studies * amounts.answer
    parts = _by_part(reporter, live, saved)
    read = int(amounts.answer * (llm + filled))
    return Phase(amounts, live.flops + products, live.peak - saved, parts, read)


@dataclass(frozen=True, slots=True)
class Change:
    """A change of a config that saves memory, and what a step then takes."""

    said: str
    peak: int


def ways_to_fit(config: Mapping[str, Any], budget: int, amounts: Amounts | None = None) -> Iterator[Change]:
    """Changes one upon the other, cheapest first, until a step fits; those that change nothing are passed over.

    Args:
        config: folded and resolved.
        budget: bytes.
        amounts: of a step, as in `estimate`.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(config))
    before = _measured(changed, "step", amounts)[0].peak
    for said, change in _CHANGES:
        if before <= budget:
            return
        tried = copy.deepcopy(changed)
        if not change(tried):
            continue
        asked = replace(amounts, studies=1) if amounts is not None and change is _one_study else amounts
        now = _measured(tried, "step", asked)[0].peak
        if now < 0.99 * before:
            changed, before, amounts = tried, now, asked
            yield Change(said, now)


def _set_llm(name: str, value: Any) -> Any:
    def change(config: dict[str, Any]) -> bool:
        arguments = config["model"]["llm"].setdefault("init_args", {})
        if arguments.get(name) == value or (name == "quantize_4bit" and arguments.get("lora") is None):
            return False
        arguments[name] = value
        return True

    return change


def _chunk(config: dict[str, Any]) -> bool:
    found = [node for node in _nodes(config["model"]) if re.search(r"(^|\.)Frozen$", str(node.get("class_path")))]
    for node in found:
        node.setdefault("init_args", {})["chunk"] = 1
    return bool(found)


def _one_study(config: dict[str, Any]) -> bool:
    data = config.setdefault("data", {})
    if (data.get("batch_size") or 1) == 1:
        return False
    data["batch_size"] = 1
    return True


def _nodes(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        yield value
        for item in value.values():
            yield from _nodes(item)


_CHANGES: tuple[tuple[str, Any], ...] = (
    ("model.llm.init_args.gradient_checkpointing: true", _set_llm("gradient_checkpointing", True)),
    ("data.batch_size: 1, and trainer.accumulate_grad_batches as many times more", _one_study),
    ("chunk: 1 of Frozen", _chunk),
    ("model.llm.init_args.dtype: bfloat16", _set_llm("dtype", "bfloat16")),
    ("model.llm.init_args.quantize_4bit: true", _set_llm("quantize_4bit", True)),
)
