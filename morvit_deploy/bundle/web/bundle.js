/**
 * Opens and runs a bundle of target `onnx` with ONNX Runtime's JavaScript packages: onnxruntime-web in a browser or in
 * Node, or onnxruntime-node. It has no dependencies; the caller imports the runtime and passes it in.
 *
 *   import * as ort from "onnxruntime-web";
 *   import { openBundle } from "./bundle.js";
 *
 *   const read = async (name) => new Uint8Array(await (await fetch(`bundle/${name}`)).arrayBuffer());
 *   const bundle = await openBundle(read, ort, { backend: "wasm" });
 *   const input = bundle.preprocess(imageData.data, imageData.width, imageData.height);
 *   const { top, bucket, depth, ms } = await bundle.run(input);
 *
 * docs/format.md describes the manifest. Preprocessing computes the same bytes as Pillow, so an image that was decoded
 * to the same pixels has the same logits here and in `morvit-deploy predict`, up to the runtime's rounding.
 */

const FORMATS = ["morvit-bundle/2", "morvit-bundle/1"];
const AT_A_TIME = 32; // images that a graph of dynamic batch takes in one run
const MOST_PIXELS = 2 ** 26; // after resizing

/** The bundle cannot be opened or run. The message says what was received, what was expected, and what to do. */
export class BundleError extends Error {
  name = "BundleError";
}

/** The picture, or the input made of it, cannot be used. */
export class ImageError extends Error {
  name = "ImageError";
}

/**
 * Open a bundle.
 *
 * @param {(name: string) => Uint8Array | Promise<Uint8Array>} read Returns the bytes of one of the bundle's files.
 * @param {object} ort The module `onnxruntime-web` or `onnxruntime-node`.
 * @param {object} [options]
 * @param {"wasm" | "webgpu" | "cpu"} [options.backend] ONNX Runtime's execution provider; `cpu` for onnxruntime-node.
 * @param {number} [options.threads] Threads of `wasm`; the runtime starts once in a page, so the first call decides.
 * @param {object} [options.sessionOptions] Further options of `InferenceSession.create`.
 * @returns {Promise<Bundle>}
 * @throws {BundleError} if a file is missing or damaged, the target is not `onnx`, or the runtime cannot load it.
 */
export async function openBundle(read, ort, { backend = "wasm", threads, sessionOptions = {} } = {}) {
  const manifest = parseManifest(await readFile(read, "manifest.json"));
  checkRuntime(manifest, ort);
  const warnings = setThreads(ort, threads);
  const files = new Map();
  for (const file of manifest.files) files.set(file.path, await readFile(read, file.path));
  const problems = [];
  for (const file of manifest.files) problems.push(...(await problemsOf(file, files.get(file.path))));
  if (problems.length) {
    throw new BundleError(`the bundle is not as it was exported; copy or export it again:\n${problems.join("\n")}`);
  }
  if (!canHash()) {
    warnings.push(
      "only the sizes of the bundle's files were checked, not their sha256: browsers offer SHA-256 only to pages " +
        "from https:// or localhost",
    );
  }
  const bundle = new Bundle(manifest, new Sessions(ort, manifest, files, backend, sessionOptions), warnings);
  await bundle.prepare();
  return bundle;
}

/**
 * What this browser offers to ONNX Runtime.
 *
 * @returns {{simd: boolean, threads: boolean, webgpu: boolean, cores: number}} `threads`: can WebAssembly use more than
 *   one thread here? It needs SharedArrayBuffer, which browsers give to cross-origin isolated pages only.
 */
export function features() {
  const simd = new Uint8Array([
    ...[0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0], // (func (result v128)
    ...[10, 10, 1, 8, 0, 65, 0, 253, 15, 253, 98, 11], //  i32.const 0, i8x16.splat, i8x16.popcnt)
  ]);
  return {
    simd: WebAssembly.validate(simd),
    threads: typeof SharedArrayBuffer !== "undefined" && globalThis.crossOriginIsolated !== false,
    webgpu: Boolean(globalThis.navigator?.gpu),
    cores: globalThis.navigator?.hardwareConcurrency ?? 1,
  };
}

