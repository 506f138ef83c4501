"""An audit as one result: numbers, swaps in words, and what its reports are worth as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reg2rg.audit.measures import Outcomes, compare_audits, measure_audit
from reg2rg.audit.plan import DONATED
from reg2rg.audit.records import AuditFolder, StudyRecord
from reg2rg.audit.results import AuditResult
from reg2rg.audit.run import audit
from reg2rg.audit.subject import Subject
from reg2rg.core.errors import ConfigError
from reg2rg.core.progress import Step
from reg2rg.core.regions import RegionSet
from reg2rg.core.text import MOSTLY_FOREIGN, foreign_share
from reg2rg.evaluation.engine import Settings, evaluate
from reg2rg.evaluation.labelers import Labeler, RuleLabeler
from reg2rg.evaluation.metrics.base import Metric
from reg2rg.evaluation.metrics.collapse import TemplateCollapse
from reg2rg.evaluation.metrics.findings import ClinicalEfficacy
from reg2rg.evaluation.metrics.questions import ReportQuestions
from reg2rg.evaluation.pairs import Side, pair_sides
from reg2rg.evaluation.reading import Reports


def text_metrics() -> tuple[Metric, ...]:
    """What is asked of texts alone, of any system's reports."""
    return ClinicalEfficacy(), ReportQuestions(), TemplateCollapse()


def region_audit(
    subject: Subject,
    out: str | Path,
    *,
    name: str = "model",
    labeler: Labeler | None = None,
    interventions: Sequence[str] | None = None,
    seed: int = 0,
    batch: int = 16,
    resamples: int = 1000,
    confidence: float = 0.95,
    against: str | Path | None = None,
    step: Step | None = None,
) -> AuditResult:
    """Audit a subject and measure it; goes on where an earlier call into the same folder stopped.

    Args:
        subject: such as `reg2rg.audit.model.ModelSubject`.
        out: folder of the records.
        name: of the model.
        labeler: reads findings; the keyword rules if ``None``.
        interventions: of `reg2rg.audit.plan.INTERVENTIONS`; all that can be made by default.
        seed: of donors, noise and resamples.
        batch: reports written at once.
        resamples: of patients; 0 leaves intervals out.
        confidence: of the intervals.
        against: folder of another audit, compared with on the studies that both have.
        step: is told of each study.

    Raises:
        ConfigError: as `reg2rg.audit.run.audit`; references that the labeler does not read; `against` has none of the
            studies.
    """
    labeler, folder = labeler or RuleLabeler(), AuditFolder(out)
    share = foreign_share("".join(text for case in subject.cases for text in case.references.values()))
    if labeler.english and share > MOSTLY_FOREIGN:
        raise ConfigError(
            f"{share:.0%} of the letters of the references are none of a-z, and labeler '{labeler.name}' reads English "
            "alone (expected findings that it can count). Fix: give a labeler of this language, or translated texts"
        )
    theirs = [] if against is None else list(AuditFolder(against).records())
    if against is not None and {case.study for case in subject.cases}.isdisjoint(one.study for one in theirs):
        raise ConfigError(
            f"{against}: the two audits have no study in common. Fix: audit the same data set with both models"
        )
    _, why = subject.able()
    records = audit(subject, labeler, folder, interventions=interventions, seed=seed, batch=batch, step=step)
    return audit_result(
        name,
        records,
        labeler,
        subject.region_set,
        facts=folder.facts(),
        notes=[f"Not made: {why}."] if why and interventions is None else [],
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        against=theirs,
    )


def audit_result(
    name: str,
    records: Sequence[StudyRecord],
    labeler: Labeler,
    regions: RegionSet,
    *,
    facts: Mapping[str, Any] | None = None,
    notes: Sequence[str] = (),
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    against: Sequence[StudyRecord] = (),
) -> AuditResult:
    """Measure an audit.

    Args:
        name: of the model.
        records: of all studies.
        labeler: reads findings from paragraphs.
        regions: of the model.
        facts: what the records were made by.
        notes: what was left out.
        resamples: of patients; 0 leaves intervals out.
        confidence: of the intervals.
        seed: of the resamples.
        against: records of another audit.

    Raises:
        ValueError: no records, or `against` has none of the studies.
    """
    if not records:
        raise ValueError("there are no records to measure; expected at least one")
    outcomes = Outcomes(records, labeler)
    numbers, by_region, by_finding = measure_audit(outcomes, resamples, confidence, seed)
    given = sum(trial.intervention in DONATED for record in records for trial in record.trials)
    told = [*notes]
    if left := given - sum(one.donor is not None for one in outcomes.all):
        told.append(f"{left} swaps are left out: the donor's own report is not there.")
    settings = Settings(labeler=labeler, resamples=resamples, confidence=confidence, seed=seed, metrics=text_metrics())
    return AuditResult(
        name=name,
        studies=len(records),
        patients=len({record.patient for record in records}),
        interventions=outcomes.interventions(),
        numbers=numbers,
        regions=by_region,
        findings=by_finding,
        swaps=list(outcomes.swaps()),
        text=evaluate(name, _reports(records, regions), settings),
        differences=compare_audits(outcomes, against, resamples, confidence, seed) if against else (),
        resamples=resamples,
        confidence=confidence,
        seed=seed,
        labeler=labeler.definition,
        facts=dict(facts or {}),
        notes=told,
    )


def _reports(records: Sequence[StudyRecord], regions: RegionSet) -> Reports:
    """What the model writes of the studies as they are, beside their references."""
    pairs = [
        pair_sides(
            record.study,
            record.patient,
            Side.of_paragraphs(record.regions, [record.references[name] for name in record.regions]),
            Side(regions=dict(zip(record.regions, record.paragraphs, strict=True)), given=record.regions),
            regions,
        )
        for record in records
    ]
    there = {name for record in records for name in record.regions}
    return Reports(pairs, tuple(name for name in regions.names if name in there), ())
