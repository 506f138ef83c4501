"""A checkpoint held against the run that goes on from it: its task, what trains, its settings."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import Any

from torch.optim import Optimizer

from reg2rg.config.saving import differences
from reg2rg.core.errors import ConfigError
from reg2rg.core.task import ReportTask, with_task
from reg2rg.models.state import first
from reg2rg.pretrained.contract import shortened

log = logging.getLogger(__name__)

_OF_THE_ORDER = ("seed", "batch_size", "region_schedule")
"""Settings of the data that decide which batches come."""


def check_task(then: Mapping[str, Any], task: ReportTask) -> None:
    """Refuse a checkpoint of another task.

    Args:
        then: the config inside the checkpoint; an empty one says nothing.
        task: of the model that takes it.

    Raises:
        ConfigError: says what differs.
    """
    values = with_task(then).get("task")
    told = task.differences(ReportTask.of(values).adopted(task)) if values else {}
    if told:
        differ = "; ".join(
            f"task.{name}: {shortened(old)} in the checkpoint, {shortened(now)} now"
            for name, (now, old) in told.items()
        )
        raise ConfigError(
            "the checkpoint: is of another task than this run. Fix: set back what differs, or train anew, without "
            f"--ckpt_path: {differ}"
        )


def check_trained(states: Iterable[Mapping[str, Any]] | None, optimizer: Optimizer, fix: str) -> None:
    """Refuse optimisers' states of other parameters.

    Args:
        states: the checkpoint's; ``None`` where it has none.
        optimizer: one as this run has it.
        fix: what to do.

    Raises:
        ConfigError: other numbers of tensors train; says them by group. Or there are none.
    """
    if states is None:
        raise ConfigError(
            "the checkpoint: has no optimiser's state for one process, as DeepSpeed and FSDP write it in shards "
            "(expected one to go on from). Fix: go on with the strategy that wrote it"
        )
    now = {group["name"]: len(group["params"]) for group in optimizer.param_groups}
    for state in states:
        then = {group.get("name", "?"): len(group["params"]) for group in state["param_groups"]}
        if then != now:
            counts = [f"{name} {then.get(name, 0)}, here {now.get(name, 0)}" for name in {**then, **now}]
            raise ConfigError(
                f"the checkpoint: does not fit the model: other numbers of tensors that train ({first(counts)}). "
                f"Fix: {fix}"
            )


def other_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Settings of the model, and of the order of the data, that differ from the checkpoint's, one clause each."""
    then, now = with_task(then), with_task(now)
    told = list(differences(then["model"], now["model"], "model")) if "model" in then and "model" in now else []
    if "data" in then and "data" in now:
        for key in _OF_THE_ORDER:
            told += differences(then["data"].get(key), now["data"].get(key), f"data.{key}")
    return told


def warn_of_other_settings(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Say what of `other_settings` there is."""
    if now and (told := other_settings(then, now)):
        log.warning(
            "Other settings than those of the checkpoint: %s. The optimiser goes on with the checkpoint's rates "
            "and decay; the rest is as it is told now, and so this is not the run that was stopped.",
            "; ".join(told),
        )


def way_to_fit(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What to change for a checkpoint whose tensors do not fit."""
    old, new = then.get("model"), now.get("model")
    changed = [line for line in differences(old, new, "model") if "model.optimizer" not in line] if old and new else []
    if not changed:
        return "use the config that the checkpoint was trained with, or train anew, without --ckpt_path"
    return f"set back what differs, or train anew, without --ckpt_path: {'; '.join(changed)}"
