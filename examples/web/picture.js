/** Decodes picture files into the pixels that the model is given. */

import { isAnimated, isTurned, refusal, unturned } from "app/formats.js";

/**
 * A picture: `pixels` RGBA (height, width, 4), `image` to draw it, its `name`, and remarks on how it was read.
 *
 * @typedef {{pixels: Uint8ClampedArray, width: number, height: number, image: CanvasImageSource, name: string,
 *   notes: string[]}} Picture
 */

/**
 * Decode a file as `morvit-deploy predict` reads it: color profiles and transparency are dropped, the first frame of
 * an animation is used, and the EXIF orientation is applied only with `exif`.
 *
 * @param {File | Blob} file
 * @param {{exif: boolean, name?: string}} options
 * @returns {Promise<Picture>}
 */
export async function decode(file, { exif, name = file.name }) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  const reason = refusal(name, bytes);
  if (reason) throw new Error(reason);
  const keep = isTurned(bytes) && !exif;
  const notes = [];
  if (keep) {
    notes.push(
      "The EXIF orientation is not applied, as in training pipelines. Under Options, the picture can be turned upright.",
    );
  }
  if (isAnimated(bytes)) notes.push("Only the first frame of the animation is used.");
  const image = await bitmapOf(keep ? unturned(bytes) : bytes, name);
  return { ...pixelsOf(image, name), image, name, notes };
}

/** The current frame of a video as a picture. */
export function frameOf(video) {
  return { ...pixelsOf(video, "the camera", video.videoWidth, video.videoHeight), name: "Camera", notes: [] };
}

async function bitmapOf(bytes, name) {
  try {
    return await createImageBitmap(new Blob([bytes]), { colorSpaceConversion: "none", premultiplyAlpha: "none" });
  } catch (error) {
    throw new Error(`${name} cannot be decoded: ${error.message}; the file may be damaged or cut off`);
  }
}

/** RGBA of an image. */
function pixelsOf(image, name, width = image.width, height = image.height) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  let pixels;
  try {
    context.drawImage(image, 0, 0);
    pixels = context.getImageData(0, 0, width, height).data;
  } catch (error) {
    throw new Error(`${name} has ${width}×${height} pixels, more than this browser can read; shrink it (${error.message})`);
  }
  const clear = isTransparent(pixels) && straightPixels(image, width, height);
  return { pixels: clear || pixels, width, height, image: canvas };
}

function isTransparent(pixels) {
  for (let at = 3; at < pixels.length; at += 4) if (pixels[at] !== 255) return true;
  return false;
}

/** The colors below the transparency, which a 2D canvas forgets; null where there is no WebGL. */
function straightPixels(image, width, height) {
  const gl = new OffscreenCanvas(1, 1).getContext("webgl2");
  if (!gl || Math.max(width, height) > gl.getParameter(gl.MAX_TEXTURE_SIZE)) return null;
  gl.pixelStorei(gl.UNPACK_PREMULTIPLY_ALPHA_WEBGL, false);
  gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
  gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
  gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, gl.RGBA, gl.UNSIGNED_BYTE, image);
  gl.bindFramebuffer(gl.FRAMEBUFFER, gl.createFramebuffer());
  gl.framebufferTexture2D(gl.FRAMEBUFFER, gl.COLOR_ATTACHMENT0, gl.TEXTURE_2D, gl.getParameter(gl.TEXTURE_BINDING_2D), 0);
  const pixels = new Uint8Array(width * height * 4);
  gl.readPixels(0, 0, width, height, gl.RGBA, gl.UNSIGNED_BYTE, pixels);
  const failed = gl.getError() !== gl.NO_ERROR;
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return failed ? null : pixels;
}
