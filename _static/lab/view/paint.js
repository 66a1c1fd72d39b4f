// Pictures and maps on canvases. Bytes are RGBA, 32 × 32.

import { SIDE } from "../pictures.js";

export const COLOURS = { vit: [0, 114, 178], cnn: [213, 94, 0] }; // as in utils/book/plotting.py
const LARGE = 8; // times the pixels of a picture

/** The canvas of a picture, `scale` times as fine. */
export function sheet(scale = 1) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = SIDE * scale;
  canvas.setAttribute("aria-hidden", "true");
  return canvas;
}

export const largeSheet = () => sheet(LARGE);

const scratch = sheet();

/** A picture as it is. */
export function paint(canvas, bytes) {
  scratch.getContext("2d").putImageData(new ImageData(bytes.slice(), SIDE, SIDE), 0, 0);
  const context = canvas.getContext("2d");
  context.imageSmoothingEnabled = false;
  context.drawImage(scratch, 0, 0, canvas.width, canvas.height);
}

/**
 * Weights [side × side] as a coloured layer on the picture, which is grey and bright, as `overlay`
 * of utils/book/plotting.py draws them.
 *
 * On a square-root scale from 0 to `full`; what is below 0 has no colour.
 */
export function paintMap(canvas, bytes, weights, full, colour) {
  const side = Math.sqrt(weights.length);
  const mapped = new Uint8ClampedArray(bytes.length).fill(255);
  for (let place = 0; place < SIDE * SIDE; place++) {
    const at = 4 * place;
    const light = 0.299 * bytes[at] + 0.587 * bytes[at + 1] + 0.114 * bytes[at + 2];
    const grey = 102 + 0.55 * light;
    const row = Math.floor((Math.floor(place / SIDE) * side) / SIDE);
    const column = Math.floor(((place % SIDE) * side) / SIDE);
    const share = depth(weights[row * side + column], full);
    for (let c = 0; c < 3; c++) mapped[at + c] = grey + (colour[c] - grey) * share;
  }
  paint(canvas, mapped);
}

/** How much colour a weight has, 0 … 0.85. */
const depth = (weight, full) => 0.85 * Math.sqrt(Math.min(Math.max(weight / full, 0) || 0, 1));

/** A picture from which shares [side × side] of the places have been taken. */
export function paintGone(canvas, bytes, shares, colour) {
  paint(canvas, bytes);
  const context = canvas.getContext("2d");
  const side = Math.sqrt(shares.length);
  const size = canvas.width / side;
  const strike = size >= 8; // smaller places have no room for a stroke
  context.lineWidth = Math.max(1, size / 12);
  context.strokeStyle = `rgb(${colour})`;
  shares.forEach((share, place) => {
    if (!share) return;
    const [x, y] = [(place % side) * size, Math.floor(place / side) * size];
    context.globalAlpha = 0.35 + 0.5 * share;
    context.fillStyle = strike ? "#fff" : `rgb(${colour})`;
    context.fillRect(x, y, size, size);
    if (!strike) return;
    context.globalAlpha = share;
    context.beginPath();
    context.moveTo(x + size * 0.2, y + size * 0.8);
    context.lineTo(x + size * 0.8, y + size * 0.2);
    context.stroke();
  });
  context.globalAlpha = 1;
}

/** Planar numbers in 0 … 1, as networks take them, as bytes. */
export function bytesOf(picture) {
  const places = SIDE * SIDE;
  const bytes = new Uint8ClampedArray(4 * places).fill(255);
  for (let place = 0; place < places; place++)
    for (let c = 0; c < 3; c++)
      bytes[4 * place + c] = Math.round(picture[c * places + place] * 255);
  return bytes;
}

/** And back. */
export function numbersOf(bytes) {
  const places = SIDE * SIDE;
  return Float32Array.from({ length: 3 * places }, (_, i) => {
    const [c, place] = [Math.floor(i / places), i % places];
    return bytes[4 * place + c] / 255;
  });
}
