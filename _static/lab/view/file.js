// A file of the reader's as a picture for the networks.

const MOST = 4096; // pixels a side that are read as they are; larger ones are shrunk before

/** The picture in a file, as networks take it. */
export async function openPicture(file, engine) {
  const image = await createImageBitmap(file).catch(() => {
    throw new Error(
      `The file “${file.name}” cannot be read as a picture: choose a PNG, JPEG, WebP or GIF file.`,
    );
  });
  const scale = Math.min(1, MOST / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map((length) =>
    Math.max(1, Math.round(length * scale)),
  );
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.fillStyle = "#fff"; // behind what is transparent
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  image.close();
  const pixels = context.getImageData(0, 0, width, height).data;
  return engine.picture({ pixels, width, height });
}
