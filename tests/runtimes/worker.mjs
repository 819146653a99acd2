// Runs a bundle on pictures in onnxruntime-node or, by WebAssembly, in onnxruntime-web. It is copied beside the packages.
//   node worker.mjs onnxruntime-node BUNDLE PICTURES.npy RESULTS.json
// The bundle is opened and run by examples/node/bundle.mjs, which users copy.
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { openBundle } from "./bundle.mjs";

const AT_A_TIME = 32; // images, of a bundle that takes any number
const WEIGHTS = "weights.bin";
const [name, folder, pictures, results] = process.argv.slice(2);
const found = await import(name);
const ort = found.InferenceSession ? found : found.default;

function inWebAssembly(path) {
  const externalData = [{ path: WEIGHTS, data: readFileSync(join(dirname(path), WEIGHTS)) }];
  return ort.InferenceSession.create(readFileSync(path), { executionProviders: ["wasm"], externalData });
}

const web = name === "onnxruntime-web";
if (web) ort.env.wasm.numThreads = 1;
const { manifest, run } = await openBundle(folder, web ? inWebAssembly : (path) => ort.InferenceSession.create(path));

const file = readFileSync(pictures);
const pixels = file.subarray(10 + file.readUInt16LE(8)); // behind the header of an .npy file
const shape = manifest.inputs[0].shape.slice(1);
const one = shape.reduce((a, b) => a * b);
const step = manifest.batch === "dynamic" ? AT_A_TIME : manifest.batch;
const outputs = {};
for (let start = 0; start < pixels.length; start += step * one) {
  const part = Uint8Array.from(pixels.subarray(start, start + step * one));
  const images = part.length / one;
  for (const [key, values] of Object.entries(await run(new ort.Tensor("uint8", part, [images, ...shape])))) {
    const width = values.length / images;
    outputs[key] ??= [];
    for (let i = 0; i < images; i++)
      outputs[key].push(width === 1 && key !== "logits" ? values[i] : values.slice(i * width, (i + 1) * width));
  }
}
const { version } = JSON.parse(readFileSync(new URL(`node_modules/${name}/package.json`, import.meta.url), "utf8"));
writeFileSync(results, JSON.stringify({ version, outputs }));
process.exit(0);
