"""What an audit wrote down: one record a study, whole or absent, from which every number is made again at will."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from reg2rg.core.documents import DocumentError, read_record, write_record
from reg2rg.core.errors import ConfigError

log = logging.getLogger(__name__)

STUDIES, RUN = "studies", "run.json"
_FIX = "delete it and run `reg2rg audit` again: it is made anew"


@dataclass(frozen=True, slots=True)
class Trial:
    """One intervention on one study.

    Attributes:
        intervention: its name.
        region: the region whose tokens were changed; ``""`` where it is all of them, or the image's.
        changed: slot -> paragraph, of those that are no longer what was written before.
    """

    intervention: str
    region: str
    changed: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class StudyRecord:
    """What is known of one study.

    Attributes:
        study: its id.
        patient: whose it is.
        regions: names in slot order.
        references: region -> text.
        donors: region -> study whose tokens are swapped in.
        paragraphs: what the model writes of the study as it is, one a slot.
        trials: what it writes under each intervention.
    """

    study: str
    patient: str
    regions: tuple[str, ...]
    references: Mapping[str, str]
    donors: Mapping[str, str]
    paragraphs: tuple[str, ...]
    trials: tuple[Trial, ...] = field(default=())

    def own(self, region: str) -> str:
        """The paragraph on a region of the study as it is."""
        return self.paragraphs[self.regions.index(region)]

    def after(self, trial: Trial) -> tuple[str, ...]:
        """All paragraphs under an intervention."""
        return tuple(trial.changed.get(slot, text) for slot, text in enumerate(self.paragraphs))

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "study": self.study,
            "patient": self.patient,
            "regions": list(self.regions),
            "references": dict(self.references),
            "donors": dict(self.donors),
            "paragraphs": list(self.paragraphs),
            "trials": [
                {
                    "intervention": one.intervention,
                    "region": one.region,
                    "changed": {str(k): v for k, v in one.changed.items()},
                }
                for one in self.trials
            ],
        }

    @classmethod
    def of(cls, found: Mapping[str, Any]) -> Self:
        """From JSON."""
        trials = (
            Trial(one["intervention"], one["region"], {int(slot): text for slot, text in one["changed"].items()})
            for one in found["trials"]
        )
        return cls(
            found["study"],
            found["patient"],
            tuple(found["regions"]),
            found["references"],
            found["donors"],
            tuple(found["paragraphs"]),
            tuple(trials),
        )


class AuditFolder:
    """The records of one audit on disk.

    Args:
        root: the folder; made on the first write.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Note what the records are made by, or find that those that are there were made by the same.

        Raises:
            ConfigError: they were made by something else; it is named.
        """
        path, plain = self.root / RUN, json.loads(json.dumps(facts))  # noqa: TID251 (what was just written)
        if path.is_file():
            before = read_record(path, "give another folder, or delete this one")
            changed = sorted(key for key in before.keys() | plain.keys() if before.get(key) != plain.get(key))
            if changed:
                raise ConfigError(
                    f"{self.root}: holds an audit made with another {', '.join(changed)} (see {path}). Fix: give "
                    "another folder, or delete this one"
                )
            return
        if self._paths():
            raise ConfigError(f"{self.root}: holds records, and no {RUN} that says of what. Fix: give another folder")
        write_record(path, plain)

    def facts(self) -> dict[str, Any]:
        """What the records were made by.

        Raises:
            ConfigError: no audit is there.
        """
        path = self.root / RUN
        if not path.is_file():
            raise ConfigError(f"{self.root}: no {RUN} (expected a folder that `reg2rg audit --model` wrote)")
        return read_record(path, "give another folder, or audit again")

    def done(self) -> frozenset[str]:
        """Studies that are complete; a damaged record is told of, and its study is none of them."""
        found = []
        for path in self._paths():
            try:
                found.append(StudyRecord.of(read_record(path, _FIX)).study)
            except DocumentError as error:
                log.warning("%s: the study is audited anew (%s)", path, error)
        return frozenset(found)

    def write(self, record: StudyRecord) -> None:
        """Write a study, whole or not at all."""
        write_record(self.root / STUDIES / f"{record.study}.json", record.plain())

    def records(self) -> Iterator[StudyRecord]:
        """All complete studies, by id.

        Raises:
            ConfigError: a record is damaged; it says which.
        """
        for path in self._paths():
            yield StudyRecord.of(read_record(path, _FIX))

    def _paths(self) -> list[Path]:
        return sorted(path for path in (self.root / STUDIES).glob("*.json") if not path.name.startswith("."))


def digest_of(values: Sequence[Any]) -> str:
    """Short digest of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
