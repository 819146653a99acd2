/** Shows what the bundle returned. */

const SHOWN = 5; // bars, and more where a sigmoid head decides for more classes

/**
 * @param {object} result As `bundle.run` returns it.
 * @param {Bundle} bundle
 */
export function showResult(result, bundle) {
  if (bundle.output === "logits") showClasses(result);
  else showArray(result, bundle);
  showFacts(result, bundle);
  byId("result").hidden = false;
}

function showClasses({ top, present }) {
  const decided = present ?? top.slice(0, 1);
  byId("label").textContent = decided.map(({ label }) => label).join(", ") || "no class";
  const shown = top.slice(0, Math.max(SHOWN, decided.length));
  byId("bars").replaceChildren(...shown.map((guess) => bar(guess, decided.includes(guess))));
}

/** Features or tokens: there is no class to name. */
function showArray({ values, shape }, { output }) {
  const norm = Math.sqrt(values.reduce((sum, value) => sum + value ** 2, 0));
  byId("label").textContent = `${output}: ${shape.join(" × ")} numbers, norm ${norm.toPrecision(4)}`;
  byId("bars").replaceChildren();
}

function percent(probability) {
  return `${(probability * 100).toFixed(1)} %`;
}

/** Bundle and runtime in a line. */
export function about({ manifest, output, bytes, runtime }) {
  const { config, precision } = manifest;
  const size = `${config.image_size}×${config.image_size}`;
  const returned = output === "logits" ? `${config.num_classes} classes` : output;
  return [config.routing, returned, `${size} pixels`, precision, megabytes(bytes), runtime].join(" · ");
}

function showFacts(result, bundle) {
  const buckets = bundle.manifest.plan.buckets;
  const macs = bundle.manifest.macs?.[result.bucket];
  const threads = bundle.threads > 1 ? `${bundle.threads} threads` : "1 thread";
  const facts = {
    Latency: milliseconds(result),
    Bucket: buckets.length > 1 ? `${result.bucket}, of ${buckets.map(({ name }) => name).join(", ")}` : result.bucket,
    Cost: macs ? `${(macs / 1e6).toFixed(macs < 1e8 ? 1 : 0)} M multiply-adds` : null,
    "Run on": bundle.backend === "webgpu" ? "GPU (WebGPU)" : `CPU (WebAssembly), ${threads}`,
  };
  if (result.overflow) facts.Bucket += "; the predicted bucket was too small";
  byId("facts").replaceChildren(
    ...Object.entries(facts)
      .filter(([, value]) => value)
      .flatMap(([name, value]) => [element("dt", name), element("dd", value)]),
  );
}

function milliseconds({ ms, first }) {
  const text = (value) => `${value.toFixed(value < 10 ? 1 : 0)} ms`;
  if (ms === first) return `${text(ms)} (first run)`;
  return first === undefined ? text(ms) : `${text(ms)} (first run ${text(first)})`;
}

function megabytes(bytes) {
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

function bar({ label, probability }, isBest) {
  const item = document.createElement("li");
  item.classList.toggle("best", isBest);
  item.style.setProperty("--share", probability);
  item.append(element("span", label), element("i", ""), element("b", percent(probability)));
  return item;
}

function element(kind, text) {
  return Object.assign(document.createElement(kind), { textContent: text });
}

function byId(id) {
  return document.getElementById(id);
}
