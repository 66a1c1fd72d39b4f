// Many small pictures in one file.

import { SIDE } from "../pictures.js";

const COLUMNS = 10;
const sprites = new Map();

/** A function from a picture's number to its bytes. */
export function spriteOf(url) {
  const key = String(url);
  if (!sprites.has(key)) {
    const sprite = read(url);
    sprites.set(key, sprite);
    sprite.catch(() => sprites.delete(key));
  }
  return sprites.get(key);
}

async function read(url) {
  let image;
  try {
    const answer = await fetch(url);
    if (!answer.ok) throw new Error();
    image = await createImageBitmap(await answer.blob(), { colorSpaceConversion: "none" });
  } catch {
    throw new Error("The pictures could not be fetched: reload the page.");
  }
  const canvas = document.createElement("canvas");
  Object.assign(canvas, { width: image.width, height: image.height });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.drawImage(image, 0, 0);
  return (number) => {
    const [row, column] = [Math.floor(number / COLUMNS), number % COLUMNS];
    return context.getImageData(column * SIDE, row * SIDE, SIDE, SIDE).data;
  };
}
