"use strict";
const DATA = JSON.parse(document.getElementById("data").textContent);
const WINDOWS = {lung: [-1350, 150], soft: [-160, 240], bone: [-350, 1150], all: [-1000, 200]};
const WINDOW_NAMES = {lung: "lung", soft: "soft tissue", bone: "bone", all: "all values"};
const PLANES = ["axial", "coronal", "sagittal"];
const $ = id => document.getElementById(id);
const all = query => [...document.querySelectorAll(query)];
const state = {study: 0, region: null, window: "auto", show: "all", layout: "three", words: "", wrong: false, from: -1};
let viewer = null, live = false;  // live: the viewer shows the study's volume

function el(tag, attrs, ...children) {
  const node = document.createElement(tag);
  for (const [k, v] of Object.entries(attrs || {})) k === "class" ? node.className = v : node.setAttribute(k, v);
  node.append(...children); return node;
}
const study = () => DATA.studies[state.study];
const colour = region => DATA.colours[region] || "#9ca3af";
const level = ([low, high]) => `W ${Math.round(high - low)} L ${Math.round((low + high) / 2)}`;
const wanted = () => state.window === "auto" ? study().window[state.region] || study().window[""] || "soft" : state.window;
const rgb = hex => [1, 3, 5].map(at => parseInt(hex.slice(at, at + 2), 16));

// ---- static pictures: for browsers without WebGL 2, studies without a volume, and paper
const cache = new Map();
function picture(uri) {
  if (!cache.has(uri)) cache.set(uri, new Promise(done => { const i = new Image(); i.onload = () => done(i); i.src = uri; }));
  return cache.get(uri);
}
async function drawPlane(name) {
  const view = study().planes[name], stage = $(name), region = state.region;
  const index = region !== null && region in view.best ? view.best[region] : view.middle;
  const [w, h] = view.pixels, uri = view.images[index];
  stage.style.aspectRatio = `${view.width} / ${view.height}`;
  const image = await picture(uri);
  if (uri !== study().planes[name].images[index]) return;
  const canvas = el("canvas", {width: w, height: h, role: "img", "aria-label": `${name} slice`}), pen = canvas.getContext("2d");
  pen.drawImage(image, 0, 0);
  const [low, high] = WINDOWS[wanted()], [a, b] = DATA.range, pixels = pen.getImageData(0, 0, w, h);
  for (let i = 0; i < pixels.data.length; i += 4) {
    const hu = a + pixels.data[i] * (b - a) / 255, g = Math.max(0, Math.min(255, 255 * (hu - low) / (high - low)));
    pixels.data[i] = pixels.data[i + 1] = pixels.data[i + 2] = g;
  }
  pen.putImageData(pixels, 0, 0);
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("viewBox", `0 0 ${w} ${h}`); svg.setAttribute("preserveAspectRatio", "none"); svg.setAttribute("aria-hidden", "true");
  for (const [name, d] of Object.entries(view.outlines[index] || {})) {
    if (state.show === "none" || (state.show === "chosen" && name !== region)) continue;
    const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
    path.setAttribute("d", d); path.setAttribute("stroke", colour(name)); path.dataset.region = name;
    if (name === region) { path.classList.add("on"); path.style.fill = colour(name); }
    svg.append(path);
  }
  stage.classList.toggle("lit", region !== null);
  stage.replaceChildren(canvas, svg, el("span", {class: "side r", title: "patient's right"}, "R"), el("span", {class: "side l", title: "patient's left"}, "L"),
    el("span", {class: "side t"}, name === "axial" ? "A" : "H"));
  stage.dataset.index = index; stage.dataset.region = region === null ? "" : region;
  const [number, count] = [index + 1, view.count];
  stage.parentNode.querySelector("figcaption").textContent =
    `${name}, slice ${number} of ${count}, ${WINDOW_NAMES[wanted()]} ${level(WINDOWS[wanted()])}` + (region ? `: ${region}` : "");
}

