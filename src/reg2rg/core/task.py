"""What a model sees and writes, as one record: data, model, command line and folders hold one `ReportTask`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, Self

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet, load_region_set
from reg2rg.core.registry import did_you_mean
from reg2rg.core.types import PathOrName, PositiveInt

Target = Literal["regions", "joined", "whole"]
Order = Literal["shuffled", "listed", "listed_in_evaluation"]
Intensity = Literal["hu", "percentile", "zscore", "picture"]

INSTRUCTION = (
    "Given the provided global and regional information from this CT scan, please generate a comprehensive medical "
    "report for each region. First, identify the anatomical area corresponding to each region, then provide detailed "
    "information about these anatomical structures and any abnormalities that are essential. You can refer to the "
    "global information as the context and take it as a supplement when generating each region report."
)
WHOLE_INSTRUCTION = (
    "Given the provided global information from this CT scan, please generate a comprehensive medical report. Provide "
    "detailed information about the anatomical structures and any abnormalities that are essential."
)
"""For reports without regions; the library's own, after the published one."""
TAIL_INSTRUCTION = (
    " For those reports that have no specific region associated with them, generate an 'other report' at the end."
)
"""What the published instruction goes on with where a tail is asked for (CTRG-Chest-548K)."""

_AXES = frozenset("LR"), frozenset("PA"), frozenset("IS")
_OF_A_RUN = {"of_a_run": True}
"""Marks a field that may differ from run to run of one model; the others are the model's."""


def _numbers(values: Any, count: int, kind: type) -> bool:
    allowed = (int,) if kind is int else (int, float)
    right = isinstance(values, Sequence) and not isinstance(values, str) and len(values) == count
    return right and all(isinstance(value, allowed) and not isinstance(value, bool) for value in values)


def _require_kind(name: str, value: Any, kind: type) -> None:
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        words = {str: "text", bool: "true or false", int: "a whole number"}
        raise ConfigError(f"{name} is {value!r} (expected {words[kind]})")


@dataclass(frozen=True)  # no slots: jsonargparse reads a default through vars()
class Views:
    """Settings of the views.

    Attributes:
        size: (H, W, D) of every view.
        window: HU range that is kept; it becomes [-1, 1] at the model's input.
        coupled: place and detail in one view: the texture view is the masked scan *uncropped*, in the global frame
            (the ablation of local feature decoupling). Use it with the geometry encoder off.
        orientation: patient directions that the axes of a volume point to, such as ``RAS``.
        spacing: voxel size in mm that scans are resampled to before views are computed; null takes any, for views
            have a fixed size.
        clip: ``"first"`` averages voxels brought to [-1024, 3071] HU; ``"last"`` averages them as the file has
            them, padding and metal too, as the published code does. Either way the average is clipped to the window.
        intensity: what the values of a scan are: ``"hu"``; or anything, as in MR, which is brought to the scale of the
            views scan by scan when it is read: ``"percentile"``, two percentiles of the foreground become -1000 and
            200; ``"zscore"``, so do two multiples of the foreground's standard deviation from its mean; ``"picture"``,
            so do two values themselves, of scans that were made of pictures with a window that nobody knows any more.
        intensity_range: these two; null is 0.5 and 99.5, or -3 and 3. For pictures there is no default.
        features: name of what made the features that the model sees in place of a scan, such as ``colipri``; `size` is
            then their grid. Empty for scans.
        channels: numbers a cell of such a grid.
    """

    size: tuple[PositiveInt, PositiveInt, PositiveInt] = (256, 256, 64)
    window: tuple[int, int] = (-1000, 200)
    coupled: bool = False
    orientation: str = "RAS"
    spacing: tuple[float, float, float] | None = None
    clip: Literal["first", "last"] = "first"
    intensity: Intensity = "hu"
    intensity_range: tuple[float, float] | None = None
    features: str = ""
    channels: PositiveInt = 1

    def __post_init__(self) -> None:
        if not _numbers(self.size, 3, int) or min(self.size) < 1:
            raise ConfigError(
                f"views.size is {self.size} (expected three positive numbers). Fix: for example 256,256,64"
            )
        if not _numbers(self.window, 2, int) or not -2048 <= self.window[0] < self.window[1] <= 2047:
            raise ConfigError(
                f"views.window is {self.window} (expected low < high within -2048..2047 HU, the range of 1/16 HU in "
                "int16). Fix: the published window is -1000,200"
            )
        _require_kind("views.coupled", self.coupled, bool)
        _require_kind("views.orientation", self.orientation, str)
        letters = self.orientation.upper()
        if len(letters) != 3 or {pair for pair in _AXES for letter in letters if letter in pair} != set(_AXES):
            raise ConfigError(
                f"views.orientation is {self.orientation!r} (expected one letter each of LR, PA, IS, as RAS)"
            )
        if self.clip not in ("first", "last"):
            raise ConfigError(f"views.clip is {self.clip!r} (expected first or last)")
        spacing = self.spacing
        if spacing is not None and not (_numbers(spacing, 3, float) and all(0 < mm < 100 for mm in spacing)):
            raise ConfigError(f"views.spacing is {spacing} (expected three lengths in mm, or null for any)")
        self._check_intensity()
        self._check_features()

    @property
    def is_hu(self) -> bool:
        """Whether the values of the views are Hounsfield units, so that what is measured in them means anything."""
        return self.intensity == "hu" and not self.features

    def _check_intensity(self) -> None:
        if self.intensity not in (known := Intensity.__args__):  # type: ignore[attr-defined]
            raise ConfigError(f"views.intensity is {self.intensity!r} (expected one of {', '.join(known)})")
        if (ends := self.intensity_range) is None:
            if self.intensity == "picture":
                raise ConfigError(
                    "views.intensity is picture, but views.intensity_range is null (expected the two stored values "
                    "that are to be the ends of the views; they are not guessed). Fix: for example 0,255"
                )
            return
        if self.intensity == "hu":
            raise ConfigError(
                f"views.intensity_range is {ends}, but views.intensity is hu, whose range is views.window. Fix: leave "
                "it out, or set intensity to percentile, zscore or picture"
            )
        if not _numbers(ends, 2, float) or not ends[0] < ends[1]:
            raise ConfigError(f"views.intensity_range is {ends} (expected two numbers, the lower one first)")
        if self.intensity == "percentile" and not 0 <= ends[0] < ends[1] <= 100:
            raise ConfigError(f"views.intensity_range is {ends} (expected percentiles, from 0 to 100)")

    def _check_features(self) -> None:
        _require_kind("views.features", self.features, str)
        _require_kind("views.channels", self.channels, int)
        if self.channels < 1 or (self.channels > 1 and not self.features):
            raise ConfigError(
                f"views.channels is {self.channels} (expected 1 or more, and 1 for a scan). Fix: views.features names "
                "what made features of so many channels"
            )
        own = {"orientation": "RAS", "spacing": None, "coupled": False, "intensity": "hu"}
        if self.features and (other := [name for name, value in own.items() if getattr(self, name) != value]):
            raise ConfigError(
                f"views.{other[0]} is {getattr(self, other[0])!r}, but the model sees features (views.features), whose "
                f"grid is what it is, in RAS. Fix: leave {', '.join(other)} out; data.read.grid.axes says how files lie"
            )


