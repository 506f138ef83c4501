"""The run record of a report, ``<study>.run.json``: what it was made from, by what, how, and which files that gave.

```
schema      "reg2rg.run/1"
study       the id, which orders the regions of the prompt and names the files
input       {sha256, files, dicom: {study, series, instances} or null, masks: region -> sha256, scan, masks_from}
model       {path, sha256: of the folder's SHA256SUMS or of the checkpoint, weights, language_model,
            language_model_weights}; weights are digests of numbers of all tensors
segmenter   {name, version, source, for_measurements} of what made the masks, or null
asked_segmenter  its name as it was asked for
versions, seeds, decoding, device
operating_point  where the head's probability counts as a finding; null without a head
options     how scan and masks were read: `reg2rg.scans.base.ReadOptions`
formats     names of the exporters
identified  false: UIDs are those of `reg2rg.inference.identity.mapped_uid`, `scan` and `masks_from` are null
refused     region -> why there is no report on it
repaired    what was repaired or is worth knowing, one line each
truncated   the report was stopped by its length or by a loop
files       name -> sha256 of each file that was written
seconds     stage -> seconds
finished    when, UTC
times       the keys that differ from run to run: everything else, and every other file, is the same again
```
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from reg2rg.core.documents import read_json
from reg2rg.core.errors import ConfigError
from reg2rg.core.files import sha256, write_json
from reg2rg.core.model_folder import SUMS, is_model_folder
from reg2rg.inference.identity import deidentified, mapped_uid
from reg2rg.inference.inputs import Inputs
from reg2rg.inference.result import ReportResult

SCHEMA = "reg2rg.run/1"
TIMES = ("seconds", "finished")
_UNREADABLE = "give a .run.json that `reg2rg report` wrote"


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for, as far as the result does not know it.

    Attributes:
        model: path or hub id of the model.
        model_sha256: what `model_digest` says of it.
        segmenter: name of the segmenter that was asked for.
        scan: the scan, as it was given.
        masks: where its masks are, as that was given.
    """

    model: str = ""
    model_sha256: str = ""
    segmenter: str = ""
    scan: str = ""
    masks: str = ""


def model_digest(path: str | Path) -> str:
    """SHA-256 of a model folder's list of digests, or of a checkpoint; ``""`` of a hub id."""
    where = Path(path).expanduser()
    if is_model_folder(where):
        return sha256(where / SUMS) if (where / SUMS).is_file() else ""
    return sha256(where) if where.is_file() else ""


def record_path(out: Path, study: str) -> Path:
    """Where the record of a study lies."""
    return out / f"{study}.run.json"


def write_record_of(
    result: ReportResult,
    out: Path,
    files: Sequence[Path],
    formats: Sequence[str],
    request: Request | None = None,
    identified: bool = False,
) -> list[Path]:
    """Write the record of a result beside its files; nothing of a result that no pipeline made."""
    if result.run is None:
        return []
    path = record_path(out, result.study.id)
    write_json(path, _record(result, out, files, formats, request or Request(), identified))
    return [path]


def _record(
    result: ReportResult,
    out: Path,
    files: Sequence[Path],
    formats: Sequence[str],
    request: Request,
    identified: bool,
) -> dict[str, Any]:
    shown = result if identified else deidentified(result)
    run, made_by = shown.run, shown.made_by
    assert run is not None
    series = run.inputs.dicom
    return {
        "schema": SCHEMA,
        "study": shown.study.id,
        "input": {
            "sha256": run.inputs.scan,
            "files": run.inputs.files,
            "dicom": None
            if series is None
            else {"study": series.study, "series": series.series, "instances": list(series.instances)},
            "masks": dict(run.inputs.masks),
            "scan": request.scan or str(shown.study.image) if identified else None,
            "masks_from": request.masks or None if identified else None,
        },
        "model": {
            "path": request.model or None,
            "sha256": request.model_sha256 or None,
            "weights": made_by.model,
            "language_model": run.language_model,
            "language_model_weights": run.language_model_weights,
        },
        "segmenter": None if made_by.masks is None or made_by.masks.name == "files" else asdict(made_by.masks),
        "asked_segmenter": request.segmenter or None,
        "versions": dict(made_by.versions),
        "seeds": dict(run.seeds),
        "decoding": dict(run.decoding),
        "operating_point": None if shown.findings is None else shown.findings.operating_point,
        "device": run.device,
        "options": asdict(made_by.options),
        "formats": list(formats),
        "identified": identified,
        "refused": dict(shown.absent),
        "repaired": list(made_by.notes),
        "truncated": made_by.truncated,
        "files": {file.relative_to(out).as_posix(): sha256(file) for file in files},
        "seconds": dict(run.seconds),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "times": list(TIMES),
    }


def read_run_record(path: Path) -> dict[str, Any]:
    """A record, with the keys that a rerun needs.

    Raises:
        ConfigError: none that this version reads.
    """
    values = read_json(path, _UNREADABLE)
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise ConfigError(f"{path}: schema is {schema!r}, expected '{SCHEMA}'. Fix: {_UNREADABLE}")
    kinds = {"study": str, "input": dict, "model": dict, "options": dict, "formats": list, "files": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(values.get(name), kind)]
    if wrong:
        raise ConfigError(f"{path}: no {', '.join(wrong)} as a run record has it. Fix: {_UNREADABLE}")
    return dict(values)


def differences(record: Mapping[str, Any], inputs: Inputs) -> list[str]:
    """How inputs differ from those of a record, a sentence each; none if they are the same."""
    was = record["input"]
    found = []
    if was.get("sha256") != inputs.scan:
        files = f"{was.get('files')} files then, {inputs.files} now; " if was.get("files") != inputs.files else ""
        found.append(f"the scan is another: {files}SHA-256 was {_short(was.get('sha256'))}, is {_short(inputs.scan)}")
    masks = was.get("masks") or {}
    for region in sorted({*masks, *inputs.masks}):
        before, now = masks.get(region), inputs.masks.get(region)
        if before != now:
            found.append(f"the mask of {region} is another: SHA-256 was {_short(before)}, is {_short(now)}")
    return found


def is_same_series(recorded: str, uid: str) -> bool:
    """Whether the UID of a record, mapped or not, is that of a series."""
    return recorded in (uid, mapped_uid(uid))


def _short(digest: Any) -> str:
    return f"{str(digest)[:16]}..." if digest else "none"
