"""What reporting on one study takes, whatever the model sees of it."""

from __future__ import annotations

import logging
import platform
from collections.abc import Collection, Sequence
from importlib.metadata import version

from reg2rg import __version__
from reg2rg.core.report import Paragraph, Report, parse_report
from reg2rg.core.task import Views
from reg2rg.data.batch import Batch, collate
from reg2rg.data.prompt import PromptEncoder
from reg2rg.data.samples import Entry, StudySamples
from reg2rg.inference.result import Provenance
from reg2rg.models.reporter import GeneratedReport
from reg2rg.pretrained.contract import InputContract
from reg2rg.pretrained.fingerprint import digest
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.segmenters import MadeBy
from reg2rg.store.views import StudyViews
from reg2rg.training.module import Reg2RG

log = logging.getLogger(__name__)

_PACKAGES = ("torch", "lightning", "transformers", "numpy", "nibabel", "pynrrd")


class OneStudy:
    """Where the views of one study come from, for `StudySamples`."""

    def __init__(self, study: str, regions: tuple[str, ...]) -> None:
        self.study, self.names = study, regions

    def studies(self) -> list[str]:
        """The study."""
        return [self.study]

    def regions(self, study: str) -> tuple[str, ...]:
        """Its regions."""
        return self.names

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
        [answer] = model.reporter.generate(_batch(model, contract, study, regions, source), model.decoding)
    if answer.truncated:
        log.warning("%s: the report was stopped by its length or by a loop, not by its own end", study)
    if contract.task.target != "regions":
        return answer, Report((Paragraph(0, "", answer.text),))
    return answer, parse_report(answer.text, answer.regions, contract.task.identity)


def provenance(
    model: Reg2RG, masks: MadeBy | None, options: ReadOptions, notes: tuple[str, ...], answer: GeneratedReport
) -> Provenance:
    """How a report came about."""
    return Provenance(
        versions={"reg2rg": __version__, "python": platform.python_version()}
        | {package: version(package) for package in _PACKAGES},
        model=digest(model.state_dict()),
        masks=masks,
        options=options,
        notes=notes,
        truncated=answer.truncated,
    )


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
