"""What a model takes for granted about its input, written beside its weights and held when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, Self

import yaml

from reg2rg.core.errors import ConfigError
from reg2rg.core.model_folder import CONTRACT, REGION_FILE
from reg2rg.core.regions import Region, RegionSet, load_region_set, packaged_region_sets
from reg2rg.core.registry import did_you_mean
from reg2rg.data.prompt import INSTRUCTION, WHOLE_INSTRUCTION
from reg2rg.store.views import Views

FORMAT = 1
"""Version of the folder's layout. A reader takes its own and older ones."""
_ORIENTATIONS = frozenset("LR"), frozenset("PA"), frozenset("IS")
_KINDS = {str: "text", bool: "true or false"}
_VIEWS = ("texture", "geometry", "global")


@dataclass(frozen=True)
class InputContract:
    """The input that a model was trained on.

    Attributes:
        regions: the region set: names, their order, aliases.
        views: what the model looks at, of ``texture``, ``geometry``, ``global``.
        size: (H, W, D) of every view.
        window: HU range that becomes [-1, 1].
        coupled: the texture view is uncropped, in the global frame (see `Views`).
        orientation: patient directions that the axes of a volume point to, such as ``RAS``.
        spacing: voxel size in mm that volumes are resampled to before views are computed; ``None`` takes any, for
            views have a fixed size.
        hu: ``"check"`` if the model was trained on Hounsfield units, ``"trust"`` if on any values.
        target: ``"regions"``, ``"joined"`` or ``"whole"``, as for the data.
        identity: reports name their regions.
        instruction: text at the end of the prompt; by default the library's own for the target.
    """

    regions: RegionSet
    views: tuple[str, ...] = _VIEWS
    size: tuple[int, int, int] = (256, 256, 64)
    window: tuple[int, int] = (-1000, 200)
    coupled: bool = False
    orientation: str = "RAS"
    spacing: tuple[float, float, float] | None = None
    hu: Literal["check", "trust"] = "check"
    target: Literal["regions", "joined", "whole"] = "regions"
    identity: bool = True
    instruction: str = ""

    def __post_init__(self) -> None:
        if self.instruction == "":
            own = INSTRUCTION if self.target == "regions" else WHOLE_INSTRUCTION
            object.__setattr__(self, "instruction", own)
        for name, kind in (("orientation", str), ("instruction", str), ("coupled", bool), ("identity", bool)):
            if not isinstance(getattr(self, name), kind):
                raise ConfigError(f"{name} is {getattr(self, name)!r} (expected {_KINDS[kind]})")
        Views(self.size, self.window, self.coupled)
        letters = self.orientation.upper()
        if len(letters) != 3 or {pair for pair in _ORIENTATIONS for c in letters if c in pair} != set(_ORIENTATIONS):
            raise ConfigError(f"orientation is {self.orientation!r} (expected one letter each of LR, PA, IS, as RAS)")
        if self.spacing is not None and (len(self.spacing) != 3 or not all(0 < mm < 100 for mm in self.spacing)):
            raise ConfigError(f"spacing is {self.spacing} (expected three lengths in mm, or null for any)")
        if unknown := [name for name in self.views if name not in _VIEWS]:
            raise ConfigError(f"views has {', '.join(unknown)} (expected any of {', '.join(_VIEWS)})")
        for name, allowed in (("hu", ("check", "trust")), ("target", ("regions", "joined", "whole"))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r} (expected one of {', '.join(allowed)})")

    @classmethod
    def of_config(cls, config: Mapping[str, Any], spacing: tuple[float, float, float] | None = None) -> Self:
        """The contract of the model that a run's config describes.

        Args:
            config: sections ``model`` and ``data``.
            spacing: voxel size that all volumes were resampled to before training; ``None`` if they were not.
        """
        model, data = config["model"], config.get("data") or {}
        views, read = data.get("views") or {}, data.get("read") or {}
        seen = {"texture": "texture", "geometry": "geometry", "global": "global_"}
        return cls(
            regions=load_region_set(data.get("regions") or model.get("regions") or "radgenome"),
            views=tuple(view for view, key in seen.items() if model.get(key) is not None),
            size=_triple(views.get("size", cls.size)),
            window=_pair(views.get("window", cls.window)),
            coupled=bool(views.get("coupled", cls.coupled)),
            spacing=spacing,
            hu=read.get("hu", cls.hu),
            target=data.get("target", cls.target),
            identity=bool(data.get("identity", model.get("identity", cls.identity))),
            instruction=data.get("instruction") or "",
        )

    @property
    def view_settings(self) -> Views:
        """Settings of the views, as the data take them."""
        return Views(self.size, self.window, self.coupled)

    @property
    def packaged_regions(self) -> str | None:
        """Name of the packaged region set that this one equals, if any."""
        name = self.regions.name
        same = name in packaged_region_sets() and load_region_set(name).regions == self.regions.regions
        return name if same else None

    def differences(self, other: InputContract) -> list[str]:
        """What differs in another contract, one clause each."""
        pairs = {field.name: (getattr(self, field.name), getattr(other, field.name)) for field in fields(self)}
        pairs["regions"] = (self.regions.regions, other.regions.regions)
        shown = {"regions": (list(self.regions.names), list(other.regions.names))}
        return [
            "{} {} instead of {}".format(name, *map(_short, reversed(shown.get(name, pair))))
            for name, pair in pairs.items()
            if pair[0] != pair[1]
        ]

    def write(self, folder: Path, version: str) -> None:
        """Write the contract into `folder`, and the region set beside it if it is none of the packaged ones."""
        name = self.packaged_regions
        values: dict[str, Any] = {
            "format": FORMAT,
            "reg2rg": version,
            "orientation": self.orientation,
            "spacing": None if self.spacing is None else list(self.spacing),
            "hu": self.hu,
            "window": list(self.window),
            "views": list(self.views),
            "size": list(self.size),
            "coupled": self.coupled,
            "target": self.target,
            "identity": self.identity,
            "instruction": self.instruction,
            "region_set": name or REGION_FILE,
            "regions": list(self.regions.names),
        }
        head = (
            "# What the model takes for granted about its input; held whenever it is used. spacing: null takes any.\n"
        )
        (folder / CONTRACT).write_text(head + dump_yaml(values), encoding="utf-8")
        if name is None:
            (folder / REGION_FILE).write_text(_dump_regions(self.regions), encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read the contract of a folder.

        Raises:
            ConfigError: no such file, a newer format, or a value that is missing, unknown or out of range.
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
        known = [field.name for field in fields(cls) if field.name != "regions"]
        for name in values:
            if name not in known:
                raise ConfigError(
                    f"{path}: unknown key '{name}'.{did_you_mean(str(name), known)} Known: {', '.join(known)}"
                )
        if missing := [name for name in known if name not in values]:
            raise ConfigError(
                f"{path}: {', '.join(missing)} missing. Fix: take the file from the folder's source again"
            )
        try:
            values["size"], values["window"] = _triple(values["size"]), _pair(values["window"])
            values["views"] = tuple(values["views"])
            values["spacing"] = None if values["spacing"] is None else tuple(float(mm) for mm in values["spacing"])
            return cls(regions=regions, **values)
        except (ConfigError, TypeError, ValueError) as error:
            raise ConfigError(f"{path}: {error}. Fix: take the file from the folder's source again") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """A mapping from a YAML file of plain values.

    Raises:
        ConfigError: not there, not readable, or no mapping.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"{path}: not there. Fix: take the whole folder from its source again") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ConfigError(f"{path}: cannot be read ({reason}). Fix: take the file from its source again") from error
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
    path = folder / CONTRACT
    if source == REGION_FILE:
        regions = load_region_set(folder / REGION_FILE)
    elif source in packaged_region_sets():
        regions = load_region_set(str(source))
    else:
        known = ", ".join((*packaged_region_sets(), REGION_FILE))
        raise ConfigError(f"{path}: region_set is {source!r} (expected one of {known}). Fix: upgrade reg2rg")
    if list(regions.names) != names:
        raise ConfigError(
            f"{path}: the model's regions are {names}, but region set {source} has {list(regions.names)}. "
            f"Fix: write the model's own set into {REGION_FILE} of the folder and name it as region_set"
        )
    return regions


def _dump_regions(regions: RegionSet) -> str:
    listed = [_region(region) for region in regions]
    return dump_yaml({"name": regions.name, "regions": listed})


def _region(region: Region) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": region.name}
    if region.aliases:
        entry["aliases"] = list(region.aliases)
    if region.totalsegmentator:
        entry["totalsegmentator"] = list(region.totalsegmentator)
    if region.note:
        entry["note"] = region.note
    return entry


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else f"{text[:57]}..."


def _triple(values: Any) -> tuple[int, int, int]:
    h, w, d = (int(value) for value in values)
    return h, w, d


def _pair(values: Any) -> tuple[int, int]:
    low, high = (int(value) for value in values)
    return low, high
