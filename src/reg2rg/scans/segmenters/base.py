"""What every segmenter gives."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from reg2rg.core.errors import ConfigError
from reg2rg.core.regions import RegionSet
from reg2rg.core.registry import Registry, load_plugins
from reg2rg.core.types import LabelMap, RegionFiles
from reg2rg.scans.base import ReadOptions


@dataclass(frozen=True, slots=True)
class MadeBy:
    """What made the masks of a scan.

    Attributes:
        name: of the segmenter.
        version: of the program that made the masks, ``""`` where that is not known.
        source: where they were made from or lie: weights, a folder, a pattern of files.
        for_measurements: whether volumes and values under the masks may be taken for measurements.
    """

    name: str
    version: str = ""
    source: str = ""
    for_measurements: bool = True

    def __str__(self) -> str:
        said = " ".join(filter(None, (self.name, self.version, self.source)))
        return said if self.for_measurements else f"{said} (not for measurements)"


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The masks of one scan.

    Attributes:
        masks: files on disk; they are read, placed and checked as all masks are.
        made_by: what made them.
        absent: region of the set that has no mask -> why, as far as the segmenter knows.
    """

    masks: RegionFiles | LabelMap
    made_by: MadeBy
    absent: Mapping[str, str] = field(default_factory=dict)


class Segmenter(ABC):
    """Makes the masks of a scan, or says where they lie."""

    @abstractmethod
    def segment(self, scan: Path, regions: RegionSet, options: ReadOptions | None = None) -> Segmentation:
        """Masks of one scan. Called again with the same scan, it gives the same.

        Args:
            scan: the scan's file, or its folder.
            regions: the regions that are wanted; those that the segmenter cannot give are absent from the result.
            options: how the scan is read: of a folder with several DICOM series they say which is meant.

        Raises:
            DataFault: a scan that cannot be segmented.
        """


SEGMENTERS: Registry[Segmenter] = Registry("segmenter", Segmenter)  # type: ignore[type-abstract]


def segmenter_named(name: str) -> Segmenter:
    """A segmenter by its name, those of plug-ins too, with the defaults of its arguments.

    Raises:
        ConfigError: there is none of that name, or it cannot do without arguments.
    """
    if name not in SEGMENTERS:
        load_plugins()
    component = SEGMENTERS.get(name)
    needed = [word for word, given in inspect.signature(component).parameters.items() if given.default is given.empty]
    if needed:
        raise ConfigError(f"segmenter {name} needs {', '.join(needed)}. Fix: build it, {name}({needed[0]}=...)")
    return component()
