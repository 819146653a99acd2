// Open an exported bundle from Node and run it: one graph, or with `--dispatch host` a stem and a trunk for each bucket.
// `open` takes the path of a graph and returns a session of onnxruntime-node or of onnxruntime-web.
import { readFileSync } from "node:fs";
import { join } from "node:path";

export async function openBundle(folder, open) {
  const manifest = JSON.parse(readFileSync(join(folder, "manifest.json"), "utf8"));
  const host = manifest.dispatch === "host";
  const first = await open(join(folder, host ? "stem.onnx" : "model.onnx"));
  const trunks = new Map(); // opened on first use

  async function runTrunk(bucket, carried) {
    const { name } = manifest.plan.buckets[bucket];
    if (!trunks.has(name)) trunks.set(name, await open(join(folder, `${name}.onnx`)));
    return trunks.get(name).run(carried);
  }

  // image: a uint8 tensor (batch, height, width, 3), batch 1 with host dispatch; returns the data of every output
  async function run(image) {
    let found = await first.run({ image });
    if (host) {
      const carried = Object.fromEntries(manifest.carried.map(({ name }) => [name, found[name]]));
      found = { bucket: found.bucket, ...(await runTrunk(found.bucket.data[0], carried)) };
      if (found.overflow?.data[0]) {
        const last = manifest.plan.buckets.length - 1; // `full` holds every image
        const again = await runTrunk(last, carried);
        found = { ...again, overflow: found.overflow, bucket: { data: [last] } };
      }
    }
    return Object.fromEntries(Object.entries(found).map(([name, value]) => [name, Array.from(value.data)]));
  }

  return { manifest, run };
}
