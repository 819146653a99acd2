"use strict";
/*
 * Finds the page's files and starts main.js.
 *
 * Over HTTP the files lie beside the page. A page that was opened as a file (file://) may load neither modules nor data
 * in Chromium, only classic scripts: there each file comes from embedded/NAME.js, which prepare.py wrote (gzip, base64).
 * site.js, also written by prepare.py, defines SITE: {bundle, runtime, backends, modules, samples, embedded}.
 */
globalThis.site = (() => {
  const isFile = location.protocol === "file:";
  const parts = new Map(); // path to its promise
  const arrived = new Map(); // path to what ends its promise
  const types = { js: "text/javascript", mjs: "text/javascript", wasm: "application/wasm" };

  /** Called by the scripts in embedded/. */
  globalThis.embedded = (path, text) => arrived.get(path)(text);

  function text(path) {
    return new Promise((resolve, reject) => {
      arrived.set(path, resolve);
      const script = document.createElement("script");
      script.src = `embedded/${path}.js`;
      script.onerror = () => reject(new Error(`embedded/${path}.js is missing; run prepare.py again`));
      document.head.append(script);
    });
  }

  async function unpacked(path) {
    const packed = Uint8Array.from(atob(await text(path)), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function fetched(path) {
    const reply = await fetch(path);
    if (!reply.ok) throw new Error(`the server returned ${reply.status} for ${path}`);
    return new Uint8Array(await reply.arrayBuffer());
  }

  /** The bytes of a file of the site. */
  function bytes(path) {
    if (!isFile) return fetched(path);
    if (!SITE.embedded) return Promise.reject(new Error("opened as a file; serve the folder over HTTP instead"));
    if (!parts.has(path)) parts.set(path, unpacked(path));
    return parts.get(path);
  }

  /** A URL from which a module, a worker or an image can be loaded. */
  async function url(path) {
    if (!isFile) return new URL(path, document.baseURI).href;
    const type = types[path.split(".").at(-1)] ?? "";
    return URL.createObjectURL(new Blob([await bytes(path)], { type }));
  }

  return { isFile, bytes, url };
})();

(async () => {
  try {
    const urls = await Promise.all(SITE.modules.map((name) => site.url(name)));
    const imports = Object.fromEntries(SITE.modules.map((name, index) => [`app/${name}`, urls[index]]));
    const map = document.createElement("script");
    map.type = "importmap";
    map.textContent = JSON.stringify({ imports });
    document.head.append(map);
    await import("app/main.js");
  } catch (error) {
    const problem = document.getElementById("problem");
    problem.textContent = `The page could not start: ${error.message}`;
    problem.hidden = false;
    document.getElementById("status").textContent = "";
  }
})();
