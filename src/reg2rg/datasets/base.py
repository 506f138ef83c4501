"""What every dataset gives: studies as paths and text, and a list of what it had to leave out."""

from __future__ import annotations

import contextlib
import hashlib
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from reg2rg.core.errors import ConfigError, DataFault, TooManySkippedError
from reg2rg.core.registry import Registry
from reg2rg.core.types import Study, UnitFloat

SPLITS = ("train", "val", "test")
_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Skip:
    """A study that was left out.

    Attributes:
        study: its id, or what stands in its place in the table when that is no usable id.
        code: reason code, the same words as `DataFault.code`.
        message: the whole message, with what was found and the fix.
    """

    study: str
    code: str
    message: str

    @classmethod
    def of(cls, fault: DataFault, study: str = "") -> Skip:
        """The skip that a fault of one study leads to."""
        return cls(fault.study or study, fault.code, str(fault))


@dataclass(frozen=True, slots=True)
class Note:
    """Something counted on the way that leaves no study out, for example empty sentences.

    Attributes:
        code: reason code.
        count: how often it was met.
        examples: the first few, each with its file and row or study.
    """

    code: str
    count: int
    examples: tuple[str, ...]


class Notes:
    """Counts notes by code and keeps the first examples of each: a table may hold a million such rows."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._examples: dict[str, list[str]] = {}

    def add(self, code: str, example: str) -> None:
        """Count one more of `code`."""
        self._counts[code] += 1
        examples = self._examples.setdefault(code, [])
        if len(examples) < _SHOWN:
            examples.append(example)

    def freeze(self) -> tuple[Note, ...]:
        """All notes, sorted by code."""
        return tuple(Note(code, count, tuple(self._examples[code])) for code, count in sorted(self._counts.items()))


@dataclass(frozen=True, slots=True)
class Listing:
    """What a data folder holds.

    Attributes:
        studies: usable studies, sorted by id.
        skipped: studies that were left out, sorted by id and code.
        notes: what was counted on the way.
        faults: faults of whole tables. What needs no table was still listed, so that a check can go on.
    """

    studies: tuple[Study, ...]
    skipped: tuple[Skip, ...] = ()
    notes: tuple[Note, ...] = ()
    faults: tuple[DataFault, ...] = ()


class Dataset(ABC):
    """Studies of one data folder. A subclass implements `scan`, which lists files and reads tables, never volumes.

    Args:
        max_skip: largest share of studies, 0 to 1, that may be left out before `studies` refuses to go on.

    Attributes:
        needs_masks: leave studies out whose masks are not there; off while `scans` lists.

    Raises:
        ConfigError: `max_skip` is no share.
    """

    def __init__(self, max_skip: UnitFloat = 0.05) -> None:
        if not 0.0 <= max_skip <= 1.0:
            raise ConfigError(f"max_skip is {max_skip}: a share from 0 to 1 is expected, for example 0.05 for 5 %.")
        self.max_skip = max_skip
        self.needs_masks = True
        self._listing: Listing | None = None
        self._began = 0

    @abstractmethod
    def scan(self) -> Listing:
        """List the folder. One bad study is skipped with its reason.

        Raises:
            DataFault: a table that cannot be read and without which nothing can be listed.
            ConfigError: a folder or an option that is wrong.
        """

    def listing(self) -> Listing:
        """`scan`, done once. Unlike `studies` it does not hold the result against any limit."""
        if self._listing is None:
            self._began = time.time_ns()
            found = self.scan()
            self._listing = Listing(
                tuple(sorted(found.studies, key=lambda study: study.id)),
                tuple(sorted(found.skipped, key=lambda skip: (skip.study, skip.code))),
                found.notes,
                found.faults,
            )
        return self._listing

    def watched(self) -> Sequence[Path] | None:
        """Tables and folders which, beside the files of the studies themselves, decide what `scan` finds.

        While none of them changes, and no file of a study does, `scan` would give what it gave: commands with nothing
        to do leave it out then. A folder changes when something is added to it or taken away, not when something in it
        does. Asked after `listing`. ``None``, which is what a subclass gives that does not say: `scan` runs each time.
        """
        return None

    @property
    def began(self) -> int:
        """When `listing` began to look, ns since 1970; 0 if it has not."""
        return self._began

    def scans(self) -> list[Study]:
        """All studies whose scan is there, sorted by id, without their masks: for what makes masks.

        Raises:
            DataFault, TooManySkippedError, ConfigError: as for `studies`.
        """
        kept, self._listing, self.needs_masks = self._listing, None, False
        try:
            return [replace(study, masks=None) for study in self.studies()]
        finally:
            self._listing, self.needs_masks = kept, True

    def studies(self) -> list[Study]:
        """All usable studies of all splits, sorted by id.

        Raises:
            DataFault: a table cannot be read, with all its faults in one message; or ``PATIENT_LEAK`` if a patient
                stands in two splits.
            TooManySkippedError: the share of skipped studies is above `max_skip`.
            ConfigError: there is no study at all.
        """
        listing = self.listing()
        if listing.faults:
            raise join_faults(listing.faults)
        if not listing.studies and not listing.skipped:
            raise ConfigError(f"{type(self).__name__}: there is no study. Fix: check its path and split names.")
        leak = leak_fault(listing.studies)
        if leak is not None:
            raise leak
        check_skip_limit(listing.skipped, len(listing.studies) + len(listing.skipped), self.max_skip)
        return list(listing.studies)

    @property
    def skipped(self) -> list[Skip]:
        """Studies that were left out, with reasons."""
        return list(self.listing().skipped)

    @property
    def notes(self) -> list[Note]:
        """What was counted while listing: empty sentences, unknown regions, and so on."""
        return list(self.listing().notes)


DATASETS: Registry[Dataset] = Registry("dataset", Dataset)  # type: ignore[type-abstract]


def count_codes(skips: Iterable[Skip]) -> dict[str, int]:
    """Reason code -> number of skipped studies, the commonest first."""
    counts = Counter(skip.code for skip in skips)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def check_skip_limit(skips: Sequence[Skip], total: int, max_skip: float) -> None:
    """Hold the share of skipped studies against its limit.

    Args:
        skips: the skipped studies.
        total: number of studies, skipped ones included.
        max_skip: largest share allowed, 0 to 1.

    Raises:
        TooManySkippedError: above the limit; counts by code and one example of each.
    """
    if not total:
        return
    share = len(skips) / total
    if share <= max_skip:
        return
    lines = [f"{len(skips)} of {total} studies were skipped ({share:.1%}); the limit max_skip is {max_skip:.1%}."]
    first = {skip.code: skip.message for skip in reversed(skips)}
    lines += [f"  {count} x {first[code]}" for code, count in count_codes(skips).items()]
    lines.append("Fix: `reg2rg data check` lists every one; mend the data or raise max_skip.")
    raise TooManySkippedError("\n".join(lines))


def patient_leaks(studies: Iterable[Study]) -> dict[str, dict[str, list[str]]]:
    """Patients that stand in more than one split: patient -> split -> study ids, all sorted."""
    by_patient: dict[str, dict[str, list[str]]] = {}
    for study in studies:
        by_patient.setdefault(study.patient, {}).setdefault(study.split, []).append(study.id)
    return {
        patient: {split: sorted(ids) for split, ids in sorted(splits.items())}
        for patient, splits in sorted(by_patient.items())
        if len(splits) > 1
    }


def join_faults(faults: Sequence[DataFault]) -> DataFault:
    """Several faults as one error: their messages one a line, the code of the first."""
    if len(faults) == 1:
        return faults[0]
    joined = DataFault("\n".join(str(fault) for fault in faults))
    joined.code, joined.path = faults[0].code, faults[0].path
    return joined


@contextlib.contextmanager
def noting(faults: list[DataFault]) -> Iterator[None]:
    """Note a fault of a table and go on."""
    try:
        yield
    except DataFault as fault:
        faults.append(fault)


def leak_fault(studies: Iterable[Study]) -> DataFault | None:
    """The fault ``PATIENT_LEAK`` with its patients, or None if every patient stands in one split."""
    leaks = patient_leaks(studies)
    if not leaks:
        return None
    shown = [
        f"{patient} ({', '.join(f'{split}: {ids[0]}' for split, ids in splits.items())})"
        for patient, splits in list(leaks.items())[:_SHOWN]
    ]
    more = f" and {len(leaks) - _SHOWN} more" if len(leaks) > _SHOWN else ""
    return DataFault.of(
        "PATIENT_LEAK",
        found=f"{len(leaks)} patients stand in two splits: {'; '.join(shown)}{more}",
        expected="every patient in one split",
        fix="move all studies of a patient into one split",
    )


def carve_validation(studies: Iterable[Study], fraction: float) -> list[Study]:
    """Move the studies of some train patients to the split ``"val"``.

    A patient's split follows from a hash of its id alone, so it stays when studies are added or skipped, and is the
    same on every machine. Only if no patient falls under the fraction is the one with the smallest hash taken, so that
    a small set has a validation split too.

    Args:
        studies: studies of all splits.
        fraction: expected share of train patients, 0 to below 1. 0 carves nothing.

    Raises:
        ConfigError: the fraction is out of range.
    """
    if not 0.0 <= fraction < 1.0:
        raise ConfigError(f"val_fraction is {fraction}: a share from 0 to below 1 is expected, for example 0.05.")
    studies = list(studies)
    place = {study.patient: _place(study.patient) for study in studies if study.split == "train"}
    held_out = {patient for patient, value in place.items() if value < fraction}
    if not held_out and fraction > 0 and len(place) > 1:
        held_out = {min(place, key=lambda patient: (place[patient], patient))}
    return [
        replace(study, split="val") if study.split == "train" and study.patient in held_out else study
        for study in studies
    ]


def _place(patient: str) -> float:
    """A number in [0, 1) that depends on the patient id alone."""
    digest = hashlib.sha256(patient.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:8], "big") / 2**64
