/**
 * What the first bytes of a picture file say: its format, EXIF orientation, and whether it has further frames.
 *
 * The rules are those of `morvit-deploy predict` (docs/format.md, "Pictures"): the content decides, not the suffix.
 */

const DECODED = ["PNG", "JPEG", "WebP", "BMP", "GIF"];

/** The name of the format, or null for none that is known. */
export function formatOf(bytes) {
  const text = latin(bytes, 0, 16);
  if (text.startsWith("\x89PNG\r\n\x1a\n")) return "PNG";
  if (text.startsWith("\xff\xd8\xff")) return "JPEG";
  if (text.startsWith("RIFF") && text.slice(8, 12) === "WEBP") return "WebP";
  if (text.startsWith("BM")) return "BMP";
  if (/^GIF8[79]a/.test(text)) return "GIF";
  if (/^(II\*\0|MM\0\*|II\+\0|MM\0\+)/.test(text)) return "TIFF";
  if (/^P[1-6]\s/.test(text)) return "PPM";
  if (text.slice(4, 8) === "ftyp") return /^(avif|avis)/.test(text.slice(8, 12)) ? "AVIF" : "HEIC or a video";
  if (text.startsWith("%PDF")) return "PDF";
  if (/^\s*(<\?xml|<svg)/.test(text)) return "SVG";
  return null;
}

/** Why a file cannot be used as a picture, or null. */
export function refusal(name, bytes) {
  if (!bytes.length) return `${name} is not an image: it is empty (0 bytes); copy it again`;
  const format = formatOf(bytes);
  if (DECODED.includes(format)) return null;
  const what = format ? `; it is ${format}: convert it to PNG or JPEG` : "";
  return `${name} is not an image that can be read here (${DECODED.join(", ")})${what}`;
}

/** Does the EXIF orientation say that it is not upright? */
export function isTurned(bytes) {
  const { value } = orientationOf(bytes) ?? {};
  return value >= 2 && value <= 8;
}

/** The file with EXIF orientation 1, because browsers turn pictures even if they are asked not to. */
export function unturned(bytes) {
  const { at, little } = orientationOf(bytes);
  const copy = bytes.slice();
  view(copy).setUint16(at, 1, little);
  return copy;
}

/** Does it have more frames than the first one? */
export function isAnimated(bytes) {
  const format = formatOf(bytes);
  if (format === "PNG") return chunksOfPng(bytes).some(({ type }) => type === "acTL");
  if (format === "WebP") return chunksOfWebp(bytes).some(({ type }) => type === "ANIM");
  return format === "GIF" && framesOfGif(bytes) > 1;
}

/** The EXIF orientation: its value, and where and in which byte order the file has it; null if there is none. */
function orientationOf(bytes) {
  const exif = { JPEG: exifOfJpeg, PNG: exifOfPng, WebP: exifOfWebp }[formatOf(bytes)]?.(bytes);
  const found = exif && orientationIn(exif);
  return found && { ...found, at: found.at + exif.byteOffset - bytes.byteOffset };
}

function latin(bytes, start, end) {
  return String.fromCharCode(...bytes.subarray(start, end));
}

function view(bytes) {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function exifOfJpeg(bytes) {
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; ) {
    const length = view(bytes).getUint16(at + 2);
    if (bytes[at + 1] === 0xda) return null; // the picture itself
    if (bytes[at + 1] === 0xe1 && latin(bytes, at + 4, at + 10) === "Exif\0\0") {
      return bytes.subarray(at + 10, at + 2 + length);
    }
    at += 2 + length;
  }
  return null;
}

function exifOfPng(bytes) {
  return chunksOfPng(bytes).find(({ type }) => type === "eXIf")?.data;
}

function exifOfWebp(bytes) {
  const found = chunksOfWebp(bytes).find(({ type }) => type === "EXIF")?.data;
  return found && latin(found, 0, 6) === "Exif\0\0" ? found.subarray(6) : found;
}

function chunksOfPng(bytes) {
  const chunks = [];
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view(bytes).getUint32(at);
    chunks.push({ type: latin(bytes, at + 4, at + 8), data: bytes.subarray(at + 8, at + 8 + length) });
    at += 12 + length;
  }
  return chunks;
}

function chunksOfWebp(bytes) {
  const chunks = [];
  for (let at = 12; at + 8 <= bytes.length; ) {
    const length = view(bytes).getUint32(at + 4, true);
    chunks.push({ type: latin(bytes, at, at + 4), data: bytes.subarray(at + 8, at + 8 + length) });
    at += 8 + length + (length % 2);
  }
  return chunks;
}

/** The number of frames of a GIF, at most 2. */
function framesOfGif(bytes) {
  const table = (flags) => (flags & 0x80 ? 3 << ((flags & 7) + 1) : 0);
  let at = 13 + table(bytes[10]);
  const skipBlocks = () => {
    while (bytes[at]) at += bytes[at] + 1;
    at += 1;
  };
  for (let frames = 0; at < bytes.length; ) {
    const kind = bytes[at];
    if (kind === 0x2c) {
      frames += 1;
      if (frames === 2) return frames;
      at += 11 + table(bytes[at + 9]);
      skipBlocks();
    } else if (kind === 0x21) {
      at += 2;
      skipBlocks();
    } else {
      return frames;
    }
  }
  return 1;
}

/** The orientation in a TIFF structure; null if it has none or is damaged. */
function orientationIn(exif) {
  try {
    const data = view(exif);
    const little = latin(exif, 0, 2) === "II";
    const directory = data.getUint32(4, little);
    for (let entry = 0; entry < data.getUint16(directory, little); entry++) {
      const at = directory + 2 + entry * 12;
      if (data.getUint16(at, little) === 0x0112) return { value: data.getUint16(at + 8, little), at: at + 8, little };
    }
  } catch {
    // a damaged block counts as none
  }
  return null;
}
