"""What a head learns outside of gradients: labels from training texts, temperature and thresholds from validation."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from reg2rg.data.datamodule import RegionReportDataModule
from reg2rg.evaluation.calibration import average_precision, expected_calibration_error, roc_area
from reg2rg.models.heads.base import Head


def learn_labels(head: Head, data: Any) -> None:
    """Tell a head that has learned nothing yet how often the training texts of each region state each label.

    Args:
        head: to learn.
        data: the trainer's; what is no `RegionReportDataModule` is not looked at.
    """
    if bool(head.learned) or not isinstance(data, RegionReportDataModule):
        return
    places = {name: place for place, name in enumerate(head.inputs.regions)}
    pairs = [
        (places[region], text)
        for entry in data.entries("train")
        for region, text in zip(entry.regions, entry.reports, strict=True)
        if text
    ]
    region = np.array([place for place, _ in pairs], np.intp)
    stated = np.zeros((len(places), len(head.labels)), np.int64)
    np.add.at(stated, region, head.targets([text for _, text in pairs]).astype(np.int64))
    head.learn(stated, np.bincount(region, minlength=len(places)))


class HeadScores:
    """Keeps what a head said of the studies of an evaluation; scores it, and in validation calibrates the head.

    Args:
        head: or ``None``, for a model without one.
    """

    def __init__(self, head: Head | None) -> None:
        self._head = [] if head is None else [head]  # in a list: it belongs to another module
        self._kept: list[tuple[Tensor, Tensor, Tensor]] = []

    def update(self, logits: Tensor, region: Tensor, targets: Tensor) -> None:
        """Keep a batch: (N, L), (N,), (N, L)."""
        self._kept.append((logits.float().cpu(), region.cpu(), targets.cpu()))

    def settle(self, calibrate: bool) -> dict[str, float]:
        """Logged name -> number of all studies of all processes, which all call it; forget them.

        Args:
            calibrate: set the head's temperature and thresholds by them first.
        """
        own, self._kept = self._kept, []
        kept = [own]
        if dist.is_available() and dist.is_initialized():
            kept = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(kept, own)
        batches = [batch for part in kept for batch in part]
        if not batches:
            return {}
        [head] = self._head
        logits, region, targets = (torch.cat(parts) for parts in zip(*batches, strict=True))
        device = head.possible.device
        logits, region, targets = logits.to(device), region.to(device), targets.to(device)
        if calibrate:
            head.cool(logits, region, targets)
            head.points.count(head.probabilities(logits, region), region, targets, head.possible)
        can = head.possible[region].cpu().numpy()
        shares, truth = head.probabilities(logits, region).cpu().numpy()[can], targets.cpu().numpy()[can]
        found = {"head_ece": expected_calibration_error(shares, truth)}
        if truth.any() and not truth.all():
            found |= {"head_auroc": roc_area(shares, truth), "head_ap": average_precision(shares, truth)}
        return {**found, "head_temperature": float(head.temperature)}
