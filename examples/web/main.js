/** The page: opens a bundle, takes pictures, and shows what the bundle returns. */

import { features, openBundle } from "app/bundle.js";
import { Camera, hasCamera } from "app/camera.js";
import { described, draw, drawLegend } from "app/depth.js";
import { besidePage, chosen, dropped, fromFolder, isBundle } from "app/files.js";
import { decode } from "app/picture.js";
import { about, showResult } from "app/results.js";

const RUNTIMES = {
  wasm: { module: "ort.wasm.min.mjs", start: "ort-wasm-simd-threaded" },
  webgpu: { module: "ort.webgpu.min.mjs", start: "ort-wasm-simd-threaded.asyncify" },
};
const MOST_THREADS = 4; // more rarely pay for one small image

const page = Object.fromEntries(Array.from(document.querySelectorAll("[id]"), (node) => [node.id, node]));
const camera = new Camera();
const runtimes = new Map(); // backend to its module
let read = besidePage(SITE.bundle, tellReading); // the bundle's files
let bundle = null;
let file = null; // of the picture that is shown, if it came from a file
let shown = null; // {picture, result}

// --- The bundle --------------------------------------------------------------------------------------------------

async function runtime(backend) {
  if (!runtimes.has(backend)) {
    const { module, start } = RUNTIMES[backend];
    const ort = await import(await site.url(`ort/${module}`));
    ort.env.logLevel = "error";
    ort.env.wasm.wasmPaths = { mjs: await site.url(`ort/${start}.mjs`), wasm: await site.url(`ort/${start}.wasm`) };
    runtimes.set(backend, ort);
  }
  return runtimes.get(backend);
}

async function open() {
  const { simd, threads, cores } = features();
  if (!simd) throw new Error("this browser has no WebAssembly SIMD, which ONNX Runtime needs; use a newer browser");
  const backend = page.backend.value;
  tell("Loading ONNX Runtime …");
  const ort = await runtime(backend);
  await bundle?.close();
  bundle = null;
  bundle = await openBundle(read, ort, { backend, threads: threads ? Math.min(cores, MOST_THREADS) : 1 });
  page.about.textContent = about(bundle);
  page["no-depth"].hidden = bundle.hasDepth;
  list(page.warnings, bundle.warnings);
  tell("Ready. Choose a picture.");
}

function tellReading(name) {
  tell(`Reading ${name} …`);
}

async function reopen(source) {
  clear();
  if (source) read = source();
  await open();
  if (file) await take(file);
  else if (!source) await takeFirstSample();
}

// --- Pictures ----------------------------------------------------------------------------------------------------

async function take(given) {
  file = given;
  const picture = await decode(given, { exif: page.exif.checked });
  list(page.notes, picture.notes);
  await classify(picture, { again: true });
}

/** Classify a picture; the first run also compiles the graph, so with `again` it is timed once more. */
async function classify(picture, { again = false } = {}) {
  if (!bundle) throw new Error("no bundle is open; open one under Options");
  const input = bundle.preprocess(picture.pixels, picture.width, picture.height, { upscale: page.upscale.checked });
  const isFirst = !bundle.wasRun;
  const result = await bundle.run(input);
  bundle.wasRun = true;
  show(picture, isFirst ? { ...result, first: result.ms } : result);
  if (again && isFirst) show(picture, { ...(await bundle.run(input)), first: result.ms });
}

function show(picture, result) {
  shown = { picture, result };
  showResult(result, bundle);
  if (!camera.isOn) tell(picture.name);
  page.depth.hidden = !result.depth;
  if (result.depth) {
    page["depth-text"].textContent = described(result.depth, bundle.grid);
    drawLegend(page.legend, result.depth, bundle.grid);
  }
  redraw();
  document.body.dataset.answered = performance.now().toFixed(0); // read by tests
}

function redraw() {
  if (!shown) return;
  const { picture, result } = shown;
  const seen = bundle.seen(picture.width, picture.height);
  draw(page.canvas, picture, seen, result.depth, bundle.grid, page.opacity.value / 100);
  const map = result.depth ? `, with its depth map: ${described(result.depth, bundle.grid)}` : "";
  page.canvas.setAttribute("aria-label", `${picture.name}${map}`);
  delete page.stage.dataset.empty;
}

/** Show the depth of the patch below the pointer. */
function point(event) {
  const depth = shown?.result.depth;
  if (!depth || event.type === "pointerleave") return void (page.patch.hidden = true);
  const box = page.canvas.getBoundingClientRect();
  const { rows, columns, steps } = bundle.grid;
  const row = Math.floor(((event.clientY - box.top) / box.height) * rows);
  const column = Math.floor(((event.clientX - box.left) / box.width) * columns);
  page.patch.hidden = !(row in [...Array(rows)] && column in [...Array(columns)]);
  page.patch.textContent = `row ${row + 1}, column ${column + 1}: ${depth[row * columns + column]} of ${steps} steps`;
}

