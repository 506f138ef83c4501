"""One run that lists every fault of a data folder: tables, files, volumes, masks, leaks, coverage, pictures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from reg2rg import __version__
from reg2rg.check.result import CheckResult, Coverage, Finding
from reg2rg.check.study import StudyCheck, StudyJob, check_study
from reg2rg.core.documents import read_json
from reg2rg.core.errors import ConfigError, DataFault, Reg2RGError
from reg2rg.core.files import write_json
from reg2rg.core.parallel import run_tasks, usable_cores
from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.core.types import Study
from reg2rg.datasets.base import Dataset, Listing, patient_leaks
from reg2rg.datasets.signature import signature
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.footprint import workers_that_fit
from reg2rg.store.ledger import Ledger, seal_of, unchanged
from reg2rg.store.prepare_study import all_files

_KNOWN = "known.json"
"""Of a check's output folder: what was found in studies that need not be read again."""
_RESULT = "check.json"


def check_dataset(
    dataset: Dataset,
    regions: RegionSet | str = "radgenome",
    options: ReadOptions | None = None,
    workers: int | None = None,
    overlays: int = 4,
    out: str | Path | None = None,
    sample: int | None = None,
    needs_regions: bool = True,
    check_contents: bool = False,
) -> CheckResult:
    """Look at everything and stop at nothing.

    Args:
        dataset: the studies; its own limit on skipped studies does not count here.
        regions: region set, or its name or file.
        options: how volumes and masks are read; the defaults if ``None``.
        workers: processes at most; 0 works in this one, ``None`` takes one a core. Fewer where memory does not hold
            so many scans.
        overlays: number of studies to draw, evenly spread over the usable ones.
        out: folder for ``check.json`` and ``overlays/``; ``None`` writes nothing.
        sample: read the volumes and masks of so many studies only, evenly spread; ``None`` reads all.
        needs_regions: a study without any region is a fault.
        check_contents: read every study; otherwise one without a fault in the last check that wrote to `out`, none of
            whose files has changed since by size, times and inode, is not read again.

    Raises:
        ConfigError: an option that is wrong. Everything else ends up in the result.
    """
    for name, value, least in (("workers", workers, 0), ("overlays", overlays, 0), ("sample", sample, 1)):
        if value is not None and value < least:
            raise ConfigError(f"data check: {name} is {value}; at least {least} is expected.")
    regions, options = load_region_set(regions), options or ReadOptions()
    workers = usable_cores() if workers is None else workers
    before = None
    if out is not None:
        facts = signature(dataset) if sample is None else None
        listed_as = f"{facts} {overlays}" if facts is not None else None
        before = _Before(Path(out), (regions.regions, options, needs_regions, __version__), listed_as)
        if not check_contents and (same := before.result()) is not None:
            return same
    try:
        listing = dataset.listing()
    except (DataFault, ConfigError) as error:
        listing, findings = Listing(()), [_of_table(error)]
    else:
        findings = list(_of_listing(listing))
    chosen = [listing.studies[place] for place in _spread(len(listing.studies), sample)]
    overlays = overlays if options.grid is None else 0  # features cannot be looked at
    ledger = before.ledger() if before is not None else None
    checks = _check_all(chosen, regions, options, workers, needs_regions, ledger, anew=check_contents)
    findings += _of_studies(chosen, checks) + _duplicates(chosen, checks)
    if needs_regions:
        findings += [*_never_seen(checks, regions), *_not_split(listing.studies)]
    good = [place for place, _ in enumerate(chosen) if not checks[place].faults]
    pictures: tuple[str, ...] = ()
    if out is not None and overlays:
        pictures = _draw([chosen[place] for place in _pick(good, overlays)], regions, options, workers, Path(out))
    findings.sort(key=lambda finding: (finding.severity, finding.code, finding.split, finding.study, finding.message))
    bad = {chosen[place].id for place in range(len(chosen)) if checks[place].faults}
    result = CheckResult(
        findings=tuple(findings),
        coverage=_coverage([chosen[place] for place in good], [checks[place] for place in good], regions),
        listed=_by_split(listing.studies),
        usable=_by_split([study for study in listing.studies if study.id not in bad]),
        read=len(chosen),
        overlays=pictures,
    )
    if before is not None and ledger is not None:
        whole = not (bad or listing.skipped or listing.faults) and ledger.holds_all(listing.studies)
        before.keep(result, ledger, dataset if whole else None)
    return result