// ---- the viewer
function paint() {
  if (!live) return;
  viewer.paint(set => {
    const chosen = set.includes(state.region), name = chosen ? state.region : set[set.length - 1];
    if (state.show === "none" || (state.show === "chosen" && !chosen)) return [0, 0, 0, 0];
    return [...rgb(colour(name)), chosen ? 90 : state.region === null ? 50 : 12];
  });
}
function moved(voxel) {
  for (const plane of PLANES) {
    const axis = AXES[plane], [number, count] = viewer.slice(axis, voxel[axis]), slider = $("slice-" + plane);
    slider.value = voxel[axis];
    const said = `${number} of ${count}`;
    $("at-" + plane).textContent = said;
    slider.setAttribute("aria-valuetext", `${plane} slice ${said}`);
  }
  const names = viewer.regions(voxel), ends = ["RL", "AP", "SI"];
  const mm = viewer.mm(voxel).map((value, axis) => `${ends[axis][value < 0 ? 1 : 0]} ${Math.abs(value).toFixed(1)}`).join("  ");
  $("where").textContent = `${mm} mm · ${Math.round(viewer.hu(voxel))} HU · ${names.join(", ") || "no region"}`;
  // The text follows a click, not every slice that one scrolls through; and a chosen region that lies there is not left.
  if (state.clicked && names.length && !names.includes(state.region)) choose(names[names.length - 1], {picture: false});
  state.clicked = false;
}
function windowed(hu) { $("level").textContent = level(hu); }
async function showVolume() {
  const index = state.study, info = study().volume;
  live = false;
  document.body.classList.remove("live");
  if (!viewer || !info) { note(); return; }
  document.body.classList.add("live");  // before the viewer measures its canvas
  try { if (!await viewer.load(index, info, WINDOWS[wanted()])) return; } catch (error) { failed(error); return; }
  live = true;
  for (const plane of PLANES) $("slice-" + plane).max = info.shape[AXES[plane]] - 1;
  setWindow(); paint(); arrange(); viewer.zoom(0);
  const start = state.region !== null && info.focus[state.region] || info.shape.map(size => size >> 1);
  viewer.goTo(start);
  note();
}
function failed(error) {
  viewer = null; live = false;
  document.body.classList.remove("live");
  document.body.dataset.viewer = "failed";
  $("thinned").textContent = `The viewer could not be started (${error && error.message || error}); these are static pictures.`;
}
function note() {
  if (!state.ready) return;
  document.body.dataset.viewer = live ? "live" : "static";
  if (document.body.dataset.without) $("thinned").textContent = "This browser has no WebGL 2: these are static pictures, the slices in which each region is largest.";
  else $("thinned").textContent = study().volume ? study().volume.thinned : "Of this study the page holds static pictures: the slices in which each region is largest.";
  $("thinned").hidden = !$("thinned").textContent;
}
function arrange() {
  if (!live) return;
  const width = $("screen").clientWidth;
  viewer.layout(state.layout === "three" && width < 520 ? "stacked" : state.layout, width);
}
function setWindow() {
  $("level").textContent = level(WINDOWS[wanted()]);
  if (live) viewer.window(WINDOWS[wanted()]);
}

// ---- text
function sentences(marks) {
  if (!marks.length) return el("p", {class: "none"}, "nothing");
  const signs = {against: "≠", extra: "+", missed: "−"};
  const said = {against: "contradicted", extra: "not in the reference", missed: "not in the prediction"};
  const parts = marks.flatMap(([text, kind, why]) => [kind ? el("span", {class: "mark " + kind, title: why, tabindex: "0"},
    el("b", {"aria-hidden": "true"}, signs[kind] + " "), el("span", {class: "sr"}, said[kind] + ": "), ...found(text)) : el("span", {}, ...found(text)), " "]);
  return el("p", {}, ...parts);
}
function found(text) {
  if (!state.words) return [text];
  const parts = [], low = text.toLowerCase();
  let from = 0;
  for (let at = low.indexOf(state.words); at >= 0; at = low.indexOf(state.words, from)) {
    parts.push(text.slice(from, at), el("mark", {}, text.slice(at, at + state.words.length)));
    from = at + state.words.length;
  }
  return [...parts, text.slice(from)];
}
const wordsOf = slot => [slot.given, ...slot.said.flatMap(one => one ? one.marks.map(m => m[0]) : []), ...slot.reference.map(m => m[0])].join(" ").toLowerCase();
const shown = (slot, of) => (!state.words || wordsOf(slot).includes(state.words) || of.id.toLowerCase().includes(state.words)) && (!state.wrong || slot.wrong);
const inList = of => (!state.wrong || of.wrong) && (!state.words || of.slots.some(slot => wordsOf(slot).includes(state.words)) || of.id.toLowerCase().includes(state.words));