// --- Opening -----------------------------------------------------------------------------------------------------

function parseManifest(bytes) {
  let manifest;
  try {
    manifest = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes));
  } catch (error) {
    throw new BundleError(`manifest.json is not JSON (${error.message}); copy or export the bundle again`);
  }
  if (!FORMATS.includes(manifest?.format)) {
    const got = JSON.stringify(manifest?.format) ?? "no format";
    throw new BundleError(
      `manifest.json has ${got}, expected "${FORMATS[0]}"; a bundle is a folder that \`morvit-deploy export\` wrote`,
    );
  }
  if (manifest.target !== "onnx") {
    throw new BundleError(
      `got a bundle of target "${manifest.target}", expected "onnx"; browsers and Node run ONNX graphs only: ` +
        "`morvit-deploy export CHECKPOINT --target onnx`",
    );
  }
  const missing = ["files", "inputs", "outputs", "plan", "config", "preprocess", "carried"].filter(
    (field) => !manifest[field],
  );
  const outside = (manifest.files ?? []).filter(({ path }) => !staysInside(path));
  if (missing.length || outside.length) {
    const found = [...missing.map((name) => `no ${name}`), ...outside.map(({ path }) => `the path "${path}"`)];
    throw new BundleError(`manifest.json was edited by hand: it has ${found.join(", ")}; export the bundle again`);
  }
  const beyond = unsupported(manifest);
  if (beyond) {
    throw new BundleError(`the bundle has ${beyond}, which bundle.js does not support; run it with ONNX Runtime itself`);
  }
  return manifest;
}

/** What of a model this file does not support, in words; it reads square RGB pictures and returns classes or an array. */
function unsupported({ config, output }) {
  const { image_size: size, in_channels: channels, patch_stride: stride, head_activation: head } = config;
  if (Array.isArray(size)) return `images of ${size.join("×")}`;
  if (channels !== 3) return `images of ${channels} channels`;
  if (stride) return "overlapping patches";
  return head === "none" && (output ?? "logits") === "logits" ? "head_activation none" : "";
}

/** Refuse a runtime that is older than the graphs allow; older manifests do not say. */
function checkRuntime(manifest, ort) {
  const lowest = manifest.target_form?.lowest_runtime;
  const version = versionOf(ort);
  if (!lowest || !version || !isOlder(version, lowest)) return;
  throw new BundleError(`the bundle needs ONNX Runtime ${lowest} or newer, and this is ${version}; load a newer version`);
}

function versionOf(ort) {
  const { web, node, common } = ort.env?.versions ?? {};
  return web ?? node ?? common;
}

function isOlder(version, lowest) {
  const [a, b] = [version, lowest].map((text) => text.split(".").map((part) => Number.parseInt(part, 10)));
  const at = b.findIndex((part, index) => part !== (a[index] ?? 0));
  return at >= 0 && (a[at] ?? 0) < b[at];
}

function staysInside(path) {
  return typeof path === "string" && path !== "" && !/^\/|\\|:/.test(path) && !path.split("/").includes("..");
}

async function readFile(read, name) {
  let bytes;
  try {
    bytes = await read(name);
  } catch (error) {
    if (ranOut(error)) throw tooLarge(`reading ${name}`, error);
    throw new BundleError(
      `cannot read ${name}: ${error.message}; a bundle is a folder that \`morvit-deploy export\` wrote, with all its files`,
    );
  }
  if (!(bytes instanceof Uint8Array)) throw new TypeError(`read("${name}") returned no Uint8Array`);
  return bytes;
}

/** Why a file differs from the manifest's entry: no lines, or one. */
async function problemsOf(file, bytes) {
  if (bytes.length !== file.bytes) return [`- ${file.path}: ${bytes.length} bytes, expected ${file.bytes}`];
  if (!canHash()) return [];
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return hex === file.sha256 ? [] : [`- ${file.path}: content differs from the manifest's sha256`];
}

