#!/usr/bin/env bash
# Contours that rt-utils writes for pixels that are not square lie elsewhere than the mask that they were made of.
#
# rt-utils 1.2.7, pydicom 3.0.2, numpy 2.3.5, opencv-python-headless 4.12.0.88. A CT with rows 4 mm and columns 5 mm apart.
# Guess: a mask of columns 10 to 29 gives contours from x = 50 to 145 mm.
# Seen:  40 to 116 mm: PixelSpacing is (between rows, between columns), and the steps along a row are taken from its first
#        number. Nothing is said. Scanners write square pixels, resampled or reformatted series often have others.
# So:    an RTSTRUCT of rt-utils on such pixels is held against the scan before it is used.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --no-deps rt-utils==1.2.7
"$work/venv/bin/python" -m pip install --quiet pydicom==3.0.2 numpy==2.3.5 opencv-python-headless
cd "$work"
mkdir -p ct; ./venv/bin/python - <<'PY'
import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from rt_utils import RTStructBuilder

for k in range(4):
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    one.SOPClassUID = one.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.{k + 1}"
    one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = "1.2.4", "1.2.5", "1.2.6"
    one.PatientName = one.PatientID = one.PatientBirthDate = one.PatientSex = one.StudyDate = one.StudyTime = ""
    one.StudyID = one.AccessionNumber = one.ReferringPhysicianName = one.SeriesNumber = ""
    one.Modality, one.InstanceNumber = "CT", k + 1
    one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 3 * k], [1, 0, 0, 0, 1, 0]
    one.PixelSpacing, one.SliceThickness = [4, 5], 3
    one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = 40, 40, 1, "MONOCHROME2"
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
    one.PixelData = bytes(40 * 40 * 2)
    one["PixelData"].VR = "OW"
    pydicom.dcmwrite(f"ct/{k}.dcm", one, enforce_file_format=True)
mask = np.zeros((40, 40, 4), bool)
mask[5:25, 10:30, 1:3] = True  # rows, columns, slices
made = RTStructBuilder.create_new(dicom_series_path="ct")
made.add_roi(mask=mask, name="box")
made.save("rt.dcm")
contour = pydicom.dcmread("rt.dcm").ROIContourSequence[0].ContourSequence[0]
x = np.array(contour.ContourData, float).reshape(-1, 3)[:, 0]
print(f"columns 10 to 29, 5 mm apart: x from {x.min():g} to {x.max():g} mm")
assert (x.min(), x.max()) == (40, 116), (x.min(), x.max())
PY
echo "unchanged"
