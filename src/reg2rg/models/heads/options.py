"""What a model is told of its head and of what becomes of the findings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from reg2rg.core.errors import ConfigError
from reg2rg.core.task import ReportTask
from reg2rg.models.heads.base import Head, HeadInputs

HeadFactory = Callable[[HeadInputs], Head]


@dataclass(frozen=True, slots=True)
class FindingsOptions:
    """What tells findings, and what becomes of them.

    Attributes:
        head: ``HeadInputs -> Head``, tells findings of each region from its visual tokens; or ``None``.
        regions: names of the region set.
        identity: the report names its regions.
        cues: the prompt names what the head detects.
        cue_dropout: share of the regions of which the prompt says nothing, in training.
        operating_point: what the head's thresholds aim at, see `OperatingPoint`.
    """

    head: HeadFactory | None = None
    regions: Sequence[str] = ()
    identity: bool = True
    cues: bool = False
    cue_dropout: float = 0.15
    operating_point: str = "f1"

    @classmethod
    def for_task(
        cls, task: ReportTask, head: HeadFactory | None, cues: bool, cue_dropout: float, operating_point: str
    ) -> Self:
        """The options of a model with this task.

        Raises:
            ConfigError: a head, and a report without regions; an operating point, and no head.
        """
        if head is None and operating_point != "f1":
            raise ConfigError(
                f"model.operating_point: {operating_point} moves thresholds of a head, and model.head is null. Fix: "
                "train with model.head: FindingsHead, or leave the operating point out"
            )
        if head is not None and task.target != "regions":
            raise ConfigError(
                f"model.head tells findings of regions, and task.target '{task.target}' has none. Fix: set model.head "
                "to null and model.cues to false"
            )
        return cls(head, task.region_set.names, task.identity, cues, cue_dropout, operating_point)
