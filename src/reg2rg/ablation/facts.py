"""What a sweep must know of the data behind its configs: which they are, their truth, and reports for floors."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from reg2rg.core.documents import read_record, write_record
from reg2rg.core.files import atomic_write
from reg2rg.core.report import write_report
from reg2rg.core.types import Study
from reg2rg.store.index import load_index

TRAIN_REFERENCES, TRUTH = "data/train_references.csv", "data/truth.json"
_WEIGHED = 64 * 2**20


@dataclass(frozen=True)
class Facts:
    """Of the data that a config names.

    Attributes:
        digest: of studies, splits, reports, labels and what is prepared of them.
        truth: study -> finding -> present, where the data set has labels.
        train: training studies with their reports.
    """

    digest: str
    truth: Mapping[str, Mapping[str, bool]] = field(default_factory=dict)
    train: Sequence[Study] = ()


def gather(studies: Sequence[Study], store: str | Path | None) -> Facts:
    """Facts of a listing and its store."""
    digest = hashlib.sha256()
    for study in studies:
        row = (study.id, study.split, dict(study.reports), dict(study.findings) if study.findings else None)
        digest.update(json.dumps(row, sort_keys=True).encode())
    if store is not None:
        for name, listing in load_index(Path(store)).items():
            digest.update(f"{name} {listing.key}\n".encode())
    truth = {study.id: study.findings for study in studies if study.findings is not None}
    train = [study for study in studies if study.split == "train" and study.reports]
    return Facts(digest.hexdigest()[:16], truth, train)


def language_model_digest(config: Mapping[str, Any]) -> str:
    """Digest of a language model's local folder; "" for a name of a hub."""
    llm = (config.get("model") or {}).get("llm") or {}
    path = (llm.get("init_args") or {}).get("path") if isinstance(llm, Mapping) else None
    folder = Path(str(path)) if path else None
    if folder is None or not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for file in sorted(folder.glob("*")):
        if file.suffix not in (".json", ".safetensors", ".bin", ".model") or not file.is_file():
            continue
        digest.update(f"{file.name} {file.stat().st_size}\n".encode())
        if file.stat().st_size <= _WEIGHED:  # larger ones are told by their names and sizes
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def write_train_references(path: Path, studies: Sequence[Study]) -> Path | None:
    """A table of training reports, from which an evaluation takes its floors; ``None`` if there are none."""
    rows = [
        {"study": study.id, "report": write_report(list(study.reports), list(study.reports.values()))}
        for study in studies
    ]
    if not rows:
        return None
    with atomic_write(path, "w") as stream:
        pd.DataFrame(rows).to_csv(stream, index=False, lineterminator="\n")
    return path


def keep_facts(out: Path, facts: Facts) -> None:
    """Keep in the folder of a sweep what its tables need, so that they can be made when the data are gone."""
    if facts.digest:
        write_train_references(out / TRAIN_REFERENCES, facts.train)
        write_record(
            out / TRUTH, {"digest": facts.digest, "truth": {name: dict(row) for name, row in facts.truth.items()}}
        )


def kept_facts(out: Path) -> Facts:
    """What `keep_facts` kept; empty if nothing was.

    Raises:
        DocumentError: it is not as it was written.
    """
    try:
        found = read_record(out / TRUTH, "delete it and run `reg2rg ablate` again where the data are")
    except FileNotFoundError:
        found = {}
    return Facts(found.get("digest", ""), found.get("truth", {}))
