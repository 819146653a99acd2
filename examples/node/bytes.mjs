// Run a bundle that is bytes in memory, as a browser or an app has it: npm install onnxruntime-web, then
//   node bytes.mjs BUNDLE PIXELS.rgb   (as for run.mjs; `onnxruntime-node` works the same)
import { readFileSync } from "node:fs";
import { join } from "node:path";

const [bundle, pixels, runtime = "onnxruntime-web"] = process.argv.slice(2);
const ort = await import(runtime);
const bytes = (name) => new Uint8Array(readFileSync(join(bundle, name))); // in a browser: fetch(name)
const manifest = JSON.parse(new TextDecoder().decode(bytes("manifest.json")));
const session = await ort.InferenceSession.create(bytes("model.onnx"), {
  executionProviders: [runtime === "onnxruntime-web" ? "wasm" : "cpu"],
  externalData: [{ path: "weights.bin", data: bytes("weights.bin") }],
});
const image = new ort.Tensor("uint8", new Uint8Array(readFileSync(pixels)), manifest.inputs[0].shape);
const { logits } = await session.run({ image });
const best = logits.data.reduce((top, value, index) => (value > logits.data[top] ? index : top), 0);
console.log(JSON.stringify({ class: manifest.labels?.[best] ?? best, logits: Array.from(logits.data) }));
