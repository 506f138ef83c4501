"""What files and logs say of whose scan it is: by default nothing.

A result knows paths and, of DICOM, UIDs; both lead back to a patient. What is written for others has pseudonyms: UIDs
become others by a rule that whoever has the study can follow and nobody can turn round, files are called after the
study's id, folders are left out. Names, numbers and dates of patients are never read from DICOM in the first place.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from dataclasses import replace
from pathlib import Path

from reg2rg.core.types import LabelMap, MaskChannels, RegionFiles
from reg2rg.inference.inputs import DicomSeries
from reg2rg.inference.result import Provenance, ReportResult
from reg2rg.scans.find_masks import image_stem

Masks = RegionFiles | LabelMap | MaskChannels | None

_UIDS = re.compile(r"(?:\.\.\.|\b)\d+(?:\.\d+){3,}\b|\.\.\.[\d.]*\d")
_UNREADABLE = re.compile(r"(DICOM files? cannot be read): .*")
_PATHS = re.compile(r"\.\.\.[/\\][^\s:;,]*|(?<![\w.])(?:[A-Za-z]:)?[/\\](?:[^\s/\\]+[/\\])*[^\s:;,/\\]+")
_RULE = "reg2rg/uid/1\n"


def mapped_uid(uid: str) -> str:
    """The UID that stands for another: ``2.25.`` and the number of a UUID made of its SHA-256; always the same."""
    name = hashlib.sha256((_RULE + uid).encode()).digest()[:16]
    return f"2.25.{uuid.UUID(bytes=name, version=5).int}"


def pseudonym(series: str) -> str:
    """The id of a study that is DICOM, from the UID of the series that is read: ``ct-`` and twelve digits of a hash."""
    return f"ct-{hashlib.sha256((_RULE + series).encode()).hexdigest()[:12]}"


def deidentified(result: ReportResult) -> ReportResult:
    """A result without paths and with other UIDs, for files that leave the hospital. Voxels and texts are the same."""
    study, run = result.study, result.run
    if run is not None and run.inputs.dicom is not None:
        run = replace(run, inputs=replace(run.inputs, dicom=_mapped(run.inputs.dicom)))
    return replace(
        result,
        study=replace(
            study, image=Path(f"{study.id}{_suffix(study.image)}"), patient=study.id, masks=_masks(study.masks)
        ),
        made_by=_provenance(result),
        absent={region: _plain(why, result) for region, why in result.absent.items()},
        run=run,
    )


def _mapped(series: DicomSeries) -> DicomSeries:
    instances = {mapped_uid(uid): kind for uid, kind in series.instances.items()}
    again = dict(sorted(instances.items()))
    return DicomSeries(mapped_uid(series.study), mapped_uid(series.series), series.number, "", again)


def _masks(masks: Masks) -> Masks:
    if isinstance(masks, LabelMap | MaskChannels):
        return replace(masks, file=Path(f"masks{_suffix(masks.file)}"))
    if masks is None:
        return None
    names = {
        region: tuple(
            Path(f"{region}{f'_{number}' if number else ''}{_suffix(part)}") for number, part in enumerate(parts)
        )
        for region, parts in masks.parts().items()
    }
    return RegionFiles({region: parts[0] if len(parts) == 1 else parts for region, parts in names.items()})


def _provenance(result: ReportResult) -> Provenance:
    made_by, masks = result.made_by, result.made_by.masks
    if masks is not None and (masks.name == "files" or "/" in masks.source or "\\" in masks.source):
        masks = replace(masks, source="")
    return replace(
        made_by,
        masks=masks,
        options=replace(made_by.options, series="given" if made_by.options.series else ""),
        notes=tuple(_plain(note, result) for note in made_by.notes),
    )


def _plain(text: str, result: ReportResult) -> str:
    """A note without names of files, folders and UIDs."""
    masks = result.study.masks
    files = [result.study.image]
    if isinstance(masks, LabelMap | MaskChannels):
        files.append(masks.file)
    elif masks is not None:
        files += [part for parts in masks.parts().values() for part in parts]
    for file in files:
        names = [str(file), *(name for name in (str(file.parent), file.name) if "/" in name or "." in name.strip("."))]
        for name in names if file.name else ():
            text = text.replace(name, "...")
    return _UIDS.sub("...", _PATHS.sub("...", _UNREADABLE.sub(r"\1", text)))


def _suffix(path: Path) -> str:
    stem = image_stem(path)
    return path.name.removeprefix(stem) if path.name.startswith(stem) else path.suffix
