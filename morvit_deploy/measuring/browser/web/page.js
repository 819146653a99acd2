/**
 * The page of `morvit-deploy bench --device browser`. The terminal decides what is done: it sends requests as
 * server-sent events, and each has one reply. Bundles run in workers, so that the page stays responsive; a worker is
 * what a process is on other devices.
 */

import { features } from "./bundle.js";

const stage = document.getElementById("stage");
const share = document.getElementById("share");
const workers = new Map();
const downloads = new Map(); // bundle to its files as blobs, which the browser may keep outside of its memory
let hidden = document.visibilityState === "hidden";
let finished = false;

document.addEventListener("visibilitychange", () => {
  hidden ||= document.visibilityState === "hidden";
});

const requests = { load, close, answers: asked, run: asked, memory: asked };
const messages = {
  stage({ text, share: done }) {
    say(text);
    if (done !== null) share.value = done;
  },
  end({ good, text, rows }) {
    finished = true;
    share.hidden = document.getElementById("advice").hidden = true;
    say(text, good ? "good" : "bad");
    show("result", rows);
    workers.forEach(({ worker }) => worker.terminate());
  },
};

begin().catch((error) => say(error.message, "bad"));

async function begin() {
  const about = await describe();
  show("browser", facts(about));
  await post("hello", about);
  say("Connected. Waiting for the terminal …");
  await navigator.wakeLock?.request("screen").catch(() => {}); // only on secure pages, and not in every browser
  const events = new EventSource("events");
  events.onmessage = ({ data }) => handle(JSON.parse(data));
  events.onerror = () => {
    events.close(); // it would connect again, and the link works once
    workers.forEach(({ worker }) => worker.terminate());
    if (!finished) say("The measurement ended in the terminal, or the connection to it was lost.", "bad");
  };
}

async function handle(message) {
  if (message.do in messages) {
    messages[message.do](message);
    return;
  }
  let reply;
  try {
    reply = await requests[message.do](message);
  } catch (error) {
    reply = { error: error.message, kind: error.name };
  }
  await post("reply", { hidden, ...reply, id: message.id });
  hidden = document.visibilityState === "hidden";
}

async function post(place, body) {
  const reply = await fetch(place, { method: "POST", body: JSON.stringify(body) });
  const text = await reply.text();
  if (!reply.ok) throw new Error(text);
}

/** What the browser and its machine say of themselves. */
async function describe() {
  const { userAgent, userAgentData, deviceMemory = null, gpu } = navigator;
  const wanted = ["architecture", "fullVersionList", "model", "platformVersion"];
  const details = (await userAgentData?.getHighEntropyValues(wanted).catch(() => null)) ?? null;
  const adapter = (await gpu?.requestAdapter().catch(() => null)) ?? null;
  const { vendor = "", architecture = "", description = "" } = adapter?.info ?? {};
  return {
    user_agent: userAgent,
    details,
    memory_gib: deviceMemory,
    isolated: Boolean(globalThis.crossOriginIsolated),
    secure: globalThis.isSecureContext,
    gpu: adapter && ([vendor, architecture, description].filter(Boolean).join(" ") || "unnamed"),
    ...features(),
  };
}

function facts({ cores, simd, threads, gpu }) {
  return [
    ["processor cores", String(cores)],
    ["SIMD", simd ? "yes" : "no"],
    ["threads", threads ? "yes" : "no: only pages from localhost or https:// have them"],
    ["WebGPU", gpu ?? "no"],
  ];
}

/** Start a worker and load a bundle in it; the time is that of a new process on other devices. */
async function load({ worker: number, bundle, files, backend, runtime, threads, round }) {
  if (!downloads.has(bundle)) downloads.set(bundle, await download(bundle, files));
  const begun = performance.now();
  const worker = new Worker("worker.js", { type: "module" });
  const waiting = new Map();
  worker.onmessage = ({ data }) => waiting.get(data.id)?.(data);
  worker.onerror = (event) => {
    event.preventDefault();
    const error = event.message ? `the worker failed: ${event.message}` : "the browser cannot start a module worker";
    waiting.forEach((settle) => settle({ error, kind: "Error" }));
  };
  workers.set(number, { worker, waiting });
  const options = { files: downloads.get(bundle), backend, runtime, threads, round };
  const reply = await asked({ id: 0, do: "load", worker: number, ...options });
  return { ...reply, cold_start_ms: performance.now() - begun };
}

async function download(bundle, names) {
  const found = new Map();
  for (const name of names) {
    say(`Downloading ${name} …`);
    try {
      const reply = await fetch(`${bundle}/${name}`);
      if (!reply.ok) throw new Error(`status ${reply.status}`);
      found.set(name, await reply.blob());
    } catch (error) {
      const advice = "where the browser ran out of memory, close other tabs, or export with --precision int8 or fp16";
      throw new Error(`cannot download ${name} (${error.message}); ${advice}`);
    }
  }
  return found;
}

/** Pass a request on to its worker. */
function asked(request) {
  const { worker, waiting } = workers.get(request.worker);
  return new Promise((settle) => {
    waiting.set(request.id, (reply) => {
      waiting.delete(request.id);
      settle(reply);
    });
    worker.postMessage(request);
  });
}

async function close({ worker }) {
  workers.get(worker)?.worker.terminate();
  workers.delete(worker);
  return {};
}

function say(text, kind = "") {
  stage.textContent = text;
  stage.className = kind;
}

function show(id, rows) {
  const table = document.getElementById(id);
  table.hidden = rows.length === 0;
  table.replaceChildren(
    ...rows.map(([name, value]) => {
      const row = document.createElement("tr");
      row.append(cell("th", name), cell("td", value));
      return row;
    }),
  );
}

function cell(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}
