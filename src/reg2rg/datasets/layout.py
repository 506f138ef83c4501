"""Where the files of RadGenome-ChestCT lie below a root."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from reg2rg.core.errors import ConfigError
from reg2rg.scans.archives import SUFFIXES, parts_of

_SPELLINGS = (("train", "training"), ("valid", "validation", "val"), ("test", "testing"))


@dataclass(frozen=True, slots=True)
class SplitLayout:
    """The places of one split.

    Attributes:
        volumes: folder of the volumes.
        masks: folder of the mask folders, or the archive of them (see `reg2rg.scans.archives`).
        table: CSV of region texts.
    """

    volumes: Path
    masks: Path
    table: Path

    @classmethod
    def find(cls, root: Path, name: str) -> SplitLayout:
        """The places of the split called `name`, each under any spelling of that name."""
        names = spellings(name)
        return cls(
            first_existing(root, [f"{spelling}_preprocessed" for spelling in names]),
            _masks(root, [f"{spelling}_region_mask" for spelling in names]),
            first_existing(root, [f"radgenome_files/{spelling}_region_report.csv" for spelling in names]),
        )

    def scans(self) -> Iterator[Path]:
        """Files ``*/*/*.nii.gz`` of the volumes folder, sorted, hidden ones left out."""
        yield from sorted(path for path in self.volumes.glob("*/*/*.nii.gz") if not path.name.startswith("."))

    def watched(self) -> Iterator[Path]:
        """What changes when a volume, a mask or a row of the table is added or taken away."""
        yield from _folders(self.volumes, 2)
        yield from _folders(self.masks, 1) if self.masks.is_dir() else parts_of(self.masks)
        yield from (path for path in (self.table.parent, self.table) if path.exists())


def _folders(folder: Path, levels: int) -> Iterator[Path]:
    """A folder and those in it, so many levels down."""
    yield folder
    if levels:
        for inside in sorted(entry.path for entry in os.scandir(folder) if entry.is_dir()):
            yield from _folders(Path(inside), levels - 1)


def _masks(root: Path, names: list[str]) -> Path:
    """The folder of masks, or the archive that they were distributed in; a folder counts more.

    Raises:
        DataFault: ARCHIVE_PART.
    """
    folder = first_existing(root, names)
    archives = (root / f"{name}{suffix}" for name in names for suffix in SUFFIXES)
    return folder if folder.is_dir() else next((path for path in archives if parts_of(path)), folder)


def spellings(name: str) -> list[str]:
    """`name` first, then the other spellings of the same split."""
    group = next((group for group in _SPELLINGS if name in group), ())
    return [name, *(other for other in group if other != name)]


def first_existing(root: Path, names: list[str]) -> Path:
    """The first of `names` that exists below `root`; if none does, the first one, so that messages name it."""
    return next((root / name for name in names if (root / name).exists()), root / names[0])


def find_root(root: Path, names: list[str]) -> Path:
    """The folder that holds the volumes of the splits: `root`, or ``root/dataset`` as on the Hub.

    Raises:
        ConfigError: a split has no folder of volumes; the message lists the folders found and a way out.
    """
    if not root.is_dir():
        raise ConfigError(f"RadGenome: root {root} is not a folder. Fix: set it to where the data set lies.")
    wanted = [f"{name}_preprocessed" for name in names]
    for candidate in (root, root / "dataset"):
        if all(first_existing(candidate, [f"{s}_preprocessed" for s in spellings(name)]).is_dir() for name in names):
            return candidate
    there = sorted(entry.name for entry in root.iterdir() if entry.is_dir())[:20]
    raise ConfigError(
        f"RadGenome: {root} has no folder for each of: {', '.join(wanted)}. "
        f"Folders there: {', '.join(there) or 'none'}. "
        "Fix: set root to the folder above them, or train or test to the split's name, or to null to do without it."
    )
