// Shows DICOM SRs with OHIF's own SR extension, the rest of OHIF replaced by stand-ins that do nothing.
// sr.cjs SR...: prints [{label, measurements: bool, html}] as JSON: what OHIF's list and its viewport have.
const { readFileSync } = require('node:fs');
const { createRequire, Module } = require('node:module');
const { join } = require('node:path');
const { Writable } = require('node:stream');

const modules = createRequire(join(process.env.REG2RG_NODE_MODULES, 'x.js'));
const dcmjs = modules('dcmjs');
const { renderToPipeableStream } = modules('react-dom/server');
const { createElement } = modules('react');

const nothing = (own = {}) =>
  new Proxy(Object.assign(function () {}, own), {
    get: (target, name) => (name in target ? target[name] : typeof name === 'symbol' || name === 'then' ? undefined : nothing()),
    apply: () => nothing(),
    construct: () => nothing(),
  });
const sr = '1.2.840.10008.5.1.4.1.1.88.';
const utils = {
  sopClassDictionary: { BasicTextSR: `${sr}11`, EnhancedSR: `${sr}22`, ComprehensiveSR: `${sr}33`, Comprehensive3DSR: `${sr}34` },
  sortStudyInstances: (instances) => instances,
  guid: () => '1',
  formatPN: (name) => String(name),
  formatDate: (date) => date,
  formatTime: (time) => time,
};
const stand_ins = {
  '@ohif/core': nothing({ utils: nothing(utils) }),
  '@ohif/i18n': nothing({ default: nothing({ t: (text) => text }), t: (text) => text }),
};
const load = Module._load;
Module._load = (name, parent, main) => {
  if (name in stand_ins) return stand_ins[name];
  return /^(@ohif\/|@cornerstonejs\/|gl-matrix)/.test(name) ? nothing() : load(name, parent, main);
};
const path = join(process.env.REG2RG_NODE_MODULES, '@ohif/extension-cornerstone-dicom-sr/dist');
const extension = require(join(path, 'ohif-extension-cornerstone-dicom-sr.umd.js')).default;
Module._load = load;

const services = { servicesManager: nothing(), extensionManager: nothing(), commandsManager: nothing() };
const [handler] = extension.getSopClassHandlerModule(services);
const [viewport] = extension.getViewportModule(services);

const html = (element) =>
  new Promise((resolve, reject) => {
    let text = '';
    const out = new Writable({ write: (part, _, done) => ((text += part), done()), final: (done) => (resolve(text), done()) });
    const page = renderToPipeableStream(element, { onAllReady: () => page.pipe(out), onError: reject });
  });

(async () => {
  const shown = [];
  for (const file of process.argv.slice(2)) {
    const bytes = readFileSync(file);
    const parsed = dcmjs.data.DicomMessage.readFile(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength));
    const instance = dcmjs.data.DicomMetaDictionary.naturalizeDataset(parsed.dict);
    if (!handler.sopClassUids.includes(instance.SOPClassUID)) throw new Error(`${file}: a class that OHIF does not list`);
    const [set] = handler.getDisplaySetsFromSeries([instance]);
    const page = await html(createElement(viewport.component, { displaySets: [set] }));
    shown.push({ label: set.label, measurements: set.isImagingMeasurementReport, html: page });
  }
  process.stdout.write(JSON.stringify(shown), () => process.exit(0));
})();
