"""The audit itself: each study is read once, intervened on, reported on again and again, and written down."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reg2rg.audit.plan import (
    BLANK,
    DONATED,
    MASKS,
    MIXED,
    NO_GLOBAL,
    NO_IMAGE,
    NOISE,
    SAME,
    Case,
    chosen_interventions,
    donors_of,
    drawn,
)
from reg2rg.audit.records import AuditFolder, StudyRecord, Trial, digest_of
from reg2rg.audit.subject import GEOMETRY, Array, Emptiness, StudyTokens, Subject
from reg2rg.core.errors import ConfigError
from reg2rg.core.progress import Step
from reg2rg.evaluation.labelers.base import Labeler

_TOKENS_KEPT = 1 << 30  # bytes: donors are read again beyond it


@dataclass(frozen=True, slots=True)
class Variant:
    """A study with tokens that are not all its own."""

    intervention: str
    region: str
    tokens: StudyTokens


def audit(
    subject: Subject,
    labeler: Labeler,
    folder: AuditFolder,
    *,
    interventions: Sequence[str] | None = None,
    seed: int = 0,
    batch: int = 16,
    step: Step | None = None,
) -> list[StudyRecord]:
    """Intervene on every study and write a record of each; goes on where an earlier call stopped.

    Args:
        subject: what is audited; each region's donor is another of its studies.
        labeler: reads the references, for the choice of donors.
        folder: gets the records, each as soon as its study is done.
        interventions: names of those to make; all that can be made by default.
        seed: of donors and noise.
        batch: reports written at once.
        step: is told of each study.

    Returns:
        the records of all studies, by id.

    Raises:
        ConfigError: fewer than two patients, an intervention that cannot be made, or a folder with another audit.
    """
    cases = sorted(subject.cases, key=lambda case: case.study)
    if len({case.patient for case in cases}) < 2:
        raise ConfigError(
            f"an audit of {len(cases)} studies of one patient (expected two patients or more: a region's tokens are "
            "swapped with another patient's). Fix: give more studies"
        )
    able, why = subject.able()
    chosen = chosen_interventions(interventions, able, why)
    donors = donors_of(cases, labeler, seed)
    folder.begin(
        subject.facts()
        | {
            "interventions": list(chosen),
            "seed": seed,
            "studies": len(cases),
            "references and donors": digest_of(
                [[c.study, c.patient, dict(c.references), donors[c.study]] for c in cases]
            ),
        }
    )
    done = folder.done()
    kept = _Kept(subject.read)
    empty = subject.empty() if {BLANK, NO_GLOBAL, NO_IMAGE} & set(chosen) else Emptiness()
    for case in cases:
        if case.study not in done:
            variants = _variants(subject, case.study, chosen, donors[case.study], kept, empty, seed)
            folder.write(_trials(subject, case, donors[case.study], kept(case.study), variants, batch))
        if step is not None:
            step(case.study)
    known = {case.study for case in cases}
    return [record for record in folder.records() if record.study in known]


def _variants(
    subject: Subject,
    study: str,
    chosen: Sequence[str],
    donors: Mapping[str, str],
    kept: Callable[[str], StudyTokens],
    empty: Emptiness,
    seed: int,
) -> Iterator[Variant]:
    own = kept(study)
    for how in chosen:
        if how == SAME:
            yield Variant(how, "", own)
        elif how == NO_GLOBAL:
            yield Variant(how, "", _without_image(own, empty))
        elif how == NO_IMAGE:
            yield Variant(how, "", _blind(own, empty))
        else:
            for region, parts in _changes(subject, own, how, donors, kept, empty, seed):
                yield Variant(how, region, own.with_region(region, parts))


def _changes(
    subject: Subject,
    own: StudyTokens,
    how: str,
    donors: Mapping[str, str],
    kept: Callable[[str], StudyTokens],
    empty: Emptiness,
    seed: int,
) -> Iterator[tuple[str, Mapping[str, Array]]]:
    """Region and its new tokens."""
    if how in DONATED:
        for region in own.regions:
            if region in donors:
                given = kept(donors[region]).region(region)
                yield region, ({GEOMETRY: given[GEOMETRY]} if how == MIXED else given)
        return
    if how == BLANK:
        yield from ((region, empty.region) for region in own.regions)
        return
    if how not in (*MASKS, NOISE):
        raise ValueError(f"nothing says how '{how}' is made")
    found = subject.altered(own.study, how) if how in MASKS else subject.noise(own.study, drawn(seed, own.study, how))
    yield from ((region, found[region]) for region in own.regions if region in found)


def _without_image(own: StudyTokens, empty: Emptiness) -> StudyTokens:
    return StudyTokens(own.study, own.regions, own.own, empty.image)


def _blind(own: StudyTokens, empty: Emptiness) -> StudyTokens:
    blind = _without_image(own, empty)
    for region in own.regions:
        blind = blind.with_region(region, empty.region)
    return blind


def _trials(
    subject: Subject,
    case: Case,
    donors: Mapping[str, str],
    own: StudyTokens,
    variants: Iterator[Variant],
    batch: int,
) -> StudyRecord:
    [paragraphs] = subject.write([own])
    trials = []
    for several in _batches(variants, batch):
        named = several[0].intervention == NO_IMAGE
        written = subject.write([one.tokens for one in several], named)
        for one, texts in zip(several, written, strict=True):
            changed = {k: text for k, (text, old) in enumerate(zip(texts, paragraphs, strict=True)) if text != old}
            trials.append(Trial(one.intervention, one.region, changed))
    return StudyRecord(
        case.study, case.patient, own.regions, dict(case.references), dict(donors), paragraphs, tuple(trials)
    )


def _batches(variants: Iterator[Variant], size: int) -> Iterator[list[Variant]]:
    """So many at once; what is written with given names stands by itself."""
    waiting: list[Variant] = []
    for one in variants:
        apart = bool(waiting) and (waiting[-1].intervention == NO_IMAGE) != (one.intervention == NO_IMAGE)
        if len(waiting) == size or apart:
            yield waiting
            waiting = []
        waiting.append(one)
    if waiting:
        yield waiting


class _Kept:
    """Tokens of studies, each read once as long as they fit into memory."""

    def __init__(self, read: Callable[[str], StudyTokens]) -> None:
        self._read, self._held, self._bytes = read, OrderedDict[str, StudyTokens](), 0

    def __call__(self, study: str) -> StudyTokens:
        if study not in self._held:
            found = self._read(study)
            self._held[study] = found
            self._bytes += found.nbytes
            while self._bytes > _TOKENS_KEPT and len(self._held) > 1:
                self._bytes -= self._held.popitem(last=False)[1].nbytes
        self._held.move_to_end(study)
        return self._held[study]
