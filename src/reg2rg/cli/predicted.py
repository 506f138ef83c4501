"""What ``predict`` has finished: a run with nothing to do loads no model and reads no record.

``done.json`` in the folder of the predictions has one digest over the whole config and the stamps of its weights, one
over what the data set lists, one over the stamps of the store's files and one over those of the records. A data set
that says what its listing depends on is not listed where that has not changed; scans are not looked at, for reports are
made from the store. Whatever differs, or cannot be told without torch, is looked at as if there were no such file.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reg2rg import __version__
from reg2rg.cli.folder import callback_settings, predictions_folder
from reg2rg.cli.main import Invocation
from reg2rg.config.explain import resolved_values
from reg2rg.config.options import apply_options, option_values, split_config_options, split_flags
from reg2rg.config.overlay import fold, merge
from reg2rg.config.reading import Tree
from reg2rg.core.documents import DocumentError, read_record, write_record
from reg2rg.core.errors import Reg2RGError
from reg2rg.core.model_folder import CONFIG, is_model_folder
from reg2rg.datasets.signature import signature
from reg2rg.evaluation.records import STUDIES
from reg2rg.store.ledger import seal_of, stamp_of, stamp_of_folder

if TYPE_CHECKING:
    from reg2rg.datasets.base import Dataset

DONE = "done.json"
_SPLIT = "test"
"""What ``predict`` reports on unless the config says otherwise."""


@dataclass(frozen=True)
class Asked:
    """What a call of ``predict`` asks for, as far as it can be told without torch.

    Attributes:
        out: folder of the predictions.
        tree: the folded config, with the options of the command line.
        values: the same with its references resolved.
        weights: digest of everything but the data.
        store: digest of the stamps of the store's files.
    """

    out: Path
    tree: Tree
    values: dict[str, Any]
    weights: str
    store: str

    @classmethod
    def of(cls, invocation: Invocation) -> Asked | None:
        """What a command asks for; ``None`` where that cannot be told, or where it asks to print something.

        Args:
            invocation: of the command.
        """
        configs, rest = split_config_options(invocation.args)
        flags, options = split_flags(rest)
        if flags:
            return None
        with contextlib.suppress(Reg2RGError, OSError, KeyError, TypeError):
            tree = _with_folder(fold(configs), options)
            apply_options(tree, options)
            values = resolved_values(tree)
            named = [values["model"], values.get("task"), _checkpoint(values)]
            files = [str(file) for text in _texts(named) for file in _files(text)]
            if (stamp := stamp_of(files, deep=False)) is None:
                return None
            told = [__version__, str(Path.cwd()), values, files, stamp]
            weights = hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()
            store = stamp_of_folder(Path(values["data"]["store"]).expanduser() / "native")
            return cls(predictions_folder(values.get("trainer")).expanduser(), tree, values, weights, store)
        return None

    def done(self, allow_import: Sequence[str] = ()) -> int | None:
        """How many studies are complete, if there is nothing left to do; ``None`` otherwise.

        Args:
            allow_import: packages beyond the allow-list that the config may name.
        """
        try:
            before = read_record(self.out / DONE, "it is made anew")
        except (DocumentError, OSError):
            return None
        now = {"weights": self.weights, "store": self.store, "records": stamp_of_folder(self.out / STUDIES)}
        if any(before.get(name) != told for name, told in now.items()):
            return None
        with contextlib.suppress(Reg2RGError, OSError, KeyError):
            dataset, listing = self.dataset(allow_import), before["listing"]
            stamp = None if listing is None else stamp_of(before["watched"], deep=False)
            if stamp is None or stamp != before["stamp"] or signature(dataset) != listing:
                return int(before["studies"]) if self.listed(dataset)["data"] == before["data"] else None
            return int(before["studies"])
        return None

    def dataset(self, allow_import: Sequence[str] = ()) -> Dataset:
        """The data set, not listed yet.

        Args:
            allow_import: as for `done`.
        """
        from reg2rg.cli.section import section_of

        return section_of(self.tree, allow_import).data.dataset

    def listed(self, dataset: Dataset) -> dict[str, Any]:
        """What the data set lists, as a digest, and the stamps of what the listing depends on, if that can be told.

        Args:
            dataset: of the config; listed here if it is not yet.
        """
        split, found = self.values["data"].get("predict_split", _SPLIT), hashlib.blake2b(digest_size=16)
        for study in dataset.studies():
            if study.split == split:
                told = (study.id, study.masks is None, sorted(study.reports.items()), study.whole, study.other)
                found.update(repr(told).encode("utf-8", "surrogatepass"))
        seal = seal_of(dataset, signature(dataset), None, ())
        data = found.hexdigest()
        if seal is None:
            return {"data": data, "listing": None}
        watched = {"watched": seal.watched, "stamp": stamp_of(seal.watched, deep=False)}
        return {"data": data, "listing": seal.listing, **watched}

    def note(self, listed: Mapping[str, Any]) -> None:
        """Write down that everything is done.

        Args:
            listed: what was listed when it was begun.
        """
        with os.scandir(self.out / STUDIES) as entries:
            count = sum(entry.name.endswith(".json") for entry in entries)
        told = {"weights": self.weights, "store": self.store, **listed, "records": stamp_of_folder(self.out / STUDIES)}
        write_record(self.out / DONE, {"studies": count, **told})


def _with_folder(tree: Tree, options: Sequence[str]) -> Tree:
    """As `reg2rg.cli.folder.with_folder`, of folders on this disk."""
    named = dict(option_values(options)).get("ckpt_path") or tree.values.get("ckpt_path")
    if "model" in tree.values or not isinstance(named, str) or not is_model_folder(named):
        return tree
    base = fold([str(Path(named) / CONFIG)])
    merge(base, tree)
    return base


def _checkpoint(values: dict[str, Any]) -> Any:
    """The checkpoint's file or folder; ``best`` and ``last`` are those of the config's ModelCheckpoint."""
    named = values.get("ckpt_path")
    folder = callback_settings(values.get("trainer"), "ModelCheckpoint").get("dirpath")
    return str(Path(folder, f"{named}.ckpt")) if folder and named in ("best", "last") else named


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _texts(part)


def _files(text: str) -> list[Path]:
    """The files that a value of the config names, if it is a path."""
    if not text:
        return []
    path = Path(text).expanduser()
    return sorted(path.rglob("*")) if path.is_dir() else [path] if path.exists() else []
