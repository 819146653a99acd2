/** Draws how many steps each patch ran, in the colors of `morvit-deploy predict --depth-map`. */

const RAMP = ["#3552b6", "#3f93d6", "#74cbc6", "#f4e285", "#f58f37", "#cf1d2d"].map((hex) =>
  [1, 3, 5].map((at) => Number.parseInt(hex.slice(at, at + 2), 16)),
);
const GAMMA = 0.75; // more contrast between the first steps, where most patches are
const SHADE = 0.5; // part of a color's brightness that follows the picture
const SHINE = 0.25; // blend to white in the picture's highlights
const DETAIL = 512; // pixels of the drawing's longer side, at least
const MOST_DETAIL = 1024;
const MOST_LABELS = 13;

/**
 * Draw the part of a picture that the model sees, and the depth of its patches over it.
 *
 * @param {HTMLCanvasElement} canvas
 * @param {Picture} picture
 * @param {{x: number, y: number, width: number, height: number}} seen In pixels of the picture.
 * @param {Uint8Array | null} depth Steps of each patch, row by row; null to draw the picture alone.
 * @param {{rows: number, columns: number, steps: number}} grid
 * @param {number} opacity Of the depth map, 0 … 1.
 */
export function draw(canvas, picture, seen, depth, grid, opacity) {
  const longer = Math.max(seen.width, seen.height);
  const scale = Math.min(Math.max(longer, DETAIL), MOST_DETAIL) / longer;
  canvas.width = Math.round(seen.width * scale);
  canvas.height = Math.round(seen.height * scale);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.imageSmoothingEnabled = scale < 2;
  context.imageSmoothingQuality = "high";
  context.drawImage(picture.image, seen.x, seen.y, seen.width, seen.height, 0, 0, canvas.width, canvas.height);
  if (depth && opacity > 0) blend(context, depth, grid, opacity);
}

/** Hue shows the depth; brightness shows the picture, with its contrast stretched. */
function blend(context, depth, { rows, columns, steps }, opacity) {
  const { width, height } = context.canvas;
  const image = context.getImageData(0, 0, width, height);
  const { data } = image;
  const colors = colorsOf(depth, steps);
  const [dark, bright] = rangeOf(data);
  for (let y = 0, at = 0; y < height; y++) {
    const row = Math.floor((y * rows) / height) * columns;
    for (let x = 0; x < width; x++, at += 4) {
      const color = colors[depth[row + Math.floor((x * columns) / width)]];
      const light = Math.min(Math.max((gray(data, at) - dark) / (bright - dark), 0), 1);
      for (let channel = 0; channel < 3; channel++) {
        const shaded = color[channel] * (1 - SHADE + SHADE * light);
        const lit = shaded + SHINE * light * light * (255 - shaded);
        data[at + channel] += (lit - data[at + channel]) * opacity;
      }
    }
  }
  context.putImageData(image, 0, 0);
}

function gray(data, at) {
  return 0.299 * data[at] + 0.587 * data[at + 1] + 0.114 * data[at + 2];
}

/** The 1st and 99th percentile of the brightness. */
function rangeOf(data) {
  const counts = new Uint32Array(256);
  for (let at = 0; at < data.length; at += 4) counts[Math.round(gray(data, at))] += 1;
  const level = (share) => {
    let left = (share * data.length) / 4;
    return counts.findIndex((count) => (left -= count) <= 0);
  };
  const [dark, bright] = [level(0.01), level(0.99)];
  return [dark, Math.max(bright, dark + 1)];
}

/** The lowest depth that is shown: 0, or 1 if every patch runs a step. */
function lowest(depth) {
  return Math.min(1, ...depth);
}

/** RGB by depth. */
function colorsOf(depth, steps) {
  const low = lowest(depth);
  return Array.from({ length: steps + 1 }, (_, value) => {
    const level = Math.max(value - low, 0) / Math.max(steps - low, 1);
    const place = level ** GAMMA * (RAMP.length - 1);
    const left = Math.min(Math.floor(place), RAMP.length - 2);
    return RAMP[left].map((start, channel) => start + (RAMP[left + 1][channel] - start) * (place - left));
  });
}

/** A sentence about the depths. */
export function described(depth, { steps }) {
  const mean = depth.reduce((sum, value) => sum + value, 0) / depth.length;
  const full = depth.filter((value) => value === steps).length;
  return `${mean.toFixed(2)} of ${steps} steps on average; ${full} of ${depth.length} patches ran all of them`;
}

/** Fill an element with a column for each depth: as high as its share of patches, in its color. */
export function drawLegend(element, depth, { steps }) {
  const colors = colorsOf(depth, steps);
  const counts = new Array(steps + 1).fill(0);
  for (const value of depth) counts[value] += 1;
  const most = Math.max(...counts);
  const depths = Array.from({ length: steps + 1 - lowest(depth) }, (_, index) => index + lowest(depth));
  const every = Math.ceil(depths.length / MOST_LABELS);
  element.replaceChildren(
    ...depths.map((value, index) => {
      const column = document.createElement("div");
      const bar = column.appendChild(document.createElement("span"));
      bar.style.height = `${(counts[value] / most) * 100}%`;
      bar.style.background = `rgb(${colors[value].map(Math.round)})`;
      bar.dataset.count = depths.length > MOST_LABELS ? "" : counts[value];
      column.title = `${counts[value]} patches ran ${value} steps`;
      const label = column.appendChild(document.createElement("small"));
      label.textContent = index % every === 0 || value === steps ? value : "";
      return column;
    }),
  );
  element.setAttribute("aria-label", depths.map((value) => `${value} steps: ${counts[value]} patches`).join("; "));
}
