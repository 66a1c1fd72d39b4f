// Pictures as the networks take them: planar [3, 32, 32], single precision, in 0 … 1.

import { LabError } from "./weights.js";

export const SIDE = 32; // pixels
const COUNT = 3 * SIDE * SIDE;
const PRECISION = 22; // bits of Pillow's weights

/** A picture, if it is one. */
export function checked(picture) {
  if (!(picture instanceof Float32Array) || picture.length !== COUNT)
    throw new LabError(
      `A picture has ${COUNT.toLocaleString("en")} numbers, 3 × ${SIDE} × ${SIDE}, and this one ` +
        `has ${(picture?.length ?? 0).toLocaleString("en")}: give it to fromPixels first.`,
    );
  if (!picture.every(Number.isFinite))
    throw new LabError("The picture holds what is no number: draw it again or choose another one.");
  return picture;
}

/**
 * From RGBA bytes, as a canvas gives them, by what timm and Pillow do, to the last bit: the shorter
 * side to 32 pixels by an antialiased bilinear filter, the middle, 0 … 255 to 0 … 1. Transparency
 * is ignored.
 */
export function fromPixels(bytes, width, height) {
  const whole = Number.isInteger(width) && Number.isInteger(height) && width > 0 && height > 0;
  if (!whole || bytes.length !== 4 * width * height)
    throw new LabError(
      `A picture of ${width} × ${height} pixels cannot have ${bytes.length} bytes of red, green, ` +
        "blue and transparency: read it again or choose another one.",
    );
  const small = resized(bytes, width, height);
  const picture = new Float32Array(COUNT);
  for (let place = 0; place < SIDE ** 2; place++)
    for (let c = 0; c < 3; c++) picture[c * SIDE ** 2 + place] = small[3 * place + c] / 255;
  return picture;
}

/** The middle of the picture as bytes [32, 32, 3]. */
function resized(bytes, width, height) {
  const short = Math.min(width, height);
  const [across, down] = [width, height].map((size) => filters(size, short));
  const { first } = down[0];
  const rows = down.at(-1).first + down.at(-1).weights.length - first; // that are needed
  const pixels = { data: bytes, channels: 4, step: 1 };
  const narrow = { data: new Uint8Array(rows * SIDE * 3), channels: 3, step: SIDE };
  for (let row = 0; row < rows; row++)
    across.forEach((filter, x) => {
      sum(pixels, (first + row) * width + filter.first, filter.weights, narrow, row * SIDE + x);
    });
  const small = { data: new Uint8Array(COUNT) };
  down.forEach((filter, y) => {
    for (let x = 0; x < SIDE; x++)
      sum(narrow, (filter.first - first) * SIDE + x, filter.weights, small, y * SIDE + x);
  });
  return small.data;
}

/** One pixel of the target: red, green and blue, weighted, over pixels of the source. */
function sum({ data, channels, step }, pixel, weights, target, to) {
  const half = 1 << (PRECISION - 1);
  let [red, green, blue] = [half, half, half];
  for (let i = 0; i < weights.length; i++) {
    const at = (pixel + i * step) * channels;
    red += data[at] * weights[i];
    green += data[at + 1] * weights[i];
    blue += data[at + 2] * weights[i];
  }
  [red, green, blue].forEach((total, c) => {
    target.data[3 * to + c] = Math.min(total >> PRECISION, 255);
  });
}

/** For each of the 32 middle pixels of a side: the first pixel that it is made of, and weights. */
function filters(size, short) {
  const length = Math.floor((SIDE * size) / short);
  const skipped = roundHalfEven((length - SIDE) / 2);
  const scale = size / length;
  const support = Math.max(scale, 1);
  return Array.from({ length: SIDE }, (_, i) => {
    const centre = (skipped + i + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - support + 0.5));
    const end = Math.min(size, Math.trunc(centre + support + 0.5));
    const inverse = 1 / support;
    const weights = Array.from({ length: end - first }, (_, j) =>
      Math.max(0, 1 - Math.abs((j + first - centre + 0.5) * inverse)),
    );
    const sum = weights.reduce((total, weight) => total + weight, 0);
    return {
      first,
      weights: Int32Array.from(weights, (w) => Math.trunc(0.5 + (w / sum) * 2 ** PRECISION)),
    };
  });
}

/** As Python rounds. */
export function roundHalfEven(number) {
  const rounded = Math.round(number);
  return rounded - number === 0.5 && rounded % 2 ? rounded - 1 : rounded;
}
