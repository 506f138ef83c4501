"""Runs that are done again: by their record on purpose, or not, where a list of studies goes on."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from reg2rg.core.errors import ConfigError
from reg2rg.core.files import json_text, sha256

if TYPE_CHECKING:
    from reg2rg.inference.exporters import Exporter
    from reg2rg.inference.inputs import Inputs
    from reg2rg.inference.run_record import Request
    from reg2rg.scans.base import ReadOptions
    from reg2rg.scans.dicom.choose import Candidate
    from reg2rg.scans.find_masks import MaskSource
    from reg2rg.training.module import Reg2RG

_OPTIONS = ("min_slices", "mask_grid", "implausible", "kernel", "tilt", "uneven")


@dataclass(slots=True)
class Rerun:
    """A run that is done again.

    Attributes:
        path: its record.
        record: what that says.
        same: whether every file that was compared is the same.
    """

    path: Path
    record: Mapping[str, Any] = field(repr=False)
    same: bool = False

    @classmethod
    def of(cls, options: argparse.Namespace) -> Self:
        """The run of ``--rerun``; options that the record has become those of this call.

        Raises:
            ConfigError: no record, or one without what this call leaves out.
        """
        from reg2rg.inference.run_record import read_run_record

        record = read_run_record(options.rerun)
        given = record["input"]
        options.input = options.input or (given.get("scan") and Path(given["scan"]))
        options.model = options.model or record["model"].get("path")
        options.segmenter = record.get("asked_segmenter")
        options.masks = None if options.segmenter else options.masks or given.get("masks_from")
        options.formats, options.name = ",".join(record["formats"]), record["study"]
        if form := record["decoding"].get("form"):
            options.decoding = "forced" if form["forced"] else "constrained"
        elif record["decoding"].keys() >= {"form"} and options.decoding is None:
            options.decoding = "free"
        options.operating_point = options.operating_point or record.get("operating_point")
        options.identified = bool(record.get("identified"))
        for name in _OPTIONS:
            setattr(options, name, record["options"].get(name, getattr(options, name)))
        if record["options"].get("series") and given.get("dicom") and options.input is not None:
            options.series = _series(options.input, given["dicom"]["series"])
        return cls(options.rerun, record)

    def compared(self, out: Path, files: Sequence[Path]) -> str:
        """What the files of this run are beside those of the record, in a line; sets `same`."""
        before = self.record["files"]
        now = {
            file.relative_to(out).as_posix(): sha256(file)
            for file in files
            if file.relative_to(out).as_posix() in before
        }
        other = [name for name, digest in before.items() if now.get(name) != digest]
        self.same = not other
        if other:
            return f"rerun: {len(other)} of {len(before)} files differ from those of the record: {', '.join(other)}"
        return f"rerun: all {len(before)} files are the same as those of the record, byte by byte"


def _series(scan: Path, recorded: str) -> str:
    """UID of the series of a DICOM study that a record speaks of."""
    from reg2rg.inference.run_record import is_same_series
    from reg2rg.scans.base import ReadOptions
    from reg2rg.scans.dicom.files import is_dicom
    from reg2rg.scans.dicom.reader import series_of

    judged = series_of(scan, ReadOptions())[1] if is_dicom(scan) else []
    uids = [one.series.uid for one in judged if is_same_series(recorded, one.series.uid)]
    if not uids:
        raise ConfigError(
            f"{scan}: the series of the record is not among its {len(judged)}. Fix: give the study of the record"
        )
    return uids[0]


def require_same(rerun: Rerun, scan: Path, masks: MaskSource | None, read: ReadOptions, model: Reg2RG) -> None:
    """Refuse to do a run again with other inputs or weights; say what else differs.

    Raises:
        ConfigError: with each difference.
    """
    from reg2rg.inference.run_record import differences
    from reg2rg.pretrained.fingerprint import digest

    inputs, _ = _inputs(scan, masks, read, model)
    found = differences(rerun.record, inputs)
    was, now = rerun.record["model"].get("weights"), digest(model.state_dict())
    if was != now:
        found.append(f"the model has other weights: their digest was {was}, is {now}")
    if found:
        listed = "\n  ".join(found)
        raise ConfigError(
            f"{rerun.path}: this would be another run:\n  {listed}\nFix: give the inputs and the model of the record, "
            "or leave --rerun out"
        )
    from reg2rg.inference.one_study import versions

    before = rerun.record.get("versions") or {}
    changed = [
        f"{name} {before.get(name)} -> {version}" for name, version in versions().items() if before.get(name) != version
    ]
    if rerun.record.get("device") != str(model.device):
        changed.append(f"device {rerun.record.get('device')} -> {model.device}")
    if changed:
        sys.stderr.write(f"report: not as in the record, so that files may differ: {', '.join(changed)}\n")


def done_before(
    options: argparse.Namespace,
    scan: Path,
    masks: MaskSource | None,
    read: ReadOptions,
    name: str,
    model: Reg2RG,
    exporters: Sequence[Exporter],
    request: Request,
) -> str:
    """The id of a study whose files are there, of the same inputs, model, versions and options; else ``""``."""
    from reg2rg.inference.one_study import versions
    from reg2rg.inference.pipeline import name_of, read_for
    from reg2rg.inference.run_record import differences, read_run_record, record_path
    from reg2rg.pretrained.fingerprint import digest

    contract = model.contract
    if contract is None or not any(options.out.glob("*.run.json")):
        return ""
    inputs, chosen = _inputs(scan, masks, read, model)
    study = name or name_of(scan, chosen)
    path = record_path(options.out, study)
    if not path.is_file():
        return ""
    try:
        record = read_run_record(path)
    except ConfigError:
        return ""  # it is written anew
    wanted = {
        "formats": [type(exporter).__name__ for exporter in exporters],
        "identified": options.identified,
        "asked_segmenter": request.segmenter or None,
        "versions": versions(),
        "device": str(model.device),
        "operating_point": model.reporter.told_point or None,
    }
    how = asdict(read_for(contract, read))
    how["series"] = how["series"] if options.identified else "given" if how["series"] else ""
    same = all(record.get(key) == value for key, value in wanted.items()) and record["options"] == how
    # As text: the record has lists where the settings have tuples.
    same = same and json_text(record["decoding"]) == json_text(asdict(model.decoding))
    if not same or differences(record, inputs) or record["model"].get("weights") != digest(model.state_dict()):
        return ""
    files = {options.out / file: was for file, was in record["files"].items()}
    return study if all(file.is_file() and sha256(file) == was for file, was in files.items()) else ""


def _inputs(scan: Path, masks: MaskSource | None, read: ReadOptions, model: Reg2RG) -> tuple[Inputs, Candidate | None]:
    from reg2rg.inference.inputs import chosen_series, inputs_of
    from reg2rg.inference.pipeline import read_for
    from reg2rg.scans.find_masks import find_masks

    contract = model.contract
    assert contract is not None  # loaded models have one
    chosen = chosen_series(scan, read_for(contract, read))
    given = masks is not None and contract.task.target == "regions"
    found = find_masks(masks, contract.task.region_set) if given and masks is not None else None
    return inputs_of(scan, chosen, found), chosen