function card(slot, i) {
  const region = slot.given, row = study().regions.find(one => one.name === region);
  const columns = slot.said.map((one, k) => {
    const verdict = !one ? el("span", {class: "wrong"}, "no paragraph") : one.region === region ? "" : el("span", {class: "wrong"}, `calls it ${one.region}`);
    const head = DATA.models.length > 1 || DATA.compared ? el("b", {}, DATA.models[k], " ", verdict) : verdict;
    return el("div", {}, head, one ? sentences(one.marks) : "");
  });
  if (DATA.compared) columns.push(el("div", {}, el("b", {}, "reference"), sentences(slot.reference)));
  const facts = row && row.volume ? `${row.volume} ml · ${row.hu} HU` : "";
  const node = el("article", {class: "slot", "aria-label": region || "report"},
    el("h3", {}, el("button", {class: "name", "aria-pressed": "false"}, region || "whole report"), " ", el("small", {}, [facts || (region ? `region ${i}` : ""), slot.how].filter(Boolean).join(" · "))),
    el("div", {class: columns.length > 1 ? "pair" : ""}, ...columns));
  if (slot.review) node.querySelector("h3").append(" ", el("span", {class: "review"}, slot.review));
  if (slot.head.length) node.append(heads(slot));
  node.style.setProperty("--c", colour(region)); node.dataset.region = region;
  node.addEventListener("click", () => choose(region));
  return node;
}
// ---- what the model's head takes for probable: the dial says which count, and leaves the text as it was written
const counts = ([, share, detected]) => state.from < 0 ? detected : share >= state.from / 100;
function heads(slot) {
  const list = el("ul", {class: "heads", "aria-label": "findings by the model's head"});
  for (const one of slot.head.filter(one => counts(one) || one[1] >= .1 || one[3])) {
    const [label, share, , wanting] = one, on = counts(one);
    const said = `probability ${share.toFixed(2)}${on ? ", counts" : ""}${wanting ? ", the paragraph may leave it out" : ""}`;
    const item = el("li", {class: on ? "on" : "", title: said}, label, " ", el("b", {"aria-hidden": "true"}, share.toFixed(2)), wanting ? el("i", {"aria-hidden": "true"}, " left out?") : "",
      el("span", {class: "sr"}, `: ${said}`));
    item.style.setProperty("--p", `${100 * share}%`);
    list.append(item);
  }
  return list.children.length ? list : el("p", {class: "small heads-none"}, "The head takes no finding for more than 10 % probable.");
}
function dial() {
  const point = study().point, total = study().slots.flatMap(slot => slot.head).filter(counts).length;
  $("dial").hidden = point === null;
  if (point === null) return;
  const from = state.from < 0 ? `as the report was made (${point})` : `probability ${(state.from / 100).toFixed(2)}`;
  $("from-said").textContent = `${from}: ${total} ${total === 1 ? "counts" : "count"}. The text stays as it was written.`;
  $("from").setAttribute("aria-valuetext", from);
}
function rows() {
  return study().regions.map(row => {
    const swatch = el("i", {class: "swatch"}); swatch.style.background = row.there ? colour(row.name) : "transparent";
    const name = row.there ? el("button", {class: "name", "aria-pressed": "false"}, row.name) : row.name;
    const line = el("tr", {class: row.there ? "" : "absent"}, el("th", {scope: "row"}, swatch, name),
      el("td", {}, row.volume || "–"), el("td", {}, row.hu || "–"), el("td", {class: "words"}, row.status, row.why ? `${row.there ? "; " : ": "}${row.why}` : ""));
    line.dataset.region = row.name;
    if (row.there) line.addEventListener("click", () => choose(row.name));
    return line;
  });
}
function showText() {
  const one = study(), visible = one.slots.map((slot, i) => [slot, i]).filter(([slot]) => shown(slot, one));
  $("slots").replaceChildren(...visible.map(([slot, i]) => card(slot, i)));
  if (!visible.length) $("slots").append(el("p", {class: "none"}, state.wrong && !state.words ? "Nothing is wrong in this study." : "No paragraph fits."));
  const chips = Object.entries(one.findings).filter(([, [t, p]]) => t || p).map(([label, [truth, read]]) => {
    const kind = truth === null ? "" : truth && read ? "tp" : truth ? "fn" : "fp";
    return el("span", {class: "chip " + kind, title: {tp: "true and reported", fn: "true, not reported", fp: "reported, not true", "": "reported"}[kind]}, {tp: "✓ ", fn: "missed: ", fp: "wrong: ", "": ""}[kind] + label);
  });
  $("chips").replaceChildren(...chips);
  $("regions").tBodies[0].replaceChildren(...rows());
  $("list").hidden = !one.regions.length;
  dial();
  const faults = [["Invalid prefixes", one.invalid], ["Repeated", one.duplicate], ["Regions without a paragraph", one.missing], ["Of what has no mask", one.others]].filter(([, list]) => list.length);
  $("faults").textContent = faults.map(([name, list]) => `${name}: ${list.join(", ")}.`).join(" ");
  mark();
}
function mark() {
  for (const node of all(".slot, #regions tbody tr")) {
    const on = node.dataset.region === state.region;
    node.classList.toggle("on", on);
    const button = node.querySelector("button.name");
    if (button) button.setAttribute("aria-pressed", on);
  }
}