@dataclass(frozen=True)
class ReportTask:
    """What a model sees and writes.

    Attributes:
        regions: region set by name or file.
        views: settings of the views.
        target: what is to be written. ``"regions"``: a paragraph for each region. The others are for models that see
            the whole image alone, and have no regions in the prompt: ``"joined"``, one text, the words that
            ``"regions"`` has, in the order of the region set; ``"whole"``, the whole report as the dataset has it.
        identity: name each region in its target (region-report alignment).
        order: ``"listed"`` keeps the regions in the order of the region set. ``"listed_in_evaluation"`` does so in
            validation, test and predict and shuffles in training, as the published code does. A listed order makes
            recognising a region nearly free.
        instruction: text at the end of the prompt; left out it is the published one (the longer one with a tail), or
            for a report without regions one like it.
        max_length: longest sample in tokens.
        tail: behind the paragraphs comes what the report says of regions without a mask and of no region, as
            CTRG-Chest-548K has it: ``The other report is: {pleura: ...}{other: ...}``. Counts for the
            target ``"regions"`` alone.
        independent_paragraphs: every paragraph sees the prompt and itself alone, and its positions begin where the
            prompt ends: a report does not depend on the order of its paragraphs, and all are written at once. For the
            target ``"regions"`` without a tail. By default a paragraph sees those before it, as published.
    """

    regions: PathOrName | RegionSet = "radgenome"
    views: Views = Views()
    target: Target = "regions"
    identity: bool = True
    order: Order = field(default="shuffled", metadata=_OF_A_RUN)
    instruction: str = ""
    max_length: PositiveInt = field(default=2048, metadata=_OF_A_RUN)
    tail: bool = False
    independent_paragraphs: bool = False

    def __post_init__(self) -> None:
        load_region_set(self.regions)
        for name, allowed in (("target", Target), ("order", Order)):
            if getattr(self, name) not in (choices := allowed.__args__):  # type: ignore[attr-defined]
                raise ConfigError(f"{name} is {getattr(self, name)!r} (expected one of {', '.join(choices)})")
        kinds = {"identity": bool, "instruction": str, "max_length": int, "tail": bool, "independent_paragraphs": bool}
        for name, kind in kinds.items():
            _require_kind(name, getattr(self, name), kind)
        if self.max_length < 1:
            raise ConfigError(f"max_length is {self.max_length} (expected a number of tokens, 1 or more)")
        if self.independent_paragraphs and (self.target != "regions" or self.tail):
            other = "a tail, which says what the paragraphs do not" if self.tail else f"target '{self.target}'"
            raise ConfigError(
                f"independent_paragraphs writes each paragraph by itself, and the task has {other}. Fix: leave "
                "independent_paragraphs out, or set target to regions and tail to false"
            )

    @cached_property
    def region_set(self) -> RegionSet:
        """The regions, in their order."""
        return load_region_set(self.regions)

    @property
    def instruction_text(self) -> str:
        """The text at the end of the prompt."""
        usual = INSTRUCTION + TAIL_INSTRUCTION * self.tail if self.target == "regions" else WHOLE_INSTRUCTION
        return self.instruction or usual

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The task of plain values by name; those of the views stand below ``views`` or beside the others.

        Raises:
            ConfigError: an unknown name, or a value that is out of range.
        """
        nested = values.get("views")
        flat = {**values, **(nested if isinstance(nested, Mapping) else {})}
        flat.pop("views", None)
        of_views = [one.name for one in fields(Views)]
        known = [*of_views, *(one.name for one in fields(cls) if one.name != "views")]
        for name in flat:
            if name not in known:
                raise ConfigError(f"unknown key '{name}'.{did_you_mean(str(name), known)} Known: {', '.join(known)}")
        flat = {name: tuple(value) if isinstance(value, list) else value for name, value in flat.items()}
        views = Views(**{name: flat.pop(name) for name in of_views if name in flat})
        return cls(views=views, **flat)

    def values(self) -> dict[str, Any]:
        """Plain values by name, as YAML and JSON have them: the regions as their names, nothing implied."""
        found: dict[str, Any] = {one.name: getattr(self, one.name) for one in fields(self)}
        views = {one.name: getattr(self.views, one.name) for one in fields(self.views)}
        plain = {name: list(value) if isinstance(value, tuple) else value for name, value in views.items()}
        said = {"regions": list(self.region_set.names), "views": plain, "instruction": self.instruction_text}
        return found | said

    def differences(self, other: ReportTask | Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
        """What another task says differently: dotted name -> this value and that one.

        Args:
            other: a task, or its `values`; what they lack, for they are older, has its default.
        """
        mine, defaults = _flat(self.values()), _flat(type(self)(target=self.target).values())
        theirs = defaults | _flat(other.values() if isinstance(other, ReportTask) else other)
        return {name: (value, theirs[name]) for name, value in mine.items() if value != theirs[name]}

    def adopted(self, data: ReportTask) -> Self:
        """This task, a model's, for data that were described by another: their regions, and what is a run's to choose.

        Raises:
            ConfigError: the data have regions that the model does not know.
        """
        check_regions(data.region_set, self.region_set)
        chosen = tuple(region for region in self.region_set if region.name in data.region_set.names)
        every = len(chosen) == len(self.region_set)
        own = {one.name: getattr(data, one.name) for one in fields(data) if one.metadata.get("of_a_run")}
        return replace(self, regions=self.regions if every else RegionSet(data.region_set.name, chosen), **own)


def check_regions(given: RegionSet, known: RegionSet) -> None:
    """Refuse regions that a model does not know: it has never seen their names or their masks.

    Raises:
        ConfigError: names them.
    """
    if unknown := [name for name in given.names if name not in known.names]:
        raise ConfigError(
            f"region set '{given.name}' of the data has {', '.join(unknown)}, which the model was not trained on "
            f"(its set '{known.name}': {', '.join(known.names)}). Another region set cannot be brought to the model's. "
            "Fix: prepare the data with the model's region set, or train a model on this one"
        )


def with_task(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config whose task stands in a section of its own, from one in which its fields stood among the data's.

    Folders and checkpoints of the first form have them there, and some of them among the model's too.
    """
    if "task" in config:
        return dict(config)
    sections = {name: dict(config[name]) for name in ("model", "data") if isinstance(config.get(name), Mapping)}
    model, data = sections.get("model", {}), sections.get("data", {})
    task = {name: model.pop(name) for name in ("regions", "identity") if name in model}
    task |= {one.name: data.pop(one.name) for one in fields(ReportTask) if one.name in data}
    if task.get("instruction", "") is None:
        del task["instruction"]
    return {**config, **sections, **({"task": task} if task else {})}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    views = {f"views.{name}": value for name, value in values["views"].items()}
    return {**views, **{name: value for name, value in values.items() if name != "views"}}
