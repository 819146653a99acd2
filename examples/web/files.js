/** Where a bundle's files come from. Each function returns `read(name)`, as `openBundle` takes it. */

import { BundleError } from "app/bundle.js";

/**
 * The bundle that prepare.py put beside the page.
 *
 * @param {string} folder
 * @param {(name: string) => void} tell Called before a file is read.
 */
export function besidePage(folder, tell) {
  return (name) => {
    tell(name);
    return site.bytes(`${folder}/${name}`);
  };
}

/**
 * A folder that was chosen or dropped.
 *
 * @param {{path: string, file: File}[]} entries
 * @param {(name: string) => void} tell
 */
export function fromFolder(entries, tell) {
  const manifest = entries.find(({ path }) => nameOf(path) === "manifest.json");
  if (!manifest) {
    const found = entries.slice(0, 3).map(({ path }) => path);
    throw new BundleError(
      `no manifest.json in what was given (${found.join(", ") || "an empty folder"}); a bundle is a folder that ` +
        "`morvit-deploy export` wrote: give the whole folder",
    );
  }
  const start = manifest.path.slice(0, -"manifest.json".length);
  const files = new Map(entries.map(({ path, file }) => [path, file]));
  return async (name) => {
    tell(name);
    const file = files.get(start + name);
    if (!file) throw new Error("it is not in the folder");
    return new Uint8Array(await file.arrayBuffer());
  };
}

/** The files of an `<input type="file">`, with their paths. */
export function chosen(input) {
  return Array.from(input.files, (file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/**
 * All files of a drop, also those in folders.
 *
 * @param {DataTransfer} transfer
 * @returns {Promise<{path: string, file: File}[]>}
 */
export async function dropped(transfer) {
  const roots = Array.from(transfer.items, (item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!roots.length) return Array.from(transfer.files, (file) => ({ path: file.name, file }));
  return (await Promise.all(roots.map(filesIn))).flat();
}

/** Is what was given a bundle, not a picture? */
export function isBundle(entries) {
  return entries.length > 1 || entries.some(({ path }) => path.includes("/") || nameOf(path) === "manifest.json");
}

function nameOf(path) {
  return path.split("/").at(-1);
}

async function filesIn(entry) {
  const path = entry.fullPath.replace(/^\//, "");
  if (entry.isFile) return [{ path, file: await new Promise((resolve, reject) => entry.file(resolve, reject)) }];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject)); // some at a time
    if (!part.length) return (await Promise.all(found.map(filesIn))).flat();
    found.push(...part);
  }
}
