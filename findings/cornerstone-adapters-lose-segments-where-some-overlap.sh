#!/usr/bin/env bash
# Cornerstone's adapters lose a whole segment of a DICOM SEG in which some others overlap, without a word.
#
# @cornerstonejs/adapters 5.14.0 (OHIF's reader of SEG) with dcmjs 0.52.0 on Node 20; the SEG by highdicom 0.28.2. Ten
# slices of 16 x 16: segment 1 on slices 5 to 9, segment 2 over it, segment 3 on slices 0 to 3, over nobody.
# Guess: three segments come back with all their pixels, in one label volume or two.
# Seen:  segment 3 comes back with none. With an overlap anywhere each segment is merged into the first volume that it
#        does not overlap, by a forEach over the longer of two sparse arrays, which passes over the slices that the
#        volume so far does not have. Without segment 2 the same segment 3 is whole.
# So:    segments of one SEG file must not overlap; regions that do belong in files of their own.
set -euo pipefail
command -v npm > /dev/null || { echo "no npm here"; exit 0; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet highdicom==0.28.2 pydicom==3.0.2
cd "$work"
cat > make.py <<'PY'
import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian


def ct(k):
    one = Dataset()
    one.file_meta = FileMetaDataset()
    one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.SOPClassUID, one.SOPInstanceUID, one.StudyInstanceUID = CTImageStorage, f"1.2.3.{k + 1}", "1.2.3"
    one.SeriesInstanceUID, one.FrameOfReferenceUID, one.Modality = "1.2.3.50", "1.2.3.60", "CT"
    one.PatientName = one.PatientID = one.PatientBirthDate = one.PatientSex = one.StudyDate = one.StudyTime = ""
    one.StudyID = one.AccessionNumber = one.ReferringPhysicianName = ""
    one.ImagePositionPatient, one.ImageOrientationPatient = [0, 0, 2 * k], [1, 0, 0, 0, 1, 0]
    one.PixelSpacing, one.SliceThickness, one.InstanceNumber = [1, 1], 2, k + 1
    one.Rows = one.Columns = 16
    one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation, one.SamplesPerPixel = 16, 16, 15, 0, 1
    one.PhotometricInterpretation = "MONOCHROME2"
    return one


slices = [ct(k) for k in range(10)]
masks = np.zeros((10, 16, 16, 3), bool)
masks[5:10, 2:8, 2:8, 0] = masks[5:10, 4:6, 4:6, 1] = masks[0:4, 2:8, 2:8, 2] = True
made_by = hd.AlgorithmIdentificationSequence("x", codes.DCM.ArtificialIntelligence, "1")
for name, chosen in (("with", [0, 1, 2]), ("without", [0, 2])):
    described = [
        hd.seg.SegmentDescription(
            number, f"s{place + 1}", codes.SCT.Organ, codes.SCT.Heart, hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC, made_by
        )
        for number, place in enumerate(chosen, 1)
    ]
    hd.seg.Segmentation(
        slices, masks[..., chosen], "BINARY", described, "1.2.3.70", 2, f"1.2.3.8{len(chosen)}", 1, "m", "n", "1", "s"
    ).save_as(f"{name}.dcm")
PY
"$work/venv/bin/python" make.py
echo '{"private": true}' > package.json
npm install --silent --legacy-peer-deps --ignore-scripts --no-audit --no-fund dcmjs@0.52.0 @babel/runtime@7.29.7 gl-matrix@3.4.3 \
    d3-array@3.2.4 d3-interpolate@3.0.1 @cornerstonejs/{adapters,core,tools,metadata}@5.14.0
cat > ask.mjs <<'JS'
import { readFileSync } from 'node:fs';
import { adaptersSEG } from '@cornerstonejs/adapters';
import { cache, metaData } from '@cornerstonejs/core';

const ids = Array.from({ length: 10 }, (_, k) => `ct:${k}`);
metaData.addProvider((kind, id) => {
  const k = ids.indexOf(id);
  const position = [0, 0, 2 * k];
  return k < 0 ? undefined : {
    instance: { SOPInstanceUID: `1.2.3.${k + 1}`, Rows: 16, Columns: 16, ImagePositionPatient: position },
    generalImageModule: { sopInstanceUID: `1.2.3.${k + 1}` },
    generalSeriesModule: { seriesInstanceUID: '1.2.3.50', modality: 'CT' },
    imagePlaneModule: {
      rows: 16, columns: 16, rowCosines: [1, 0, 0], columnCosines: [0, 1, 0], imagePositionPatient: position,
      imageOrientationPatient: [1, 0, 0, 0, 1, 0], pixelSpacing: [1, 1], rowPixelSpacing: 1, columnPixelSpacing: 1,
    },
    imagePixelModule: {
      bitsAllocated: 16, bitsStored: 16, highBit: 15, pixelRepresentation: 0, samplesPerPixel: 1,
      photometricInterpretation: 'MONOCHROME2',
    },
  }[kind];
}, 1e4);
for (const name of ['with', 'without']) {
  const { buffer, byteOffset, byteLength } = readFileSync(`${name}.dcm`);
  const found = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer(
    ids, buffer.slice(byteOffset, byteOffset + byteLength), { metadataProvider: metaData },
  );
  const counts = {};
  for (const image of found.labelMapImages.flat())
    for (const value of image.voxelManager.getScalarData()) if (value) counts[value] = (counts[value] ?? 0) + 1;
  console.log(name, JSON.stringify(counts));
  cache.purgeCache();
}
process.exit(0);
JS
node ask.mjs | tee said
grep -qx 'with {"1":180,"2":20}' said && grep -qx 'without {"1":180,"2":144}' said  # 144 pixels of segment 3 are lost
