// node preprocess.mjs REQUEST: preprocess pictures; REQUEST has the module, cases, and files of pixels to read and write.
import { readFileSync, writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const { module, cases, pixels, out } = JSON.parse(readFileSync(process.argv[2], "utf8"));
const { Bundle } = await import(pathToFileURL(module));
const given = readFileSync(pixels);
const results = [];
let start = 0;
for (const { width, height, size, preprocess, pillow, input } of cases) {
  const manifest = {
    ...{ input, preprocess, versions: { pillow }, files: [], outputs: [] },
    ...{ config: { image_size: size, patch_size: 1 }, plan: { buckets: [{ capacity: [1] }] } },
  };
  const rgba = new Uint8Array(given.subarray(start, (start += width * height * 4)));
  const found = new Bundle(manifest, {}, []).preprocess(rgba, width, height, { upscale: true });
  results.push(Buffer.from(found.buffer, found.byteOffset, found.byteLength));
}
writeFileSync(out, Buffer.concat(results));
console.log("{}");
