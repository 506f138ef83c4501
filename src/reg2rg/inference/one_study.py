"""What reporting on one study takes, whatever the model sees of it."""

from __future__ import annotations

import logging
import platform
import time
from collections.abc import Collection, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from reg2rg import __version__
from reg2rg.core.errors import ConfigError
from reg2rg.core.progress import Step
from reg2rg.core.report import Paragraph, Report, parse_report
from reg2rg.core.task import Views
from reg2rg.data.batch import Batch, collate
from reg2rg.data.order import EVAL_SEED
from reg2rg.data.prompt import PromptEncoder
from reg2rg.data.samples import Entry, StudySamples
from reg2rg.inference.inputs import Inputs
from reg2rg.inference.result import Provenance, Run
from reg2rg.models.writing import GeneratedReport
from reg2rg.pretrained.contract import InputContract
from reg2rg.pretrained.fingerprint import digest
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.segmenters import MadeBy
from reg2rg.store.attributes import Attributes
from reg2rg.store.views import StudyViews
from reg2rg.training.module import Reg2RG

log = logging.getLogger(__name__)

_PACKAGES = ("torch", "lightning", "transformers", "numpy", "nibabel", "pynrrd")


class OneStudy:
    """Where the views of one study come from, for `StudySamples`."""

    def attributes(self, study: str) -> Attributes:
        """What is measured of its regions.

        Raises:
            ConfigError: nothing is, of values that are no HU.
        """
        raise ConfigError(f"{study}: the model sees what is measured of regions, and nothing is of this study")

    def views(self, study: str, views: Views, regions: Sequence[str], want: Collection[str]) -> StudyViews:
        """Its views."""
        raise NotImplementedError


def written(
    model: Reg2RG, contract: InputContract, study: str, regions: tuple[str, ...], source: OneStudy
) -> tuple[GeneratedReport, Report]:
    """The model's answer on one study, and that as a report.

    Args:
        model: in eval mode.
        contract: the model's.
        study: its id, which orders the regions.
        regions: that are there, in the order of the region set.
        source: gives the views.
    """
    with model.reporter.llm.merged():
        batch = _batch(model, contract, study, regions, source)
        apart = contract.task.independent_paragraphs
        [answer] = model.reporter.generate(batch, model.decoding, certify=apart)
    if answer.truncated:
        cut = ", ".join(one.region or f"region {one.slot}" for one in answer.written if one.truncated)
        what = f"the paragraphs on {cut} were" if cut else "the report was"
        log.warning("%s: %s stopped by a limit of length or by a loop, not by the model", study, what)
    if contract.task.target != "regions":
        return answer, Report((Paragraph(0, "", answer.text),))
    return answer, parse_report(answer.text, answer.regions, contract.task.identity)


def provenance(
    model: Reg2RG, masks: MadeBy | None, options: ReadOptions, notes: tuple[str, ...], answer: GeneratedReport
) -> Provenance:
    """How a report came about."""
    return Provenance(
        versions=versions(),
        model=digest(model.state_dict()),
        masks=masks,
        options=options,
        notes=notes,
        truncated=answer.truncated,
    )


def versions() -> dict[str, str]:
    """Versions of this package, of Python, and of the packages that the numbers depend on."""
    return {"reg2rg": __version__, "python": platform.python_version()} | {name: version(name) for name in _PACKAGES}


def run_of(model: Reg2RG, inputs: Inputs, seconds: dict[str, float]) -> Run:
    """What the record of a run needs beside the result.

    Args:
        model: that reported.
        inputs: what it saw.
        seconds: of each stage.
    """
    llm = model.reporter.llm
    path = str(getattr(llm, "path", ""))
    return Run(
        inputs=inputs,
        device=str(model.device),
        language_model=Path(path).name if Path(path).is_absolute() else path,
        language_model_weights=digest(dict(llm.reference_tensors())),
        seeds={"order of the regions": EVAL_SEED},
        decoding=asdict(model.decoding),
        seconds=seconds,
    )


class Stages:
    """Tells of each stage, and takes its time."""

    def __init__(self, step: Step | None) -> None:
        self._step, self._name, self._since = step, "", time.monotonic()
        self._seconds: dict[str, float] = {}

    def __call__(self, name: str, said: str = "") -> None:
        """A stage begins."""
        self.end()
        self._name = name
        if said and self._step is not None:
            self._step(said)

    def end(self) -> dict[str, float]:
        """Stage -> seconds, up to now."""
        now = time.monotonic()
        if self._name:
            self._seconds[self._name] = round(self._seconds.get(self._name, 0.0) + now - self._since, 3)
        self._name, self._since = "", now
        return self._seconds


def _batch(model: Reg2RG, contract: InputContract, study: str, regions: tuple[str, ...], source: OneStudy) -> Batch:
    """A batch of one study, scaled, on the model's device."""
    task = contract.task
    names = regions if task.target == "regions" else ()
    counts = model.token_counts
    encoder = PromptEncoder(model.tokenizer, counts, task.identity, task.max_length, task.instruction_text)
    samples = StudySamples(
        [Entry(study, names, ("",) * max(1, len(names)))],
        source,
        task.views,
        encoder,
        shuffled=task.order == "shuffled",
        with_target=False,
    )
    batch = collate([samples.sample(0, 0)], counts, encoder.pad_id)
    return batch.to(model.device).scaled(task.views.window)
