// How things are called.

export const KINDS = { vit: "ViT", cnn: "ResNet" };

export const percent = (share) => {
  if (share > 0.995 && share < 1) return "> 99 %";
  return share > 0 && share < 0.005 ? "< 1 %" : `${Math.round(100 * share)} %`;
};

export const nats = (number) => `${minus(number.toFixed(Math.abs(number) < 0.1 ? 3 : 2))} nats`;

export const minus = (text) => text.replace("-", "−");

export const count = (number) => number.toLocaleString("en");

export const article = (noun) => `${/^([aeiou]|hour)/.test(noun) ? "an" : "a"} ${noun}`;

/** A layer of a ResNet. */
export function layerName(name) {
  if (name === "act1") return "stem";
  const [, stage, block] = /^layer(\d+)\.(\d+)$/.exec(name);
  return `stage ${stage}, block ${Number(block) + 1}`;
}

/** A patch, counted from 1, by its place. */
export const placeName = (patch, side) =>
  `row ${Math.ceil(patch / side)}, column ${((patch - 1) % side) + 1}`;
