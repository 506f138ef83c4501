"""What every head is: the visual tokens of packed regions in, a logit for each region and label out.

In a config a head is a factory ``(inputs) -> Head``: widths and numbers of tokens come from the model.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from reg2rg.core.errors import ConfigError
from reg2rg.core.registry import Registry
from reg2rg.core.report import parse_report
from reg2rg.models.findings import RegionFindings, StudyFindings
from reg2rg.models.heads.exact import ExactBuffers
from reg2rg.models.heads.omissions import OmissionControl
from reg2rg.models.heads.operating import OperatingPoint, OperatingPoints

_STEPS = 60
_COOLEST, _HOTTEST = -3.0, 3.0  # natural logarithms of temperatures


class Written(Protocol):
    """A report as the head needs it; `reg2rg.models.reporter.GeneratedReport` is one."""

    regions: tuple[str, ...]
    text: str


@dataclass(frozen=True, slots=True)
class HeadInputs:
    """What a head is built for.

    Attributes:
        width: E, of the tokens: that of the language model's embeddings.
        tokens: T, visual tokens of a region.
        image: Tg, visual tokens of the whole image; 0 for none.
        regions: names of the region set; a region is told by its place among them.
    """

    width: int
    tokens: int
    image: int
    regions: tuple[str, ...]


class Head(ExactBuffers, ABC):
    """A probability for each region and label, from the tokens that stand in the prompt.

    What a region can have is learned once, from the labels of the training texts (`learn`), and kept with the weights:
    a label that hardly any text of a region states has probability 0 there. So is the temperature, from validation
    (`cool`).

    Args:
        inputs: what it is built for.

    Attributes:
        labels: names of the L labels, known after construction.
        possible: (R, L) bool, labels that a region can have; all until `learn`.
        temperature: (1,), what logits are divided by for a probability.
        learned: (1,) bool, whether `learn` was called.
        points: thresholds, from validation.
        omissions: which paragraphs to review, from calibration.
    """

    labels: tuple[str, ...]
    possible: Tensor
    temperature: Tensor
    learned: Tensor

    def __init__(self, inputs: HeadInputs, labels: Sequence[str]) -> None:
        super().__init__()
        if inputs.tokens < 1 and inputs.image < 1:
            raise ConfigError(
                f"model.head is {type(self).__name__}, but the model has no visual token to tell findings from. Fix: "
                "give model.texture, model.geometry or model.attributes an encoder, or set model.head to null"
            )
        self.inputs, self.labels = inputs, tuple(labels)
        self.register_buffer("possible", torch.ones(len(inputs.regions), len(labels), dtype=torch.bool))
        self.register_buffer("temperature", torch.ones(1))
        self.register_buffer("learned", torch.zeros(1, dtype=torch.bool))
        self.points = OperatingPoints(len(inputs.regions), len(labels))
        self.omissions = OmissionControl(len(inputs.regions))

    @abstractmethod
    def forward(self, tokens: Tensor, image: Tensor, region: Tensor) -> Tensor:
        """Logits of N packed regions.

        Args:
            tokens: (N, T, E) the regions' visual tokens, as the language model gets them.
            image: (N, Tg, E) the tokens of the whole image that each region belongs to.
            region: (N,) int64, place of each in the region set.

        Returns:
            (N, L), of all labels; those that a region cannot have are left out by whoever asks. They must not depend
            on the other rows.
        """

    @abstractmethod
    def targets(self, texts: Sequence[str]) -> NDArray[np.bool_]:
        """What each training text states, (N, L)."""

    @torch.no_grad()
    def learn(self, stated: NDArray[np.int64], texts: NDArray[np.int64]) -> None:
        """Take from the training texts which labels a region can have.

        Args:
            stated: (R, L) texts of a region that state a label.
            texts: (R,) texts of a region.
        """
        self.possible.copy_(torch.from_numpy(stated > 0))
        self.learned.fill_(True)

    def loss(self, logits: Tensor, region: Tensor, targets: Tensor) -> Tensor:
        """Summed cross-entropy over the labels that each region can have.

        Args:
            logits: (N, L) of `forward`.
            region: (N,).
            targets: (N, L) bool.
        """
        can = self.possible[region]
        each: Tensor = F.binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")
        return each[can].sum()

    def probabilities(self, logits: Tensor, region: Tensor) -> Tensor:
        """(N, L) float32; 0 for labels that a region cannot have."""
        shown: Tensor = (logits.float() / self.temperature.float()).sigmoid()
        return shown * self.possible[region]

    def detected(self, logits: Tensor, region: Tensor, point: OperatingPoint) -> Tensor:
        """Labels at or above their threshold, (N, L) bool."""
        probabilities = self.probabilities(logits, region)
        return (probabilities >= self.points.thresholds(point)[region]) & self.possible[region]

    @torch.no_grad()
    def told(
        self,
        reports: Sequence[Written],
        logits: Tensor,
        region: Tensor,
        point: OperatingPoint,
        identity: bool,
        cued: bool,
    ) -> list[StudyFindings]:
        """What results carry of some studies.

        Args:
            reports: as written, for what they leave out.
            logits: (N, L).
            region: (N,).
            point: what the thresholds aim at.
            identity: the reports name their regions.
            cued: the prompt named the detected findings.
        """
        names = [name for report in reports for name in report.regions]
        probabilities, detected = self.probabilities(logits, region), self.detected(logits, region, point)
        alpha, wanting = None, None
        if self.omissions.calibrated:
            alpha = round(float(self.omissions.alpha), 6)
            by_region = [parse_report(report.text, report.regions, identity).by_region() for report in reports]
            texts = [told.get(name, "") for told, own in zip(by_region, reports, strict=True) for name in own.regions]
            said = torch.from_numpy(self.targets(texts).copy()).to(logits.device)
            wanting = self.omissions.wanting(probabilities, region, said, self.possible).tolist()
        can, rows = self.possible[region].tolist(), zip(probabilities.tolist(), detected.tolist(), strict=True)
        found = []
        for place, (name, (shares, there)) in enumerate(zip(names, rows, strict=True)):
            known = {label: share for label, share, able in zip(self.labels, shares, can[place], strict=True) if able}
            lacking = () if wanting is None else self.named(wanting[place])
            review = None if wanting is None else bool(lacking)
            found.append((name, RegionFindings(known, self.named(there), review, lacking)))
        ends = np.cumsum([0, *(len(report.regions) for report in reports)])
        return [
            StudyFindings(dict(found[start:end]), str(point), cued, alpha) for start, end in pairwise(ends.tolist())
        ]

    def named(self, row: Sequence[bool]) -> tuple[str, ...]:
        """Labels of one row (L,)."""
        return tuple(label for label, there in zip(self.labels, row, strict=True) if there)

    @torch.no_grad()
    def cool(self, logits: Tensor, region: Tensor, targets: Tensor) -> float:
        """Set the temperature to the one with the least cross-entropy (Guo et al., 2017), and return it.

        Args:
            logits: (N, L) of validation.
            region: (N,).
            targets: (N, L) bool.
        """
        can = self.possible[region].to(logits.device)
        scores, truth = logits[can].double(), targets[can].double()
        if not len(scores):
            return float(self.temperature)
        low, high = _COOLEST, _HOTTEST
        ratio = (5**0.5 - 1) / 2
        for _ in range(_STEPS):  # convex in 1 / T, so that it has one minimum in log T
            left, right = high - ratio * (high - low), low + ratio * (high - low)
            costs = [
                F.binary_cross_entropy_with_logits(scores / np.exp(place), truth).item() for place in (left, right)
            ]
            low, high = (low, right) if costs[0] <= costs[1] else (left, high)
        self.temperature.fill_(float(np.exp((low + high) / 2)))
        return float(self.temperature)


HEADS: Registry[Head] = Registry("head", Head)  # type: ignore[type-abstract]
