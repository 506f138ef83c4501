"""What every segmenter gives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from reg2rg.core.regions import RegionSet
from reg2rg.core.registry import Registry
from reg2rg.core.types import LabelMap, RegionFiles


@dataclass(frozen=True, slots=True)
class MadeBy:
    """What made the masks of a scan.

    Attributes:
        name: of the segmenter.
        version: of the program that made the masks, ``""`` where that is not known.
        source: where they were made from or lie: weights, a folder, a pattern of files.
    """

    name: str
    version: str = ""
    source: str = ""


@dataclass(frozen=True, slots=True)
class Segmentation:
    """The masks of one scan.

    Attributes:
        masks: files on disk; they are read, placed and checked as all masks are.
        made_by: what made them.
    """

    masks: RegionFiles | LabelMap
    made_by: MadeBy


class Segmenter(ABC):
    """Makes the masks of a scan, or says where they lie."""

    @abstractmethod
    def segment(self, scan: Path, regions: RegionSet) -> Segmentation:
        """Masks of one scan. Called again with the same scan, it gives the same.

        Args:
            scan: the scan's file, or its folder.
            regions: the regions that are wanted; those that the segmenter cannot give are absent from the result.

        Raises:
            DataFault: a scan that cannot be segmented.
        """


SEGMENTERS: Registry[Segmenter] = Registry("segmenter", Segmenter)  # type: ignore[type-abstract]
