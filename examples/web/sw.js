// Keeps the page's files, so that it opens without a network. prepare.py writes site.js and its VERSION, a hash of all files.
importScripts("site.js"); // SITE: browsers look for changes of this file, too
const CACHE = `morvit-${SITE.version}`;
const HEADERS = {
  "Cross-Origin-Opener-Policy": "same-origin", // both: threads need a cross-origin isolated page
  "Cross-Origin-Embedder-Policy": "require-corp",
};

self.addEventListener("install", (event) => {
  const kept = caches.open(CACHE).then((cache) => cache.addAll(["./", ...SITE.files]));
  event.waitUntil(kept.then(() => self.skipWaiting()));
});

self.addEventListener("activate", (event) => {
  const isOld = (name) => name.startsWith("morvit-") && name !== CACHE;
  const removed = caches.keys().then((names) => Promise.all(names.filter(isOld).map((name) => caches.delete(name))));
  event.waitUntil(removed.then(() => self.clients.claim()));
});

self.addEventListener("fetch", (event) => {
  if (event.request.method === "GET" && event.request.url.startsWith(self.registration.scope)) {
    event.respondWith(reply(event.request));
  }
});

/** The kept file, or the server's; what is not kept up front (the WebGPU runtime) is kept when it is first used. */
async function reply(request) {
  const cache = await caches.open(CACHE);
  const kept = await cache.match(request, { ignoreSearch: true });
  if (kept) return isolated(kept);
  const fresh = await fetch(request);
  if (fresh.ok && new URL(request.url).pathname.includes("/ort/")) await cache.put(request, fresh.clone());
  return isolated(fresh);
}

function isolated(reply) {
  if (reply.type === "opaque" || reply.redirected) return reply;
  const headers = new Headers(reply.headers);
  for (const [name, value] of Object.entries(HEADERS)) headers.set(name, value);
  return new Response(reply.body, { status: reply.status, statusText: reply.statusText, headers });
}
