// Run an exported bundle from Node: npm install onnxruntime-node, then
//   node run.mjs BUNDLE PIXELS.rgb   (raw uint8 RGB, height × width × 3, as `convert in.png -depth 8 rgb:out.rgb` writes)
import { readFileSync } from "node:fs";
import ort from "onnxruntime-node";
import { openBundle } from "./bundle.mjs";

const [folder, pixels] = process.argv.slice(2);
const { manifest, run } = await openBundle(folder, (path) => ort.InferenceSession.create(path));
const shape = [1, ...manifest.inputs[0].shape.slice(1)];
const image = new ort.Tensor("uint8", new Uint8Array(readFileSync(pixels)), shape);
const { logits } = await run(image);
const best = logits.reduce((top, value, index) => (value > logits[top] ? index : top), 0);
console.log(JSON.stringify({ class: manifest.labels?.[best] ?? best, logits }));
