/** The camera, the one that faces away where there are two. */

import { frameOf } from "app/picture.js";

const REASONS = {
  NotAllowedError: "the camera was refused; allow it in the browser's site settings, or choose a picture",
  NotFoundError: "this device has no camera; choose a picture",
  NotReadableError: "the camera is in use by another program; close it, or choose a picture",
};

/** Can this page show the camera? Browsers give it to pages from https:// or localhost only. */
export function hasCamera() {
  return Boolean(navigator.mediaDevices?.getUserMedia);
}

/** Frames of the camera, one whenever the last one has been dealt with. */
export class Camera {
  #stream = null;
  #run = 0;

  get isOn() {
    return this.#stream !== null;
  }

  /**
   * Start the camera.
   *
   * @param {(picture: Picture) => Promise<void>} onFrame
   * @throws {Error} with what to do, if there is no camera or it is refused.
   */
  async start(onFrame) {
    const run = ++this.#run;
    const video = Object.assign(document.createElement("video"), { muted: true, playsInline: true });
    let stream;
    try {
      stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment" }, audio: false });
    } catch (error) {
      throw new Error(REASONS[error.name] ?? `the camera cannot be used (${error.message}); choose a picture`);
    }
    if (run !== this.#run) return stop(stream); // switched off in the meantime
    this.#stream = stream;
    video.srcObject = stream;
    await video.play();
    this.#loop(video, onFrame, run);
  }

  stop() {
    this.#run += 1;
    if (this.#stream) stop(this.#stream);
    this.#stream = null;
  }

  async #loop(video, onFrame, run) {
    while (run === this.#run) {
      if (video.videoWidth) await onFrame(frameOf(video));
      await new Promise(requestAnimationFrame);
    }
  }
}

function stop(stream) {
  for (const track of stream.getTracks()) track.stop();
}
