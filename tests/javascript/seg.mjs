// Reads DICOM SEGs with Cornerstone's adapters onto the slices of their CT, as OHIF does.
// seg.mjs CT_FOLDER SEG...: prints of each {labels, volumes: [{SOPInstanceUID: {segment: [pixel, ...]}}, ...]} as JSON.
import { readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

const modules = createRequire(join(process.env.REG2RG_NODE_MODULES, 'x.js'));
const load = async (name, file) => import(pathToFileURL(join(process.env.REG2RG_NODE_MODULES, name, file)).href);
const dcmjs = modules('dcmjs');
const core = await load('@cornerstonejs/core', 'dist/esm/index.js');
const { adaptersSEG } = await load('@cornerstonejs/adapters', 'dist/esm/index.js');

const bytes = (path) => {
  const file = readFileSync(path);
  return file.buffer.slice(file.byteOffset, file.byteOffset + file.byteLength);
};
const natural = (path) => {
  const parsed = dcmjs.data.DicomMessage.readFile(bytes(path));
  return dcmjs.data.DicomMetaDictionary.naturalizeDataset(parsed.dict);
};
const [folder, ...segs] = process.argv.slice(2);
const slices = readdirSync(folder).map((name) => natural(join(folder, name))).filter((one) => one.Modality === 'CT');
slices.sort((a, b) => a.ImagePositionPatient[2] - b.ImagePositionPatient[2]);
const byId = new Map(slices.map((one) => [`ct:${one.SOPInstanceUID}`, one]));
const provider = (kind, id) => {
  const one = byId.get(id);
  if (!one) return undefined;
  const cosines = one.ImageOrientationPatient.map(Number);
  const [between, across] = [one.PixelSpacing].flat().map(Number);
  return {
    instance: one,
    generalImageModule: { sopInstanceUID: one.SOPInstanceUID },
    generalSeriesModule: { seriesInstanceUID: one.SeriesInstanceUID, modality: 'CT' },
    sopCommonModule: { sopInstanceUID: one.SOPInstanceUID, sopClassUID: one.SOPClassUID },
    imagePlaneModule: {
      rows: one.Rows, columns: one.Columns, frameOfReferenceUID: one.FrameOfReferenceUID,
      rowCosines: cosines.slice(0, 3), columnCosines: cosines.slice(3),
      imageOrientationPatient: cosines, imagePositionPatient: one.ImagePositionPatient.map(Number),
      rowPixelSpacing: between, columnPixelSpacing: across, pixelSpacing: [between, across],
    },
    imagePixelModule: {
      bitsAllocated: 16, bitsStored: 16, highBit: 15, pixelRepresentation: 0, samplesPerPixel: 1,
      photometricInterpretation: 'MONOCHROME2',
    },
  }[kind];
};
core.metaData.addProvider(provider, 1e4);
const ids = [...byId.keys()];
const read = async (seg) => {
  const found = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer(ids, bytes(seg), {
    metadataProvider: core.metaData,
  });
  const volumes = found.labelMapImages.map((images) => {
    const volume = {};
    images.forEach((image, place) => {
      const pixels = image.voxelManager ? image.voxelManager.getScalarData() : image.getPixelData();
      const segments = {};
      pixels.forEach((value, index) => value && (segments[value] ??= []).push(index));
      if (Object.keys(segments).length) volume[byId.get(ids[place]).SOPInstanceUID] = segments;
    });
    return volume;
  });
  core.cache.purgeCache();
  return { labels: found.segMetadata.data.filter(Boolean).map((one) => one.SegmentLabel), volumes };
};
const shown = [];
for (const seg of segs) shown.push(await read(seg));
process.stdout.write(JSON.stringify(shown), () => process.exit(0));