function canHash() {
  return Boolean(globalThis.crypto?.subtle);
}

/** Set the number of threads; returns warnings. */
function setThreads(ort, threads) {
  const wasm = ort.env?.wasm;
  if (threads === undefined || !wasm) return [];
  const possible = features().threads ? threads : 1;
  wasm.numThreads = possible;
  if (possible === threads) return [];
  return [
    `one thread instead of ${threads}: WebAssembly threads need a cross-origin isolated page, from https:// or ` +
      "localhost, with the headers Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp",
  ];
}

function ranOut(error) {
  return error instanceof RangeError || /memory|bad_alloc|allocat|too large/i.test(String(error?.message ?? error));
}

function tooLarge(what, error, bytes) {
  const size = bytes === undefined ? "the bundle is" : `the bundle has ${megabytes(bytes)} and is`;
  return new BundleError(
    `the browser ran out of memory while ${what}: ${size} too large for it here (${error?.message ?? error}); ` +
      "close other tabs, or export a smaller precision (`morvit-deploy export --precision int8` or `fp16`)",
  );
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

// --- Sessions ----------------------------------------------------------------------------------------------------

/** ONNX Runtime sessions of a bundle's graphs, made on first use. They share the bytes of `weights.bin` until loaded. */
class Sessions {
  #opened = new Map();

  constructor(ort, manifest, files, backend, sessionOptions) {
    Object.assign(this, { ort, manifest, files, backend, sessionOptions });
    this.bytes = manifest.files.reduce((sum, file) => sum + file.bytes, 0);
    this.milliseconds = 0; // spent in runs, without loading
  }

  get runtime() {
    return `ONNX Runtime ${versionOf(this.ort) ?? ""} (${this.backend})`;
  }

  /** The session of a graph file. */
  async open(graph) {
    if (!this.#opened.has(graph)) this.#opened.set(graph, await this.#create(graph));
    return this.#opened.get(graph);
  }

  async #create(graph) {
    const bytes = this.files.get(graph);
    if (!bytes) throw new BundleError(`the manifest lists no ${graph}; export the bundle again`);
    const weights = [...this.files].filter(([path]) => !path.endsWith(".onnx"));
    const options = {
      executionProviders: [this.backend],
      externalData: weights.map(([path, data]) => ({ path, data })),
      logSeverityLevel: 3,
      ...this.sessionOptions,
    };
    try {
      return await this.ort.InferenceSession.create(bytes, options);
    } catch (error) {
      if (ranOut(error)) throw tooLarge(`loading ${graph}`, error, this.bytes);
      const writer = this.manifest.versions?.onnxruntime ?? "unknown";
      throw new BundleError(
        `${this.runtime} cannot load ${graph}: ${error?.message ?? error}; the bundle was written with onnxruntime ` +
          `${writer}; use a newer ONNX Runtime, or the backend "wasm"`,
      );
    }
  }

  /** Run one graph: named tensors in, named tensors out. */
  async run(graph, feeds) {
    const session = await this.open(graph);
    const begun = performance.now();
    try {
      return await session.run(feeds);
    } catch (error) {
      if (ranOut(error)) throw tooLarge(`running ${graph}`, error, this.bytes);
      throw new BundleError(
        `${this.runtime} failed while it ran ${graph}: ${error?.message ?? error}; the bundle was checked when it was ` +
          "opened, so look at memory and the runtime's version",
      );
    } finally {
      this.milliseconds += performance.now() - begun;
    }
  }

  async close() {
    for (const session of this.#opened.values()) await session.release?.();
    this.#opened.clear();
  }
}

// --- The bundle --------------------------------------------------------------------------------------------------

/**
 * An opened bundle. Made by `openBundle`.
 *
 * `manifest` is the parsed manifest.json, `warnings` a list of sentences, `backend` and `threads` what runs it, `bytes`
 * the size of its files, `grid` the patches as {rows, columns, steps}, `output` what it returns: "logits", "features" or
 * "tokens".
 */
export class Bundle {
  #sessions;
  #last = Promise.resolve();

  constructor(manifest, sessions, warnings) {
    this.manifest = manifest;
    this.warnings = warnings;
    this.backend = sessions.backend;
    this.bytes = sessions.bytes;
    this.size = manifest.config.image_size;
    this.output = manifest.output ?? "logits";
    const side = Math.floor(this.size / manifest.config.patch_size);
    this.grid = { rows: side, columns: side, steps: manifest.plan.buckets[0].capacity.length };
    this.#sessions = sessions;
  }

  /** Threads that ONNX Runtime uses, as far as it says. */
  get threads() {
    return this.backend === "webgpu" ? 1 : (this.#sessions.ort.env?.wasm?.numThreads ?? null);
  }

  /** Runtime, version and backend, as text. */
  get runtime() {
    return this.#sessions.runtime;
  }

  /** Does the bundle return the depth of each patch? It does if it was exported with `--with-depth`. */
  get hasDepth() {
    return this.manifest.outputs.some((port) => port.name === "depth");
  }

  /** Load the first graph. */
  async prepare() {
    await this.#sessions.open(this.manifest.dispatch === "host" ? "stem.onnx" : "model.onnx");
  }

  /** Free the memory of the runtime. */
  close() {
    return this.#queued(() => this.#sessions.close());
  }

  /**
   * Resize, crop and, for a bundle of float input, normalize a picture as the manifest's `preprocess` says.
   *
   * @param {Uint8Array | Uint8ClampedArray} rgba Pixels (height, width, 4); alpha is dropped.
   * @param {number} width
   * @param {number} height
   * @param {{upscale?: boolean}} [options] Enlarge pictures that are smaller than the model's input?
   * @returns {Uint8Array | Float32Array} (size, size, 3), or normalized (3, size, size): one image's input.
   * @throws {ImageError} for a picture that is too small, or too long a strip.
   */
  preprocess(rgba, width, height, { upscale = false } = {}) {
    const { preprocess, versions } = this.manifest;
    const pixels = prepare(rgba, width, height, { preprocess, size: this.size, pillow: versions?.pillow, upscale });
    return this.feed(pixels);
  }

  /** The graph's input for pixels uint8 (n, size, size, 3): themselves, or normalized floats (n, 3, size, size). */
  feed(pixels) {
    if (this.manifest.input === "uint8") return pixels;
    const length = this.size * this.size * 3;
    const out = new Float32Array(pixels.length);
    for (let start = 0; start < pixels.length; start += length) {
      out.set(normalize(pixels.subarray(start, start + length), this.manifest.preprocess), start);
    }
    return out;
  }

  /**
   * The part of a picture that the model sees.
   *
   * @returns {{x: number, y: number, width: number, height: number}} In pixels of the picture; not always whole numbers.
   */
  seen(width, height) {
    const { resize, crop_rounding: rounding } = this.manifest.preprocess;
    const to = resizedTo(width, height, resize, this.size);
    const [across, down] = [width / to[0], height / to[1]];
    const [left, top] = to.map((length) => margin(length - this.size, rounding));
    return { x: left * across, y: top * down, width: this.size * across, height: this.size * down };
  }

  /**
   * Classify one image, or return its features or tokens.
   *
   * @param {Uint8Array | Float32Array} input As `preprocess` returns it.
   * @returns {Promise<object>} The keys of `predict --json`: `bucket` (name), `top` (all classes as {index, label,
   *   probability}, best first), `logits`; with a sigmoid head `present` (the classes above one half). Also
   *   `probabilities` (by class). A bundle of features or tokens has `values` (Float32Array) and `shape` ([dim], or
   *   [patches, dim], the patches row by row) instead of classes. Of either: `overflow` (did a larger bucket run it than was predicted? null without thresholds),
   *   `depth` (Uint8Array, the steps that each patch ran, row by row; null without `--with-depth`), and `ms` (the time of
   *   the graph alone, in milliseconds).
   */
  async run(input) {
    const { [this.output]: returned, bucket, overflow, depth, ms } = await this.outputs(input);
    const [images, ...shape] = returned.dims;
    if (images !== 1) throw new BundleError(`run: got ${images} images, expected one; see outputs`);
    const name = this.#bucketName(bucket ? Number(bucket.data[0]) : 0);
    const values = Float32Array.from(returned.data);
    if (!values.every(Number.isFinite)) {
      throw new BundleError(
        `got ${this.output} that are NaN or infinite in bucket "${name}", run by ${this.runtime}; compare the bundle with its ` +
          "checkpoint (`morvit-deploy verify`); below fp32, export it in fp32",
      );
    }
    return {
      bucket: name,
      ...(this.output === "logits" ? this.#decided(Array.from(values)) : { values, shape }),
      overflow: overflow ? Boolean(overflow.data[0]) : null,
      depth: depth ? Uint8Array.from(depth.data) : null,
      ms,
    };
  }

  /**
   * Run any number of images.
   *
   * @param {Uint8Array | Float32Array} input The inputs of n images one after another, n > 0.
   * @returns {Promise<object>} Every output of the graph by name as {type, dims, data}, n rows each, and `ms`.
   */
  outputs(input) {
    return this.#queued(async () => {
      this.#sessions.milliseconds = 0;
      const { batch } = this.manifest;
      const images = this.#images(input);
      const step = batch === "dynamic" ? AT_A_TIME : batch;
      const parts = [];
      for (let start = 0; start < images.dims[0]; start += step) {
        const rows = range(start, Math.min(start + step, images.dims[0]));
        const found = await this.#runBatch(take(images, batch === "dynamic" ? rows : filled(rows, batch)));
        parts.push(mapped(found, (array) => take(array, range(0, rows.length))));
      }
      const joined = mapped(parts[0], (_, name) => concatenated(parts.map((part) => part[name])));
      return { ...joined, ms: this.#sessions.milliseconds };
    });
  }

  /** Runs wait for one another: a session takes one at a time. */
  #queued(task) {
    const next = this.#last.then(task);
    this.#last = next.catch(() => {});
    return next;
  }

  #images(input) {
    const [port] = this.manifest.inputs;
    const [Kind, shape] = port.dtype === "uint8" ? [Uint8Array, port.shape] : [Float32Array, port.shape];
    const one = shape.slice(1).reduce((product, dim) => product * dim, 1);
    const right = input instanceof Kind || (Kind === Uint8Array && input instanceof Uint8ClampedArray);
    if (!right || !input.length || input.length % one) {
      throw new ImageError(
        `got ${input?.constructor?.name} of ${input?.length} values, expected ${Kind.name} of ${one} for each image ` +
          `(${shape.slice(1).join(" × ")}), as preprocess returns it`,
      );
    }
    return { type: port.dtype, dims: [input.length / one, ...shape.slice(1)], data: input };
  }

  async #runBatch(images) {
    const feeds = { [this.manifest.inputs[0].name]: images };
    return this.manifest.dispatch === "host" ? this.#dispatch(feeds) : this.#graph("model.onnx", feeds);
  }

  /** A stem, then each group of rows in the trunk of its bucket; those that overflow run again in the last. */
  async #dispatch(feeds) {
    const { carried: ports, plan } = this.manifest;
    const outputs = await this.#graph("stem.onnx", feeds);
    const bucket = take(outputs.bucket, range(0, outputs.bucket.dims[0]));
    const carried = {};
    for (const { name } of ports) {
      carried[name] = outputs[name];
      delete outputs[name];
    }
    const numbers = Array.from(bucket.data, Number);
    for (const number of new Set(numbers)) {
      const rows = range(0, numbers.length).filter((row) => numbers[row] === number);
      await this.#runGroup(number, rows, carried, outputs, numbers.length);
    }
    const again = outputs.overflow ? range(0, numbers.length).filter((row) => outputs.overflow.data[row]) : [];
    if (again.length) {
      const last = plan.buckets.length - 1;
      await this.#runGroup(last, again, carried, outputs, numbers.length);
      for (const row of again) bucket.data[row] = last;
      for (const row of again) outputs.overflow.data[row] = 1; // of the bucket that was predicted
    }
    return { ...outputs, bucket };
  }

  /** Run rows of a batch in one bucket and write their results into `outputs`. */
  async #runGroup(number, rows, carried, outputs, total) {
    const { batch } = this.manifest;
    const graph = `${this.#bucketName(number)}.onnx`;
    const size = batch === "dynamic" ? rows.length : batch;
    for (let start = 0; start < rows.length; start += size) {
      const part = rows.slice(start, start + size);
      // a graph for one image has no batch axis inside
      const feeds = batch === 1 ? carried : mapped(carried, (array) => take(array, filled(part, size)));
      for (const [name, array] of Object.entries(await this.#graph(graph, feeds))) {
        outputs[name] ??= zeros(array, total);
        put(outputs[name], part, array);
      }
    }
  }

  /** Run a graph on plain arrays. */
  async #graph(name, feeds) {
    const { Tensor } = this.#sessions.ort;
    const tensors = mapped(feeds, ({ type, data, dims }) => new Tensor(type, data, dims));
    const results = await this.#sessions.run(name, tensors);
    return mapped(results, ({ type, data, dims }) => ({ type, data: data.slice(), dims: [...dims] }));
  }

  #bucketName(number) {
    const { buckets } = this.manifest.plan;
    if (number in buckets) return buckets[number].name;
    throw new BundleError(
      `got bucket ${number} from ${this.runtime}, expected 0 … ${buckets.length - 1}; export the bundle again`,
    );
  }

  /** The keys `top`, `present` with a sigmoid head, `probabilities` and `logits`. */
  #decided(logits) {
    const { labels, config } = this.manifest;
    const isSigmoid = config.head_activation === "sigmoid";
    const probabilities = isSigmoid ? logits.map(sigmoid) : softmax(logits);
    const order = range(0, logits.length).sort((a, b) => logits[b] - logits[a]);
    const top = order.map((index) => ({
      index,
      label: labels ? labels[index] : String(index),
      probability: probabilities[index],
    }));
    const present = isSigmoid ? { present: top.filter(({ index }) => logits[index] > 0) } : {};
    return { top, ...present, probabilities, logits };
  }
}

