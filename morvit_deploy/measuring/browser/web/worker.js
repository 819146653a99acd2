/** Runs one bundle. It answers one request at a time; the terminal says how many runs, of which rounds. */

import { openBundle } from "./bundle.js";

const PIXELS = "pixels"; // the rounds one after another, beside the bundle's files
const TICKS = 10; // of the clock, to find the length of one

let bundle;
let pixels;
let roundBytes;
let rounds;
let turn = 0;
const memories = []; // of WebAssembly: ONNX Runtime makes one, and does not say how large it is

WebAssembly.Memory = class extends WebAssembly.Memory {
  constructor(...options) {
    super(...options);
    memories.push(this);
  }
};

const requests = {
  async load({ files, backend, runtime, threads, round }) {
    const ort = await import(`./ort/${runtime}`);
    ort.env.wasm.wasmPaths = new URL("./ort/", import.meta.url).href;
    pixels = files.get(PIXELS);
    roundBytes = round;
    rounds = pixels.size / round;
    const read = async (name) => new Uint8Array(await files.get(name).arrayBuffer());
    let begun = performance.now();
    bundle = await openBundle(read, ort, { backend, threads: threads ?? undefined });
    const load_ms = performance.now() - begun;
    const first = await timed([next()], 1);
    return {
      load_ms,
      first_run_ms: first.ms[0],
      tick_ms: tick(),
      threads: bundle.threads,
      version: ort.env.versions.web,
      warnings: bundle.warnings,
    };
  },

  async run({ runs, warmup, order, group }) {
    const warm = await timed(taken(warmup, order), group);
    return { warmup_ms: warm.ms, ...(await timed(taken(runs, order), group)) };
  },

  async answers({ rounds: wanted }) {
    const rows = [];
    for (let number = 0; number < wanted; number++) {
      const { [bundle.output]: returned } = await bundle.outputs(bundle.feed(await round(number)));
      const each = returned.data.length / returned.dims[0];
      for (let row = 0; row < returned.dims[0]; row++) {
        rows.push(Array.from(returned.data.subarray(row * each, (row + 1) * each)));
      }
    }
    return { answers: rows }; // in JSON, null stands for NaN and infinity
  },

  memory() {
    return { webassembly: memories.reduce((sum, { buffer }) => sum + buffer.byteLength, 0) / 2 ** 20 };
  },
};

onmessage = async ({ data }) => {
  try {
    postMessage({ ...(await requests[data.do](data)), id: data.id });
  } catch (error) {
    postMessage({ error: String(error?.message ?? error), kind: error?.name ?? "Error", id: data.id });
  }
};

/** Milliseconds of a run, from pixels to every output: of `group` runs of one round, divided by their number. */
async function timed(order, group) {
  const found = { ms: [], bucket: [], overflow: [] };
  const { buckets } = bundle.manifest.plan;
  for (const number of order) {
    const input = await round(number);
    let outputs;
    const begun = performance.now();
    for (let run = 0; run < group; run++) outputs = await bundle.outputs(bundle.feed(input));
    found.ms.push((performance.now() - begun) / group);
    if (outputs.bucket) found.bucket.push(Array.from(outputs.bucket.data, (index) => buckets[Number(index)].name));
    if (outputs.overflow) found.overflow.push(Array.from(outputs.overflow.data, Boolean));
  }
  return found;
}

/** Numbers of `count` rounds: those of `order` from its beginning, or the next ones. */
function taken(count, order) {
  return Array.from({ length: count }, (_, index) => (order ? order[index % order.length] : next()));
}

function next() {
  return turn++ % rounds;
}

/** Pixels uint8 (batch, height, width, 3) of a round. */
async function round(number) {
  return new Uint8Array(await pixels.slice(number * roundBytes, (number + 1) * roundBytes).arrayBuffer());
}

/** The smallest step of the clock, ms: browsers make it coarse. */
function tick() {
  let smallest = Infinity;
  for (let count = 0; count < TICKS; count++) {
    const begun = performance.now();
    let now = begun;
    while (now === begun) now = performance.now();
    smallest = Math.min(smallest, now - begun);
  }
  return smallest;
}