async function takeFirstSample() {
  if (SITE.samples.length) await takeSample(SITE.samples[0]);
}

async function takeSample(path) {
  camera.stop();
  showCamera();
  await take(new File([await site.bytes(path)], path.split("/").at(-1)));
}

async function listSamples() {
  for (const path of SITE.samples) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    const name = path.split("/").at(-1);
    const image = Object.assign(document.createElement("img"), { alt: `Sample ${name}`, src: await site.url(path) });
    button.append(image);
    button.addEventListener("click", () => attempt(() => takeSample(path)));
    page.samples.appendChild(document.createElement("li")).append(button);
  }
}

// --- The camera --------------------------------------------------------------------------------------------------

async function toggleCamera() {
  if (!hasCamera()) return page.capture.click(); // a phone's own camera program
  if (camera.isOn) {
    camera.stop();
    tell("The camera is off.");
    return showCamera();
  }
  file = null;
  list(page.notes, []);
  tell("Starting the camera …");
  await camera.start((picture) => attempt(() => classify(picture)));
  tell("The camera is on.");
  showCamera();
}

function showCamera() {
  page.camera.setAttribute("aria-pressed", camera.isOn);
  page.label.setAttribute("aria-live", camera.isOn ? "off" : "polite"); // not every frame
  page.camera.textContent = camera.isOn ? "Stop the camera" : "Camera";
}

// --- What the user sees of it ------------------------------------------------------------------------------------

function tell(text) {
  page.status.textContent = text;
}

function list(element, lines) {
  element.replaceChildren(
    ...lines.map((line) => Object.assign(document.createElement("li"), { textContent: line[0].toUpperCase() + line.slice(1) })),
  );
}

function clear() {
  page.problem.hidden = true;
  page.result.hidden = page.depth.hidden = page["no-depth"].hidden = true;
  list(page.notes, []);
  list(page.warnings, []);
  page.about.textContent = "";
  page.stage.dataset.empty = "";
  shown = null;
}

/** Do something that may fail, and show why. */
async function attempt(action) {
  page.problem.hidden = true;
  try {
    await action();
  } catch (error) {
    camera.stop();
    showCamera();
    if (!bundle) clear();
    page.problem.textContent = error.message[0].toUpperCase() + error.message.slice(1);
    page.problem.hidden = false;
    tell("");
    if (!["BundleError", "ImageError", "Error"].includes(error.name)) console.error(error);
  }
}

function takeEntries(entries) {
  camera.stop();
  showCamera();
  if (!entries.length) return null;
  return isBundle(entries) ? reopen(() => fromFolder(entries, tellReading)) : take(entries[0].file);
}

function listen() {
  page.choose.addEventListener("click", () => page.file.click());
  page.open.addEventListener("click", () => page.folder.click());
  page.camera.addEventListener("click", () => attempt(toggleCamera));
  for (const input of [page.file, page.capture, page.folder]) {
    input.addEventListener("change", () => {
      const entries = chosen(input);
      input.value = ""; // so that the same file can be chosen again
      attempt(() => takeEntries(entries));
    });
  }
  page.opacity.addEventListener("input", redraw);
  for (const option of [page.upscale, page.exif]) {
    option.addEventListener("change", () => file && attempt(() => take(file)));
  }
  page.backend.addEventListener("change", () => attempt(() => reopen(null)));
  for (const kind of ["pointermove", "pointerdown", "pointerleave"]) page.canvas.addEventListener(kind, point);
  for (const kind of ["dragover", "dragenter"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      document.body.classList.add("dragging");
    });
  }
  document.addEventListener("dragleave", (event) => event.relatedTarget ?? document.body.classList.remove("dragging"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dragging");
    const entries = dropped(event.dataTransfer);
    attempt(async () => takeEntries(await entries));
  });
}

// A service worker keeps the page for use without a network; browsers allow it on https:// and localhost.
function keepOffline() {
  if (!site.isFile && isSecureContext) navigator.serviceWorker?.register("sw.js").catch(() => {});
}

page.backends.hidden = !(features().webgpu && SITE.backends.includes("webgpu"));
if (!("webkitdirectory" in page.folder)) page.open.hidden = true;
listen();
await attempt(async () => {
  await open();
  await takeFirstSample();
});
await attempt(listSamples);
keepOffline();
