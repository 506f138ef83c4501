"""The folder of a model: what is in it, written whole or not at all, and read without running anything it holds.

config.yaml           the model, and what of the data's settings belongs to it
model.safetensors     the names of `Reg2RG.state_dict`, without a frozen base language model
input_contract.yaml   what the model takes for granted about its input
regions.yaml          its region set, where that is none of the packaged ones
language_model.json   which language model it was trained on, with a fingerprint of the weights
llm/                  that language model, where it can be had nowhere else
SHA256SUMS            digests of all other files
README.md             model card
"""

from __future__ import annotations

import copy
import json
import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from reg2rg import __version__
from reg2rg.core.documents import DocumentError, parse_json, read_json
from reg2rg.core.errors import ConfigError
from reg2rg.core.files import write_json
from reg2rg.core.model_folder import CARD, CONFIG, CONTRACT, LANGUAGE_MODEL, LLM, WEIGHTS, localise, verify, write_sums
from reg2rg.core.task import with_task
from reg2rg.models.tensors import open_tensors
from reg2rg.pretrained.atomic_folder import check_target, new_folder
from reg2rg.pretrained.contract import InputContract, dump_yaml, model_config, read_yaml
from reg2rg.pretrained.fingerprint import Fingerprint
from reg2rg.pretrained.streaming import read_metadata, write_safetensors

log = logging.getLogger(__name__)

_ALIASES = "aliases"
_LLM_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.jinja",
    "LICENSE*",
    "USE_POLICY*",
    "NOTICE*",
)
_LLM_WEIGHTS = ("*.safetensors", "*.safetensors.index.json")


@dataclass(frozen=True, slots=True)
class LanguageModelRef:
    """The language model that a model was trained on.

    Attributes:
        path: hub id or folder, as in the config.
        revision: of a hub id.
        fingerprint: of its weights; ``None`` if it is not known, and they are not compared.
        copy: its folder, if it is to be copied into the model's; ``None`` keeps a reference.
        trained: its own weights were trained and are among the model's tensors: a copy leaves them out.
        vocabulary: number of tokens of its tokenizer, or ``None`` if not known.
    """

    path: str
    revision: str | None = None
    fingerprint: Fingerprint | None = None
    copy: Path | None = None
    trained: bool = False
    vocabulary: int | None = None


@dataclass(frozen=True)
class PretrainedFolder:
    """A model's folder, opened.

    Attributes:
        path: the folder.
        config: sections ``task``, ``model`` and ``data``.
        contract: its input contract.
        language_model: what it was trained on; its ``copy`` is ``llm/`` where the folder has one.
    """

    path: Path
    config: Mapping[str, Any]
    contract: InputContract
    language_model: LanguageModelRef

    @cached_property
    def tensors(self) -> Mapping[str, Tensor]:
        """The weights by name, each read from the file when it is asked for.

        Raises:
            ConfigError: not there, damaged, or no safetensors.
        """
        path = self.path / WEIGHTS
        verify(self.path, weights=True)
        source = open_tensors(path)
        return _WithAliases(source, read_metadata(path).get(_ALIASES, "{}"), path)

    def resolved(self, language_model: str | None = None) -> dict[str, Any]:
        """The config with paths that lead into this folder from anywhere.

        Args:
            language_model: folder or hub id of the language model, in place of the one that is named.
        """
        resolved: dict[str, Any] = copy.deepcopy(dict(self.config))
        llm = resolved["model"]["llm"].setdefault("init_args", {})
        if language_model is not None:
            llm |= {"path": str(language_model), "revision": None}
        localise(resolved, self.path)
        return resolved


class _WithAliases(Mapping[str, Tensor]):
    """Tensors, of which some go by a second name."""

    def __init__(self, source: Mapping[str, Tensor], aliases: str, path: Path) -> None:
        try:
            self._aliases = {str(alias): str(name) for alias, name in parse_json(aliases, str(path)).items()}
        except (DocumentError, AttributeError) as error:
            raise ConfigError(
                f"{path}: the header's second names cannot be read ({error}). Fix: take it again"
            ) from None
        if lost := [alias for alias, name in self._aliases.items() if name not in source or alias in source]:
            raise ConfigError(f"{path}: the header gives {lost[0]} as a second name of no tensor. Fix: take it again")
        self._source = source

    def __getitem__(self, name: str) -> Tensor:
        return self._source[self._aliases.get(name, name)]

    def __iter__(self) -> Iterator[str]:
        yield from self._source
        yield from self._aliases

    def __len__(self) -> int:
        return len(self._source) + len(self._aliases)


