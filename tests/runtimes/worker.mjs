// Runs a bundle on pictures in onnxruntime-node or, by WebAssembly, in onnxruntime-web. It is copied beside the packages.
//   node worker.mjs onnxruntime-node BUNDLE PICTURES.npy RESULTS.json
// The bundle is opened and run by morvit_deploy/bundle/web/bundle.js, which is copied, too.
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { openBundle } from "./bundle.mjs";

const [name, folder, pictures, results] = process.argv.slice(2);
const found = await import(name);
const ort = found.InferenceSession ? found : found.default;
const installed = new URL(`node_modules/${name}/package.json`, import.meta.url);
const { version } = JSON.parse(readFileSync(installed, "utf8"));
const read = (path) => new Uint8Array(readFileSync(join(folder, path)));
// onnxruntime-node 1.20 ignores the bytes of external data and reads weights.bin from the current folder
if (name === "onnxruntime-node" && version.startsWith("1.20.")) process.chdir(folder);

const web = name === "onnxruntime-web";
const bundle = await openBundle(read, ort, web ? { backend: "wasm", threads: 1 } : { backend: "cpu" });

const file = readFileSync(pictures);
const pixels = Uint8Array.from(file.subarray(10 + file.readUInt16LE(8))); // behind the header of an .npy file
const { ms, ...outputs } = await bundle.outputs(pixels);

/** Nested lists, as numpy's `tolist`. */
function nested({ dims, data }) {
  const values = Array.from(data, Number);
  if (dims.length === 1) return values;
  const width = values.length / dims[0];
  return Array.from({ length: dims[0] }, (_, row) => values.slice(row * width, (row + 1) * width));
}

const lists = Object.fromEntries(Object.entries(outputs).map(([key, value]) => [key, nested(value)]));
writeFileSync(results, JSON.stringify({ version, outputs: lists }));
process.exit(0); // threads of WebAssembly would keep it alive