function softmax(logits) {
  const largest = Math.max(...logits);
  const powers = logits.map((logit) => Math.exp(logit - largest));
  const sum = powers.reduce((total, power) => total + power, 0);
  return powers.map((power) => power / sum);
}

function sigmoid(logit) {
  const power = Math.exp(-Math.abs(logit)); // never overflows
  return (logit >= 0 ? 1 : power) / (1 + power);
}

// --- Arrays: {type, dims, data}, rows along the first axis -------------------------------------------------------

function range(start, end) {
  return Array.from({ length: Math.max(end - start, 0) }, (_, index) => start + index);
}

/** `rows`, then the last one again up to `size`. */
function filled(rows, size) {
  return range(0, size).map((index) => rows[Math.min(index, rows.length - 1)]);
}

function mapped(arrays, change) {
  return Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, change(array, name)]));
}

function rowLength(array) {
  return array.data.length / array.dims[0];
}

function zeros(like, rows) {
  const data = new like.data.constructor(rows * rowLength(like));
  return { type: like.type, dims: [rows, ...like.dims.slice(1)], data };
}

/** The rows of an array, copied. */
function take(array, rows) {
  const taken = zeros(array, rows.length);
  const length = rowLength(array);
  rows.forEach((row, index) => taken.data.set(array.data.subarray(row * length, (row + 1) * length), index * length));
  return taken;
}

