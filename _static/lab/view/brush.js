// Drawing on a picture of 32 × 32 pixels, and drawings as text.
//
// A stroke is the number of its colour, that of its size, and two digits to the base of 32 for
// each pixel where the brush was set down; strokes are parted by dots.

import { SIDE } from "../pictures.js";

export const INKS = [
  ["black", [20, 20, 20]],
  ["grey", [128, 128, 128]],
  ["white", [240, 240, 240]],
  ["red", [200, 60, 50]],
  ["ochre", [210, 160, 60]],
  ["green", [70, 140, 80]],
  ["blue", [60, 100, 180]],
  ["rose", [200, 140, 150]],
];
export const SIZES = [1, 3, 5, 9]; // pixels across
const LONGEST = 4000; // characters, so that the address is not too long

/** The bytes of a picture with strokes on it. */
export function strokesOn(bytes, strokes) {
  if (!strokes) return bytes;
  const drawn = bytes.slice();
  for (const stroke of strokes.split(".")) {
    const [, ink] = INKS[stroke[0]];
    const radius = SIZES[stroke[1]] / 2;
    for (let i = 2; i < stroke.length; i += 2)
      dab(drawn, parseInt(stroke[i], SIDE), parseInt(stroke[i + 1], SIDE), radius, ink);
  }
  return drawn;
}

function dab(bytes, x, y, radius, ink) {
  const reach = Math.floor(radius);
  for (let row = Math.max(0, y - reach); row <= Math.min(SIDE - 1, y + reach); row++)
    for (let column = Math.max(0, x - reach); column <= Math.min(SIDE - 1, x + reach); column++)
      if ((row - y) ** 2 + (column - x) ** 2 <= radius ** 2)
        ink.forEach((level, c) => (bytes[4 * (row * SIDE + column) + c] = level));
}

/** A new stroke. */
export function begin(strokes, ink, size, x, y) {
  const stroke = `${ink}${size}${digits(x, y)}`;
  return fitting(strokes, strokes ? `${strokes}.${stroke}` : stroke);
}

/** The last stroke goes on in a straight line. */
export function extend(strokes, x, y) {
  const [fromX, fromY] = strokes
    .slice(-2)
    .split("")
    .map((digit) => parseInt(digit, SIDE));
  const steps = Math.max(Math.abs(x - fromX), Math.abs(y - fromY));
  let added = "";
  for (let i = 1; i <= steps; i++)
    added += digits(
      Math.round(fromX + ((x - fromX) * i) / steps),
      Math.round(fromY + ((y - fromY) * i) / steps),
    );
  return fitting(strokes, strokes + added);
}

/** Without the last stroke. */
export const undo = (strokes) => strokes.slice(0, Math.max(strokes.lastIndexOf("."), 0));

const fitting = (before, after) => (after.length > LONGEST ? before : after);
const digits = (x, y) => x.toString(SIDE) + y.toString(SIDE);