@dataclass(frozen=True, slots=True)
class _Before:
    """A check's output folder, and what an earlier one left in it.

    Attributes:
        out: the folder.
        settings: what decides the outcome of a study beside its files.
        listed_as: what the whole result depends on beside studies and their settings; ``None`` if nothing tells.
    """

    out: Path
    settings: object
    listed_as: str | None

    def result(self) -> CheckResult | None:
        """What the check before found, where nothing has changed since."""
        if not unchanged(self.out / _KNOWN, self.settings, self.listed_as):
            return None
        return CheckResult.of(read_json(self.out / _RESULT))

    def ledger(self) -> Ledger:
        """The studies that need not be read again while their files are what they were."""
        return Ledger.open(self.out / _KNOWN, self.settings)

    def keep(self, result: CheckResult, ledger: Ledger, dataset: Dataset | None) -> None:
        """Write what was found; with the `dataset` of a check that found no fault, so that it counts as a whole."""
        write_json(self.out / _RESULT, result.as_json())
        written = [self.out / name for name in (_RESULT, *result.overlays)]
        seal = seal_of(dataset, self.listed_as, True, written)
        if ledger.changed or seal is not None:
            ledger.save(seal)


def _check_all(
    studies: Sequence[Study],
    regions: RegionSet,
    options: ReadOptions,
    workers: int,
    needs_regions: bool,
    ledger: Ledger | None,
    *,
    anew: bool,
) -> dict[int, StudyCheck]:
    """Place of each study -> what was found in it, now or, where nothing has changed, by an earlier check."""
    checks: dict[int, StudyCheck] = {}
    if ledger is not None and not anew:
        for place, study in enumerate(studies):
            if (row := ledger.find(study)) is not None:
                checks[place] = StudyCheck.of(row.kept)
    left = [place for place in range(len(studies)) if place not in checks]
    jobs = [StudyJob(studies[place], regions, options, needs_regions) for place in left]
    for number, check in _read_all(jobs, workers_that_fit(workers, [job.study for job in jobs]), "check"):
        checks[left[number]] = check
        if ledger is not None and not check.faults:
            ledger.add(jobs[number].study, check.kept(), inputs=all_files(jobs[number].study))
    return checks


def _of_table(error: Reg2RGError) -> Finding:
    code = error.code if isinstance(error, DataFault) else "CONFIG"
    return Finding("error", code, "", "", str(error))


def _of_listing(listing: Listing) -> Iterator[Finding]:
    """Faults of tables, skipped studies, notes and leaks."""
    yield from map(_of_table, listing.faults)
    for skip in listing.skipped:
        yield Finding("error", skip.code, "", skip.study, skip.message)
    for note in listing.notes:
        more = f" and {note.count - len(note.examples)} more" if note.count > len(note.examples) else ""
        yield Finding("note", note.code, "", "", "; ".join(note.examples) + more, note.count)
    for patient, splits in patient_leaks(listing.studies).items():
        places = "; ".join(f"{split}: {', '.join(ids)}" for split, ids in splits.items())
        message = f"PATIENT_LEAK {patient} stands in {places}. Fix: move all studies of a patient into one split"
        yield Finding("error", "PATIENT_LEAK", "", patient, message)
    if not (listing.studies or listing.skipped or listing.faults):
        yield Finding("error", "NO_STUDIES", "", "", "there is no study. Fix: check the path and the split names")


def _of_studies(studies: Sequence[Study], checks: dict[int, StudyCheck]) -> list[Finding]:
    findings = []
    for place, study in enumerate(studies):
        check = checks[place]
        findings += [Finding("error", code, study.split, study.id, message) for code, message in check.faults]
        # What the notes say of empty masks is said once, with its own code.
        notes = [note for note in check.notes if not any(note.startswith(f"{name}:") for name in check.empty)]
        findings += [Finding("note", "REPAIRED", study.split, study.id, note) for note in notes]
        findings += [Finding("note", code, study.split, study.id, note) for code, note in check.named]
        if check.empty:
            message = f"no voxel of: {', '.join(check.empty)}"
            findings.append(Finding("note", "EMPTY_MASK", study.split, study.id, message, len(check.empty)))
    return findings


def _never_seen(checks: dict[int, StudyCheck], regions: RegionSet) -> Iterator[Finding]:
    """Regions without a voxel in any study that could be read: a model that needs them learns nothing of them."""
    seen = {name for check in checks.values() for name in check.present}
    if seen and (never := [name for name in regions.names if name not in seen]):
        which = "no study" if not any(check.faults for check in checks.values()) else "no study without an error"
        message = f"{which} has a voxel of: {', '.join(never)}. If masks of them exist, look at their names and labels"
        yield Finding("note", "REGION_NEVER_SEEN", "", "", message, len(never))


