"""Masks that lie ready, one file a region in a folder a scan, as SAT writes them."""

from __future__ import annotations

from pathlib import Path

from reg2rg.core.errors import ConfigError, DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.find_masks import by_region, image_stem, images_in
from reg2rg.scans.segmenters.base import SEGMENTERS, MadeBy, Segmentation, Segmenter


@SEGMENTERS.register
class SATFolder(Segmenter):
    """Masks that lie ready, one file a region in a folder a scan, as SAT and RadGenome-ChestCT have them.

    SAT's own files have an identity affine and lie on the scan brought to RAS, if that was the scan as it is: see
    ``mask_grid`` of `ReadOptions`. Files of no region of the set are left out.

    Args:
        root: the folder of the folders.
        folder: name of a scan's folder; ``{id}`` stands for the scan's file name without its suffix.
    """

    def __init__(self, root: str, folder: str = "seg_{id}") -> None:
        if "{id}" not in folder:
            raise ConfigError(
                f"SATFolder: folder is {folder!r}: {{id}} must stand in it, or all scans share one folder"
            )
        self.root, self.folder = Path(root).expanduser(), folder

    def segment(self, scan: Path, regions: RegionSet, options: ReadOptions | None = None) -> Segmentation:
        """The files of the scan's folder that are named as a region.

        Raises:
            DataFault: NO_MASK, there are none.
        """
        folder = self.root / self.folder.replace("{id}", image_stem(scan))
        found, _ = by_region(images_in(folder), regions)
        if not found.files:
            raise DataFault.of(
                "NO_MASK",
                found="no region mask" if folder.is_dir() else "no mask folder",
                expected=f"a file named as a region, such as {regions.names[0]}.nii.gz",
                fix="segment the scan, or correct root and folder",
                path=folder,
            )
        return Segmentation(found, MadeBy(type(self).__name__, source=str(folder)))
