"""From one file of features and its masks to a report: no scan is looked at."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from reg2rg.core.errors import ConfigError
from reg2rg.core.task import Views
from reg2rg.core.types import MaskChannels, Study
from reg2rg.inference.inputs import inputs_of
from reg2rg.inference.one_study import OneStudy, Stages, provenance, run_of, written
from reg2rg.inference.result import ReportResult
from reg2rg.pretrained.contract import InputContract
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.features import FeatureVolume, read_features
from reg2rg.scans.find_masks import MaskSource
from reg2rg.scans.grid_layout import GridLayout
from reg2rg.scans.segmenters import MadeBy
from reg2rg.store.grid_files import fixed_weights
from reg2rg.store.views import StudyViews
from reg2rg.training.module import Reg2RG


def report_on_features(
    features: Path, masks: MaskSource | None, model: Reg2RG, contract: InputContract, name: str, stage: Stages
) -> ReportResult:
    """Report on the features of one study; see `reg2rg.inference.pipeline.report_on`.

    Args:
        features: a file as the model was trained on, one study in it.
        masks: their mask file, or ``None`` for a model that reports without regions.
        model: that sees features.
        contract: the model's.
        name: the study's id, which orders the regions.
        stage: is told what is being done.

    Raises:
        ConfigError: the model does not say how the files lie, or masks are missing.
        DataFault: what `read_features` raises.
    """
    with_regions = contract.task.target == "regions"
    if with_regions and not isinstance(masks, str | Path):
        raise ConfigError(
            f"{features}: the model reports region by region, and there is no mask file. Fix: --masks FILE, the organ "
            "masks that go with these features"
        )
    given = ((model.run_config or {}).get("data") or {}).get("read") or {}
    if not given.get("grid"):
        raise ConfigError("report_on: the model does not know how its files of features lie (data.read.grid)")
    options = ReadOptions(grid=GridLayout.of(given["grid"])).for_views(contract.task.views)
    mask_file = Path(masks).expanduser() if with_regions and isinstance(masks, str | Path) else None
    study = Study(name, name, "test", features, None if mask_file is None else MaskChannels(mask_file))
    stage("reading", f"reading {name}")
    found = read_features(study, contract.task.region_set, options, needs_regions=with_regions)
    inputs = inputs_of(features, None, study.masks)
    stage("writing", f"writing the report on {name}")
    answer, report = written(model, contract, name, tuple(found.weights), _OneGrid(found))
    made_by = None if mask_file is None else MadeBy("files", source=str(mask_file))
    notes = {note.partition(": ")[0]: note.partition(": ")[2] for note in found.notes}
    absent = [region for region in contract.task.region_set.names if with_regions and region not in found.weights]
    return ReportResult(
        study=study,
        report=report,
        source=None,
        asked=answer.regions,
        absent={region: notes.get(region, "no organ of the masks is it") for region in absent},
        made_by=provenance(model, made_by, options, found.notes, answer),
        written=answer.written,
        order=answer.order,
        codes=contract.task.region_set.codes(),
        run=run_of(model, inputs, stage.end()),
        findings=answer.findings,
    )


class _OneGrid(OneStudy):
    """Views of one study's features."""

    def __init__(self, volume: FeatureVolume) -> None:
        self.volume = volume

    def views(self, study: str, views: Views, regions: Sequence[str], want: Collection[str]) -> StudyViews:
        weights = [fixed_weights(self.volume.weights[name]) for name in regions]
        masks = np.stack(weights) if weights else np.empty((0, *views.size), np.int16)
        return StudyViews(tuple(regions), None, masks, self.volume.features)
