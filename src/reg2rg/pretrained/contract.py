"""What a model takes for granted about its input, and what of a run's config goes with it; held when it is used."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from reg2rg.core import documents
from reg2rg.core.errors import ConfigError
from reg2rg.core.model_folder import CONFIG, CONTRACT, REGION_FILE, localise
from reg2rg.core.regions import RegionSet, load_region_set, packaged_region_sets
from reg2rg.core.task import ReportTask, with_task

log = logging.getLogger(__name__)

FORMAT = 2
"""Version of the folder's layout. A reader takes its own and older ones."""
_INPUTS = ("texture", "geometry", "global", "attributes")
_FIRST_KEYS = (
    "orientation",
    "spacing",
    "hu",
    "window",
    "views",
    "size",
    "coupled",
    "target",
    "identity",
    "instruction",
)
"""Keys that every contract has, whatever its format."""
_LATER_KEYS = ("order", "max_length")
"""Keys that stood in the config alone while the format was 1."""
_READ_KEYS = ("min_slices", "hu", "grid")  # mask_grid says how somebody's mask files are, not how the model is
_OWN_WEIGHTS = {"weights": None, "pretrained": False}  # arguments by which an encoder reads weights of its own


@dataclass(frozen=True)
class InputContract:
    """The input that a model was trained on.

    Attributes:
        task: what the model sees and writes.
        inputs: what the model looks at, of ``texture``, ``geometry``, ``global``, ``attributes``.
        hu: ``"check"`` if the model was trained on Hounsfield units, ``"trust"`` if on any values.
    """

    task: ReportTask = ReportTask()  # noqa: RUF009 (frozen)
    inputs: tuple[str, ...] = _INPUTS[:3]
    hu: Literal["check", "trust"] = "check"

    def __post_init__(self) -> None:
        if unknown := [name for name in self.inputs if name not in _INPUTS]:
            raise ConfigError(f"views has {', '.join(unknown)} (expected any of {', '.join(_INPUTS)})")
        if self.hu not in ("check", "trust"):
            raise ConfigError(f"hu is {self.hu!r} (expected one of check, trust)")

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> Self:
        """The contract of the model that a run's config describes.

        Args:
            config: sections ``task``, ``model`` and ``data``; or the last two alone, as before there was a task.
        """
        config = with_task(config)
        seen = {"texture": "texture", "geometry": "geometry", "global": "global_", "attributes": "attributes"}
        return cls(
            task=ReportTask.of(config.get("task") or {}),
            inputs=tuple(view for view, key in seen.items() if config["model"].get(key) is not None),
            hu=((config.get("data") or {}).get("read") or {}).get("hu", cls.hu),
        )

    @property
    def packaged_regions(self) -> str | None:
        """Name of the packaged region set that the task's equals, if any."""
        regions = self.task.region_set
        same = regions.name in packaged_region_sets() and load_region_set(regions.name).regions == regions.regions
        return regions.name if same else None

    def differences(self, other: InputContract) -> list[str]:
        """What differs in another contract, one clause each."""
        pairs: dict[str, tuple[Any, Any]] = {"inputs": (self.inputs, other.inputs), "hu": (self.hu, other.hu)}
        pairs = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}
        pairs |= self.task.differences(other.task)
        return [f"{name} {shortened(theirs)} instead of {shortened(mine)}" for name, (mine, theirs) in pairs.items()]

    def write(self, folder: Path, version: str) -> None:
        """Write the contract into `folder`, and the region set beside it if it is none of the packaged ones."""
        name, task = self.packaged_regions, self.task.values()
        values = {"format": FORMAT, "reg2rg": version, "hu": self.hu, **task.pop("views"), "views": list(self.inputs)}
        values |= {"region_set": name or REGION_FILE, **task}
        head = (
            "# What the model takes for granted about its input; held whenever it is used. spacing: null takes any.\n"
        )
        (folder / CONTRACT).write_text(head + dump_yaml(values), encoding="utf-8")
        if name is None:
            (folder / REGION_FILE).write_text(_dump_regions(self.task.region_set), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the contract of a folder. What one of the first format does not hold stands in the folder's config.

        Raises:
            ConfigError: no such file, a newer format, a value that is missing, unknown or out of range, or one that the
                folder's config contradicts.
        """
        path = folder / CONTRACT
        values = read_yaml(path)
        version, made_by = values.pop("format", None), values.pop("reg2rg", "unknown")
        if not isinstance(version, int) or isinstance(version, bool) or not 1 <= version <= FORMAT:
            raise ConfigError(
                f"{path}: format is {version!r}, written by reg2rg {made_by} (this one reads 1 to {FORMAT}). "
                "Fix: upgrade reg2rg"
            )
        regions = _read_regions(folder, values.pop("region_set", None), values.pop("regions", None))
        if missing := [name for name in _FIRST_KEYS if name not in values]:
            raise ConfigError(
                f"{path}: {', '.join(missing)} missing. Fix: take the file from the folder's source again"
            )
        config = read_yaml(folder / CONFIG)
        localise(config, folder)
        own = config.get("task") or {}
        try:
            inputs, hu = tuple(values.pop("views")), values.pop("hu")
            values = {"regions": regions, **{name: own[name] for name in _LATER_KEYS if name in own}, **values}
            found = cls(ReportTask.of(values), inputs, hu)
            views = {**found.task.values()["views"], **(own.get("views") or {})}
            told = cls.of_config({**config, "task": {**found.task.values(), "regions": regions, **own, "views": views}})
        except (ConfigError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: {error}. Fix: take the file from the folder's source again") from None
        if differences := found.differences(told):
            raise ConfigError(
                f"{folder / CONFIG}: contradicts {CONTRACT} beside it: {'; '.join(differences)}. "
                "Fix: take the whole folder from its source again"
            )
        return found


def model_config(config: Mapping[str, Any], contract: InputContract) -> dict[str, dict[str, Any]]:
    """Sections ``task``, ``model`` and ``data`` of a run's config, reduced to what belongs to its model.

    Args:
        config: the run's, with references resolved.
        contract: holds the task.

    Raises:
        ConfigError: a reference that was not resolved.
    """
    config = with_task(config)
    given = dict(config.get("data") or {})
    read = given.get("read") or {}
    data = {
        "read": {"hu": contract.hu, **{key: read[key] for key in _READ_KEYS if key in read}},
        "published_ids": bool(given.get("published_ids", False)),
    }
    task = contract.task.values() | {"regions": contract.packaged_regions or REGION_FILE}
    own = {"task": task, "model": _plain(config["model"]), "data": data}
    for key in ("texture", "geometry", "global_", "attributes"):
        own["model"][key] = _without_files(own["model"].get(key))
    if "${" in (text := json.dumps(own)):
        raise ConfigError(f"the config has references ({text[text.index('${') :][:40]}...). Fix: resolve them first")
    return own


def _plain(value: Any) -> Any:
    """Only what YAML has: tuples become lists, paths text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _without_files(value: Any) -> Any:
    """A component of this package that reads no weights of its own: the folder holds them."""
    if isinstance(value, list):
        return [_without_files(item) for item in value]
    if not isinstance(value, dict):
        return value
    cleared = {key: _without_files(item) for key, item in value.items()}
    path, arguments = str(cleared.get("class_path", "")), cleared.get("init_args")
    if isinstance(arguments, dict) and ("." not in path or path.startswith("reg2rg.")):
        arguments |= {key: empty for key, empty in _OWN_WEIGHTS.items() if arguments.get(key)}
    return cleared


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file of plain values.

    Raises:
        ConfigError: not there, not readable, or no mapping.
    """
    try:
        values = documents.read_yaml(path, "take the file from its source again")
    except FileNotFoundError:
        raise ConfigError(f"{path}: not there. Fix: take the whole folder from its source again") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds {type(values).__name__} (expected keys and values)")
    return values


def dump_yaml(values: Mapping[str, Any]) -> str:
    """Text for `read_yaml`, with lists of plain values on one line."""
    text: str = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    return text


class _Dumper(yaml.SafeDumper):
    """SafeDumper without references between values, with short lists."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _flow(dumper: _Dumper, values: list[Any]) -> yaml.Node:
    plain = not any(isinstance(value, dict | list) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=plain)


_Dumper.add_representer(list, _flow)


def _read_regions(folder: Path, source: Any, names: Any) -> RegionSet:
    path, known = folder / CONTRACT, (*packaged_region_sets(), REGION_FILE)
    if source not in known:
        raise ConfigError(f"{path}: region_set is {source!r} (expected one of {', '.join(known)}). Fix: upgrade reg2rg")
    regions = load_region_set(folder / REGION_FILE if source == REGION_FILE else source)
    if list(regions.names) != names:
        raise ConfigError(
            f"{path}: the model's regions are {names}, but region set {source} has {list(regions.names)}. "
            f"Fix: write the model's own set into {REGION_FILE} of the folder and name it as region_set"
        )
    return regions


def _dump_regions(regions: RegionSet) -> str:
    listed = [_told(asdict(region)) for region in regions]
    return dump_yaml({"name": regions.name, "regions": listed})


def _told(values: Mapping[str, Any]) -> dict[str, Any]:
    """What is not empty, inside too."""
    inner = {key: _told(value) if isinstance(value, dict) else _plain(value) for key, value in values.items()}
    return {key: value for key, value in inner.items() if value not in (None, "", [], (), {})}


def adopt(model: ReportTask, data: ReportTask) -> ReportTask:
    """The task for a model's data, see `ReportTask.adopted`; what it changes of theirs is told.

    Raises:
        ConfigError: the data have regions that the model does not know.
    """
    task = model.adopted(data)
    if told := data.differences(task):
        changed = "; ".join(f"{name} from {shortened(a)} to {shortened(b)}" for name, (a, b) in told.items())
        log.warning("The data were brought to the model's input contract: %s", changed)
    return task


def shortened(value: Any) -> str:
    """A value as a message shows it."""
    text = str(value)
    return text if len(text) < 60 else f"{text[:57]}..."
