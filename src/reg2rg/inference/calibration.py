"""What a model's head says of the studies of a data set, and its calibration on studies of their own."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from reg2rg.core.errors import ConfigError
from reg2rg.core.progress import Step
from reg2rg.data.datamodule import RegionReportDataModule, Split
from reg2rg.evaluation.shift import Floats
from reg2rg.models.heads import Head
from reg2rg.store.attributes import density_table
from reg2rg.training.module import Reg2RG

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Detections:
    """What a head said of some studies.

    Attributes:
        studies: (S,) ids.
        study: (N,) row among them of each region.
        region: (N,) place in the region set.
        probabilities: (N, L), 0 for labels that a region cannot have.
        stated: (N, L) bool, what the texts state.
        detected: (N, L) bool, what lies above the thresholds.
    """

    studies: tuple[str, ...]
    study: NDArray[np.intp]
    region: NDArray[np.int64]
    probabilities: NDArray[np.float32]
    stated: NDArray[np.bool_]
    detected: NDArray[np.bool_]


def head_of(model: Reg2RG) -> Head:
    """The model's head.

    Raises:
        ConfigError: it has none.
    """
    if model.reporter.head is None:
        raise ConfigError("the model has no head that tells findings. Fix: train one with model.head: FindingsHead")
    return model.reporter.head


@torch.no_grad()
def detect(model: Reg2RG, data: RegionReportDataModule, split: Split, step: Step | None = None) -> Detections:
    """Run the encoders and the head, not the language model, over the studies of a split that have texts.

    Args:
        model: in eval mode.
        data: as the model takes them (`Reg2RG.conform`).
        split: which studies; those of `data.limit_eval_studies` where that is set.
        step: is told what is being done.

    Raises:
        ConfigError: a model without a head, or a split without studies.
    """
    head = head_of(model)
    tell = step or (lambda what="": None)
    studies: list[str] = []
    parts: list[tuple[NDArray[np.intp], ...]] = []
    loader = data.texts_dataloader(split)
    for batch in loader:
        given = data.on_after_batch_transfer(batch.to(model.device), 0)
        logits, region, stated = model.reporter.detect(given)
        shares = head.probabilities(logits, region)
        found = head.detected(logits, region, model.reporter.operating_point)
        rows = [len(studies) + row for row, own in enumerate(batch.regions) for _ in own]
        studies += batch.study_ids
        parts.append((np.asarray(rows), *(part.cpu().numpy() for part in (region, shares, stated, found))))
        tell(f"{len(studies)} studies")
    study, region_, shares_, stated_, found_ = (np.concatenate(part) for part in zip(*parts, strict=True))
    return Detections(tuple(studies), study, region_, shares_, stated_, found_)


def calibrate(model: Reg2RG, found: Detections, alpha: float, measured: Floats | None = None) -> None:
    """Set the bounds of the model's omission control.

    Args:
        model: whose head said `found`.
        found: of studies that it was neither trained on nor given thresholds by.
        alpha: share of the paragraphs with findings that may leave one out unmarked.
        measured: (S, R, K) what was measured of these studies (`reg2rg.store.attributes.density_table`), to tell later
            whether others look like them; ``None`` where nothing was.

    Raises:
        ConfigError: a share that cannot be.
    """
    if not 0 < alpha < 1:
        raise ConfigError(f"alpha is {alpha} (expected a share between 0 and 1, such as 0.1)")
    head = head_of(model)
    device, control = head.possible.device, head.omissions
    region = torch.from_numpy(found.region).to(device)
    stated = torch.from_numpy(found.stated).to(device) & head.possible[region]
    control.calibrate(torch.from_numpy(found.probabilities).to(device), region, stated, alpha)
    if measured is not None:
        control.remember(measured)
    least = int(np.ceil(1 / alpha)) - 1
    names = model.task.region_set.names
    few = [name for name, used in zip(names, control.used.tolist(), strict=True) if 0 < used < least]
    if few:
        log.warning(
            "Fewer than %d calibration paragraphs with findings of %s: all that leave a label out are marked.",
            least,
            ", ".join(few),
        )


def measured_of(data: RegionReportDataModule, studies: Sequence[str]) -> Floats:
    """What the store has measured of some studies, (S, R, K).

    Raises:
        DataFault: nothing was measured.
    """
    return density_table([data.store.attributes(study) for study in studies], data.task.region_set.names)


def covered(found: Detections, head: Head, said: NDArray[np.bool_] | None = None) -> NDArray[np.bool_]:
    """For each paragraph with findings, whether none of them is left out unmarked.

    Args:
        found: of studies that the control was not calibrated on.
        head: calibrated.
        said: (N, L) what the written paragraphs state; nothing by default, which asks most.
    """
    region = torch.from_numpy(found.region)
    bound = head.omissions.bound.cpu()[region].numpy()[:, None]
    present = found.stated & head.possible.cpu()[region].numpy()
    kept = found.probabilities >= bound
    fine = (kept | ~present) if said is None else (kept | said | ~present)
    return np.asarray(fine.all(1)[present.any(1)])
