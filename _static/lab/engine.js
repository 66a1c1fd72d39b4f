// The book's networks: a picture in, logits and attention out. No DOM, no library.
//
// Both kinds of network have `layers` (names), `run` (the intact pass), `strengths` (of the units
// of a layer in that pass), `edit` (what removes units) and `ablate` (the pass with edits).

import { ConvolutionalNetwork } from "./cnn.js";
import { Transformer } from "./transformer.js";
import { LabError, Parts, broken, readWeights } from "./weights.js";

// Short and canonical names of the zoo: family, depth, heads, variant.
const NAME = new RegExp(
  "^(?:\\w+/)?(vit|hybrid|resnet|plain|late)-d(\\d+)(?:-h(\\d+))?(?:-[kwn]\\d+)*" +
    "(?:-(gap|reg4|relu|nopos))?(?:-s\\d+)?$",
);

/** The network of that name from the bytes of its safetensors file. */
export function build(name, buffer) {
  const [, family, depth, heads, variant] = NAME.exec(name) ?? [];
  const transformer = family === "vit" || family === "hybrid";
  const consistent = transformer ? heads > 0 && depth > 0 : !heads && !variant;
  if (!family || !consistent)
    throw new LabError(`There is no network ${name} here: choose a ViT or a CNN of the zoo.`);
  const parts = new Parts(name, readWeights(buffer, name));
  const network = transformer
    ? new Transformer(parts, Number(depth), Number(heads), variant === "relu")
    : new ConvolutionalNetwork(parts, family !== "plain");
  parts.finish();
  if (network.depth !== Number(depth)) throw broken(name, `they are of ${network.depth} layers`);
  return Object.assign(network, { name });
}
