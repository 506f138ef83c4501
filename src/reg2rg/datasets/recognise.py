"""What a folder holds, by its layout alone: for a first look at data that nobody has written a config for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.text import TextGate
from reg2rg.datasets.columns import any_rows
from reg2rg.datasets.ct_rate import volumes_folder
from reg2rg.datasets.layout import first_existing, spellings
from reg2rg.datasets.scan_folder import ONE, dicom_folders, scans_at
from reg2rg.scans.dicom.files import is_dicom
from reg2rg.scans.dicom.frames import study_uid
from reg2rg.scans.find_masks import images_in

_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".ndjson")
_LABELS = "multi_abnormality_labels"
_IMAGES = ("images", "image", "scans", "volumes", "ct", "cts", "CT", "nifti")
_MASKS = ("masks", "mask", "segmentations", "segmentation", "seg", "segs", "labels")
_SEPARATE = ("{id}/ct.nii.gz", "{id}/segmentations")  # TotalSegmentator's data set
KNOWN = (
    "RadGenome-ChestCT (<split>_preprocessed, <split>_region_mask, radgenome_files)",
    "CT-RATE (train or train_fixed, radiology_text_reports)",
    "CTRG-Chest-548K (annotation.json, or CTRG_train.csv)",
    "a table with the columns id and image (.csv, .tsv, .jsonl)",
    f"scans in a folder {' or '.join(_IMAGES)}, with or without masks in a folder {' or '.join(_MASKS)}",
    f"{_SEPARATE[0]}, with or without {_SEPARATE[1]}",
    "scans alone, a folder of DICOM a study among them",
    "one DICOM study (a folder, a zip, a DICOMDIR)",
)


@dataclass(frozen=True, slots=True)
class Recognised:
    """A layout that was recognised.

    Attributes:
        what: in words.
        dataset: name of the class that reads it.
        arguments: its constructor's.
        regions: it has regions; otherwise it is scans alone.
    """

    what: str
    dataset: str
    arguments: dict[str, Any] = field(default_factory=dict)
    regions: bool = True


def recognise(path: Path) -> Recognised:
    """The layout of a folder, or of a table.

    Raises:
        ConfigError: not there, two tables that fit, or no layout that is known.
    """
    if not path.exists():
        raise ConfigError(f"{path}: no such folder. Fix: the path")
    found = next(
        (one for look in (_radgenome, _ct_rate, _ctrg, _table, _scans, _dicom) if (one := look(path)) is not None), None
    )
    if found is not None:
        return found
    entries = sorted(path.iterdir()) if path.is_dir() else []
    held = ", ".join(f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries[:8]) or "nothing"
    held += ", ..." if len(entries) > 8 else ""
    raise ConfigError(
        f"{path}: no layout that is known (it holds {held}). Known: {'; '.join(KNOWN)}. Fix: name the folder of one of "
        "these, or write a table (Manifest)"
    )


def _radgenome(path: Path) -> Recognised | None:
    for root in (path, path / "dataset"):
        there = {
            name: next((word for word in spellings(name) if (root / f"{word}_preprocessed").is_dir()), None)
            for name in ("train", "valid", "test")
        }
        test = there["valid"] or there["test"]
        if there["train"] or test:
            labels = {"labels": _LABELS} if first_existing(root, [_LABELS]).is_dir() else {}
            arguments = {"root": str(path), "train": there["train"], "test": test, **labels}
            splits = ", ".join(name for name in (there["train"], test) if name)
            return Recognised(f"RadGenome-ChestCT's layout (splits: {splits})", "RadGenome", arguments)
    return None


def _ct_rate(path: Path) -> Recognised | None:
    for root in (path, path / "dataset"):
        if not (root / "radiology_text_reports").is_dir():
            continue
        there = {name: volumes_folder(root, name, "auto").is_dir() for name in ("train", "valid")}
        if any(there.values()):
            arguments = {"root": str(path), **{split: name if there[name] else None
                                               for split, name in (("train", "train"), ("test", "valid"))}}  # fmt: skip
            return Recognised("CT-RATE's layout", "CTRate", arguments, regions=False)
    return None


def _ctrg(path: Path) -> Recognised | None:
    if not path.is_dir():
        return None
    csv = any(re.fullmatch(r"CTRG_(train|val|test)\.csv", file.name) for file in path.iterdir())
    if not (csv or (path / "annotation.json").is_file()):
        return None
    masked, texts = (path / "masks").is_dir(), path / "region_texts.csv"
    arguments: dict[str, Any] = {"root": str(path), "texts": "." if csv else "annotation.json"}
    arguments |= {} if masked else {"masks": None}
    arguments |= {"region_texts": texts.name} if texts.is_file() else {}
    return Recognised("CTRG-Chest-548K's layout", "CTRG", arguments, regions=masked)


def _table(path: Path) -> Recognised | None:
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _TABLES) if path.is_dir() else [path]
    fitting = {file: columns for file in files if {"id", "image"} <= (columns := set(_columns(file)))}
    if len(fitting) > 1:
        names = ", ".join(file.name for file in fitting)
        raise ConfigError(
            f"{path}: {names} could each be the table of the studies. Fix: name one, such as {next(iter(fitting))}"
        )
    for file, columns in fitting.items():
        masked = [name for name in columns if name.partition(":")[0] in ("mask", "masks")]
        labels = {"label_map": "totalsegmentator"} if "mask" in masked else {}
        how = "masks as TotalSegmentator's labels" if labels else "masks" if masked else "no masks"
        what = f"the table {file.name} ({how})"
        return Recognised(what, "Manifest", {"path": str(file), **labels}, regions=bool(masked))
    return None


def _columns(file: Path) -> Iterator[str]:
    """Columns of a table's first row; none of what is no table."""
    try:
        yield from next(any_rows(file, (), "utf-8-sig", TextGate())).values
    except (DataFault, StopIteration):
        return


def _scans(path: Path) -> Recognised | None:
    if not path.is_dir():
        return None
    images, masks = _SEPARATE
    if scans_at(path, images):
        with_masks = any(path.glob(masks.replace("{id}", "*")))
        return _folder(path, images, masks if with_masks else None)
    for name in _IMAGES:
        if images_in(path / name) or dicom_folders(path / name):
            there = next((word for word in _MASKS if (path / word).is_dir()), None)
            return _folder(path, f"{name}/{{id}}", there and _template(path / there))
    return _folder(path, "{id}", None) if images_in(path) else None


def _dicom(path: Path) -> Recognised | None:
    """A folder of DICOM a study where there are several studies, else one scan."""
    if not is_dicom(path):
        return None
    folders = dicom_folders(path) if path.is_dir() and not any(entry.is_file() for entry in path.iterdir()) else {}
    if len({study_uid(folder) for folder in folders.values()}) > 1:
        return _folder(path, "{id}", None)
    return Recognised("one DICOM study", "ScanFolder", {"root": str(path), "images": ONE, "masks": None}, regions=False)


def _template(masks: Path) -> str:
    """Where the masks of a study lie in a folder of masks: ``seg_<id>``, as SAT has it, or ``<id>``."""
    entries = [entry.name for entry in masks.iterdir() if not entry.name.startswith(".")]
    sat = bool(entries) and all(name.startswith("seg_") for name in entries)
    return f"{masks.name}/{'seg_' if sat else ''}{{id}}"


def _folder(path: Path, images: str, masks: str | None) -> Recognised:
    what = f"scans at {images}, " + (f"masks at {masks}" if masks else "without masks")
    arguments = {"root": str(path), "images": images, "masks": masks}
    return Recognised(what, "ScanFolder", arguments, regions=masks is not None)
