"""Masks of the very scan that is read: of a DICOM study the chosen series, as one file."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import nibabel as nib

from reg2rg.core.regions import RegionSet
from reg2rg.scans.base import ReadOptions
from reg2rg.scans.dicom.files import is_dicom
from reg2rg.scans.find_masks import image_stem
from reg2rg.scans.read import read_scan
from reg2rg.scans.segmenters.base import Segmentation, Segmenter
from reg2rg.scans.segmenters.kept import KeptSegmenter


def segment_as_read(segmenter: Segmenter, scan: Path, regions: RegionSet, options: ReadOptions) -> Segmentation:
    """Segment a scan. What makes masks gets of a DICOM study the series, on the grid, that `options` lead to.

    Args:
        segmenter: makes the masks, or knows where they lie; that one is asked for the scan as it is.
        scan: a file, or a DICOM study.
        regions: which regions are wanted.
        options: how the scan is read.

    Raises:
        DataFault: a scan that cannot be read or segmented.
    """
    if not (isinstance(segmenter, KeptSegmenter) and is_dicom(scan)):
        return segmenter.segment(scan, regions)
    volume = read_scan(scan, replace(options, clip=True)).volume
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"{image_stem(scan)}.nii")
        image = nib.Nifti1Image(volume.array, volume.affine)
        image.header.set_xyzt_units("mm")
        image.to_filename(path)
        return segmenter.segment(path, regions)
