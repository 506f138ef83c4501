"""The store's index: which studies it holds, with which regions, told without opening every file.

``index.json`` is a mere cache of the files' headers. It is removed before an entry changes and written anew afterwards;
what it lacks, or what has another size than it says, is looked up in the files; so is everything where its digest says
that it was damaged.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from reg2rg.core.documents import DocumentError, read_record, write_record
from reg2rg.core.errors import DataFault
from reg2rg.store.container import SUFFIX, read_header

NATIVE_FORMAT = 3
"""Version of native detail in the store; a change makes `prepare` build it anew, and with it the views."""
VIEWS_FORMAT = 2
"""Version of baked views in the store; a change makes `prepare` bake them anew from native detail."""
INDEX_FORMAT = 2
"""Version of the index; an older one is written anew from the headers."""

INDEX = "index.json"
_FIX = "run `reg2rg data prepare` again, which writes it anew; until then the files' headers are read in its place"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Listing:
    """What the index tells of a study.

    Attributes:
        key: digest of the inputs and settings that it was made from.
        regions: names of its regions.
        size: bytes of its native file.
    """

    key: str
    regions: tuple[str, ...]
    size: int


def load_index(root: Path, folder: str = "native") -> dict[str, Listing]:
    """The studies of a store by id, sorted.

    Args:
        root: where the index is.
        folder: of the files below it.
    """
    cached = _cached_index(root)
    studies: dict[str, Listing] = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(root / folder) as files:
        for file in files:
            if not file.name.endswith(SUFFIX) or file.name.startswith("."):
                continue
            study = file.name.removesuffix(SUFFIX)
            size = file.stat().st_size
            row = cached.get(study)
            if row is None or row.size != size:
                try:
                    meta = read_header(Path(file.path)).meta
                except DataFault:
                    continue  # not readable: `read` says so, `prepare` rebuilds it
                row = Listing(meta["key"], tuple(meta["regions"]), size)
            studies[study] = row
    return dict(sorted(studies.items()))


def save_index(root: Path, studies: Mapping[str, Listing]) -> None:
    """Write the index, atomically."""
    rows = {name: {"key": row.key, "regions": list(row.regions), "size": row.size} for name, row in studies.items()}
    write_record(root / INDEX, {"format": INDEX_FORMAT, "studies": rows})


def is_index(root: Path) -> bool:
    """Whether the index is whole and of this version."""
    try:
        return bool(read_record(root / INDEX, _FIX)["format"] == INDEX_FORMAT)
    except (DocumentError, FileNotFoundError, KeyError):
        return False


def _cached_index(root: Path) -> dict[str, Listing]:
    try:
        content = read_record(root / INDEX, _FIX)
        if content["format"] != INDEX_FORMAT:
            return {}
        return {
            name: Listing(row["key"], tuple(row["regions"]), row["size"]) for name, row in content["studies"].items()
        }
    except DocumentError as error:
        _LOG.warning("%s", error)
    except (FileNotFoundError, KeyError, TypeError):
        pass
    return {}  # absent, damaged or older: the headers tell the same
