// The scan with its regions in NiiVue. The page asks for voxels of the picture, (left-right, back-front, bottom-top).
const AXES = {sagittal: 0, coronal: 1, axial: 2};
const LAYOUTS = {
  three: [["axial", 0, 0, 0.6, 1], ["coronal", 0.6, 0, 0.4, 0.5], ["sagittal", 0.6, 0.5, 0.4, 0.5]],
  stacked: [["axial", 0, 0, 1, 0.6], ["coronal", 0, 0.6, 0.5, 0.4], ["sagittal", 0.5, 0.6, 0.5, 0.4]],
  axial: [["axial", 0, 0, 1, 1]], coronal: [["coronal", 0, 0, 1, 1]], sagittal: [["sagittal", 0, 0, 1, 1]],
};
const SLICES = {axial: 0, coronal: 1, sagittal: 2};
const ZOOMS = [1, 1.25, 1.6, 2, 2.5, 3.2, 4, 5, 6.4, 8];

function held(id) { const node = document.getElementById(id); return node ? node.textContent.trim() : ""; }
function bytes(base64) { return Uint8Array.from(atob(base64), c => c.charCodeAt(0)); }
async function unpacked(base64) {
  const stream = new Blob([bytes(base64)]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

class Viewer {
  // Resolves to null where the browser cannot show it.
  static async open(canvas, moved, windowed) {
    if (!held("niivue") || !document.createElement("canvas").getContext("webgl2") || !window.DecompressionStream) return null;
    const code = document.createElement("script");
    code.textContent = new TextDecoder().decode(await unpacked(held("niivue")));
    document.head.append(code);
    const drag = niivue.DRAG_MODE;
    const nv = new niivue.Niivue({
      logLevel: "error", loadingText: "", dragAndDropEnabled: false, isResizeCanvas: true, backColor: [0, 0, 0, 1],
      isRadiologicalConvention: true, sagittalNoseLeft: true, isOrientationTextVisible: true, showAllOrientationMarkers: true,
      isNearestInterpolation: false, isColorbar: false, crosshairColor: [1, 0.85, 0.2, 0.8], crosshairWidth: 1.2, crosshairWidthUnit: "mm",
      crosshairGap: 0, multiplanarShowRender: 0, viewModeHotKey: "", clipPlaneHotKey: "", cycleClipPlaneHotKey: "", fontMinPx: 15, fontColor: [1, 0.9, 0.45, 1],
      mouseEventConfig: {leftButton: {primary: drag.crosshair, withShift: drag.pan, withCtrl: drag.pan}, rightButton: drag.windowing, centerButton: drag.pan},
      touchEventConfig: {singleTouch: drag.crosshair, doubleTouch: drag.pan},
    });
    await nv.attachToCanvas(canvas, false);
    const viewer = new Viewer(nv);
    nv.onLocationChange = () => { if (viewer.info) moved(viewer.where()); };
    nv.onIntensityChange = volume => { if (viewer.info) windowed([volume.cal_min, volume.cal_max]); };
    return viewer;
  }
  constructor(nv) { this.nv = nv; this.info = null; this.turn = 0; }

  // Show a study's volume; `info` is what the page knows of it. False where another one was asked for meanwhile.
  async load(index, info, hu) {
    const turn = ++this.turn;
    const [low, high] = hu, base = {cal_min: low, cal_max: high, trustCalMinMax: false};
    const ct = await niivue.NVImage.loadFromBase64({base64: held("ct-" + index), name: "ct.nii.gz", ...base});
    const labels = await niivue.NVImage.loadFromBase64({base64: held("labels-" + index), name: "labels.nii.gz", cal_min: 0, cal_max: 1});
    if (turn !== this.turn) return false;
    ct.cal_min = low; ct.cal_max = high;
    this.info = info;
    this.nv.volumes = [ct]; this.nv.back = ct; this.nv.overlays = [];
    this.nv.drawOpacity = 1; this.nv.drawRimOpacity = 0.9;
    this.nv.updateGLVolume();
    // As a drawing, not as a layer above the scan: its colours change at once, without a pass over all voxels.
    if (!this.nv.loadDrawing(labels)) throw new Error("scan and regions do not lie on one grid");
    return true;
  }
  // colour: set of region names -> [red, green, blue, opacity], 0 to 255. Every label of the file has an entry.
  paint(colour) {
    const lut = new Uint8ClampedArray(4 * 256);
    this.info.sets.forEach((set, label) => lut.set(set.length ? colour(set) : [0, 0, 0, 0], 4 * label));
    this.nv.drawLut = {lut, labels: this.info.sets.map(set => set.join(", "))};
    this.nv.refreshColormaps();
    this.nv.drawScene();
  }
  // Takes a pass over all voxels, which takes its time without a graphics processor.
  window([low, high]) {
    const ct = this.nv.volumes[0];
    if (ct.cal_min === low && ct.cal_max === high) return;
    ct.cal_min = low; ct.cal_max = high;
    this.nv.refreshLayers(ct, 0);
    this.nv.drawScene();
  }
  layout(name, width) {
    this.nv.opts.crosshairWidth = Math.max(0.6, 1000 / width);  // mm, which are then a pixel or two
    this.nv.setCustomLayout(LAYOUTS[name].map(([plane, left, top, width, height]) => ({sliceType: SLICES[plane], position: [left, top, width, height]})));
  }
  where() { return this.info.shape.map((size, axis) => Math.min(size - 1, Math.max(0, Math.floor(this.nv.scene.crosshairPos[axis] * size + 1e-4)))); }
  goTo(voxel) {
    this.nv.scene.crosshairPos = voxel.map((at, axis) => (Math.min(this.info.shape[axis] - 1, Math.max(0, at)) + 0.5) / this.info.shape[axis]);
    if (this.nv.scene.pan2Dxyzmm[3] > 1) this.centre();
    this.nv.drawScene();
    this.nv.createOnLocationChange();
  }
  // steps 0 resets it; else finer or coarser about the crosshair.
  zoom(steps) {
    const now = this.nv.scene.pan2Dxyzmm[3], at = ZOOMS.findIndex(zoom => zoom >= now - 1e-3);
    const next = steps ? ZOOMS[Math.min(ZOOMS.length - 1, Math.max(0, at + steps))] : 1;
    this.nv.scene.pan2Dxyzmm[3] = next;
    this.centre();
    this.nv.drawScene();
  }
  centre() {
    const scene = this.nv.scene, near = scene.pan2Dxyzmm[3] > 1, here = this.nv.frac2mm(scene.crosshairPos), middle = this.nv.frac2mm([0.5, 0.5, 0.5]);
    for (const axis of [0, 1, 2]) scene.pan2Dxyzmm[axis] = near ? middle[axis] - scene.pan2Dxyzmm[3] * here[axis] : 0;
  }
  hu(voxel) { return this.nv.volumes[0].getValue(...voxel); }
  regions([i, j, k]) { const [width, height] = this.info.shape; return this.info.sets[this.nv.drawBitmap[i + width * (j + height * k)]]; }
  // Of the scan: number of the slice, how many there are, and RAS mm.
  slice(axis, at) { const {first, step, scan} = this.info; return [Math.min(scan[axis], first[axis] + at * step[axis] + (step[axis] >> 1) + 1), scan[axis]]; }
  mm(voxel) {
    const {first, step, affine} = this.info, at = voxel.map((n, axis) => first[axis] + n * step[axis] + (step[axis] - 1) / 2);
    return [0, 1, 2].map(row => affine[row][0] * at[0] + affine[row][1] * at[1] + affine[row][2] * at[2] + affine[row][3]);
  }
}
