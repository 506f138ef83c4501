"""Stored values of slices: decoded one file at a time, whatever the transfer syntax."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from reg2rg.core.errors import DataFault
from reg2rg.scans.dicom.files import Opener, Source
from reg2rg.scans.dicom.frames import Frame
from reg2rg.scans.dicom.library import damage, pydicom
from reg2rg.scans.dicom.plain import read_plain

Plane = npt.NDArray[Any]

_INT16 = (-32768, 32767)
# What decoding needs; the rest of a header is not parsed a second time.
_TAGS = (
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "PixelData",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
)


def planes(frames: Sequence[Frame]) -> Iterator[tuple[int, Plane]]:
    """Place in `frames` -> (rows, columns) stored values, in the order of the files.

    Raises:
        DataFault: CORRUPT, TRUNCATED, CODEC.
    """
    files: dict[Source, list[int]] = {}
    for place, frame in enumerate(frames):
        files.setdefault(frame.source, []).append(place)
    with Opener() as opener:
        for source, places in files.items():
            dataset = None
            with damage(source.path, source.member or "a file"), opener.open(source) as stream:
                for place in places:
                    plane = _plain(stream, frames[place])
                    if plane is None:
                        dataset = _dataset(stream) if dataset is None else dataset
                        plane = _plane(dataset, frames[place])
                    yield place, plane
                if source.member:
                    stream.read()  # to its end, where the zip's checksum is held against it


def _dataset(stream: BinaryIO) -> Any:
    stream.seek(0)
    return pydicom().dcmread(stream, force=True, specific_tags=_TAGS)


def _plain(stream: BinaryIO, frame: Frame) -> Plane | None:
    return None if frame.plain is None else read_plain(stream, frame.plain, frame.index or 0, frame.shape)


def rescaled(plane: Plane, slope: float, inter: float) -> Plane:
    """HU of one slice by its own slope and intercept, in float64."""
    return plane.astype(np.float64) * slope + inter


def volume(frames: Sequence[Frame]) -> tuple[Plane, float, float]:
    """(columns, rows, slices) values of sorted slices, first axis fastest, and the slope and intercept still to apply.

    Where all slices share slope and intercept, the values are as stored; else each slice is rescaled by its own, in
    float64, and rounded.
    """
    scales = {(frame.slope, frame.inter) for frame in frames}
    rows, columns = frames[0].shape
    stored: Plane | None = None
    for place, plane in planes(frames):
        if len(scales) > 1:
            plane = _as_integers(rescaled(plane, frames[place].slope, frames[place].inter))
        if stored is None:
            stored = np.empty((columns, rows, len(frames)), plane.dtype, order="F")
        elif plane.dtype != stored.dtype:
            stored = stored.astype(np.result_type(stored.dtype, plane.dtype), order="F")
        stored[:, :, place] = plane.T
    assert stored is not None  # there is a frame
    return (stored, *scales.pop()) if len(scales) == 1 else (stored, 1.0, 0.0)


def _as_integers(plane: Plane) -> Plane:
    """Rounded HU in int16, or in int32 where that holds them only."""
    whole = np.rint(plane)
    fits = _INT16[0] <= whole.min() and whole.max() <= _INT16[1]
    return whole.astype(np.int16 if fits else np.int32)


def _plane(dataset: Any, frame: Frame) -> Plane:
    from pydicom.pixels import pixel_array

    syntax = dataset.file_meta.get("TransferSyntaxUID") if hasattr(dataset, "file_meta") else None
    if syntax is None:  # written without a file header: what its data set is, is all that is known
        implicit = dataset.is_implicit_VR
        uids = pydicom().uid
        dataset.file_meta.TransferSyntaxUID = uids.ImplicitVRLittleEndian if implicit else uids.ExplicitVRLittleEndian
    elif not _decodable(syntax):
        raise DataFault.of(
            "CODEC",
            found=f"pixels in {syntax.name}, for which no decoder is installed",
            expected="a decoder",
            fix="pip install 'reg2rg[dicom]'; JPEG XL and video have none there",
            path=frame.source.path,
        )
    with damage(frame.source.path, "pixels"):
        plane: Plane = pixel_array(dataset, index=frame.index, raw=True)
        if plane.shape != frame.shape:
            raise ValueError(f"{plane.shape} pixels")
    return plane


def _decodable(syntax: Any) -> bool:
    from pydicom.pixels import get_decoder

    if not syntax.is_transfer_syntax:  # one that pydicom does not know yet, or a vendor's own
        return False
    if not syntax.is_compressed:
        return True
    try:
        return bool(get_decoder(syntax).is_available)
    except NotImplementedError:
        return False