/** Write the first rows of `source` into `rows` of `target`. */
function put(target, rows, source) {
  const length = rowLength(source);
  rows.forEach((row, index) => target.data.set(source.data.subarray(index * length, (index + 1) * length), row * length));
}

function concatenated(arrays) {
  if (arrays.length === 1) return arrays[0];
  const joined = zeros(arrays[0], arrays.reduce((sum, array) => sum + array.dims[0], 0));
  let offset = 0;
  for (const { data } of arrays) {
    joined.data.set(data, offset);
    offset += data.length;
  }
  return joined;
}

// --- Pictures: as Pillow computes them ---------------------------------------------------------------------------

/** (height, width, 4) to (size, size, 3): resized, then the center cropped. */
function prepare(rgba, width, height, { preprocess, size, pillow, upscale }) {
  if (!(width > 0 && height > 0) || rgba.length !== width * height * 4) {
    throw new ImageError(`got ${rgba.length} bytes of pixels, expected RGBA of ${width} × ${height} pixels`);
  }
  if (Math.min(width, height) < size && !upscale) {
    throw new ImageError(
      `the picture has ${width}×${height} pixels and is smaller than the model's ${size}×${size} crop; use a larger ` +
        "picture, or enlarge small ones (upscale)",
    );
  }
  const [toWidth, toHeight] = resizedTo(width, height, preprocess.resize, size);
  if (toWidth * toHeight > Math.max(MOST_PIXELS, width * height)) {
    throw new ImageError(
      `the picture has ${width}×${height} pixels and becomes ${toWidth}×${toHeight}, too much to resize; crop it`,
    );
  }
  const [left, top] = [toWidth, toHeight].map((length) => margin(length - size, preprocess.crop_rounding));
  const { interpolation } = preprocess;
  const columns = weightsOf(width, toWidth, left, size, interpolation);
  const rows = weightsOf(height, toHeight, top, size, interpolation);
  const rgb = withoutAlpha(rgba);
  if (interpolation !== "nearest" && isTallFirst(width - toWidth, height - toHeight, pillow)) {
    return resampleColumns(resampleRows(rgb, width, rows), width, size, columns);
  }
  return resampleRows(resampleColumns(rgb, width, height, columns), size, rows);
}

