"""Contract checks of readers and segmenters."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from reg2rg.core.errors import DataFault
from reg2rg.core.regions import RegionSet
from reg2rg.core.types import LabelMap, Study
from reg2rg.scans.base import Reader, ReadOptions, StoredImage
from reg2rg.scans.read import read_study
from reg2rg.scans.segmenters import Segmentation, Segmenter
from reg2rg.testing.contract import ContractError, require


def check_reader(build: Callable[[], Reader], path: Path) -> None:
    """Check a reader against the contract of `reg2rg.scans.base.Reader`, on a sound file of its kind.

    It knows the file by its content, and neither a text nor a file that is not there; what it reads is one 3D image of
    numbers in the byte order of this machine with an affine that can be inverted, the same twice, and can be sent to
    worker processes; a file that is cut short, or not there, is a `DataFault`, never another exception or other voxels.

    Args:
        build: makes the reader; called twice.
        path: a file, or a folder of slices, that it reads, 8 voxels an axis or more; not changed.

    Raises:
        ContractError: naming the first part that is broken.
    """
    reader = build()
    require(isinstance(reader, Reader), reader, "type", "no subclass of Reader", "one")
    good = (bool(reader.suffixes) or path.is_dir()) and all(
        end.startswith(".") and end == end.lower() for end in reader.suffixes
    )
    require(good, reader, "suffixes", repr(reader.suffixes), "ends of file names in lower case, such as .nii")
    require(reader.matches(path), reader, "matches", f"False for {path.name}", "True")
    image = reader.read(path)
    require(isinstance(image, StoredImage), reader, "read", type(image).__name__, "a StoredImage")
    stored, affine = image.stored, image.affine
    require(stored.ndim == 3 and stored.dtype.kind in "iuf", reader, "stored", f"{stored.dtype} {stored.shape}", "3D")
    require(stored.dtype.isnative, reader, "stored", f"{stored.dtype}", "the byte order of this machine")
    require(affine.shape == (4, 4) and bool(np.isfinite(affine).all()), reader, "affine", f"{affine}", "4 x 4 numbers")
    require(abs(np.linalg.det(affine[:3, :3])) > 0, reader, "affine", "a singular one", "one that can be inverted")
    require(
        path in reader.files(path) or path.is_dir(),
        reader,
        "files",
        f"{reader.files(path)}",
        "the path itself among them",
    )
    again = pickle.loads(pickle.dumps(build().read(path)))
    same = np.array_equal(again.stored, stored) and np.array_equal(again.affine, affine) and again.notes == image.notes
    require(same, reader, "read", "another image the second time", "the same")
    scan = build().read_scan(path, ReadOptions(min_slices=1))
    same = np.array_equal(scan.stored, stored) and np.array_equal(scan.affine, affine)
    require(same, reader, "read_scan", "another image than read, where there is one", "the same")
    with tempfile.TemporaryDirectory() as folder:
        end = reader.suffixes[0] if reader.suffixes else ""
        text, absent = Path(folder, "text" + end), Path(folder, "absent" + end)
        text.write_text("no image at all\n")
        for kind, other in (("a text", text), ("no file", absent)):
            require(not reader.matches(other), reader, f"matches for {kind}", "True", "False: content counts")
            require(_faults(reader, other), reader, f"read of {kind}", "no DataFault", "one")
        if path.is_file():
            data, cut = path.read_bytes(), Path(folder, path.name)
            for file in reader.files(path):  # what lies apart is whole
                Path(folder, file.name).write_bytes(file.read_bytes())
            for size in (len(data) // 4, len(data) // 2, len(data) - 1):
                cut.write_bytes(data[:size])
                require(_faults(reader, cut), reader, f"the first {size} of {len(data)} bytes", "an image", "DataFault")


def _faults(reader: Reader, path: Path) -> bool:
    try:
        reader.read(path)
    except DataFault:
        return True
    except Exception as error:
        raise ContractError(
            f"{type(reader).__name__}: fault of {path.name}: {error!r}, expected a DataFault"
        ) from error
    return False


def check_segmenter(build: Callable[[], Segmenter], scan: Path, regions: RegionSet) -> None:
    """Check a segmenter against the contract of `reg2rg.scans.segmenters.Segmenter`, on a scan that it can segment.

    Masks of regions of the set, in files that are there, that are read and placed on the scan's grid as any; the same
    twice; what made them is said.

    Args:
        build: makes the segmenter; called twice.
        scan: the scan's file.
        regions: the regions that are asked for; at least one can be given.

    Raises:
        ContractError: naming the first part that is broken.
    """
    segmenter = build()
    require(isinstance(segmenter, Segmenter), segmenter, "type", "no subclass of Segmenter", "one")
    options = ReadOptions(min_slices=1, hu="trust")
    found = segmenter.segment(scan, regions, options)
    require(isinstance(found, Segmentation), segmenter, "segment", type(found).__name__, "a Segmentation")
    labels = isinstance(found.masks, LabelMap)
    named = found.masks.labels if isinstance(found.masks, LabelMap) else found.masks.files
    files = (
        [found.masks.file]
        if isinstance(found.masks, LabelMap)
        else [part for parts in found.masks.parts().values() for part in parts]
    )
    require(bool(named), segmenter, "masks", "none", "a region at least")
    unknown = [name for name in named if name not in regions.names]
    require(not unknown, segmenter, "regions", f"{unknown}", f"some of {regions.names}")
    absent = [file for file in files if not file.is_file()]
    require(not absent, segmenter, "labels" if labels else "files", f"nothing at {absent}", "files that are there")
    require(bool(found.made_by.name), segmenter, "made_by.name", "none", "what made the masks")
    try:
        read_study(Study("scan", "scan", "test", scan, found.masks), regions, options)
    except DataFault as error:
        raise ContractError(f"{type(segmenter).__name__}: masks: {error}") from error
    require(
        build().segment(scan, regions, options) == found,
        segmenter,
        "segment",
        "other masks the second time",
        "the same",
    )
