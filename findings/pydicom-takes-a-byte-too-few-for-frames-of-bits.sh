#!/usr/bin/env bash
# A frame of a 1-bit DICOM that begins late in a byte cannot be read by itself, though the whole file can.
#
# pydicom 3.0.2, numpy 2.3.5. Frames of 63 pixels (7 x 9), one bit each, packed without gaps as DICOM SEG has them.
# Guess: pixel_array(dataset, index=i) gives frame i of pixel_array(dataset).
# Seen:  frames 0, 7 and 8 come; 1 to 6 raise ValueError (cannot reshape): ceil(63 / 8) bytes are taken from the byte in which
#        the frame begins, and the frame may end in the byte after those. Of all sizes and offsets tried the rest is right,
#        so that nothing is wrong in silence; 512 x 512 is never touched, 61 x 63 is.
# So:    whoever reads frames of a SEG one by one unpacks the bits himself, or reads all frames at once.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet pydicom==3.0.2 numpy==2.3.5
cd "$work"
./venv/bin/python - <<'PY'
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import pixel_array


def file_of(frames):
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    one.NumberOfFrames, one.Rows, one.Columns = frames.shape
    one.SamplesPerPixel, one.PhotometricInterpretation, one.PixelRepresentation = 1, "MONOCHROME2", 0
    one.BitsAllocated, one.BitsStored, one.HighBit = 1, 1, 0
    data = np.packbits(frames.ravel(), bitorder="little").tobytes()
    one.PixelData = data + b"\0" * (len(data) % 2)
    one["PixelData"].VR = "OB"
    return one


def outcome(one, frames, index):
    try:
        return "equal" if np.array_equal(pixel_array(one, index=index), frames[index]) else "differs"
    except ValueError:
        return "ValueError"


seen = {}
for size in ((7, 9), (64, 64)):
    frames = np.random.default_rng(0).integers(0, 2, (9, *size)).astype(np.uint8)
    one = file_of(frames)
    assert np.array_equal(pixel_array(one), frames)
    seen[size] = [outcome(one, frames, index) for index in range(9)]
print(seen)
assert seen[7, 9] == ["equal", *["ValueError"] * 6, "equal", "equal"], seen
assert seen[64, 64] == ["equal"] * 9, seen
PY
echo "unchanged"