// ---- choosing
function choose(region, {picture = true, scroll = !picture} = {}) {
  state.region = region;
  mark();
  if (state.window === "auto") setWindow();
  if (live) {
    paint();
    const focus = study().volume.focus[region];
    if (picture && focus) viewer.goTo(focus);
  }
  for (const plane of ["axial", "coronal"]) drawPlane(plane);
  const node = all(".slot").find(one => one.dataset.region === region);
  if (node && scroll) node.scrollIntoView({block: "nearest"});
  $("said").textContent = region ? `${region} is shown` : "";
  address();
}
function step(by) {
  const names = all(".slot").map(node => node.dataset.region);
  if (!names.length) return;
  const at = names.indexOf(state.region);
  choose(names[at < 0 ? (by > 0 ? 0 : names.length - 1) : (at + by + names.length) % names.length], {scroll: true});
}
function showStudy(index) {
  state.study = index; state.region = null;
  $("pick").value = index;
  showText(); setWindow(); showVolume();
  for (const plane of ["axial", "coronal"]) drawPlane(plane);
  for (const node of all("[data-download]")) node.hidden = !study().files[node.dataset.download];
  address();
}
function filter() {
  const fits = DATA.studies.map(inList);
  all("#pick option").forEach((option, i) => { option.hidden = option.disabled = !fits[i]; });
  $("fits").textContent = state.words || state.wrong ? `${fits.filter(Boolean).length} of ${fits.length} studies` : "";
  const first = fits.indexOf(true);
  if (!fits[state.study] && first >= 0) showStudy(first); else showText();
}
function stepStudy(by) {
  for (let at = state.study + by; at >= 0 && at < DATA.studies.length; at += by) if (inList(DATA.studies[at])) { showStudy(at); return; }
}
// #study=ID&region=heart and #tab=scores open the page at a place, so that a finding can be linked to.
function address() {
  const place = new URLSearchParams({study: study().id});
  if (state.region) place.set("region", state.region);
  try { history.replaceState(null, "", "#" + place); } catch { /* a page inside another may not */ }
}
function follow() {
  const place = new URLSearchParams(location.hash.slice(1)), id = place.get("study"), region = place.get("region");
  const named = DATA.studies.findIndex(one => one.id === id), at = named >= 0 ? named : Math.min(+id || 0, DATA.studies.length - 1);
  openTab(place.get("tab") || "studies");
  if (at !== state.study || !$("slots").children.length) showStudy(at);
  if (region) choose(region);
}