def write_folder(
    folder: str | Path,
    *,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]],
    contract: InputContract,
    language_model: LanguageModelRef,
    card: str,
    metadata: Mapping[str, str] | None = None,
    files: Mapping[str, str] | None = None,
) -> Path:
    """Write a model's folder: whole, or not at all.

    It is written beside its place and renamed. A folder that stands there is replaced if it is one of ours.

    Args:
        folder: where to.
        config: a run's config, or its sections ``task``, ``model`` and ``data``; what belongs to the run is left out,
            and so are the files that weights were read from, for the folder holds them.
        tensors: by name, or pairs. They may be read from a file when they are asked for: none is kept.
        contract: the model's input.
        language_model: what it was trained on.
        card: text of the model card.
        metadata: text by name, for the header of the weights' file.
        files: more text files by name, such as ``conversion.json``.

    Returns:
        the folder.

    Raises:
        ConfigError: something else stands there, or too little space.
        Reg2RGError: the disk refuses while writing.
    """
    folder = Path(folder).expanduser()
    named = tensors if isinstance(tensors, Mapping) else dict(tensors)
    aliases = _second_names(named)
    own = model_config(config, contract)
    _name_language_model(own, language_model)
    check_target(folder, sum(named[name].nbytes for name in named if name not in aliases))
    with new_folder(folder) as new:
        header = {**(metadata or {}), "reg2rg": __version__, **({_ALIASES: json.dumps(aliases)} if aliases else {})}
        write_safetensors(new / WEIGHTS, named, header, leave_out=aliases)
        contract.write(new, __version__)
        head = (
            f"# Written by reg2rg {__version__}: this folder's model, and the settings of the data that belong to it.\n"
        )
        (new / CONFIG).write_text(head + dump_yaml(own), encoding="utf-8")
        _write_language_model(new, language_model)
        (new / CARD).write_text(card.rstrip() + "\n", encoding="utf-8")
        for name, text in (files or {}).items():
            (new / name).write_text(text, encoding="utf-8")
        write_sums(new)
    return folder


def read_folder(folder: str | Path) -> PretrainedFolder:
    """Open a model's folder. Weights are not read yet, and nothing in it is run.

    Raises:
        ConfigError: no such folder, another kind of folder, or one that is incomplete or damaged.
    """
    path = Path(folder).expanduser()
    if not path.is_dir():
        hint = "Reg2RG.from_checkpoint reads checkpoints" if path.is_file() else "the path"
        what = "a file" if path.is_file() else "no such folder"
        raise ConfigError(
            f"{path}: {what} (expected a folder written by save_pretrained or reg2rg convert). Fix: {hint}"
        )
    absent = [name for name in (CONTRACT, CONFIG, WEIGHTS, LANGUAGE_MODEL) if not (path / name).is_file()]
    if absent:
        held = ", ".join(sorted(entry.name for entry in path.iterdir())[:12]) or "nothing"
        raise ConfigError(
            f"{path}: {', '.join(absent)} not there (expected a model of reg2rg: {CONFIG}, {CONTRACT}, {WEIGHTS}, "
            f"{LANGUAGE_MODEL}). The folder holds: {held}. Fix: take the whole folder from its source again"
        )
    verify(path, weights=False)
    config = read_yaml(path / CONFIG)
    wanted = {"task", "model", "data"}
    if set(config) not in (wanted, wanted - {"task"}) or not all(isinstance(one, dict) for one in config.values()):
        raise ConfigError(
            f"{path / CONFIG}: has {', '.join(map(str, config))} (expected the sections task, model and data)"
        )
    if not isinstance(config["model"].get("llm"), dict):
        raise ConfigError(
            f"{path / CONFIG}: model.llm is {config['model'].get('llm')!r} (expected class_path and init_args)"
        )
    return PretrainedFolder(path, with_task(config), InputContract.read(path), _read_language_model(path))


def copy_language_model(source: Path, to: Path, weights: bool) -> None:
    """Copy config, tokenizer and licence of a language model, and its weights if asked; no code."""
    to.mkdir()
    for pattern in (*_LLM_FILES, *(_LLM_WEIGHTS if weights else ())):
        for file in sorted(source.glob(pattern)):
            if file.is_file() and file.suffix != ".py":
                shutil.copyfile(file, to / file.name)


def _second_names(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    """Names of tensors that share the numbers of another, such as a head tied to its embeddings -> the other's name.

    Only for a dict, whose tensors are all alive: what is read when it is asked for may reuse an address.
    """
    if not isinstance(tensors, dict):
        return {}
    first: dict[tuple[Any, ...], str] = {}
    found = {}
    for name, tensor in sorted(tensors.items()):
        if tensor.numel():
            key = (tensor.data_ptr(), tensor.dtype, tuple(tensor.shape), tensor.stride())
            if first.setdefault(key, name) != name:
                found[name] = first[key]
    return found


def _name_language_model(config: dict[str, Any], ref: LanguageModelRef) -> None:
    llm = config["model"]["llm"]
    if not isinstance(llm, dict):
        return
    arguments = llm.setdefault("init_args", {})
    if ref.path:
        arguments["path"] = LLM if ref.copy is not None else ref.path
        arguments["revision"] = None if ref.copy is not None else ref.revision
    if ref.trained:
        arguments["pretrained"] = False


def _write_language_model(folder: Path, ref: LanguageModelRef) -> None:
    if ref.copy is not None:
        copy_language_model(ref.copy, folder / LLM, weights=not ref.trained)
    write_json(
        folder / LANGUAGE_MODEL,
        {
            "path": ref.path,
            "revision": ref.revision,
            "trained": ref.trained,
            "vocabulary": ref.vocabulary,
            "tensors": None if ref.fingerprint is None else ref.fingerprint.to_json(),
        },
    )


def _read_language_model(folder: Path) -> LanguageModelRef:
    path = folder / LANGUAGE_MODEL
    try:
        values = read_json(path)
        tensors = values["tensors"]
        return LanguageModelRef(
            path=str(values["path"]),
            revision=values["revision"],
            fingerprint=None if tensors is None else Fingerprint.from_json(tensors, str(path)),
            copy=folder / LLM if (folder / LLM).is_dir() else None,
            trained=bool(values["trained"]),
            vocabulary=values["vocabulary"],
        )
    except (OSError, DocumentError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path}: cannot be read ({error!r}). Fix: take the file from the folder's source again"
        ) from None
