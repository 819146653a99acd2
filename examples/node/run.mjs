// Run an exported bundle from Node: npm install onnxruntime-node, then
//   node run.mjs BUNDLE PIXELS.rgb   (raw uint8 RGB, height × width × 3, as `convert in.png -depth 8 rgb:out.rgb` writes)
import { readFileSync } from "node:fs";
import { join } from "node:path";
import ort from "onnxruntime-node";

const [bundle, pixels] = process.argv.slice(2);
const manifest = JSON.parse(readFileSync(join(bundle, "manifest.json"), "utf8"));
const shape = manifest.inputs[0].shape;
const session = await ort.InferenceSession.create(join(bundle, "model.onnx"));
const image = new ort.Tensor("uint8", new Uint8Array(readFileSync(pixels)), shape);
const { logits } = await session.run({ image });
const best = logits.data.reduce((top, value, index) => (value > logits.data[top] ? index : top), 0);
console.log(JSON.stringify({ class: manifest.labels?.[best] ?? best, logits: Array.from(logits.data) }));