// ---- tools
function press(query, chosen) { for (const button of all(query)) button.setAttribute("aria-pressed", button === chosen); }
function tool(kind, then) {
  for (const button of all(`[data-${kind}]`)) button.addEventListener("click", () => { press(`[data-${kind}]`, button); state[kind] = button.dataset[kind]; then(); });
}
function stills() { for (const plane of ["axial", "coronal"]) drawPlane(plane); }
tool("window", () => { setWindow(); stills(); });
tool("show", () => { paint(); stills(); });
tool("layout", arrange);
for (const button of all("[data-zoom]")) button.addEventListener("click", () => live && viewer.zoom(+button.dataset.zoom));
for (const plane of PLANES) $("slice-" + plane).addEventListener("input", event => {
  if (!live) return;
  const at = viewer.where(); at[AXES[plane]] = +event.target.value; viewer.goTo(at);
});
$("pick").addEventListener("change", event => showStudy(+event.target.value));
$("find").addEventListener("input", event => { state.words = event.target.value.trim().toLowerCase(); filter(); });
$("from").addEventListener("input", event => { state.from = +event.target.value; showText(); });
$("wrong").addEventListener("change", event => { state.wrong = event.target.checked; filter(); });
for (const button of all("[data-study]")) button.addEventListener("click", () => stepStudy(+button.dataset.study));
for (const button of all("[data-download]")) button.addEventListener("click", () => {
  const kind = button.dataset.download, type = {json: "application/json", txt: "text/plain"}[kind];
  const link = el("a", {href: URL.createObjectURL(new Blob([study().files[kind]], {type})), download: `${study().id}.${kind}`});
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
});
const KEYS = {
  n: () => step(1), j: () => step(1), p: () => step(-1), k: () => step(-1),
  "[": () => stepStudy(-1), "]": () => stepStudy(1), "+": () => live && viewer.zoom(1), "=": () => live && viewer.zoom(1), "-": () => live && viewer.zoom(-1), 0: () => live && viewer.zoom(0),
  1: () => $("window-auto").click(), 2: () => $("window-lung").click(), 3: () => $("window-soft").click(), 4: () => $("window-bone").click(),
  "/": () => $("find").focus(), Escape: () => { document.activeElement.blur(); choose(null); },
};
const SLICE_KEYS = {ArrowUp: 1, ArrowDown: -1, PageUp: 5, PageDown: -5};
document.addEventListener("keydown", event => {
  const inText = event.target.matches("input:not([type=checkbox]), select, textarea");
  if (event.ctrlKey || event.metaKey || event.altKey || (inText && event.key !== "Escape")) return;
  if (event.target.id === "gl") {
    event.stopImmediatePropagation();  // the viewer has keys of its own, which change what the page knows nothing of
    if (live && event.key in SLICE_KEYS) {
      const at = viewer.where(); at[2] += SLICE_KEYS[event.key]; viewer.goTo(at); event.preventDefault(); return;
    }
  }
  if (event.key in KEYS) { KEYS[event.key](); event.preventDefault(); }
}, true);
document.addEventListener("keyup", event => { if (event.target.id === "gl") event.stopImmediatePropagation(); }, true);
$("gl").addEventListener("pointerdown", event => { state.clicked = event.button === 0 && !event.shiftKey && !event.ctrlKey; }, true);

function openTab(name) {
  for (const tab of all("nav [role=tab]")) { tab.setAttribute("aria-selected", tab.dataset.tab === name); tab.tabIndex = tab.dataset.tab === name ? 0 : -1; }
  for (const section of all("main > section")) section.hidden = section.id !== name;
}
for (const tab of all("nav [role=tab]")) {
  tab.addEventListener("click", () => openTab(tab.dataset.tab));
  tab.addEventListener("keydown", event => {
    const tabs = all("nav [role=tab]"), by = {ArrowRight: 1, ArrowLeft: -1}[event.key];
    if (by) { const next = tabs[(tabs.indexOf(tab) + by + tabs.length) % tabs.length]; openTab(next.dataset.tab); next.focus(); }
  });
}
new ResizeObserver(arrange).observe($("screen"));
addEventListener("hashchange", follow);

async function start() {
  if (!DATA.studies.length) return;
  $("compared").hidden = !DATA.compared;
  follow();
  if (DATA.studies.some(one => one.volume)) {
    try { viewer = await Viewer.open($("gl"), moved, windowed); } catch (error) { failed(error); return; }
    if (!viewer) document.body.dataset.without = "yes";
  }
  state.ready = true;
  await showVolume();
}
start();