def _not_split(studies: Sequence[Study]) -> Iterator[Finding]:
    """Studies to train on whose reports are not split by region: by region they teach nothing."""
    training = [study for study in studies if study.split != "test"]
    whole = [study.id for study in training if study.whole and not study.reports]
    if any(
        study.reports for study in training
    ):  # some reports name no region, as in CTRG-Chest-548K; `fit` counts them
        return
    if whole:
        message = (
            f"NO_REGION_TEXT {len(whole)} studies to train on have a whole report and no text of a region, such as "
            f"{whole[0]} (expected report:<region>). Fix: `reg2rg data split`, or a splitter for the dataset; or train "
            "on whole reports with task.target: whole"
        )
        yield Finding("error", "NO_REGION_TEXT", "", "", message, len(whole))


def _duplicates(studies: Sequence[Study], checks: dict[int, StudyCheck]) -> list[Finding]:
    """Equal voxels under two names: a leak across splits, worth knowing inside one."""
    by_digest: dict[str, list[Study]] = {}
    for place, study in enumerate(studies):
        if checks[place].digest:
            by_digest.setdefault(checks[place].digest, []).append(study)
    findings = []
    for twins in by_digest.values():
        if len(twins) < 2:
            continue
        across = len({twin.split for twin in twins}) > 1
        names = ", ".join(f"{twin.id} ({twin.split})" for twin in twins)
        fix = "keep one of them" + (": a model must not train on what it is tested on" if across else "")
        message = f"DUPLICATE_VOLUME {names}: the same voxels. Fix: {fix}"
        findings.append(Finding("error" if across else "note", "DUPLICATE_VOLUME", "", twins[0].id, message))
    return findings


def _coverage(studies: Sequence[Study], checks: Sequence[StudyCheck], regions: RegionSet) -> tuple[Coverage, ...]:
    lines = []
    splits = _by_split(studies)
    for region in regions.names:
        for split, total in splits.items():
            pairs = [
                (region in check.present, region in study.reports)
                for study, check in zip(studies, checks, strict=True)
                if study.split == split
            ]
            mask, text = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
            lines.append(Coverage(region, split, total, mask, text, sum(all(pair) for pair in pairs)))
    return tuple(lines)


def _read_all(jobs: Sequence[StudyJob], workers: int, title: str) -> Iterator[tuple[int, StudyCheck]]:
    """Check every job, also when workers are killed: those in work then are tried alone, and named if they fail.

    Yields:
        place of the job in `jobs`, and what was found.
    """
    pending = list(range(len(jobs)))
    place_of = {id(job): place for place, job in enumerate(jobs)}
    while pending:
        done: set[int] = set()
        try:
            for job, check in _run([jobs[place] for place in pending], workers, title):
                done.add(place_of[id(job)])
                yield place_of[id(job)], check
        except Reg2RGError as error:
            suspects = [place for place in pending if place not in done][: 2 * workers or 1]
            for place in suspects:
                done.add(place)
                yield place, _alone(jobs[place], workers, str(error))
        pending = [place for place in pending if place not in done]


def _run(jobs: Sequence[StudyJob], workers: int, title: str) -> Iterator[tuple[StudyJob, StudyCheck]]:
    return run_tasks(check_study, jobs, name=lambda job: job.study.id, workers=workers, title=title)


def _alone(job: StudyJob, workers: int, reason: str) -> StudyCheck:
    try:
        return next(_run([job], min(workers, 1), f"again {job.study.id}"))[1]
    except Reg2RGError as error:
        return StudyCheck(faults=(("WORKER_DIED", f"WORKER_DIED {job.study.id}: {error or reason}"),))


def _draw(
    studies: Sequence[Study], regions: RegionSet, options: ReadOptions, workers: int, out: Path
) -> tuple[str, ...]:
    names = [f"overlays/{study.split}_{study.id}.png" for study in studies]
    jobs = [StudyJob(study, regions, options, False, out / name) for study, name in zip(studies, names, strict=True)]
    for _ in _read_all(jobs, min(workers, len(jobs)), "overlays"):
        pass
    return tuple(name for name in names if (out / name).is_file())


def _spread(total: int, count: int | None) -> list[int]:
    """`count` of `total` places, evenly spread, the first one included."""
    if count is None or count >= total:
        return list(range(total))
    return [place * total // count for place in range(count)]


def _pick(places: Sequence[int], count: int) -> list[int]:
    return [places[place] for place in _spread(len(places), count)]


def _by_split(studies: Sequence[Study]) -> dict[str, int]:
    return dict(sorted(Counter(study.split for study in studies).items()))
