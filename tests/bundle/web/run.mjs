// node run.mjs REQUEST: open bundles, run pixels, and print what they return, or the error.
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";

const { module, ort: path, bundles, fails } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const create = () => Promise.reject(new Error(fails));
const ort = fails ? { InferenceSession: { create } } : await import(pathToFileURL(path));
const { openBundle } = await import(pathToFileURL(module));

async function run({ folder, pixels }) {
  const bundle = await openBundle((name) => new Uint8Array(readFileSync(join(folder, name))), ort, { threads: 1 });
  const given = new Uint8Array(readFileSync(pixels));
  const outputs = await bundle.outputs(bundle.feed(given));
  const first = await bundle.run(bundle.feed(given.subarray(0, bundle.size ** 2 * 3)));
  await bundle.close();
  const plain = Object.entries(outputs).filter(([name]) => name !== "ms");
  const arrays = plain.map(([name, { dims, data }]) => [name, { dims, data: Array.from(data, Number) }]);
  const depth = first.depth && Array.from(first.depth);
  const values = first.values && Array.from(first.values);
  return { outputs: Object.fromEntries(arrays), first: { ...first, depth, values }, grid: bundle.grid, warnings: bundle.warnings };
}

const results = [];
for (const bundle of bundles) {
  results.push(await run(bundle).catch((error) => ({ error: error.message, name: error.name })));
}
console.log(JSON.stringify(results));
