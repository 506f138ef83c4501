"""Whether data are as the model takes them, asked before anything is trained."""

from __future__ import annotations

from typing import Any

import numpy as np

from reg2rg.core.errors import ConfigError
from reg2rg.data.datamodule import RegionReportDataModule
from reg2rg.data.prompt import IGNORED
from reg2rg.models.encoders.settled import settled_facts
from reg2rg.pretrained.contract import shortened
from reg2rg.pretrained.mixin import FolderModel


def check_data(model: FolderModel, data: Any) -> None:
    """Refuse data of another task than the model's, other visual tokens or another tokenizer; tell of frozen encoders.

    Args:
        model: that is to take them.
        data: the trainer's; what is no `RegionReportDataModule` is not looked at.

    Raises:
        ConfigError: says what differs.
    """
    if not isinstance(data, RegionReportDataModule):
        return
    counts, own = model.reporter.token_counts, model.reporter.llm.tokenizer
    told = data.task.differences(model.known_task.adopted(data.task))
    if data.token_counts != counts:
        told["tokens of a region and of the image"] = (data.token_counts, counts)
    words = data.encoder.tokenizer
    if words is not own and words.get_vocab() != own.get_vocab():
        told["tokenizer"] = (words.name_or_path, own.name_or_path)
    if told:
        differ = "; ".join(f"{name} {shortened(a)}, not {shortened(b)}" for name, (a, b) in told.items())
        raise ConfigError(
            f"the data are of another task than the model: {differ}. Fix: give both the same task, or bring the "
            "data to the model: data = model.conform(data)"
        )
    offer_settled(model, data)


def offer_settled(model: FolderModel, data: RegionReportDataModule) -> None:
    """Tell the data which views may come as tokens; weights are looked at when the first loader is made, once.

    Args:
        model: that is to take the data.
        data: that are told.
    """
    reporter = model.reporter
    context = "texture" if reporter.shares_texture else reporter.global_
    data.offer_settled(lambda: settled_facts(reporter.texture, reporter.geometry, context))


def check_lengths(model: FolderModel, data: Any, stage: str, new_tokens: int, val_generates: bool) -> None:
    """Refuse samples that the language model cannot read, before anything is trained, auxiliary losses included.

    Args:
        model: that is to read them.
        data: the trainer's; what is no `RegionReportDataModule` is not looked at.
        stage: fit, validate, test or predict.
        new_tokens: most that a report takes which is generated.
        val_generates: validation generates reports.

    Raises:
        ConfigError: with the arithmetic of the first of them; independent paragraphs, and a language model that
            cannot read them.
    """
    if model.known_task.independent_paragraphs and stage != "predict":
        model.reporter.llm.require_blocks(model.known_task.max_length)
    if not isinstance(data, RegionReportDataModule):
        return
    generates = stage in ("test", "predict") or val_generates
    for split, study, regions, sample in data.longest(stage):
        report, slots = int((sample.labels != IGNORED).sum()), len(sample.visual_positions)
        answer = new_tokens if generates and split != "train" else 0
        prompt = len(sample.ids) - report
        if sample.blocks is not None:
            prompt, *paragraphs = np.bincount(sample.blocks).tolist()
            report = max(paragraphs)
        report = 0 if stage == "predict" else report
        model.reporter.require_context(study, regions, slots, prompt, max(report, answer))