/** Does Pillow shrink the height before the width? The order shows, because it rounds to bytes in between. */
function isTallFirst(fewerColumns, fewerRows, pillow) {
  return Number.parseInt(pillow, 10) >= 13 && fewerRows > 0 && fewerRows > 2 * fewerColumns;
}

function withoutAlpha(rgba) {
  const rgb = new Uint8Array((rgba.length / 4) * 3);
  for (let from = 0, to = 0; from < rgba.length; from += 4) {
    rgb[to++] = rgba[from];
    rgb[to++] = rgba[from + 1];
    rgb[to++] = rgba[from + 2];
  }
  return rgb;
}

/** Width and height to resize to; `resize` is [height, width], the shorter side, or null for none. */
function resizedTo(width, height, resize, size) {
  if (Array.isArray(resize)) return [resize[1], resize[0]];
  const shorter = Math.min(width, height);
  const target = resize ?? Math.max(size, shorter);
  return [Math.floor((target * width) / shorter), Math.floor((target * height) / shorter)];
}

/** The pixels before the crop; half of an odd margin goes to the even pixel, or down. */
function margin(length, rounding) {
  const half = Math.floor(length / 2);
  return rounding === "down" || length % 2 === 0 ? half : half + (half & 1);
}

const FILTERS = {
  box: { support: 0.5, at: (x) => (x > -0.5 && x <= 0.5 ? 1 : 0) },
  bilinear: { support: 1, at: (x) => Math.max(0, 1 - Math.abs(x)) },
  hamming: {
    support: 1,
    at: (x) => (Math.abs(x) >= 1 ? 0 : sinc(x) * (Math.fround(0.54) + Math.fround(0.46) * Math.cos(x * Math.PI))),
  },
  bicubic: { support: 2, at: (x) => cubic(Math.abs(x), -0.5) },
  lanczos: { support: 3, at: (x) => (x >= -3 && x < 3 ? sinc(x) * sinc(x / 3) : 0) },
};
const FRACTION = 22; // bits of a weight after the point: 8 bits of pixel and 2 of overshoot leave 22 of 32

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/** Keys' cubic convolution. */
function cubic(x, a) {
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

/**
 * For the pixels `first` … `first + count - 1` of a side resized from `from` to `to` pixels: the first pixel that each
 * reads, and the fixed-point weights of it and the next ones. A pixel outside of the side has no weights.
 */
function weightsOf(from, to, first, count, interpolation) {
  const weigh = from === to ? itself : interpolation === "nearest" ? nearest(from, to) : smooth(from, to, interpolation);
  const found = range(first, first + count).map((pixel) => (pixel < 0 || pixel >= to ? [0, []] : weigh(pixel)));
  return found.map(([start, weights]) => ({
    start,
    weights: Int32Array.from(weights, (weight) => Math.trunc(weight * 2 ** FRACTION + (weight < 0 ? -0.5 : 0.5))),
  }));
}

function itself(pixel) {
  return [pixel, [1]];
}

/** The filter is stretched when the side shrinks, so that it covers all pixels that it replaces (antialiasing). */
function smooth(from, to, interpolation) {
  const { support, at } = FILTERS[interpolation];
  const scale = from / to;
  const stretch = Math.max(scale, 1);
  const reach = support * stretch;
  return (pixel) => {
    const center = (pixel + 0.5) * scale;
    const start = Math.max(0, Math.trunc(center - reach + 0.5));
    const end = Math.min(from, Math.trunc(center + reach + 0.5));
    const weights = range(start, end).map((x) => at((x - center + 0.5) * (1 / stretch)));
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return [start, sum === 0 ? weights : weights.map((weight) => weight / sum)];
  };
}

/** Positions are summed up, because Pillow's rounding errors add up like this. */
function nearest(from, to) {
  const positions = [];
  for (let pixel = 0, at = (from / to) * 0.5; pixel < to; pixel++, at += from / to) positions.push(Math.trunc(at));
  return (pixel) => (positions[pixel] < from ? [positions[pixel], [1]] : [0, []]);
}

/** RGB (height, width, 3) to (height, columns, 3), rounded to bytes as Pillow does after each pass. */
function resampleColumns(rgb, width, height, columns) {
  const out = new Uint8ClampedArray(height * columns.length * 3);
  for (let y = 0, to = 0; y < height; y++) {
    for (const { start, weights } of columns) {
      let red = 1 << (FRACTION - 1);
      let green = red;
      let blue = red;
      for (let i = 0, from = (y * width + start) * 3; i < weights.length; i++, from += 3) {
        red += rgb[from] * weights[i];
        green += rgb[from + 1] * weights[i];
        blue += rgb[from + 2] * weights[i];
      }
      out[to++] = red >> FRACTION;
      out[to++] = green >> FRACTION;
      out[to++] = blue >> FRACTION;
    }
  }
  return new Uint8Array(out.buffer);
}

/** RGB (height, width, 3) to (rows, width, 3). */
function resampleRows(rgb, width, rows) {
  const stride = width * 3;
  const out = new Uint8ClampedArray(rows.length * stride);
  rows.forEach(({ start, weights }, y) => {
    for (let x = 0; x < stride; x++) {
      let sum = 1 << (FRACTION - 1);
      for (let i = 0, from = start * stride + x; i < weights.length; i++, from += stride) sum += rgb[from] * weights[i];
      out[y * stride + x] = sum >> FRACTION;
    }
  });
  return new Uint8Array(out.buffer);
}

/** uint8 (height, width, 3) to float32 (3, height, width). */
function normalize(pixels, { mean, std }) {
  const count = pixels.length / 3;
  const out = new Float32Array(pixels.length);
  for (let channel = 0; channel < 3; channel++) {
    const table = Float32Array.from({ length: 256 }, (_, value) => (value / 255 - mean[channel]) / std[channel]);
    for (let i = 0; i < count; i++) out[channel * count + i] = table[pixels[i * 3 + channel]];
  }
  return out;
}
