// Whether a picture is unlike those that the networks learned from, by simple statistics of pixels.
// The networks' own energies and features find far fewer of such pictures.

import { SIDE, checked } from "./pictures.js";

const BLOCK = 4; // pixels of a side, as the ViTs' patches
const FAINT = 1e-4; // contrasts below count as this

const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

function deviation(numbers) {
  const middle = mean(numbers);
  return Math.sqrt(mean(numbers.map((number) => (number - middle) ** 2)));
}

const logContrast = (numbers) => Math.log(Math.max(deviation(numbers), FAINT));

/** Eleven numbers: of brightness, contrast at three scales, colour, and how uneven detail is. */
export function statistics(picture) {
  const places = SIDE ** 2;
  const [red, green, blue] = [0, 1, 2].map((c) =>
    Array.from(checked(picture).subarray(c * places, (c + 1) * places)),
  );
  const grey = red.map((r, i) => (r + green[i] + blue[i]) / 3);
  const across = grey.flatMap((g, i) => (i % SIDE ? [g - grey[i - 1]] : []));
  const down = grey.slice(SIDE).map((g, i) => g - grey[i]);
  const colours = [red, green, blue].flatMap((channel) => channel.map((x, i) => x - grey[i]));
  const blocks = Array.from({ length: places / BLOCK ** 2 }, () => []);
  grey.forEach((g, i) => {
    const [row, column] = [Math.floor(i / SIDE / BLOCK), Math.floor((i % SIDE) / BLOCK)];
    blocks[(row * SIDE) / BLOCK + column].push(g);
  });
  const detail = blocks.map((block) => Math.log(deviation(block) + 1e-3));
  return [
    mean(grey),
    logContrast(grey),
    logContrast(across),
    logContrast(down),
    deviation([mean(red), mean(green), mean(blue)]),
    Math.max(...grey),
    Math.min(...grey),
    logContrast(colours),
    logContrast(blocks.map(mean)),
    mean(detail),
    deviation(detail),
  ];
}

/**
 * How far a picture is from what is usual, and which share of the usual pictures is nearer.
 *
 * `reference` is { mean, inverse, distances }: of the statistics of many usual pictures the mean
 * and the inverse of the covariance [rows][columns], and their own distances in rising order.
 */
export function unlike(picture, { mean: middle, inverse, distances }) {
  const away = statistics(picture).map((value, i) => value - middle[i]);
  const squared = away.reduce(
    (sum, a, i) => sum + a * inverse[i].reduce((inner, weight, j) => inner + weight * away[j], 0),
    0,
  );
  const distance = Math.sqrt(Math.max(squared, 0));
  return { distance, share: distances.filter((d) => d < distance).length / distances.length };
}
